//! Keeps a bootstrapped Store well while its members lie where they should: says which disks count,
//! replaces the next pod of a rolling change, spreads the leaders.
//!
//! What the watches told says whether there is anything to do; only then all nodes are asked, twice
//! (`strength`). Each of the plans is pure and a module of its own.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::context::Context;
use crate::store::bootstrap::carry_out::Announcement;
use crate::store::dereference::{Inputs, StatefulSetView};
use crate::store::error::StoreError;
use crate::store::leaders::{self, Pace, Transfer, Transferrer};
use crate::store::members::place::Placed;
use crate::store::nodes::strength::{Looks, Strength};
use crate::store::nodes::watches::{NodeState, Watches};
use crate::store::objects::build::Owner;
use crate::store::objects::pods::StoragePodView;
use crate::store::rolling::lasting::Lasting;
use crate::store::rolling::replicated::{Gates, Settled, wanted};
use crate::store::rolling::{self, Pod, PodState, Replaced, Replacer, Roll, Step};
use crate::store::spec::validate::{Cluster, ClusterStorage};
use atomix_controller::{Next, ObjectKey};

/// How soon what is waited for is looked at again when no event comes first.
const LOOK: Duration = Duration::from_millis(500);

/// How soon after something that no event tells of.
const LATER: Duration = Duration::from_secs(2);

/// For how long a budget may refuse an eviction before people are told: the controller that counts
/// the pods is a little behind each time. After as long without being refused again a refusal is
/// forgotten; a pod that is to go is asked for about twice a second.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Looks at one bootstrapped Store, and acts.
#[derive(Debug)]
pub struct Keeper<'a> {
    /// Clients and channels.
    pub context: &'a Context,
    /// The Store's key.
    pub key: &'a ObjectKey,
    /// The Store.
    pub owner: &'a Owner,
    /// Its validated spec.
    pub cluster: &'a Cluster,
    /// Through which nodes are asked.
    pub watches: &'a Watches,
    /// The readiness gates.
    pub gates: &'a Gates,
    /// When leaderships were handed over last.
    pub pace: &'a Pace,
    /// Which evictions budgets refuse.
    pub refusals: &'a Lasting,
    /// The nodes refused the last change of members: a rolling change may be what heals them.
    pub is_refused: bool,
}

/// What was seen, and what is to be done.
#[derive(Debug)]
pub struct Kept {
    /// How far the rolling change is.
    pub roll: Roll,
    /// A budget has refused the next eviction for some time.
    pub is_held_up: bool,
    /// Gates to write: pod and whether it opens.
    gates: Vec<(u32, bool)>,
    /// A gate may change though nothing tells of it.
    gates_wait: bool,
    transfers: Vec<Transfer>,
    next: Next,
}

impl Kept {
    /// Whether pods are to be replaced now.
    #[must_use]
    pub fn replaces_pods(&self) -> bool {
        matches!(self.roll.step, Step::Replace(_, _))
    }

    /// When to look at the gates again: all that is kept up of a paused Store.
    #[must_use]
    pub fn next_of_gates(&self) -> Next {
        if self.gates_wait {
            Next::After(LOOK)
        } else {
            Next::OnChange
        }
    }
}

/// What was done.
#[derive(Debug)]
pub struct Acted {
    /// For people.
    pub events: Vec<Announcement>,
    /// When to look again.
    pub next: Next,
}

impl Keeper<'_> {
    /// Looks; asks all nodes when there is something to do.
    pub async fn look(&self, inputs: &mut Inputs, placed: &Placed) -> Kept {
        let pods: Vec<u32> = inputs.pods.keys().copied().collect();
        let newest = inputs.stateful_set.as_deref();
        let newest = newest
            .and_then(StatefulSetView::newest_revision)
            .map(str::to_owned);
        let has_old = pods
            .iter()
            .any(|at| self.is_old(inputs, *at, newest.as_deref()));
        let is_settled = placed.decision.is_settled();
        let is_uneven =
            is_settled && !leaders::plan(&leaders::as_placed(&placed.observed)).is_empty();
        let has_shut = pods
            .iter()
            .any(|at| !self.is_open(inputs, *at) && is_up(inputs, *at));
        let strength = if has_old || is_uneven || has_shut {
            Some(self.strength(inputs, placed, &pods).await)
        } else {
            None
        };
        let mut gates = Vec::new();
        let mut is_unsure = false;
        for (at, pod) in &inputs.pods {
            let state = inputs.nodes.get(at);
            if state == Some(&NodeState::Unheard) {
                // An operator that has just started knows nothing against it.
                continue;
            }
            let view = state.and_then(NodeState::view);
            let becomes = wanted(self.gates.is_open(pod), *at, view, strength.as_ref());
            match self.gates.settle(uid_of(pod), becomes) {
                Settled::Write(open) => gates.push((*at, open)),
                Settled::Unsure => is_unsure = true,
                Settled::Keep => {}
            }
        }
        let judged = strength.unwrap_or_default();
        let transfers = if is_uneven && !has_old {
            leaders::plan(&leaders::as_judged(&judged))
        } else {
            Vec::new()
        };
        let roll = self.roll(inputs, placed, judged, newest.as_deref());
        let opens = |at: &u32| gates.contains(&(*at, true));
        let has_shut = pods
            .iter()
            .any(|at| !self.is_open(inputs, *at) && is_up(inputs, *at) && !opens(at));
        let gates_wait = is_unsure || has_shut;
        let next = match &roll.step {
            Step::Replace(_, _) | Step::Wait(_) => Next::After(LOOK),
            Step::Done | Step::Refused { .. } if gates_wait => Next::After(LOOK),
            Step::Done | Step::Refused { .. } => Next::OnChange,
        };
        let targets: &[u32] = match &roll.step {
            Step::Replace(ordinals, _) => ordinals,
            Step::Done | Step::Wait(_) | Step::Refused { .. } => &[],
        };
        // A change that was taken back says nothing of the next one.
        let spared = inputs.pods.iter().filter(|(at, _)| {
            !targets.contains(at) && !self.is_old(inputs, **at, newest.as_deref())
        });
        spared.for_each(|(_, pod)| self.refusals.forget(uid_of(pod)));
        let mut going = targets.iter().filter_map(|at| inputs.pods.get(at));
        let is_held_up = going.any(|pod| self.refusals.lasts(uid_of(pod), PATIENCE));
        Kept {
            roll,
            is_held_up,
            gates,
            gates_wait,
            transfers,
            next,
        }
    }

    fn is_old(&self, inputs: &Inputs, ordinal: u32, newest: Option<&str>) -> bool {
        let revision = inputs.pods.get(&ordinal).and_then(|pod| pod.revision());
        revision.is_some() && newest.is_some() && revision != newest
    }

    fn is_open(&self, inputs: &Inputs, ordinal: u32) -> bool {
        let pod = inputs.pods.get(&ordinal);
        pod.is_none_or(|pod| self.gates.is_open(pod))
    }

    async fn strength(&self, inputs: &mut Inputs, placed: &Placed, pods: &[u32]) -> Strength {
        inputs.ask(pods.to_vec(), self.watches).await;
        let earlier = inputs.views();
        inputs.ask(pods.to_vec(), self.watches).await;
        Looks {
            store: &self.owner.name,
            plan: &placed.plan,
            earlier: &earlier,
            later: &inputs.views(),
            election_timeout: Duration::from_millis(placed.plan.election_timeout_millis),
        }
        .strength()
    }

    fn roll(
        &self,
        inputs: &Inputs,
        placed: &Placed,
        strength: Strength,
        newest: Option<&str>,
    ) -> Roll {
        let pods = inputs.pods.iter().map(|(ordinal, pod)| {
            let state = inputs.nodes.get(ordinal);
            let view = state.and_then(NodeState::view);
            let seen = Pod {
                is_old: self.is_old(inputs, *ordinal, newest),
                state: pod_state(pod, view.is_some()),
                holds: view.is_none_or(|view| !view.groups.is_empty()),
            };
            (*ordinal, seen)
        });
        let desired = rolling::Desired {
            pods: placed.decision.replicas,
            replication_factor: self.cluster.replication_factor,
            is_ephemeral: self.cluster.storage == ClusterStorage::Ephemeral,
            allow_data_loss: self.cluster.allow_data_loss,
        };
        let observed = rolling::Observed {
            knows_template: newest.is_some(),
            pods: pods.collect::<BTreeMap<u32, Pod>>(),
            strength,
            is_moving: !placed.decision.actions.is_empty() && !self.is_refused,
        };
        rolling::plan(&desired, &observed)
    }

    /// Writes the gates that differ; also of a paused Store, as they tell what is so.
    ///
    /// # Errors
    /// The first that cannot be written; the others are tried.
    pub async fn write_gates(&self, inputs: &Inputs, kept: &Kept) -> Result<(), StoreError> {
        let mut result = Ok(());
        for (ordinal, open) in &kept.gates {
            let Some(pod) = inputs.pods.get(ordinal) else {
                continue;
            };
            let (client, namespace) = (&self.context.client, &self.owner.namespace);
            let written = self.gates.write(client, namespace, pod, *open).await;
            result = result.and(written.map_err(StoreError::Gate));
        }
        result
    }

    /// Carries out what was planned.
    ///
    /// # Errors
    /// When the API server refuses or does not answer.
    pub async fn act(&self, inputs: &Inputs, kept: Kept) -> Result<Acted, StoreError> {
        if let Step::Replace(ordinals, why) = &kept.roll.step {
            let mut going = ordinals.iter().filter_map(|at| inputs.pods.get(at));
            let replacer = Replacer {
                context: self.context,
                owner: self.owner,
                inputs,
                has_budget: inputs.budget.is_some(),
                is_refused: going.any(|pod| self.refusals.lasts(uid_of(pod), PATIENCE / 2)),
            };
            let events = match replacer.replace(ordinals, *why).await? {
                Replaced::Gone(event) => vec![event],
                Replaced::Overtaken => Vec::new(),
                Replaced::NotAllowed => {
                    let going = ordinals.iter().filter_map(|at| inputs.pods.get(at));
                    going.for_each(|pod| self.refusals.note(uid_of(pod)));
                    Vec::new()
                }
            };
            return Ok(Acted {
                events,
                next: Next::After(LOOK),
            });
        }
        let (due, wait) = self.pace.due(self.key, kept.transfers);
        let mut next = match wait {
            Some(wait) => sooner(kept.next, Next::After(wait)),
            None => kept.next,
        };
        if due.is_empty() {
            return Ok(Acted {
                events: Vec::new(),
                next,
            });
        }
        self.pace.note(self.key, &due);
        let transferrer = Transferrer {
            context: self.context,
            owner: self.owner,
            inputs,
        };
        let event = transferrer.transfer(&due).await;
        next = sooner(next, Next::After(LATER));
        Ok(Acted {
            events: event.into_iter().collect(),
            next,
        })
    }
}

/// The sooner of two.
#[must_use]
pub fn sooner(one: Next, other: Next) -> Next {
    match (one, other) {
        (Next::After(one), Next::After(other)) => Next::After(one.min(other)),
        (Next::After(time), Next::OnChange) | (Next::OnChange, Next::After(time)) => {
            Next::After(time)
        }
        (Next::OnChange, Next::OnChange) => Next::OnChange,
    }
}

fn uid_of(pod: &StoragePodView) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

fn is_up(inputs: &Inputs, ordinal: u32) -> bool {
    let state = inputs.nodes.get(&ordinal);
    state.and_then(NodeState::view).is_some()
}

fn pod_state(pod: &StoragePodView, answers: bool) -> PodState {
    if answers {
        PodState::Serving
    } else if pod.never_started() {
        PodState::NeverStarted
    } else if pod.is_down() {
        PodState::Down
    } else {
        PodState::Silent
    }
}
