//! The PersistentVolumeClaims of a Store at the API server: reads them from the cache, grows and
//! deletes them as `disks` says. Every change names the object by its uid.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, Preconditions};
use kube::{Api, Resource};
use serde::Deserialize;
use serde_json::json;

use crate::context::Context;
use crate::store::bootstrap::carry_out::Announcement;
use crate::store::dereference::{Inputs, StatefulSetView};
use crate::store::error::StoreError;
use crate::store::members::place::Placed;
use crate::store::names;
use crate::store::objects::build::Owner;
use crate::store::spec::validate::{Cluster, ClusterStorage};
use crate::store::volumes::disks::{self, Action, Claim};
use atomix_controller::{Cache, FIELD_MANAGER, ObjectKey, call};

/// The fields of a claim that are read.
#[derive(Debug, Clone, PartialEq, Deserialize, Resource)]
#[resource(inherit = "PersistentVolumeClaim")]
pub struct ClaimView {
    /// Standard metadata.
    pub metadata: ObjectMeta,
    /// What is asked for.
    #[serde(default)]
    pub spec: ClaimSpecView,
    /// What became of it.
    #[serde(default)]
    pub status: ClaimStatusView,
}

/// See [`ClaimView`].
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClaimSpecView {
    /// Sizes.
    #[serde(default)]
    pub resources: ClaimResourcesView,
    /// The volume that it is bound to, once it is.
    pub volume_name: Option<String>,
}

/// See [`ClaimView`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct ClaimStatusView {
    /// Pending, Bound or Lost.
    pub phase: Option<String>,
}

/// See [`ClaimView`].
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct ClaimResourcesView {
    /// By the kind of resource.
    #[serde(default)]
    pub requests: BTreeMap<String, Quantity>,
}

impl ClaimView {
    /// The size that is asked for.
    #[must_use]
    pub fn size(&self) -> Option<&Quantity> {
        self.spec.resources.requests.get("storage")
    }

    /// It has never had a volume, so nothing was ever written to it: what a pod of its name wrote was
    /// on an earlier claim, which somebody deleted. A claim that is going says nothing.
    #[must_use]
    pub fn was_never_bound(&self) -> bool {
        let volume = self.spec.volume_name.as_deref();
        self.status.phase.as_deref() == Some("Pending")
            && volume.is_none_or(str::is_empty)
            && self.metadata.deletion_timestamp.is_none()
    }

    fn claim(&self) -> Claim {
        Claim {
            name: self.metadata.name.clone().unwrap_or_default(),
            uid: self.metadata.uid.clone().unwrap_or_default(),
            requested: self.size().cloned(),
            is_going: self.metadata.deletion_timestamp.is_some(),
        }
    }
}

/// The claims of a Store by ordinal.
#[must_use]
pub fn claims_of(key: &ObjectKey, cache: &Cache<ClaimView>) -> BTreeMap<u32, Claim> {
    let found = (0..64).filter_map(|ordinal| {
        let name = names::claim(&key.name, ordinal);
        let claim = cache.get(&ObjectKey::new(&key.namespace, name))?;
        Some((ordinal, claim.claim()))
    });
    found.collect()
}

/// The ordinals whose claims have never had a volume, as the cache shows them.
#[must_use]
pub fn never_bound(key: &ObjectKey, cache: &Cache<ClaimView>) -> BTreeSet<u32> {
    let found = (0..64).filter(|ordinal| {
        let name = names::claim(&key.name, *ordinal);
        let claim = cache.get(&ObjectKey::new(&key.namespace, name));
        claim.is_some_and(|claim| claim.was_never_bound())
    });
    found.collect()
}

/// The same by the API server's own word, of these ordinals.
///
/// # Errors
/// When it does not answer.
pub async fn still_never_bound(
    context: &Context,
    owner: &Owner,
    ordinals: &BTreeSet<u32>,
) -> Result<BTreeSet<u32>, StoreError> {
    if ordinals.is_empty() {
        return Ok(BTreeSet::new());
    }
    let claims: Api<ClaimView> = Api::namespaced(context.client.clone(), &owner.namespace);
    let selected = ListParams::default().labels(&names::selector_text(&owner.name));
    let listed = call("list the PersistentVolumeClaims", claims.list(&selected)).await;
    let listed = listed.map_err(StoreError::Dereference)?;
    let is_still = |ordinal: &u32| {
        let name = names::claim(&owner.name, *ordinal);
        let mut claims = listed.iter();
        let claim = claims.find(|claim| claim.metadata.name.as_ref() == Some(&name));
        claim.is_some_and(ClaimView::was_never_bound)
    };
    Ok(ordinals.iter().copied().filter(is_still).collect())
}

/// The claims of one Store.
#[derive(Debug)]
pub struct ClaimKeeper<'a> {
    /// The client.
    pub context: &'a Context,
    /// The Store.
    pub owner: &'a Owner,
    /// The claims, as last seen.
    pub claims: BTreeMap<u32, Claim>,
}

impl ClaimKeeper<'_> {
    fn api(&self) -> Api<ClaimView> {
        Api::namespaced(self.context.client.clone(), &self.owner.namespace)
    }

    /// Grows what is too small, and deletes what nothing is on any more where the Store says so.
    ///
    /// # Errors
    /// The first call that fails; what was done before it is in `events`.
    pub async fn keep(
        &self,
        cluster: &Cluster,
        inputs: &Inputs,
        placed: Option<&Placed>,
        events: &mut Vec<Announcement>,
    ) -> Result<(), StoreError> {
        let (size, deletes) = match &cluster.storage {
            ClusterStorage::Ephemeral => return Ok(()),
            ClusterStorage::Volumes {
                size, is_deleted, ..
            } => (size, *is_deleted),
        };
        let unused = match placed {
            Some(placed) if deletes => disks::unused(
                self.claims.keys().copied(),
                cluster.replicas,
                |ordinal| inputs.pods.contains_key(&ordinal),
                &placed.observed,
            ),
            Some(_) | None => Default::default(),
        };
        for action in disks::plan(&self.claims, Some(size), &unused) {
            match action {
                Action::Grow { name, uid, size } => {
                    self.grow(&name, &uid, &size).await?;
                    events.push(Announcement {
                        reason: "VolumeGrows",
                        action: "GrowVolume",
                        note: format!("asked for {} for PersistentVolumeClaim {name}", size.0),
                    });
                }
                Action::Delete { ordinal, name, uid } => {
                    if self.is_wanted(ordinal).await? {
                        continue;
                    }
                    self.delete(&name, &uid).await?;
                    events.push(Announcement {
                        reason: "VolumeDeleted",
                        action: "DeleteVolume",
                        note: format!(
                            "deleted PersistentVolumeClaim {name}: no partition has a member on it, \
                             and spec.multiRaft.storage.retentionPolicy is Delete"
                        ),
                    });
                }
            }
        }
        Ok(())
    }

    /// Deletes all of them: the Store is going, and says so.
    ///
    /// # Errors
    /// The first call that fails.
    pub async fn delete_all(&self) -> Result<(), StoreError> {
        for claim in self.claims.values().filter(|claim| !claim.is_going) {
            self.delete(&claim.name, &claim.uid).await?;
        }
        Ok(())
    }

    /// Whether a pod of this ordinal is asked for, by the API server's own word.
    async fn is_wanted(&self, ordinal: u32) -> Result<bool, StoreError> {
        let sets: Api<StatefulSetView> =
            Api::namespaced(self.context.client.clone(), &self.owner.namespace);
        let read = call("read the StatefulSet", sets.get_opt(&self.owner.name)).await;
        let set = read.map_err(StoreError::Dereference)?;
        let replicas = set.and_then(|set| set.spec.replicas);
        Ok(replicas.is_none_or(|replicas| ordinal < replicas))
    }

    async fn grow(&self, name: &str, uid: &str, size: &Quantity) -> Result<(), StoreError> {
        let patch = json!({
            "metadata": {"uid": uid},
            "spec": {"resources": {"requests": {"storage": size}}},
        });
        let parameters = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let (api, patch) = (self.api(), Patch::Merge(&patch));
        let request = api.patch(name, &parameters, &patch);
        match call("grow a PersistentVolumeClaim", request).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(StoreError::Growth(error)),
        }
    }

    async fn delete(&self, name: &str, uid: &str) -> Result<(), StoreError> {
        let parameters = DeleteParams::default().preconditions(Preconditions {
            uid: Some(uid.to_owned()),
            resource_version: None,
        });
        let api = self.api();
        let request = api.delete(name, &parameters);
        match call("delete a PersistentVolumeClaim", request).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(StoreError::Claim(error)),
        }
    }
}

/// The size in the claim template of the StatefulSet, which cannot change.
#[must_use]
pub fn template_size(set: &StatefulSetView) -> Option<&Quantity> {
    let mut templates = set.spec.volume_claim_templates.iter().flatten();
    templates.find_map(|template| template.spec.resources.requests.get("storage"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn only_a_claim_that_is_seen_without_a_volume_was_never_bound() {
        for (expected, spec, status, is_going) in [
            (true, json!({}), json!({"phase": "Pending"}), false),
            (
                true,
                json!({"volumeName": ""}),
                json!({"phase": "Pending"}),
                false,
            ),
            (
                false,
                json!({"volumeName": "pv-7"}),
                json!({"phase": "Pending"}),
                false,
            ),
            (
                false,
                json!({"volumeName": "pv-7"}),
                json!({"phase": "Bound"}),
                false,
            ),
            (
                false,
                json!({"volumeName": "pv-7"}),
                json!({"phase": "Lost"}),
                false,
            ),
            // Nothing is known of it yet.
            (false, json!({}), json!({}), false),
            (false, json!({}), json!({"phase": "Pending"}), true),
        ] {
            let mut claim =
                json!({"metadata": {"name": "data-tulip-1"}, "spec": spec, "status": status});
            if is_going {
                claim["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            }
            let claim: ClaimView = serde_json::from_value(claim).unwrap();
            assert_eq!(claim.was_never_bound(), expected, "{claim:?}");
        }
    }
}
