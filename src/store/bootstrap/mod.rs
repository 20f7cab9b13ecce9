//! The decision how to bootstrap a Store once, ever. Pure: observation in, actions out.
//!
//! Not for carrying actions out (`apply`) nor for the form of the plan (`plan_record`).
//!
//! Why it cannot go wrong:
//! - There is one stored plan. It is made by CREATE and changed by PUT with the resource version,
//!   so of two operators one wins and the other reads what the winner wrote.
//! - Nodes are only told what is stored, and refuse an older incarnation.
//! - The mark says that every planned member exists and every group has committed. It is written
//!   to the same object as the plan, so a plan is never replaced after the mark, nor marked after
//!   it was replaced. Until the mark no client is connected, so a replaced plan loses nothing.
//! - After the mark no Bootstrap is sent: a member that lost its disk would vote with an empty log.

pub mod adoption;
pub mod carry_out;
mod first_members;
pub mod plan_record;
pub mod plan_store;

use std::collections::{BTreeMap, BTreeSet};

use first_members::first_members;

use crate::store::bootstrap::adoption::{Adoption, adopt};
use crate::store::bootstrap::plan_record::{HexId, Plan, PlannedNode, PlannedPartition};
use crate::store::nodes::node_view::NodeView;
use crate::store::spec::validate::Timings;

/// What the Store asks for, as far as the bootstrap is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Desired {
    /// The uid of the Store object.
    pub store_uid: String,
    /// Peer address of each ordinal.
    pub addresses: Vec<String>,
    /// Number of partitions.
    pub partitions: u32,
    /// Members of each partition; at most as many as there are addresses.
    pub replication_factor: u32,
    /// Raft's settings.
    pub timings: Timings,
    /// Data dies with the pods, by the user's wish.
    pub ephemeral: bool,
}

/// What is known now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// The stored plan.
    pub stored: StoredPlan,
    /// The Store's status says that the mark was written once.
    pub was_bootstrapped: bool,
    /// What the node at each ordinal answered; `None` = no answer.
    pub nodes: Vec<Option<NodeView>>,
    /// How many pods there are meant to be; 0 = there is no StatefulSet.
    pub live_replicas: u32,
    /// The zone of each ordinal, where it is known.
    pub zones: BTreeMap<u32, String>,
}

/// The ConfigMap with the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoredPlan {
    /// There is none.
    Absent,
    /// It belongs to an earlier Store of this name; the garbage collector removes it.
    OfEarlierStore,
    /// Somebody else's object has the name; whose, as an end of a sentence.
    NameTaken(String),
    /// It cannot be read.
    Damaged(String),
    /// Ours.
    Ours {
        /// The plan.
        plan: Box<Plan>,
        /// Whether the mark is written.
        bootstrapped: bool,
    },
}

/// One thing to do. Carried out in order; the first failure ends the pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// CREATE the plan.
    CreatePlan(Box<Plan>),
    /// CREATE the plan that the nodes' data came from, marked: nothing is sent to them.
    AdoptPlan(Box<Plan>),
    /// PUT another plan in place of the one that was read.
    ReplacePlan(Box<Plan>),
    /// Send the stored plan to the node with this ordinal.
    Bootstrap {
        /// The ordinal.
        ordinal: u32,
    },
    /// PUT the mark.
    MarkBootstrapped,
}

/// Where the bootstrap stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// The nodes with these ordinals have not answered.
    WaitingForNodes(Vec<u32>),
    /// The plan of an earlier Store of this name must be gone first.
    WaitingForEarlierPlan,
    /// Somebody else's object has the plan's name; whose, as an end of a sentence.
    NameTaken(String),
    /// The plan is being made or carried out; partitions that have not committed yet.
    Bootstrapping {
        /// Partition ids.
        uncommitted: Vec<u32>,
    },
    /// The mark is written: from now on members change by `placement`.
    Done,
    /// Disks hold groups of another Store: ordinal and that store's uid.
    ExistingData(BTreeMap<u32, String>),
    /// There are groups without a plan, and they are not this Store's; why.
    Unadoptable(String),
    /// The Store was bootstrapped, but plan and data are gone.
    PlanMissing,
    /// The plan cannot be read.
    PlanDamaged(String),
}

/// What to do, and where that leaves the Store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// In order.
    pub actions: Vec<Action>,
    /// For the status.
    pub phase: Phase,
}

impl Decision {
    fn wait(phase: Phase) -> Self {
        Self {
            actions: Vec::new(),
            phase,
        }
    }
}

/// Decides. `mint` returns a fresh id of 63 random bits at each call.
pub fn decide(desired: &Desired, observed: &Observed, mint: &mut dyn FnMut() -> u64) -> Decision {
    match &observed.stored {
        StoredPlan::OfEarlierStore => Decision::wait(Phase::WaitingForEarlierPlan),
        StoredPlan::NameTaken(owner) => Decision::wait(Phase::NameTaken(owner.clone())),
        StoredPlan::Damaged(why) => Decision::wait(Phase::PlanDamaged(why.clone())),
        StoredPlan::Absent => decide_without_plan(desired, observed, mint),
        StoredPlan::Ours { plan, bootstrapped } => {
            let foreign = foreign_data(observed, &plan.store_uid);
            if !foreign.is_empty() {
                return Decision::wait(Phase::ExistingData(foreign));
            }
            if *bootstrapped {
                decide_after_mark(desired, observed, plan, mint)
            } else {
                decide_before_mark(desired, observed, plan, mint)
            }
        }
    }
}

fn decide_without_plan(
    desired: &Desired,
    observed: &Observed,
    mint: &mut dyn FnMut() -> u64,
) -> Decision {
    let mut nodes = observed.nodes.iter().flatten();
    if nodes.any(|node| !node.groups.is_empty()) {
        return match adopt(desired, observed) {
            Adoption::Plan(plan) => Decision {
                actions: vec![Action::AdoptPlan(plan)],
                phase: Phase::Bootstrapping {
                    uncommitted: Vec::new(),
                },
            },
            Adoption::Waiting(silent) => Decision::wait(Phase::WaitingForNodes(silent)),
            Adoption::Unfit(why) => Decision::wait(Phase::Unadoptable(why)),
        };
    }
    if observed.was_bootstrapped {
        return Decision::wait(Phase::PlanMissing);
    }
    match all_answered(desired, observed) {
        Ok(nodes) => Decision {
            actions: vec![Action::CreatePlan(Box::new(new_plan(
                desired,
                &observed.zones,
                &nodes,
                1,
                mint,
            )))],
            phase: Phase::Bootstrapping {
                uncommitted: (1..=desired.partitions).collect(),
            },
        },
        Err(silent) => Decision::wait(Phase::WaitingForNodes(silent)),
    }
}

fn decide_before_mark(
    desired: &Desired,
    observed: &Observed,
    plan: &Plan,
    mint: &mut dyn FnMut() -> u64,
) -> Decision {
    let uncommitted = uncommitted(observed, plan);
    if !lost_disks(observed, plan).is_empty() {
        // The new plan names a disk for every ordinal, so every ordinal must have answered.
        return match all_answered(desired, observed) {
            Ok(nodes) => {
                let incarnation = plan.incarnation.saturating_add(1);
                let plan = new_plan(desired, &observed.zones, &nodes, incarnation, mint);
                Decision {
                    actions: vec![Action::ReplacePlan(Box::new(plan))],
                    phase: Phase::Bootstrapping { uncommitted },
                }
            }
            Err(silent) => Decision::wait(Phase::WaitingForNodes(silent)),
        };
    }
    let (mut silent, mut actions) = (Vec::new(), Vec::new());
    let mut complete_nodes = 0_usize;
    for (ordinal, _) in (0_u32..).zip(&plan.nodes) {
        match view_of(observed, ordinal) {
            None => silent.push(ordinal),
            Some(node) if holds_all_members(node, plan, ordinal) => complete_nodes += 1,
            Some(_) => actions.push(Action::Bootstrap { ordinal }),
        }
    }
    if complete_nodes == plan.nodes.len() && uncommitted.is_empty() {
        actions.push(Action::MarkBootstrapped);
    }
    if actions.is_empty() && !silent.is_empty() {
        return Decision::wait(Phase::WaitingForNodes(silent));
    }
    Decision {
        actions,
        phase: Phase::Bootstrapping { uncommitted },
    }
}

fn decide_after_mark(
    desired: &Desired,
    observed: &Observed,
    plan: &Plan,
    mint: &mut dyn FnMut() -> u64,
) -> Decision {
    if desired.ephemeral
        && is_nowhere(observed, plan)
        && let Ok(nodes) = all_answered(desired, observed)
    {
        let incarnation = plan.incarnation.saturating_add(1);
        let plan = new_plan(desired, &observed.zones, &nodes, incarnation, mint);
        return Decision {
            actions: vec![Action::ReplacePlan(Box::new(plan))],
            phase: Phase::Bootstrapping {
                uncommitted: (1..=desired.partitions).collect(),
            },
        };
    }
    Decision::wait(Phase::Done)
}

/// Every pod that there is has answered with an empty disk, and none of them with one of the plan's:
/// members have moved since, so no single disk says that all data is gone.
fn is_nowhere(observed: &Observed, plan: &Plan) -> bool {
    let mut pods = (0..observed.live_replicas).map(|ordinal| view_of(observed, ordinal));
    observed.live_replicas > 0
        && pods.all(|view| {
            view.is_some_and(|view| {
                let is_planned = |planned: &PlannedNode| planned.node_id.0 == view.node_id;
                view.groups.is_empty() && !plan.nodes.iter().any(is_planned)
            })
        })
}

fn view_of(observed: &Observed, ordinal: u32) -> Option<&NodeView> {
    let at = usize::try_from(ordinal).ok()?;
    observed.nodes.get(at)?.as_ref()
}

/// Every ordinal's node, or the ordinals that are silent.
fn all_answered<'a>(
    desired: &Desired,
    observed: &'a Observed,
) -> Result<Vec<&'a NodeView>, Vec<u32>> {
    let mut nodes = Vec::new();
    let mut silent = Vec::new();
    for (ordinal, _) in (0_u32..).zip(&desired.addresses) {
        match view_of(observed, ordinal) {
            Some(node) => nodes.push(node),
            None => silent.push(ordinal),
        }
    }
    if silent.is_empty() {
        Ok(nodes)
    } else {
        Err(silent)
    }
}

fn foreign_data(observed: &Observed, store_uid: &str) -> BTreeMap<u32, String> {
    let nodes = (0_u32..).zip(&observed.nodes);
    let holding = nodes.filter_map(|(ordinal, node)| Some((ordinal, node.as_ref()?)));
    holding
        .filter(|(_, node)| !node.groups.is_empty() && node.store_uid != store_uid)
        .map(|(ordinal, node)| (ordinal, node.store_uid.clone()))
        .collect()
}

/// Ordinals that answer with another disk than the plan's.
fn lost_disks(observed: &Observed, plan: &Plan) -> Vec<u32> {
    let planned = (0_u32..).zip(&plan.nodes);
    let lost = planned.filter(|(ordinal, planned)| {
        view_of(observed, *ordinal).is_some_and(|node| node.node_id != planned.node_id.0)
    });
    lost.map(|(ordinal, _)| ordinal).collect()
}

fn holds_all_members(node: &NodeView, plan: &Plan, ordinal: u32) -> bool {
    let mut own = plan.partitions.iter().filter_map(|partition| {
        let member = partition.members.get(&ordinal)?;
        Some((partition.partition, *member))
    });
    let is_held = |(partition, member): (u32, HexId)| {
        let group = node.groups.get(&partition);
        group.is_some_and(|group| group.member_id == member.0)
    };
    // A node without any member of its own has no incarnation either.
    own.all(is_held) && (node.groups.is_empty() || node.incarnation == plan.incarnation)
}

/// Partitions of which no planned member reports a committed entry.
fn uncommitted(observed: &Observed, plan: &Plan) -> Vec<u32> {
    let has_committed = |partition: &PlannedPartition| {
        partition.members.iter().any(|(ordinal, member)| {
            view_of(observed, *ordinal)
                .filter(|node| node.incarnation == plan.incarnation)
                .and_then(|node| node.groups.get(&partition.partition))
                .is_some_and(|group| group.member_id == member.0 && group.has_committed)
        })
    };
    let waiting = plan
        .partitions
        .iter()
        .filter(|partition| !has_committed(partition));
    waiting.map(|partition| partition.partition).collect()
}

/// A plan for these disks: members spread over nodes and zones, initializers where there are fewest.
fn new_plan(
    desired: &Desired,
    zones: &BTreeMap<u32, String>,
    nodes: &[&NodeView],
    incarnation: u64,
    mint: &mut dyn FnMut() -> u64,
) -> Plan {
    let mut used = BTreeSet::from([0]);
    let mut fresh = || {
        loop {
            let id = mint() >> 1;
            if used.insert(id) {
                return HexId(id);
            }
        }
    };
    let count = u32::try_from(nodes.len()).unwrap_or(u32::MAX);
    let copies = desired.replication_factor;
    let places = first_members(count, desired.partitions, copies, zones);
    let mut initializers: BTreeMap<u32, u32> = BTreeMap::new();
    let mut partitions = Vec::new();
    for (partition, ordinals) in (1..).zip(places) {
        let members: BTreeMap<u32, HexId> = ordinals
            .into_iter()
            .map(|ordinal| (ordinal, fresh()))
            .collect();
        let idle = |ordinal: &&u32| initializers.get(*ordinal).copied().unwrap_or(0);
        let Some(initializer) = members.keys().min_by_key(idle).copied() else {
            continue;
        };
        *initializers.entry(initializer).or_insert(0) += 1;
        partitions.push(PlannedPartition {
            partition,
            members,
            initializer,
        });
    }
    let planned = nodes
        .iter()
        .zip(&desired.addresses)
        .map(|(node, address)| PlannedNode {
            node_id: HexId(node.node_id),
            address: address.clone(),
        });
    let election_timeout = desired.timings.election_timeout.as_millis();
    Plan {
        store_uid: desired.store_uid.clone(),
        incarnation,
        election_timeout_millis: u64::try_from(election_timeout).unwrap_or(u64::MAX),
        snapshot_entry_threshold: desired.timings.snapshot_entry_threshold,
        nodes: planned.collect(),
        partitions,
    }
}

#[cfg(test)]
mod tests;
