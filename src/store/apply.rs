//! Applies the children of a Store and deletes pods that a corrected spec must replace.

use std::sync::Arc;

use kube::Api;
use kube::api::{DeleteParams, Preconditions};

use super::build::{Owner, StoreObjects};
use super::dereference::{Inputs, StatefulSetView};
use super::error::StoreError;
use super::heal::pods_to_replace;
use super::pods::StoragePodView;
use crate::context::Context;
use atomix_controller::{Observed, Severity, call};
use atomix_resources::Store;

/// Objects that are ready to be applied.
#[derive(Debug)]
pub struct Prepared {
    objects: StoreObjects,
}

/// Objects that the API server has accepted; only with them pods are healed and nodes told.
#[derive(Debug)]
pub struct Applied {
    _accepted: (),
}

impl Prepared {
    /// What was built.
    #[must_use]
    pub fn new(objects: StoreObjects) -> Self {
        Self { objects }
    }

    /// Applies what differs: the ConfigMap before the StatefulSet whose pods mount it.
    ///
    /// # Errors
    /// The first child that is not accepted.
    pub async fn apply(self, context: &Context, inputs: &Inputs) -> Result<Applied, StoreError> {
        let StoreObjects {
            service,
            config_map,
            stateful_set,
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
        applier
            .apply(
                "apply the StatefulSet",
                &stateful_set,
                Observed::of(inputs.stateful_set.as_ref()),
            )
            .await?;
        Ok(Applied { _accepted: () })
    }
}

impl Applied {
    /// Deletes pods of an old revision whose node never ran, and before the mark any old pod.
    ///
    /// # Errors
    /// The first call that fails; a pod that is gone or replaced is no failure.
    pub async fn heal(
        &self,
        context: &Context,
        owner: &Owner,
        inputs: &Inputs,
        store: &Store,
    ) -> Result<(), StoreError> {
        let is_bootstrapped = inputs.is_bootstrapped();
        let seen = inputs.stateful_set.as_deref();
        let seen_revision = seen.and_then(StatefulSetView::newest_revision);
        if pods_to_replace(&inputs.pods, seen_revision, is_bootstrapped).is_empty() {
            return Ok(());
        }
        // The watch of pods may be ahead of the watch of StatefulSets: ask before deleting.
        let sets: Api<StatefulSetView> = Api::namespaced(context.client.clone(), &owner.namespace);
        let read = call("read the StatefulSet", sets.get(&owner.name)).await;
        let current = read.map_err(StoreError::Heal)?;
        let replaced = pods_to_replace(&inputs.pods, current.newest_revision(), is_bootstrapped);
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
        // Gone, or another pod has the name by now.
        Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
        Err(error) => Err(StoreError::Heal(error)),
    }
}
