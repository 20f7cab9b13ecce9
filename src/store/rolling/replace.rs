//! Replaces the pods that the plan names: asks the API server once more, then lets them go.
//!
//! A node whose stop costs the partitions a copy goes by the eviction API: the API server itself refuses when the Store's budget
//! allows no disruption, so an operator that was paused between its look and its call, a drain and
//! this one cannot together stop more nodes than the partitions bear. A pod that does not run and
//! takes no data along, or belongs to a Store without a budget, is deleted. Both name the pod's uid.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{Eviction, PodDisruptionBudget};
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams, Preconditions};
use serde_json::Value;

use super::Why;
use crate::context::Context;
use crate::store::bootstrap::carry_out::Announcement;
use crate::store::dereference::{Inputs, StatefulSetView};
use crate::store::error::StoreError;
use crate::store::names;
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
    /// The first call that fails; a pod that is gone or replaced is no failure.
    pub async fn replace(&self, ordinals: &[u32], why: Why) -> Result<Replaced, StoreError> {
        let Some(live) = self.as_planned(ordinals, why).await? else {
            return Ok(Replaced::Overtaken);
        };
        let is_stale = self.is_refused
            && live.iter().all(StoragePodView::is_ready)
            && self.counts_pods_that_are_gone().await?;
        let mut names = Vec::new();
        for ordinal in ordinals {
            let Some(pod) = self.inputs.pods.get(ordinal) else {
                return Ok(Replaced::Overtaken);
            };
            let answer = match why {
                Why::FullStrength | Why::OthersSuffice if self.has_budget && !is_stale => {
                    self.evict(pod).await
                }
                Why::FullStrength
                | Why::OthersSuffice
                | Why::NeverStarted
                | Why::NotRunning
                | Why::LossAllowed => self.delete(pod).await,
            };
            match answer {
                Ok(()) => names.push(pod.name()),
                Err(error) if error.code() == Some(TOO_MANY_REQUESTS) => {
                    return Ok(Replaced::NotAllowed);
                }
                // Gone, or another pod has the name by now.
                Err(error) if error.is_not_found() || error.is_conflict() => {
                    return Ok(Replaced::Overtaken);
                }
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

    /// Whether the budget counts an evicted pod as being away although another one of its name has
    /// come: its controller knows them by name, and for two minutes waits for the first to go. When
    /// all pods are ready and it has refused for some time, that is all that it can mean.
    async fn counts_pods_that_are_gone(&self) -> Result<bool, StoreError> {
        let (client, namespace) = (&self.context.client, &self.owner.namespace);
        let budgets: Api<PodDisruptionBudget> = Api::namespaced(client.clone(), namespace);
        let read = call(
            "read the PodDisruptionBudget",
            budgets.get_opt(&self.owner.name),
        )
        .await;
        let budget = read.map_err(StoreError::Roll)?;
        let disrupted = budget.and_then(|budget| budget.status?.disrupted_pods);
        Ok(disrupted.is_some_and(|pods| !pods.is_empty()))
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
