//! One reconcile of one Store: the steps in their order, and what becomes of their errors.

use std::collections::HashMap;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::Resource;
use kube::core::error_boundary::InvalidObject;
use parking_lot::Mutex;

use super::StoreOptions;
use super::apply::Prepared;
use super::bootstrap::{Desired, Phase};
use super::build::{Owner, StoreObjects, build};
use super::carry_out::{Announcement, Bootstrapper, Outcome};
use super::change::{ChangeRefused, Changer};
use super::claims::{self, ClaimKeeper, claims_of};
use super::deletion::{is_used, sessions_using, waiting_message};
use super::dereference::{Children, Inputs, StatefulSetView, dereference};
use super::driver_config;
use super::error::StoreError;
use super::names;
use super::ownership::{self, Ownership};
use super::place::{Placed, Placer, pods_before_the_mark};
use super::plan_store::PlanStore;
use super::pods::StoragePodView;
use super::reason::Reason;
use super::recovery::{self, Wish};
use super::status::{self, Findings};
use super::validate::{Cluster, ClusterStorage, ValidStore, validate};
use super::watches::{NodeState, Watches};
use crate::context::Context;
use atomix_controller::{
    Next, ObjectKey, Queue, Severity, StatusWriter, UndecodableReports, finalizer,
};
use atomix_resources::store::RetentionPolicy;
use atomix_resources::{Store, StoreStatus};

/// How soon a group is looked at again that was recovered.
const AGAIN: Duration = Duration::from_millis(200);

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
            self.undecodable.forget(key);
            self.refused.lock().remove(key);
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
        let valid = match validate(store, previous.replication_factor) {
            Ok(valid) => valid,
            Err(invalid) => {
                let message = format!("correct the specification: {invalid}");
                self.halt(store, Reason::InvalidSpec, &message, &previous)
                    .await?;
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
                let is_paused = store.is_paused();
                let status =
                    status::of_driver_only(&config, missing, is_paused, &previous, generation, now);
                self.write_status(store, &previous, &status).await?;
                Ok(Next::OnChange)
            }
            ValidStore::MultiRaft(cluster) => {
                let reconciled = self.reconcile_cluster(key, store, &cluster, &config, &previous);
                Box::pin(reconciled).await
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
        let context = match self.ownership(store, &inputs) {
            Ownership::Ours => self.context.clone(),
            Ownership::Declared => self.context.taking_over(),
            Ownership::Other(other) => {
                let own = self.context.channels.identity().id();
                let message = ownership::message(&key.name, &own, &other);
                self.halt(store, Reason::ManagedByOther, &message, previous)
                    .await?;
                return Ok(Next::OnChange);
            }
        };
        let bootstrapper = Bootstrapper {
            context: &context,
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
            let built = of_template(cluster, inputs.stateful_set.as_deref());
            let objects = build(&owner, &built, config, &self.options.node_image, pods);
            match self.apply(&owner, store, objects, &inputs).await {
                Ok(()) => bootstrapper.carry_out(&mut inputs, decision).await,
                Err(error) => Outcome::stopped(decision.phase, error),
            }
        };
        let Outcome {
            phase,
            next,
            events,
            error,
        } = outcome;

        let (mut events, mut volumes) = (events, None);
        if !is_paused && error.is_none() {
            let keeper = ClaimKeeper {
                context: &context,
                owner: &owner,
                claims: claims_of(key, &self.children.claims),
            };
            let kept = keeper.keep(cluster, &inputs, placed.as_ref(), &mut events);
            volumes = kept.await.err();
        }
        let stateful_set = inputs.stateful_set.as_deref();
        let refused = self.refused_change(key, placed.as_ref());
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
            newest_revision: stateful_set.and_then(StatefulSetView::newest_revision),
            error: error.as_ref().or(refused.as_ref()).or(volumes.as_ref()),
        };
        let generation = store.metadata.generation.unwrap_or_default();
        let mut status = status::of_cluster(&findings, previous, generation, Timestamp::now());
        status.in_use = Some(is_used(key, &self.context.sessions));
        self.announce(store, events);
        let written = self.write_status(store, previous, &status).await;
        if let Some(error) = error {
            return Err(error);
        }
        written?;
        let wishes = recovery::due(recovery::wishes(store), &inputs);
        let changed = match placed.filter(|_| !is_paused) {
            Some(_) if !wishes.is_empty() => {
                self.recover(&context, key, store, &owner, &inputs, wishes)
                    .await
            }
            Some(placed) if placed.decision.actions.is_empty() => Ok(placed.next(cluster)),
            Some(placed) => {
                self.change_members(&context, key, store, &owner, &inputs, &placed)
                    .await
            }
            None => Ok(next),
        };
        // Tried again after everything else.
        volumes.map_or(changed, Err)
    }

    /// Carries out what was planned for the members: last, since a change may take its time, and
    /// the status says what goes on.
    async fn change_members(
        &self,
        context: &Context,
        key: &ObjectKey,
        store: &Store,
        owner: &Owner,
        inputs: &Inputs,
        placed: &Placed,
    ) -> Result<Next, StoreError> {
        let changer = Changer {
            context,
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

    /// Makes groups go on from one member, as a person has asked. What is refused is tried again: a
    /// node waits until it is sure that nobody leads.
    async fn recover(
        &self,
        context: &Context,
        key: &ObjectKey,
        store: &Store,
        owner: &Owner,
        inputs: &Inputs,
        wishes: Vec<Wish>,
    ) -> Result<Next, StoreError> {
        for wish in &wishes {
            match recovery::carry_out(context, owner, inputs, wish).await {
                Ok(event) => self.announce(store, event.into_iter().collect()),
                Err(refused) => {
                    self.refused.lock().insert(key.clone(), refused.clone());
                    return Err(StoreError::Change(refused));
                }
            }
        }
        self.refused.lock().remove(key);
        Ok(Next::After(AGAIN))
    }

    fn ownership(&self, store: &Store, inputs: &Inputs) -> Ownership {
        let views = inputs.nodes.values().filter_map(NodeState::view);
        let seen = views.map(|view| view.operator.as_str());
        let own = self.context.channels.identity().id();
        ownership::judge(ownership::declared(store), &own, seen)
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
        inputs: &Inputs,
    ) -> Result<(), StoreError> {
        let applied = Prepared::new(objects).apply(&self.context, inputs).await?;
        applied.heal(&self.context, owner, inputs, store).await
    }

    /// Waits for Sessions of the own namespace, then removes the finalizer.
    async fn delete(&self, key: &ObjectKey, meta: &ObjectMeta) -> Result<Next, StoreError> {
        if !finalizer::has(meta, names::FINALIZER) {
            return Ok(Next::OnChange);
        }
        let sessions = sessions_using(key, &self.context.sessions);
        if sessions.is_empty() {
            self.delete_volumes(key).await?;
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

    /// Deletes the volumes of a Store that is going, if it says so. One that does not decode keeps
    /// them.
    async fn delete_volumes(&self, key: &ObjectKey) -> Result<(), StoreError> {
        let guarded = self.context.stores.get(key);
        let Some(Ok(store)) = guarded.as_ref().map(|guarded| guarded.0.as_ref()) else {
            return Ok(());
        };
        let multi_raft = store.spec.multi_raft.as_ref();
        let policy = multi_raft.and_then(|multi_raft| multi_raft.storage.retention_policy);
        if policy != Some(RetentionPolicy::Delete) {
            return Ok(());
        }
        let keeper = ClaimKeeper {
            context: &self.context,
            owner: &owner_of(key, store),
            claims: claims_of(key, &self.children.claims),
        };
        keeper.delete_all().await
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

/// A claim template cannot change, so it stays as it was made; claims grow by themselves.
fn of_template(cluster: &Cluster, live: Option<&StatefulSetView>) -> Cluster {
    let mut built = cluster.clone();
    let made = live.and_then(claims::template_size);
    if let (ClusterStorage::Volumes { size, .. }, Some(made)) = (&mut built.storage, made) {
        *size = made.clone();
    }
    built
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
