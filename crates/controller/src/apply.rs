//! Server-side apply that makes no call when nothing changed: a no-op apply costs the API server
//! as much as a write.
//!
//! Remembers, for each child, what was applied and what the API server answered. A restart costs
//! one apply a child.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::fmt::Debug;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource};
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use super::FIELD_MANAGER;
use super::error::{ApiError, Category, ReconcileError, call};
use super::key::ObjectKey;

/// What the cache knows of a child.
#[derive(Debug, Clone, Copy)]
pub enum Observed<'a> {
    /// It is not there.
    Absent,
    /// It was last seen like this.
    Present(&'a ObjectMeta),
}

impl<'a> Observed<'a> {
    /// From a cache's answer.
    #[must_use]
    pub fn of<K: Resource>(object: Option<&'a Arc<K>>) -> Self {
        object.map_or(Self::Absent, |object| Self::Present(object.meta()))
    }
}

/// What an apply did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing had changed; no call was made.
    Unchanged,
    /// The object was applied.
    Applied,
}

/// Why a child was not applied.
#[derive(Debug, Error)]
pub enum ApplyError {
    /// The call failed.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// Somebody else's object has the name.
    #[error("{kind} {key} exists and {owner}: delete or rename it, or choose another name")]
    NotOurs {
        /// The child's kind.
        kind: String,
        /// The child's name.
        key: ObjectKey,
        /// Who owns the object, as an end of the sentence.
        owner: String,
    },
}

impl ReconcileError for ApplyError {
    fn category(&self) -> Category {
        match self {
            Self::Api(error) => error.category(),
            Self::NotOurs { .. } => Category::Conflict,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Api(error) => error.retry_after(),
            Self::NotOurs { .. } => None,
        }
    }
}

fn check_owner(child: &Child, found: &ObjectMeta, desired: &ObjectMeta) -> Result<(), ApplyError> {
    let controller = |meta: &ObjectMeta| {
        let mut owners = meta.owner_references.iter().flatten();
        owners.find(|owner| owner.controller == Some(true)).cloned()
    };
    let Some(wanted) = controller(desired) else {
        return Ok(());
    };
    let owner = match controller(found) {
        Some(owner) if owner.uid == wanted.uid => return Ok(()),
        Some(owner) => format!("belongs to {} {} ({})", owner.kind, owner.name, owner.uid),
        None => "belongs to nobody".to_owned(),
    };
    Err(ApplyError::NotOurs {
        kind: child.kind.clone(),
        key: child.key.clone(),
        owner,
    })
}

/// Applies children and remembers them. Clones share one memory.
#[derive(Clone)]
pub struct Applier {
    client: Client,
    memory: Arc<Mutex<HashMap<Child, Remembered>>>,
}

impl Debug for Applier {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Applier").finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Child {
    kind: String,
    key: ObjectKey,
}

impl Child {
    fn of<K: Resource<DynamicType = ()>>(object: &K) -> Self {
        Self {
            kind: K::kind(&()).into_owned(),
            key: ObjectKey::of(object),
        }
    }
}

#[derive(Debug, Clone)]
struct Remembered {
    desired: u64,
    uid: Option<String>,
    resource_version: Option<String>,
    fingerprint: u64,
}

impl Applier {
    /// An applier without memory.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self {
            client,
            memory: Arc::default(),
        }
    }

    /// Makes `desired` true unless it is what was last applied and the child has not changed
    /// since.
    ///
    /// # Errors
    /// When the API server refuses or does not answer: the next attempt applies again. When an
    /// object of that name exists that `desired`'s controller does not own.
    pub async fn apply<K>(
        &self,
        action: &'static str,
        desired: &K,
        observed: Observed<'_>,
    ) -> Result<Outcome, ApplyError>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Serialize
            + DeserializeOwned
            + Clone
            + Debug,
    {
        let child = Child::of(desired);
        let hash = hash_of(desired);
        let remembered = self.memory.lock().get(&child).cloned();
        if let Some(remembered) = &remembered
            && remembered.desired == hash
            && !remembered.has_changed(observed)
        {
            return Ok(Outcome::Unchanged);
        }

        let api: Api<K> = Api::namespaced(self.client.clone(), &child.key.namespace);
        match observed {
            Observed::Present(meta) => check_owner(&child, meta, desired.meta())?,
            // The caches show only what carries our labels; a forced apply would take over a
            // stranger's object of the same name.
            Observed::Absent => {
                let found = call(action, api.get_metadata_opt(&child.key.name)).await?;
                if let Some(found) = found {
                    check_owner(&child, &found.metadata, desired.meta())?;
                }
            }
        }
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        let patch = Patch::Apply(desired);
        let name = child.key.name.clone();
        let answer = call(action, api.patch(&name, &parameters, &patch)).await?;
        let meta = answer.meta();
        let remembered = Remembered {
            desired: hash,
            uid: meta.uid.clone(),
            resource_version: meta.resource_version.clone(),
            fingerprint: fingerprint(meta),
        };
        self.memory.lock().insert(child, remembered);
        Ok(Outcome::Applied)
    }

    /// Forgets a child that was deleted, so that it is applied again. Call it from a cache's
    /// listener; a child that was re-created since is not forgotten.
    pub fn forget<K: Resource<DynamicType = ()>>(&self, deleted: &K) {
        let child = Child::of(deleted);
        let mut memory = self.memory.lock();
        let same = memory
            .get(&child)
            .is_some_and(|remembered| remembered.uid == deleted.meta().uid);
        if same {
            memory.remove(&child);
        }
    }
}

impl Remembered {
    fn has_changed(&self, observed: Observed<'_>) -> bool {
        match observed {
            // A deletion is announced through `forget`; until then the cache is behind our apply.
            Observed::Absent => false,
            Observed::Present(meta) => {
                meta.resource_version != self.resource_version
                    && !is_older(
                        meta.resource_version.as_deref(),
                        self.resource_version.as_deref(),
                    )
                    && (meta.uid != self.uid || fingerprint(meta) != self.fingerprint)
            }
        }
    }
}

/// Whether the first resource version is certainly older than the second. The API server has
/// declared them comparable as integers; anything else counts as not older.
#[must_use]
pub fn is_older(version: Option<&str>, than: Option<&str>) -> bool {
    let parse = |text: Option<&str>| text.and_then(|text| text.parse::<u128>().ok());
    match (parse(version), parse(than)) {
        (Some(version), Some(than)) => version < than,
        _ => false,
    }
}

/// What must stay the same for an object to be as we applied it. An object with a generation
/// changes its resource version with each status write; one without has no status.
fn fingerprint(meta: &ObjectMeta) -> u64 {
    let mut hasher = DefaultHasher::new();
    match meta.generation {
        Some(generation) => {
            generation.hash(&mut hasher);
            meta.labels.hash(&mut hasher);
            meta.annotations.hash(&mut hasher);
            meta.finalizers.hash(&mut hasher);
            meta.deletion_timestamp.is_some().hash(&mut hasher);
            for owner in meta.owner_references.iter().flatten() {
                (&owner.uid, &owner.name, owner.controller).hash(&mut hasher);
            }
        }
        None => meta.resource_version.hash(&mut hasher),
    }
    hasher.finish()
}

/// A hash over the JSON form, whose keys are sorted. Lives only in this process.
fn hash_of<T: Serialize>(value: &T) -> u64 {
    let mut hasher = DefaultHasher::new();
    // An object that cannot be serialized cannot be applied either: the apply reports it.
    let json = serde_json::to_value(value).unwrap_or_default();
    json.to_string().hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(version: &str, generation: Option<i64>) -> ObjectMeta {
        ObjectMeta {
            uid: Some("u".to_owned()),
            resource_version: Some(version.to_owned()),
            generation,
            ..ObjectMeta::default()
        }
    }

    fn remembered(meta: &ObjectMeta) -> Remembered {
        Remembered {
            desired: 0,
            uid: meta.uid.clone(),
            resource_version: meta.resource_version.clone(),
            fingerprint: fingerprint(meta),
        }
    }

    #[test]
    fn a_status_write_or_an_old_view_is_no_change_but_a_foreign_edit_is() {
        let applied = meta("100", Some(2));
        let memory = remembered(&applied);
        let labelled = ObjectMeta {
            labels: Some([("a".to_owned(), "b".to_owned())].into()),
            ..meta("101", Some(2))
        };
        let recreated = ObjectMeta {
            uid: Some("other".to_owned()),
            ..meta("101", Some(2))
        };
        for (observed, changed, why) in [
            (Observed::Absent, false, "cache behind our create"),
            (Observed::Present(&applied), false, "as we left it"),
            (
                Observed::Present(&meta("101", Some(2))),
                false,
                "status write",
            ),
            (Observed::Present(&meta("99", Some(1))), false, "older view"),
            (Observed::Present(&meta("101", Some(3))), true, "spec edit"),
            (Observed::Present(&labelled), true, "label edit"),
            (Observed::Present(&recreated), true, "another object"),
        ] {
            assert_eq!(memory.has_changed(observed), changed, "{why}");
        }
        let plain = remembered(&meta("100", None));
        assert!(plain.has_changed(Observed::Present(&meta("101", None))));
        assert!(!plain.has_changed(Observed::Present(&meta("99", None))));
    }
}
