//! Applies the children of a Store and deletes pods that a corrected spec must replace.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, Preconditions};
use kube::core::PartialObjectMeta;
use kube::{Api, ResourceExt as _};

use crate::context::Context;
use crate::store::dereference::{Inputs, StatefulSetView};
use crate::store::error::StoreError;
use crate::store::nodes::watches::NodeState;
use crate::store::objects::budget::{self, Change, Groups};
use crate::store::objects::build::{Owner, StoreObjects};
use crate::store::objects::heal::{is_before_the_mark, pods_to_replace};
use crate::store::objects::pods::StoragePodView;
use atomix_controller::apply::Outcome;
use atomix_controller::{ApplyError, Observed, Severity, call};
use atomix_resources::Store;

/// Objects that are ready to be applied.
#[derive(Debug)]
pub struct Prepared {
    objects: StoreObjects,
    groups: Groups,
}

/// Objects that the API server has accepted; only with them pods are healed and nodes told.
#[derive(Debug)]
pub struct Applied {
    /// What became of the StatefulSet.
    pub stateful_set: Outcome,
}

impl Prepared {
    /// What was built, and what was known then of the groups that the budget guards.
    #[must_use]
    pub fn new(objects: StoreObjects, groups: Groups) -> Self {
        Self { objects, groups }
    }

    /// Applies what differs: the ConfigMap before the StatefulSet whose pods mount it.
    ///
    /// # Errors
    /// The first child that is not accepted.
    pub async fn apply(self, context: &Context, inputs: &Inputs) -> Result<Applied, StoreError> {
        let StoreObjects {
            service,
            config_map,
            network_policy,
            stateful_set,
            budget,
        } = self.objects;
        let applier = &context.applier;
        applier
            .apply(
                "apply the Service",
                &service,
                Observed::of(inputs.service.as_ref()),
            )
            .await?;
        applier
            .apply(
                "apply the ConfigMap",
                &config_map,
                Observed::of(inputs.config_map.as_ref()),
            )
            .await?;
        if let Some(network_policy) = network_policy {
            applier
                .apply(
                    "apply the NetworkPolicy",
                    &network_policy,
                    Observed::of(inputs.network_policy.as_ref()),
                )
                .await?;
        }
        let applied = applier
            .apply(
                "apply the StatefulSet",
                &stateful_set,
                Observed::of(inputs.stateful_set.as_ref()),
            )
            .await?;
        apply_budget(context, &stateful_set, budget, inputs, self.groups).await?;
        Ok(Applied {
            stateful_set: applied,
        })
    }
}

/// Applies the budget, or deletes it when there is to be none. While a group that is not known may
/// bear less, one that is there is not widened, and one that is made allows nothing.
async fn apply_budget(
    context: &Context,
    sibling: &StatefulSet,
    built: Option<PodDisruptionBudget>,
    inputs: &Inputs,
    groups: Groups,
) -> Result<(), StoreError> {
    let change = budget::change(inputs.budget.is_some(), built.as_ref(), groups);
    let built = match change {
        Change::Forbid => built.map(budget::forbidding),
        Change::AsBuilt | Change::Keep | Change::UnlessMore => built,
    };
    match (change, built, &inputs.budget) {
        (Change::Keep, _, _) | (_, None, None) => Ok(()),
        (_, None, Some(seen)) => delete_budget(context, sibling, seen).await,
        (change, Some(built), seen) => {
            if change == Change::UnlessMore && would_widen(context, &built).await? {
                return Ok(());
            }
            let seen = Observed::of(seen.as_ref());
            let action = "apply the PodDisruptionBudget";
            context.applier.apply(action, &built, seen).await?;
            Ok(())
        }
    }
}

/// Whether the budget that is there allows less: the caches do not hold its number.
async fn would_widen(context: &Context, built: &PodDisruptionBudget) -> Result<bool, StoreError> {
    let namespace = built.metadata.namespace.clone().unwrap_or_default();
    let budgets: Api<PodDisruptionBudget> = Api::namespaced(context.client.clone(), &namespace);
    let name = built.name_any();
    let read = call("read the PodDisruptionBudget", budgets.get_opt(&name)).await;
    let live = read.map_err(ApplyError::Api)?;
    Ok(live.is_some_and(|live| budget::allows_more(built, &live)))
}

/// Deletes the budget of a Store of one copy; a stranger's stays.
async fn delete_budget(
    context: &Context,
    sibling: &StatefulSet,
    seen: &PartialObjectMeta<PodDisruptionBudget>,
) -> Result<(), StoreError> {
    let owners = |meta: &ObjectMeta| meta.owner_references.clone().unwrap_or_default();
    let (ours, its) = (owners(&sibling.metadata), owners(&seen.metadata));
    let is_ours = ours
        .iter()
        .any(|owner| its.iter().any(|other| other.uid == owner.uid));
    if !is_ours || seen.metadata.deletion_timestamp.is_some() {
        return Ok(());
    }
    let namespace = seen.metadata.namespace.clone().unwrap_or_default();
    let budgets: Api<PodDisruptionBudget> = Api::namespaced(context.client.clone(), &namespace);
    let parameters = DeleteParams::default().preconditions(Preconditions {
        uid: seen.metadata.uid.clone(),
        resource_version: None,
    });
    let name = seen.name_any();
    let deleted = call(
        "delete the PodDisruptionBudget",
        budgets.delete(&name, &parameters),
    );
    match deleted.await {
        Ok(_) => Ok(()),
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(ApplyError::Api(error).into()),
    }
}

impl Applied {
    /// Before the mark, deletes pods of an old revision: nothing is lost with them, and they may be
    /// what holds the bootstrap up. After it pods are replaced by a rolling change; so are they when
    /// the plan that would carry the mark cannot be read (`heal`).
    ///
    /// # Errors
    /// The first call that fails; a pod that is gone is no failure.
    pub async fn heal(
        &self,
        context: &Context,
        owner: &Owner,
        inputs: &Inputs,
        store: &Store,
        was_bootstrapped: bool,
    ) -> Result<(), StoreError> {
        let nodes = inputs.nodes.values().filter_map(NodeState::view);
        if !is_before_the_mark(&inputs.plan.stored, was_bootstrapped, nodes) {
            return Ok(());
        }
        let seen = inputs.stateful_set.as_deref();
        let seen_revision = seen.and_then(StatefulSetView::newest_revision);
        if pods_to_replace(&inputs.pods, seen_revision).is_empty() {
            return Ok(());
        }
        // The watch of pods may be ahead of the watch of StatefulSets: ask before deleting.
        let sets: Api<StatefulSetView> = Api::namespaced(context.client.clone(), &owner.namespace);
        let read = call("read the StatefulSet", sets.get(&owner.name)).await;
        let current = read.map_err(StoreError::Heal)?;
        let replaced = pods_to_replace(&inputs.pods, current.newest_revision());
        for pod in &replaced {
            delete_pod(context, owner, pod).await?;
        }
        if !replaced.is_empty() {
            let names: Vec<&str> = replaced.iter().map(|pod| pod.name()).collect();
            let note = format!("deleted pods of an old revision: {}", names.join(", "));
            context
                .events
                .publish(store, Severity::Normal, "PodsReplaced", "DeletePods", note);
        }
        Ok(())
    }
}

async fn delete_pod(
    context: &Context,
    owner: &Owner,
    pod: &Arc<StoragePodView>,
) -> Result<(), StoreError> {
    let pods: Api<StoragePodView> = Api::namespaced(context.client.clone(), &owner.namespace);
    let parameters = DeleteParams::default().preconditions(Preconditions {
        uid: pod.metadata.uid.clone(),
        resource_version: None,
    });
    let deleted = call("delete a pod", pods.delete(pod.name(), &parameters)).await;
    match deleted {
        Ok(_) => Ok(()),
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(StoreError::Heal(error)),
    }
}
