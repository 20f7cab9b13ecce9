//! One reconcile of one Store: the steps in their order, and what becomes of their errors.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::api::DynamicObject;
use kube::core::error_boundary::InvalidObject;
use kube::{Api, Resource};
use serde_json::Value;

use super::StoreOptions;
use super::apply::{BootstrapPass, Prepared};
use super::bootstrap::{Desired, Phase, decide};
use super::build::{Owner, build};
use super::deletion::{sessions_using, waiting_message};
use super::dereference::{Children, Inputs, StatefulSetView, dereference};
use super::driver_config;
use super::error::StoreError;
use super::names;
use super::plan_store::PlanStore;
use super::pods::StoragePodView;
use super::status::{self, Findings};
use super::validate::{Cluster, ClusterStorage, ValidStore, validate};
use super::watches::Watches;
use crate::context::Context;
use crate::controller::{Next, ObjectKey, Queue, Severity, StatusWriter, call, finalizer};
use crate::crd::{Store, StoreStatus};

/// How soon an unfinished bootstrap is looked at again when no event comes first.
const BOOTSTRAP_LOOK: Duration = Duration::from_millis(500);

/// How soon a pass that another operator overtook is repeated.
const AGAIN: Duration = Duration::from_millis(20);

/// Everything that outlives one reconcile.
#[derive(Debug)]
pub(super) struct Reconciler {
    context: Context,
    options: StoreOptions,
    children: Children,
    plans: PlanStore,
    watches: Watches,
    statuses: StatusWriter,
}

impl Reconciler {
    pub(super) fn new(
        context: Context,
        options: StoreOptions,
        children: Children,
        queue: Queue<ObjectKey>,
    ) -> Self {
        Self {
            plans: PlanStore::new(context.client.clone()),
            watches: Watches::new(context.channels.clone(), queue),
            statuses: StatusWriter::new(context.client.clone()),
            context,
            options,
            children,
        }
    }

    pub(super) fn forget_pod(&self, pod: &StoragePodView) {
        if let Some(uid) = &pod.metadata.uid {
            self.watches.forget(uid);
        }
    }

    pub(super) async fn reconcile(&self, key: &ObjectKey) -> Result<Next, StoreError> {
        let Some(guarded) = self.context.stores.get(key) else {
            self.plans.forget(key);
            self.statuses.forget(key);
            return Ok(Next::OnChange);
        };
        let result = match &guarded.0 {
            _ if guarded.meta().deletion_timestamp.is_some() => {
                self.delete(key, guarded.meta()).await
            }
            Ok(store) => self.reconcile_store(key, store).await,
            Err(invalid) => self.report_undecodable(invalid).await,
        };
        match result {
            Err(error) if error.is_namespace_terminating() => Ok(Next::OnChange),
            result => result,
        }
    }

    async fn reconcile_store(&self, key: &ObjectKey, store: &Store) -> Result<Next, StoreError> {
        if !store.is_paused() && !finalizer::has(&store.metadata, names::FINALIZER) {
            // The changed object comes back through the watch; until then nothing is made that
            // the finalizer would have to guard.
            finalizer::add::<Store>(&self.context.client, &store.metadata, names::FINALIZER)
                .await
                .map_err(StoreError::Finalizer)?;
            return Ok(Next::OnChange);
        }
        let previous = self.previous_status(store);
        let valid = match validate(store, previous.replication_factor) {
            Ok(valid) => valid,
            Err(invalid) => {
                let halted = self.halted(store, "InvalidSpec", &invalid.to_string(), &previous);
                self.write_status(store, &halted).await?;
                return Err(invalid.into());
            }
        };
        let config = driver_config::of(&valid, &key.name, &key.namespace);
        match valid {
            ValidStore::DriverOnly { .. } => {
                let missing = crate::driver::builtin::resolve(&store.spec.driver);
                let missing = missing.err().map(|error| error.to_string());
                let generation = store.metadata.generation.unwrap_or_default();
                let now = Timestamp::now();
                let status = status::of_driver_only(&config, missing, &previous, generation, now);
                self.write_status(store, &status).await?;
                Ok(Next::OnChange)
            }
            ValidStore::MultiRaft(cluster) => {
                self.reconcile_cluster(key, store, &cluster, &config, &previous)
                    .await
            }
        }
    }

    async fn reconcile_cluster(
        &self,
        key: &ObjectKey,
        store: &Store,
        cluster: &Cluster,
        config: &driver_config::DriverConfig,
        previous: &StoreStatus,
    ) -> Result<Next, StoreError> {
        let owner = owner_of(key, store);
        let mut inputs = dereference(&owner, &self.children, &self.plans, &self.watches).await?;
        let was_bootstrapped = previous.bootstrapped == Some(true);
        let mut pass = BootstrapPass {
            store,
            cluster,
            was_bootstrapped,
            phase: Phase::WaitingForNodes((0..cluster.replicas).collect()),
            again: false,
            data_lost: false,
        };
        let result = if store.is_paused() {
            // Decided, so that the status can say where it stands, but not carried out.
            let observed = inputs.observed(cluster, was_bootstrapped);
            pass.phase = decide(&desired(&owner, cluster), &observed, &mut rand::random).phase;
            Ok(())
        } else {
            self.act(&owner, cluster, config, &mut inputs, &mut pass)
                .await
        };

        let stateful_set = inputs.stateful_set.as_deref();
        let findings = Findings {
            name: &key.name,
            cluster,
            config,
            paused: store.is_paused(),
            plan: &inputs.plan.stored,
            phase: &pass.phase,
            pods: &inputs.pods,
            nodes: &inputs.nodes,
            newest_revision: stateful_set.and_then(StatefulSetView::newest_revision),
            error: result.as_ref().err(),
            data_lost: pass.data_lost,
        };
        let generation = store.metadata.generation.unwrap_or_default();
        let status = status::of_cluster(&findings, previous, generation, Timestamp::now());
        self.announce_changes(store, previous, &status);
        let written = self.write_status(store, &status).await;
        result?;
        written?;
        Ok(match &pass.phase {
            _ if pass.again => Next::After(AGAIN),
            Phase::Bootstrapping { .. } if !store.is_paused() => Next::After(BOOTSTRAP_LOOK),
            _ => Next::OnChange,
        })
    }

    /// Applies, heals and bootstraps.
    async fn act(
        &self,
        owner: &Owner,
        cluster: &Cluster,
        config: &driver_config::DriverConfig,
        inputs: &mut Inputs,
        pass: &mut BootstrapPass<'_>,
    ) -> Result<(), StoreError> {
        let objects = build(owner, cluster, config, &self.options.node_image);
        let applied = Prepared::new(objects).apply(&self.context, inputs).await?;
        applied
            .heal(&self.context, owner, inputs, pass.store)
            .await?;
        let desired = desired(owner, cluster);
        applied
            .bootstrap(&self.context, &self.plans, owner, &desired, inputs, pass)
            .await
    }

    /// Waits for Sessions of the own namespace, then removes the finalizer.
    async fn delete(&self, key: &ObjectKey, meta: &ObjectMeta) -> Result<Next, StoreError> {
        if !finalizer::has(meta, names::FINALIZER) {
            return Ok(Next::OnChange);
        }
        let sessions = sessions_using(key, &self.context.sessions);
        if sessions.is_empty() {
            finalizer::remove::<Store>(&self.context.client, meta, names::FINALIZER)
                .await
                .map_err(StoreError::Finalizer)?;
            return Ok(Next::OnChange);
        }
        let guarded = self.context.stores.get(key);
        if let Some(store) = guarded.as_ref().and_then(|guarded| guarded.0.as_ref().ok()) {
            let message = waiting_message(&sessions);
            let previous = self.previous_status(store);
            let generation = store.metadata.generation.unwrap_or_default();
            let now = Timestamp::now();
            let halted = status::of_halted("InUse", &message, true, &previous, generation, now);
            self.write_status(store, &halted).await?;
            self.context
                .events
                .publish(store, Severity::Warning, "InUse", "Delete", message);
        }
        Ok(Next::OnChange)
    }

    /// A Store that does not decode: its status is written through the dynamic form.
    async fn report_undecodable(&self, invalid: &InvalidObject) -> Result<Next, StoreError> {
        let meta = &invalid.metadata;
        let namespace = meta.namespace.clone().unwrap_or_default();
        let name = meta.name.clone().unwrap_or_default();
        let resource = kube::api::ApiResource::erase::<Store>(&());
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.context.client.clone(), &namespace, &resource);
        let read = call("read the Store", api.get_opt(&name)).await;
        let Some(object) = read.map_err(StoreError::Dereference)? else {
            return Ok(Next::OnChange);
        };
        let known = object.data.get("status").cloned().unwrap_or(Value::Null);
        let previous: StoreStatus = serde_json::from_value(known.clone()).unwrap_or_default();
        let message = format!(
            "this version of the operator cannot read the Store: {}",
            invalid.error
        );
        let generation = object.metadata.generation.unwrap_or_default();
        let now = Timestamp::now();
        let halted = status::of_halted("Undecodable", &message, true, &previous, generation, now);
        let desired = serde_json::to_value(&halted).unwrap_or(Value::Null);
        self.statuses
            .write_value::<Store>(&object.metadata, known, desired)
            .await
            .map_err(StoreError::Status)?;
        Err(StoreError::Undecodable(invalid.error.clone()))
    }

    fn halted(
        &self,
        store: &Store,
        reason: &'static str,
        message: &str,
        previous: &StoreStatus,
    ) -> StoreStatus {
        let generation = store.metadata.generation.unwrap_or_default();
        status::of_halted(
            reason,
            message,
            true,
            previous,
            generation,
            Timestamp::now(),
        )
    }

    /// The newest status: what was written last, when the cache is behind.
    fn previous_status(&self, store: &Store) -> StoreStatus {
        let pending = self.statuses.pending(&store.metadata);
        pending
            .and_then(|value| serde_json::from_value(value).ok())
            .or_else(|| store.status.clone())
            .unwrap_or_default()
    }

    async fn write_status(&self, store: &Store, status: &StoreStatus) -> Result<(), StoreError> {
        let written = self
            .statuses
            .write::<Store, _>(&store.metadata, store.status.as_ref(), status)
            .await;
        match written {
            Ok(_) => Ok(()),
            // Deleted meanwhile.
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(StoreError::Status(error)),
        }
    }

    /// Warns of what a person should look at, once, when it begins.
    fn announce_changes(&self, store: &Store, previous: &StoreStatus, status: &StoreStatus) {
        for condition in &status.conditions {
            let is_trouble = match condition.type_.as_str() {
                "Stalled" | "Degraded" => condition.status == "True",
                _ => false,
            };
            let is_news = !previous.conditions.iter().any(|before| {
                before.type_ == condition.type_
                    && before.status == condition.status
                    && before.reason == condition.reason
            });
            if is_trouble && is_news {
                let reason = if condition.type_ == "Stalled" {
                    "Stalled"
                } else {
                    "Degraded"
                };
                let note = format!("{}: {}", condition.reason, condition.message);
                self.context
                    .events
                    .publish(store, Severity::Warning, reason, "Reconcile", note);
            }
        }
    }
}

fn owner_of(key: &ObjectKey, store: &Store) -> Owner {
    Owner {
        name: key.name.clone(),
        namespace: key.namespace.clone(),
        // An object of the API server has a name and a uid.
        reference: store.controller_owner_ref(&()).unwrap_or_default(),
    }
}

fn desired(owner: &Owner, cluster: &Cluster) -> Desired {
    let address = |ordinal| names::peer_address(&owner.name, &owner.namespace, ordinal);
    Desired {
        store_uid: owner.reference.uid.clone(),
        addresses: (0..cluster.replicas).map(address).collect(),
        partitions: cluster.partitions,
        replication_factor: cluster.replication_factor,
        timings: cluster.timings,
        ephemeral: cluster.storage == ClusterStorage::Ephemeral,
    }
}
