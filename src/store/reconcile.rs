//! One reconcile of one Store: the steps in their order, and what becomes of their errors.

use std::collections::HashMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::Resource;
use kube::core::error_boundary::InvalidObject;
use parking_lot::Mutex;
use serde_json::Map;

use super::StoreOptions;
use super::apply::Prepared;
use super::bootstrap::{Desired, Phase};
use super::budget::bearable;
use super::build::{Owner, Protection, StoreObjects, build};
use super::carry_out::{Announcement, Bootstrapper, Outcome};
use super::change::{ChangeRefused, Changer};
use super::config_from::{self, ConfigTrouble};
use super::deletion::{sessions_using, waiting_message};
use super::dereference::{Children, Inputs, dereference};
use super::driver_config::{self, DriverConfig};
use super::error::StoreError;
use super::keep::{Keeper, Refusals, sooner};
use super::leaders::Pace;
use super::names;
use super::place::{Placed, Placer, pods_before_the_mark};
use super::plan_store::PlanStore;
use super::pods::StoragePodView;
use super::reason::Reason;
use super::replicated::Gates;
use super::rolling::AppliedSets;
use super::status::{self, Findings};
use super::tls;
use super::validate::{Cluster, ClusterStorage, ValidStore, validate};
use super::watches::{NodeState, Watches};
use crate::context::Context;
use atomix_controller::{
    Next, ObjectKey, Queue, Severity, StatusWriter, UndecodableReports, finalizer,
};
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
    refusals: Refusals,
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
            ),
            statuses,
            context,
            options,
            children,
            refused: Mutex::default(),
            gates: Gates::default(),
            pace: Pace::default(),
            refusals: Refusals::default(),
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
        let valid = match &merged {
            Ok(merged) => driver_config::validated(store, merged, previous.replication_factor),
            // Nodes need nothing of the driver's configuration.
            Err(_) => validate(store, Map::new(), previous.replication_factor),
        };
        let valid = match valid {
            Ok(valid) => valid,
            Err(invalid) => {
                let message = format!("correct the specification: {invalid}");
                self.halt(store, Reason::InvalidSpec, &message, &previous)
                    .await?;
                return Err(invalid.into());
            }
        };
        let tls = tls::is_spoken(&previous, self.options.tls);
        let config = merged.map(|_| driver_config::of(&valid, &key.name, &key.namespace, tls));
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

    async fn reconcile_cluster(
        &self,
        key: &ObjectKey,
        store: &Store,
        cluster: &Cluster,
        config: Result<&DriverConfig, &ConfigTrouble>,
        previous: &StoreStatus,
    ) -> Result<Next, StoreError> {
        let owner = owner_of(key, store);
        let protection = Protection {
            tls: tls::is_spoken(previous, self.options.tls),
            allowed_namespaces: store.spec.allowed_namespaces.clone().unwrap_or_default(),
            operator_namespace: self.options.network_policies.clone(),
        };
        let mut inputs = dereference(&owner, &self.children, &self.plans, &self.watches).await?;
        let bootstrapper = Bootstrapper {
            context: &self.context,
            plans: &self.plans,
            owner: &owner,
            cluster,
            desired: &desired(&owner, cluster),
            was_bootstrapped: previous.bootstrapped == Some(true),
        };
        // Also of a paused Store: its status says where it stands, but nothing is carried out.
        let is_paused = store.is_paused();
        let mut decision = bootstrapper.decide(&inputs);
        if inputs.is_bootstrapped() && !decision.actions.is_empty() && !is_paused {
            // All data seems to be gone. What the watches told is not enough to begin anew.
            inputs.refresh(&self.context, &owner, &self.watches).await?;
            decision = bootstrapper.decide(&inputs);
        }
        let placer = Placer {
            context: &self.context,
            owner: &owner,
            cluster,
            watches: &self.watches,
        };
        let placed = match decision.phase {
            Phase::Done => placer.place(&mut inputs, is_paused).await?,
            _ => None,
        };
        let outcome = if is_paused {
            Outcome::at(decision.phase)
        } else {
            let pods = match &placed {
                Some(placed) => placed.decision.replicas,
                None => pods_before_the_mark(cluster, &inputs, bootstrapper.was_bootstrapped),
            };
            let fields = config_from::merge::shown(&store.spec).unwrap_or_default();
            let shown =
                driver_config::shown(cluster, &fields, &key.name, &key.namespace, protection.tls);
            let smallest = placed.as_ref().and_then(Placed::smallest_group);
            let bearable = bearable(cluster.replication_factor, smallest);
            let image = &self.options.node_image;
            let objects = build(&owner, cluster, &shown, image, pods, &protection, bearable);
            match Box::pin(self.apply(&owner, store, objects, &mut inputs)).await {
                Ok(()) => bootstrapper.carry_out(&mut inputs, decision).await,
                Err(error) => Outcome::stopped(decision.phase, error),
            }
        };
        let Outcome {
            phase,
            next,
            events,
            mut error,
        } = outcome;

        let refused = self.refused_change(key, placed.as_ref());
        let keeper = Keeper {
            context: &self.context,
            key,
            owner: &owner,
            cluster,
            watches: &self.watches,
            gates: &self.gates,
            pace: &self.pace,
            refusals: &self.refusals,
            is_refused: refused.is_some(),
        };
        let kept = match &placed {
            Some(placed) => {
                let kept = keeper.look(&mut inputs, placed).await;
                let written = keeper.write_gates(&inputs, &kept).await;
                error = error.or(written.err());
                Some(kept)
            }
            None => None,
        };
        let findings = Findings {
            name: &key.name,
            cluster,
            config,
            paused: is_paused,
            plan: &inputs.plan.stored,
            phase: &phase,
            pods: &inputs.pods,
            nodes: &inputs.nodes,
            placement: placed.as_ref().map(|placed| &placed.decision),
            roll: kept.as_ref().map(|kept| &kept.roll),
            eviction_refused: kept.as_ref().is_some_and(|kept| kept.is_held_up),
            error: error.as_ref().or(refused.as_ref()),
        };
        let generation = store.metadata.generation.unwrap_or_default();
        let mut status = status::of_cluster(&findings, previous, generation, Timestamp::now());
        status.tls = Some(protection.tls);
        self.announce(store, events);
        // At a start nothing is known of nodes yet, and what an earlier operator wrote stays until
        // they have spoken: the first word of each brings us back.
        let is_unheard = inputs
            .nodes
            .values()
            .any(|node| *node == NodeState::Unheard);
        let is_told = previous.observed_generation == Some(generation);
        let written = if is_unheard && is_told && error.is_none() {
            Ok(())
        } else {
            self.write_status(store, previous, &status).await
        };
        if let Some(error) = error {
            return Err(error);
        }
        written?;
        let Some((placed, kept)) = placed.zip(kept).filter(|_| !is_paused) else {
            return Ok(next);
        };
        // What members need comes first; a pod that is not running holds nobody up.
        if !placed.decision.actions.is_empty() && !kept.replaces_pods() {
            return self
                .change_members(key, store, &owner, cluster, &inputs, &placed)
                .await;
        }
        let acted = keeper.act(&inputs, kept).await?;
        self.announce(store, acted.events);
        Ok(sooner(acted.next, placed.next(cluster)))
    }

    /// Carries out what was planned for the members: last, since a change may take its time, and
    /// the status says what goes on.
    async fn change_members(
        &self,
        key: &ObjectKey,
        store: &Store,
        owner: &Owner,
        cluster: &Cluster,
        inputs: &Inputs,
        placed: &Placed,
    ) -> Result<Next, StoreError> {
        if placed.decision.actions.is_empty() {
            return Ok(placed.next(cluster));
        }
        let changer = Changer {
            context: &self.context,
            owner,
            plan: &placed.plan,
            inputs,
            observed: &placed.observed,
        };
        let changed = changer.carry_out(&placed.decision.actions).await;
        let next = changed.next();
        self.announce(store, changed.events);
        let Some(refused) = changed.error else {
            self.refused.lock().remove(key);
            return Ok(next);
        };
        self.refused.lock().insert(key.clone(), refused.clone());
        Err(StoreError::Change(refused))
    }

    /// Why the last pass could not change members, as long as they are to change.
    fn refused_change(&self, key: &ObjectKey, placed: Option<&Placed>) -> Option<StoreError> {
        let is_wanted = placed.is_some_and(|placed| !placed.decision.actions.is_empty());
        let mut refused = self.refused.lock();
        if !is_wanted {
            refused.remove(key);
        }
        refused.get(key).cloned().map(StoreError::Change)
    }

    fn announce(&self, store: &Store, events: Vec<Announcement>) {
        for event in events {
            let (severity, to) = (Severity::Normal, &self.context.events);
            to.publish(store, severity, event.reason, event.action, event.note);
        }
    }

    /// Applies the children and replaces pods that hold a corrected spec up.
    async fn apply(
        &self,
        owner: &Owner,
        store: &Store,
        objects: StoreObjects,
        inputs: &mut Inputs,
    ) -> Result<(), StoreError> {
        let applied = Prepared::new(objects).apply(&self.context, inputs).await?;
        applied.heal(&self.context, owner, inputs, store).await?;
        if !inputs.is_bootstrapped() {
            return Ok(());
        }
        let key = ObjectKey::new(&owner.namespace, &owner.name);
        let (context, outcome) = (&self.context, applied.stateful_set);
        self.applied_sets
            .renew(context, &key, inputs, outcome)
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
            self.halt(store, Reason::InUse, &message, &previous).await?;
        }
        Ok(Next::OnChange)
    }

    async fn report_undecodable(&self, invalid: &InvalidObject) -> Result<Next, StoreError> {
        let reported = self.undecodable.report::<Store>(invalid).await;
        reported.map_err(StoreError::Report)?;
        Ok(Next::OnChange)
    }

    /// Says why the Store is left alone.
    async fn halt(
        &self,
        store: &Store,
        reason: Reason,
        message: &str,
        previous: &StoreStatus,
    ) -> Result<(), StoreError> {
        let generation = store.metadata.generation.unwrap_or_default();
        let now = Timestamp::now();
        let halted = status::of_halted(reason, message, previous, generation, now);
        self.write_status(store, previous, &halted).await
    }

    /// The newest status: what was written last, when the cache is behind.
    fn previous_status(&self, store: &Store) -> StoreStatus {
        let pending = self.statuses.pending(&store.metadata);
        pending
            .and_then(|value| serde_json::from_value(value).ok())
            .or_else(|| store.status.clone())
            .unwrap_or_default()
    }

    /// Warns of new trouble first: a crash in between repeats the event rather than lose it.
    async fn write_status(
        &self,
        store: &Store,
        previous: &StoreStatus,
        status: &StoreStatus,
    ) -> Result<(), StoreError> {
        self.context.events.warn_of_changes::<Store>(
            &store.metadata,
            &previous.conditions,
            &status.conditions,
            status::is_trouble,
        );
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
