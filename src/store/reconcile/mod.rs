//! One reconcile of one Store: the steps in their order, and what becomes of their errors. A Store
//! with storage nodes in `cluster`.

mod cluster;
mod delete;
mod members;
mod report;

use std::collections::HashMap;

use k8s_openapi::jiff::Timestamp;
use kube::Resource;
use parking_lot::Mutex;
use serde_json::Map;

use super::StoreOptions;
use super::dereference::Children;
use super::error::StoreError;
use super::leaders::Pace;
use super::names;
use super::reason::Reason;
use super::rolling::AppliedSets;
use super::status;
use crate::context::Context;
use crate::store::bootstrap::plan_store::PlanStore;
use crate::store::members::change::ChangeRefused;
use crate::store::nodes::watches::Watches;
use crate::store::objects::build::Owner;
use crate::store::objects::pods::StoragePodView;
use crate::store::objects::tls;
use crate::store::rolling::keep::PATIENCE;
use crate::store::rolling::lasting::Lasting;
use crate::store::rolling::replicated::Gates;
use crate::store::spec::config_from::ConfigTrouble;
use crate::store::spec::driver_config::{self, DriverConfig};
use crate::store::spec::validate::{ValidStore, validate};
use atomix_controller::{Next, ObjectKey, Queue, StatusWriter, UndecodableReports, finalizer};
use atomix_resources::{Store, StoreStatus};

/// Everything that outlives one reconcile.
#[derive(Debug)]
pub(super) struct Reconciler {
    context: Context,
    options: StoreOptions,
    children: Children,
    plans: PlanStore,
    watches: Watches,
    statuses: StatusWriter,
    undecodable: UndecodableReports,
    /// The last refusal of a change of members: the status tells of it while it is tried again.
    refused: Mutex<HashMap<ObjectKey, ChangeRefused>>,
    gates: Gates,
    pace: Pace,
    refusals: Lasting,
    applied_sets: AppliedSets,
}

impl Reconciler {
    pub(super) fn new(
        context: Context,
        options: StoreOptions,
        children: Children,
        queue: Queue<ObjectKey>,
    ) -> Self {
        let statuses = StatusWriter::new(context.client.clone());
        Self {
            plans: PlanStore::new(context.client.clone()),
            watches: Watches::new(context.channels.clone(), queue),
            undecodable: UndecodableReports::new(
                context.client.clone(),
                context.events.clone(),
                statuses.clone(),
                "its nodes and connections stay as they are",
            ),
            statuses,
            context,
            options,
            children,
            refused: Mutex::default(),
            gates: Gates::default(),
            pace: Pace::default(),
            refusals: Lasting::new(PATIENCE),
            applied_sets: AppliedSets::default(),
        }
    }

    pub(super) fn makes_network_policies(&self) -> bool {
        self.options.network_policies.is_some()
    }

    pub(super) fn forget_pod(&self, pod: &StoragePodView) {
        if let Some(uid) = &pod.metadata.uid {
            self.watches.forget(uid);
            self.gates.forget(uid);
            self.refusals.forget(uid);
        }
    }

    pub(super) async fn reconcile(&self, key: &ObjectKey) -> Result<Next, StoreError> {
        let Some(guarded) = self.context.stores.get(key) else {
            self.plans.forget(key);
            self.statuses.forget(key);
            self.undecodable.forget(key);
            self.refused.lock().remove(key);
            self.context.config_sources.forget(key);
            self.pace.forget(key);
            self.applied_sets.forget(key);
            return Ok(Next::OnChange);
        };
        let is_going = guarded.meta().deletion_timestamp.is_some();
        let result = match &guarded.0 {
            Ok(store) if !is_going => self.reconcile_store(key, store).await,
            Err(invalid) if !is_going => self.report_undecodable(invalid).await,
            Ok(_) | Err(_) => self.delete(key, guarded.meta()).await,
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
        // A refusal is told by the status, and tried again after it.
        let read = self.context.config_sources.read(key, store).await;
        let merged = self.context.config_sources.of(key, store);
        let factor = previous.replication_factor;
        let whole = merged.and_then(|merged| {
            let valid = driver_config::validated(store, &merged, factor);
            valid.map_err(ConfigTrouble::Refused)
        });
        let (valid, config) = match whole {
            Ok(valid) => {
                let tls = tls::is_spoken(&previous, self.options.tls);
                let config = driver_config::of(&valid, &key.name, &key.namespace, tls);
                (valid, Ok(config))
            }
            // Nodes need nothing of the driver's configuration.
            Err(trouble) => match (validate(store, Map::new(), factor), trouble) {
                (Ok(valid), trouble) => (valid, Err(trouble)),
                (Err(invalid), trouble) => {
                    let invalid = match trouble {
                        ConfigTrouble::Refused(all) => all,
                        _ => invalid,
                    };
                    let message = format!("correct the specification: {invalid}");
                    self.halt(store, Reason::InvalidSpec, &message, &previous)
                        .await?;
                    return Err(invalid.into());
                }
            },
        };
        let next = self
            .reconcile_valid(key, store, valid, &config, &previous)
            .await?;
        read.map_err(StoreError::Dereference)?;
        Ok(next)
    }

    async fn reconcile_valid(
        &self,
        key: &ObjectKey,
        store: &Store,
        valid: ValidStore,
        config: &Result<DriverConfig, ConfigTrouble>,
        previous: &StoreStatus,
    ) -> Result<Next, StoreError> {
        match valid {
            ValidStore::DriverOnly { .. } => {
                let config = match config {
                    Ok(config) => config,
                    Err(trouble) => {
                        self.halt(store, trouble.reason(), &trouble.to_string(), previous)
                            .await?;
                        return Ok(Next::OnChange);
                    }
                };
                let missing = crate::driver::builtin::resolve(&store.spec.driver);
                let missing = missing.err().map(|error| error.to_string());
                let generation = store.metadata.generation.unwrap_or_default();
                let now = Timestamp::now();
                let is_paused = store.is_paused();
                let status =
                    status::of_driver_only(config, missing, is_paused, previous, generation, now);
                self.write_status(store, previous, &status).await?;
                Ok(Next::OnChange)
            }
            ValidStore::MultiRaft(cluster) => {
                let config = config.as_ref();
                let reconciled = self.reconcile_cluster(key, store, &cluster, config, previous);
                Box::pin(reconciled).await
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
