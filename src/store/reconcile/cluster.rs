//! A Store with storage nodes: what is read, decided, carried out and told, in this order.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use serde_json::Map;

use super::{Reconciler, owner_of};
use crate::context::Context;
use crate::driver::builtin;
use crate::store::bootstrap::carry_out::{Bootstrapper, Outcome};
use crate::store::bootstrap::{Decision, Desired, Phase};
use crate::store::deletion::is_used;
use crate::store::dereference::{Inputs, StatefulSetView, dereference};
use crate::store::error::StoreError;
use crate::store::members::place::{Placed, Placer, pods_before_the_mark};
use crate::store::members::recovery::{self, Wish};
use crate::store::names;
use crate::store::nodes::watches::NodeState;
use crate::store::objects::apply::Prepared;
use crate::store::objects::budget::{Groups, bearable};
use crate::store::objects::build::{Owner, Protection, build};
use crate::store::objects::tls;
use crate::store::ownership::{self, Ownership};
use crate::store::reason::Reason;
use crate::store::rolling::keep::{Keeper, Kept, sooner};
use crate::store::spec::config_from::{self, ConfigTrouble};
use crate::store::spec::driver_config::{self, DriverConfig};
use crate::store::spec::validate::{Cluster, ClusterStorage, ValidStore, validate};
use crate::store::status::{self, Findings};
use crate::store::volumes::claims::{self, ClaimKeeper, claims_of};
use atomix_controller::{Next, ObjectKey};
use atomix_resources::{Store, StoreStatus};

/// How soon a node that left a question unanswered is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// The Store of one pass, and what does not change during it.
#[derive(Debug)]
pub(super) struct Pass<'a> {
    pub(super) reconciler: &'a Reconciler,
    pub(super) key: &'a ObjectKey,
    pub(super) store: &'a Store,
    pub(super) owner: &'a Owner,
    /// With channels that take nodes over where a person has said so.
    pub(super) context: Context,
    cluster: &'a Cluster,
    config: Result<&'a DriverConfig, &'a ConfigTrouble>,
    previous: &'a StoreStatus,
    protection: Protection,
    /// The status says where a paused Store stands, but nothing is carried out.
    is_paused: bool,
}

/// What is told and done at the end of a pass.
struct Judged {
    inputs: Inputs,
    outcome: Outcome,
    placed: Option<Placed>,
    kept: Option<Kept>,
    wishes: Vec<Wish>,
    /// Why members could not be changed by the last pass.
    refused: Option<StoreError>,
    /// Why volumes could not be grown or deleted.
    volumes: Option<StoreError>,
}

impl Reconciler {
    pub(super) async fn reconcile_cluster(
        &self,
        key: &ObjectKey,
        store: &Store,
        cluster: &Cluster,
        config: Result<&DriverConfig, &ConfigTrouble>,
        previous: &StoreStatus,
    ) -> Result<Next, StoreError> {
        let owner = owner_of(key, store);
        let inputs = dereference(&owner, &self.children, &self.plans, &self.watches).await?;
        let context = match self.ownership(store, &inputs) {
            Ownership::Ours => self.context.clone(),
            Ownership::Declared => self.context.taking_over(),
            Ownership::Other(other) => {
                let own = self.context.channels.caller().id();
                let message = ownership::message(&key.name, &own, &other);
                self.halt(store, Reason::ManagedByOther, &message, previous)
                    .await?;
                return Ok(Next::OnChange);
            }
        };
        let pass = Pass {
            reconciler: self,
            key,
            store,
            owner: &owner,
            context,
            cluster,
            config,
            previous,
            protection: self.protection(store, previous),
            is_paused: store.is_paused(),
        };
        pass.run(inputs).await
    }

    /// Of a Store that is to go, and waits: its pods may be replaced meanwhile, and drains hang on which of
    /// them count.
    pub(super) async fn keep_gates(
        &self,
        key: &ObjectKey,
        store: &Store,
    ) -> Result<Next, StoreError> {
        let previous = self.previous_status(store);
        let valid = validate(store, Map::new(), previous.replication_factor);
        let Ok(ValidStore::MultiRaft(cluster)) = valid else {
            return Ok(Next::OnChange);
        };
        let owner = owner_of(key, store);
        let inputs = dereference(&owner, &self.children, &self.plans, &self.watches).await?;
        if let Ownership::Other(_) = self.ownership(store, &inputs) {
            return Ok(Next::OnChange);
        }
        let pass = Pass {
            reconciler: self,
            key,
            store,
            owner: &owner,
            context: self.context.clone(),
            cluster: &cluster,
            config: Err(&ConfigTrouble::NotRead),
            previous: &previous,
            protection: self.protection(store, &previous),
            is_paused: true,
        };
        pass.keep_gates(inputs).await
    }

    fn protection(&self, store: &Store, previous: &StoreStatus) -> Protection {
        Protection {
            tls: tls::is_spoken(previous, self.options.tls),
            allowed_namespaces: store.spec.allowed_namespaces.clone().unwrap_or_default(),
            operator_namespace: self.options.network_policies.clone(),
        }
    }

    fn ownership(&self, store: &Store, inputs: &Inputs) -> Ownership {
        let views = inputs.nodes.values().filter_map(NodeState::view);
        let seen = views.map(|view| view.operator.as_str());
        let own = self.context.channels.caller().id();
        ownership::judge(ownership::declared(store), &own, seen)
    }
}

impl Pass<'_> {
    async fn run(&self, mut inputs: Inputs) -> Result<Next, StoreError> {
        let desired = desired(self.owner, self.cluster);
        let bootstrapper = Bootstrapper {
            context: &self.context,
            plans: &self.reconciler.plans,
            owner: self.owner,
            cluster: self.cluster,
            desired: &desired,
            was_bootstrapped: self.was_bootstrapped(),
        };
        let mut decision = bootstrapper.decide(&inputs);
        if inputs.is_bootstrapped() && !decision.actions.is_empty() && !self.is_paused {
            // All data seems to be gone. What the watches told is not enough to begin anew.
            inputs
                .refresh(&self.context, self.owner, &self.reconciler.watches)
                .await?;
            decision = bootstrapper.decide(&inputs);
        }
        let placed = match decision.phase {
            Phase::Done => self.placer().place(&mut inputs, self.is_paused).await?,
            _ => None,
        };
        let mut outcome = if self.is_paused {
            Outcome::at(decision.phase)
        } else {
            self.build(&bootstrapper, &mut inputs, decision, placed.as_ref())
                .await
        };
        let volumes = self
            .keep_volumes(&inputs, placed.as_ref(), &mut outcome)
            .await;
        let wishes = recovery::due(recovery::wishes(self.store), &inputs);
        let refused = self.refused_change(placed.as_ref(), &wishes);
        let kept = match &placed {
            Some(placed) => {
                let keeper = self.keeper(refused.is_some());
                let kept = keeper.look(&mut inputs, placed).await;
                let written = keeper.write_gates(&inputs, &kept).await;
                outcome.error = outcome.error.or(written.err());
                Some(kept)
            }
            None => None,
        };
        let mut judged = Judged {
            inputs,
            outcome,
            placed,
            kept,
            wishes,
            refused,
            volumes,
        };
        self.tell(&mut judged).await?;
        self.act(judged).await
    }

    async fn keep_gates(&self, mut inputs: Inputs) -> Result<Next, StoreError> {
        let placed = self.placer().place(&mut inputs, self.is_paused).await?;
        // Before the mark no pod counts.
        let Some(placed) = placed else {
            return Ok(Next::OnChange);
        };
        let keeper = self.keeper(false);
        let kept = keeper.look(&mut inputs, &placed).await;
        keeper.write_gates(&inputs, &kept).await?;
        Ok(kept.next_of_gates())
    }

    /// The status says that the mark was written.
    fn was_bootstrapped(&self) -> bool {
        self.previous.bootstrapped == Some(true)
    }

    fn placer(&self) -> Placer<'_> {
        Placer {
            context: &self.context,
            owner: self.owner,
            cluster: self.cluster,
            watches: &self.reconciler.watches,
            never_bound: match self.cluster.storage {
                ClusterStorage::Ephemeral => BTreeSet::new(),
                ClusterStorage::Volumes { .. } => {
                    claims::never_bound(self.key, &self.reconciler.children.claims)
                }
            },
        }
    }

    fn keeper(&self, is_refused: bool) -> Keeper<'_> {
        Keeper {
            context: &self.context,
            key: self.key,
            owner: self.owner,
            cluster: self.cluster,
            watches: &self.reconciler.watches,
            gates: &self.reconciler.gates,
            pace: &self.reconciler.pace,
            refusals: &self.reconciler.refusals,
            is_refused,
        }
    }

    /// Applies the children, then carries the bootstrap's next steps out.
    async fn build(
        &self,
        bootstrapper: &Bootstrapper<'_>,
        inputs: &mut Inputs,
        decision: Decision,
        placed: Option<&Placed>,
    ) -> Outcome {
        if inputs.stateful_set.is_none() && inputs.has_going_pods {
            // Those of an earlier Store of this name. The StatefulSet controller gives up on a pod
            // whose name is still taken; the end of each of them brings us back.
            return Outcome::at(decision.phase);
        }
        let Self {
            key,
            owner,
            cluster,
            protection,
            ..
        } = self;
        let pods = match placed {
            Some(placed) => placed.decision.replicas,
            None => pods_before_the_mark(cluster, inputs, bootstrapper.was_bootstrapped),
        };
        let fields = config_from::merge::shown(&self.store.spec).unwrap_or_default();
        let shown =
            driver_config::shown(cluster, &fields, &key.name, &key.namespace, protection.tls);
        let groups = match placed {
            Some(placed) => placed.groups(),
            None if bootstrapper.was_bootstrapped => Groups::Part(None),
            None => Groups::NotMade,
        };
        let bearable = bearable(cluster.replication_factor, groups);
        let image = &self.reconciler.options.node_image;
        let built = of_template(cluster, inputs.stateful_set.as_deref());
        let objects = build(owner, &built, &shown, image, pods, protection, bearable);
        match Box::pin(self.apply(Prepared::new(objects, groups), inputs)).await {
            Ok(()) => bootstrapper.carry_out(inputs, decision).await,
            Err(error) => Outcome::stopped(decision.phase, error),
        }
    }

    /// Applies the children and replaces pods that hold a corrected spec up.
    async fn apply(&self, prepared: Prepared, inputs: &mut Inputs) -> Result<(), StoreError> {
        let applied = Box::pin(prepared.apply(&self.context, inputs)).await?;
        applied
            .heal(
                &self.context,
                self.owner,
                inputs,
                self.store,
                self.was_bootstrapped(),
            )
            .await?;
        if !inputs.is_bootstrapped() {
            return Ok(());
        }
        self.reconciler
            .applied_sets
            .renew(&self.context, self.key, inputs, applied.stateful_set)
            .await
    }

    async fn keep_volumes(
        &self,
        inputs: &Inputs,
        placed: Option<&Placed>,
        outcome: &mut Outcome,
    ) -> Option<StoreError> {
        if self.is_paused || outcome.error.is_some() {
            return None;
        }
        let keeper = ClaimKeeper {
            context: &self.context,
            owner: self.owner,
            claims: claims_of(self.key, &self.reconciler.children.claims),
        };
        let kept = keeper.keep(self.cluster, inputs, placed, &mut outcome.events);
        kept.await.err()
    }

    /// Writes the status and the events; answers with what ended the pass early.
    async fn tell(&self, judged: &mut Judged) -> Result<(), StoreError> {
        let (inputs, outcome) = (&judged.inputs, &mut judged.outcome);
        let error = outcome.error.take();
        let kept = judged.kept.as_ref();
        let driver = builtin::resolve(&self.store.spec.driver);
        let findings = Findings {
            name: &self.key.name,
            cluster: self.cluster,
            config: self.config,
            missing_driver: driver.as_ref().err(),
            paused: self.is_paused,
            plan: &inputs.plan.stored,
            phase: &outcome.phase,
            pods: &inputs.pods,
            nodes: &inputs.nodes,
            placement: judged.placed.as_ref().map(|placed| &placed.decision),
            roll: kept.map(|kept| &kept.roll),
            eviction_refused: kept.is_some_and(|kept| kept.is_held_up),
            error: error
                .as_ref()
                .or(judged.refused.as_ref())
                .or(judged.volumes.as_ref()),
        };
        let generation = self.store.metadata.generation.unwrap_or_default();
        let mut status = status::of_cluster(&findings, self.previous, generation, Timestamp::now());
        status.tls = Some(self.protection.tls);
        status.in_use = Some(is_used(self.key, self.store, &self.context.sessions));
        let reconciler = self.reconciler;
        reconciler.announce(self.store, std::mem::take(&mut outcome.events));
        // At a start nothing is known of nodes yet, and what an earlier operator wrote stays until
        // they have spoken: the first word of each brings us back.
        let is_unheard = inputs
            .nodes
            .values()
            .any(|node| *node == NodeState::Unheard);
        let is_told = self.previous.observed_generation == Some(generation);
        let written = if is_unheard && is_told && error.is_none() {
            Ok(())
        } else {
            reconciler
                .write_status(self.store, self.previous, &status)
                .await
        };
        error.map_or(written, Err)
    }

    /// What comes after the status, since it may take its time: members, pods, leaders.
    async fn act(&self, judged: Judged) -> Result<Next, StoreError> {
        let kept = judged.kept.as_ref();
        let gates = kept.map_or(Next::OnChange, Kept::next_of_gates);
        let owed = match judged.inputs.is_owed_an_answer {
            true => Next::After(ASK_AGAIN),
            false => Next::OnChange,
        };
        let both = judged.placed.zip(judged.kept);
        let acted = match both.filter(|_| !self.is_paused) {
            None => Ok(sooner(judged.outcome.next, gates)),
            Some(_) if !judged.wishes.is_empty() => {
                self.recover(&judged.inputs, &judged.wishes).await
            }
            // What members need comes first; a pod that is not running holds nobody up.
            Some((placed, kept)) if placed.has_actions() && !kept.replaces_pods() => {
                self.change_members(&judged.inputs, &placed).await
            }
            Some((placed, kept)) => {
                let keeper = self.keeper(judged.refused.is_some());
                let acted = keeper.act(&judged.inputs, kept).await;
                acted.map(|acted| {
                    self.reconciler.announce(self.store, acted.events);
                    sooner(acted.next, placed.next(self.cluster))
                })
            }
        };
        // Tried again after everything else.
        judged
            .volumes
            .map_or(acted, Err)
            .map(|next| sooner(next, owed))
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
