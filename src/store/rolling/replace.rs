//! Replaces the pods that the plan names: asks the API server once more, then lets them go.
//!
//! A node whose stop costs the partitions a copy goes by the eviction API: the API server itself refuses when the Store's budget
//! allows no disruption, so an operator that was paused between its look and its call, a drain and
//! this one cannot together stop more nodes than the partitions bear. A pod that does not run and
//! takes no data along, or belongs to a Store without a budget, is deleted; so is one whose eviction
//! the API server has just refused again because its budget still counts pods that are gone, and one
//! that does not run under a budget that allows nothing. All name the pod's uid.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{Eviction, PodDisruptionBudget};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{self as meta, Time};
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams, Preconditions};
use serde_json::Value;

use super::Why;
use crate::context::Context;
use crate::store::bootstrap::carry_out::Announcement;
use crate::store::dereference::{Inputs, StatefulSetView};
use crate::store::error::StoreError;
use crate::store::names;
use crate::store::objects::budget::forbids_all;
use crate::store::objects::build::Owner;
use crate::store::objects::pods::StoragePodView;
use atomix_controller::{ApiError, call};

/// A budget allows no disruption now.
const TOO_MANY_REQUESTS: u16 = 429;

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replaced {
    /// These pods go.
    Gone(Announcement),
    /// The world is another one than the plan's, or becomes it.
    Overtaken,
    /// The API server allows no disruption now.
    NotAllowed,
}

/// Replaces pods of one Store.
#[derive(Debug)]
pub struct Replacer<'a> {
    /// Clients.
    pub context: &'a Context,
    /// The Store.
    pub owner: &'a Owner,
    /// What was planned on.
    pub inputs: &'a Inputs,
    /// A budget guards the pods.
    pub has_budget: bool,
    /// It has refused this for some time.
    pub is_refused: bool,
}

impl Replacer<'_> {
    /// Lets these pods go.
    ///
    /// # Errors
    /// The first call that fails; a pod that is gone is no failure.
    pub async fn replace(&self, ordinals: &[u32], why: Why) -> Result<Replaced, StoreError> {
        let Some(live) = self.as_planned(ordinals, why).await? else {
            return Ok(Replaced::Overtaken);
        };
        let mut names = Vec::new();
        for ordinal in ordinals {
            let Some(pod) = self.inputs.pods.get(ordinal) else {
                return Ok(Replaced::Overtaken);
            };
            let answer = match why {
                Why::FullStrength | Why::OthersSuffice if self.has_budget => {
                    match self.evict(pod).await {
                        Err(error)
                            if is_not_allowed(&error)
                                && self.is_in_vain(why, ordinals, &live).await? =>
                        {
                            self.delete(pod).await
                        }
                        answer => answer,
                    }
                }
                Why::FullStrength
                | Why::OthersSuffice
                | Why::NeverStarted
                | Why::NotRunning
                | Why::LossAllowed => self.delete(pod).await,
            };
            match answer {
                Ok(()) => names.push(pod.name()),
                Err(error) if is_not_allowed(&error) => return Ok(Replaced::NotAllowed),
                Err(error) if error.is_not_found() => return Ok(Replaced::Overtaken),
                Err(error) => return Err(StoreError::Roll(error)),
            }
        }
        let because = match why {
            Why::NeverStarted | Why::NotRunning | Why::OthersSuffice => "which did not run",
            Why::FullStrength => "with every partition at full strength",
            Why::LossAllowed => "and their data with them, as spec.updateStrategy allows",
        };
        let note = format!(
            "replaces {}, {because}: settings have changed",
            names.join(", ")
        );
        Ok(Replaced::Gone(Announcement {
            reason: "PodsReplaced",
            action: "ReplacePods",
            note,
        }))
    }

    /// The pods, if the API server shows those that were planned on, none of them going, and those
    /// that are to go as old ones. The caches may be behind what this operator itself did last.
    async fn as_planned(
        &self,
        ordinals: &[u32],
        why: Why,
    ) -> Result<Option<Vec<StoragePodView>>, StoreError> {
        let (client, namespace) = (&self.context.client, &self.owner.namespace);
        let pods: Api<StoragePodView> = Api::namespaced(client.clone(), namespace);
        let selected = ListParams::default().labels(&names::selector_text(&self.owner.name));
        let listed = call("list the storage pods", pods.list(&selected)).await;
        let listed = listed.map_err(StoreError::Roll)?;
        // After the pods: a pod of this template is not taken for an old one.
        let sets: Api<StatefulSetView> = Api::namespaced(client.clone(), namespace);
        let set = call("read the StatefulSet", sets.get(&self.owner.name)).await;
        let set = set.map_err(StoreError::Roll)?;
        let Some(newest) = set.newest_revision() else {
            return Ok(None);
        };
        let live: BTreeMap<u32, &StoragePodView> = listed
            .iter()
            .filter_map(|pod| Some((names::ordinal(&self.owner.name, pod.name())?, pod)))
            .collect();
        let is_same = |ordinal: &u32, planned: &StoragePodView| {
            live.get(ordinal).is_some_and(|pod| {
                pod.metadata.uid == planned.metadata.uid && !pod.is_terminating()
            })
        };
        let planned = &self.inputs.pods;
        let are_still = |is_so: fn(&StoragePodView) -> bool| {
            ordinals.iter().all(|ordinal| {
                let planned = planned.get(ordinal);
                planned.is_some_and(|pod| is_same(ordinal, pod))
                    && live.get(ordinal).is_some_and(|pod| is_so(pod))
            })
        };
        let are_same = match why {
            // It may have started since it was looked at, and crashed with what it had.
            Why::NeverStarted => are_still(StoragePodView::never_started),
            Why::NotRunning | Why::OthersSuffice => are_still(StoragePodView::is_down),
            Why::LossAllowed => are_still(|_| true),
            // Any other pod that goes counts as well.
            Why::FullStrength => {
                live.len() == planned.len()
                    && planned.iter().all(|(ordinal, pod)| is_same(ordinal, pod))
            }
        };
        let is_old = |ordinal: &u32| {
            let revision = live.get(ordinal).and_then(|pod| pod.revision());
            revision.is_some_and(|revision| revision != newest)
        };
        let is_as_planned = are_same && ordinals.iter().any(is_old);
        Ok(is_as_planned.then(|| listed.items.clone()))
    }

    /// Whether asking the budget, which has just refused, again would be in vain.
    async fn is_in_vain(
        &self,
        why: Why,
        ordinals: &[u32],
        live: &[StoragePodView],
    ) -> Result<bool, StoreError> {
        if why == Why::OthersSuffice {
            return Ok(self.read_budget().await?.is_some_and(|it| forbids_all(&it))
                && self.is_alone_in_being_down(ordinals).await?);
        }
        // Behind the pods: all of them are ready, it has refused for some time, and what it counts as
        // being away are pods that are gone.
        if !self.is_refused || !live.iter().all(StoragePodView::is_ready) {
            return Ok(false);
        }
        let budget = self.read_budget().await?;
        let disrupted = budget.and_then(|budget| budget.status?.disrupted_pods);
        Ok(counts_pods_that_are_gone(
            &disrupted.unwrap_or_default(),
            live,
        ))
    }

    async fn read_budget(&self) -> Result<Option<PodDisruptionBudget>, StoreError> {
        let (client, namespace) = (&self.context.client, &self.owner.namespace);
        let budgets: Api<PodDisruptionBudget> = Api::namespaced(client.clone(), namespace);
        let read = budgets.get_opt(&self.owner.name);
        let read = call("read the PodDisruptionBudget", read).await;
        read.map_err(StoreError::Roll)
    }

    /// Whether these pods do not run, and every other is there as it was planned on. Once the budget
    /// allows nothing no drain takes another one: what was planned still holds. It allows nothing
    /// while a partition has a single copy, and a pod that does not run may be what keeps it so.
    async fn is_alone_in_being_down(&self, ordinals: &[u32]) -> Result<bool, StoreError> {
        let Some(live) = self.as_planned(ordinals, Why::FullStrength).await? else {
            return Ok(false);
        };
        Ok(ordinals.iter().all(|ordinal| {
            let planned = self.inputs.pods.get(ordinal);
            let mut same = live.iter().filter(|pod| {
                planned.is_some_and(|planned| planned.metadata.uid == pod.metadata.uid)
            });
            same.any(StoragePodView::is_down)
        }))
    }

    async fn evict(&self, pod: &StoragePodView) -> Result<(), ApiError> {
        let pods: Api<Pod> = Api::namespaced(self.context.client.clone(), &self.owner.namespace);
        // Not by kube's own method: it names the field delete_options, so the uid would be lost.
        let eviction = Eviction {
            metadata: meta::ObjectMeta {
                name: Some(pod.name().to_owned()),
                ..meta::ObjectMeta::default()
            },
            delete_options: Some(meta::DeleteOptions {
                preconditions: Some(meta::Preconditions {
                    uid: pod.metadata.uid.clone(),
                    resource_version: None,
                }),
                ..meta::DeleteOptions::default()
            }),
        };
        let parameters = PostParams::default();
        let request = pods.create_subresource::<Eviction, Value>(
            "eviction",
            pod.name(),
            &parameters,
            &eviction,
        );
        call("evict a pod", request).await.map(drop)
    }

    async fn delete(&self, pod: &StoragePodView) -> Result<(), ApiError> {
        let pods: Api<StoragePodView> =
            Api::namespaced(self.context.client.clone(), &self.owner.namespace);
        let parameters = DeleteParams::default().preconditions(Preconditions {
            uid: pod.metadata.uid.clone(),
            resource_version: None,
        });
        let request = pods.delete(pod.name(), &parameters);
        call("delete a pod", request).await.map(drop)
    }
}

fn is_not_allowed(error: &ApiError) -> bool {
    error.code() == Some(TOO_MANY_REQUESTS)
}

/// Whether the pods that a budget counts as evicted are gone, all of them, and at least one is
/// counted although another pod of its name has come: its controller knows them by name, and for two
/// minutes waits for the first to go. A pod that is older than its entry is the one that somebody
/// evicts now, such as a drain.
fn counts_pods_that_are_gone(disrupted: &BTreeMap<String, Time>, live: &[StoragePodView]) -> bool {
    let mut is_any_counted = false;
    for (name, evicted) in disrupted {
        let Some(pod) = live.iter().find(|pod| pod.name() == name) else {
            // Not counted: its controller drops it when it looks again.
            continue;
        };
        let created = pod.metadata.creation_timestamp.as_ref();
        // Both are in whole seconds. A pod that was evicted in the second in which it was made would
        // not be ready.
        if created.is_none_or(|created| created.0 < evicted.0) {
            return false;
        }
        is_any_counted = true;
    }
    is_any_counted
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use serde_json::json;

    use super::*;

    fn at(second: u32) -> String {
        format!("2026-01-01T00:00:{second:02}Z")
    }

    fn pod(name: &str, created: u32) -> StoragePodView {
        let metadata = json!({"name": name, "creationTimestamp": at(created)});
        serde_json::from_value(json!({"metadata": metadata})).unwrap()
    }

    #[test]
    fn a_budget_is_behind_only_where_a_younger_pod_has_the_name_of_each_that_it_counts() {
        let live = [pod("tulip-0", 10), pod("tulip-1", 20), pod("tulip-2", 30)];
        for (expected, disrupted) in [
            (false, [].as_slice()),
            (true, &[("tulip-1", 15)]),
            (true, &[("tulip-1", 20)]),
            (true, &[("tulip-1", 15), ("tulip-2", 29)]),
            // Somebody drains the machine of tulip-1, or of tulip-2, just now.
            (false, &[("tulip-1", 21)]),
            (false, &[("tulip-1", 15), ("tulip-2", 40)]),
            // Nothing of that name is there, so nothing is counted.
            (false, &[("tulip-3", 15)]),
            (true, &[("tulip-3", 15), ("tulip-1", 15)]),
        ] {
            let disrupted = disrupted.iter().map(|(name, second)| {
                let time: Time = serde_json::from_value(json!(at(*second))).unwrap();
                ((*name).to_owned(), time)
            });
            let disrupted: BTreeMap<String, Time> = disrupted.collect();
            assert_eq!(
                counts_pods_that_are_gone(&disrupted, &live),
                expected,
                "{disrupted:?}"
            );
        }
        let mut unknown = pod("tulip-0", 10);
        unknown.metadata.creation_timestamp = None;
        let disrupted = [(
            "tulip-0".to_owned(),
            serde_json::from_value(json!(at(1))).unwrap(),
        )];
        assert!(!counts_pods_that_are_gone(&disrupted.into(), &[unknown]));
    }
}
