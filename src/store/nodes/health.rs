//! Which partitions and nodes are well, and what to say of those that are not. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::store::bootstrap::plan_record::{Plan, PlannedPartition};
use crate::store::members::placement::newest_membership;
use crate::store::names;
use crate::store::nodes::node_view::NodeView;
use crate::store::nodes::watches::NodeState;
use crate::store::objects::pods::StoragePodView;
use crate::store::status::pod_trouble::{self, Trouble};
use atomix_resources::store::UnhealthyPartition;

/// How many unhealthy partitions a status lists.
const LISTED: usize = 20;

/// The partitions of a Store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionHealth {
    /// All of them.
    pub total: u32,
    /// Those with a leader that a majority acknowledged.
    pub ready: u32,
    /// The first that are not.
    pub unhealthy: Vec<UnhealthyPartition>,
}

/// Judges every partition of the plan.
#[must_use]
pub fn partitions(store: &str, plan: &Plan, nodes: &BTreeMap<u32, NodeState>) -> PartitionHealth {
    let (mut total, mut ready) = (0, 0);
    let mut unhealthy = Vec::new();
    for partition in &plan.partitions {
        total += 1;
        match judge(store, plan, partition, nodes) {
            None => ready += 1,
            Some(problem) if unhealthy.len() < LISTED => unhealthy.push(problem),
            Some(_) => {}
        }
    }
    PartitionHealth {
        total,
        ready,
        unhealthy,
    }
}

fn judge(
    store: &str,
    plan: &Plan,
    partition: &PlannedPartition,
    nodes: &BTreeMap<u32, NodeState>,
) -> Option<UnhealthyPartition> {
    let views: BTreeMap<u32, NodeView> = nodes
        .iter()
        .filter_map(|(ordinal, state)| Some((*ordinal, state.view()?.clone())))
        .collect();
    let is_ours =
        |view: &&NodeView| view.store_uid == plan.store_uid && view.incarnation == plan.incarnation;
    let mut groups = views
        .values()
        .filter(is_ours)
        .filter_map(|view| view.groups.get(&partition.partition));
    if groups.any(|group| group.leads) {
        return None;
    }
    let voters = voters(store, plan, partition, &views);
    let (mut silent, mut lost) = (Vec::new(), Vec::new());
    for voter in &voters {
        let pod = match voter.ordinal {
            Some(ordinal) => names::pod(store, ordinal),
            None => "a pod that is unknown".to_owned(),
        };
        match voter.ordinal.and_then(|ordinal| views.get(&ordinal)) {
            None => silent.push(pod),
            Some(view) if view.node_id != voter.node_id => lost.push(pod),
            Some(view) => {
                let group = view.groups.get(&partition.partition);
                if group.is_none_or(|group| group.member_id != voter.member) || !is_ours(&view) {
                    silent.push(pod);
                }
            }
        }
    }
    let majority = voters.len() / 2 + 1;
    let (reason, message) = if voters.len() - lost.len() < majority {
        let pods = lost.join(", ");
        let left = if lost.len() == voters.len() {
            "no copy is left: restore a disk from a backup, or delete the Store".to_owned()
        } else {
            format!(
                "to go on with a copy that is left, and lose what only the others had, run \
                 `kubectl atomix store recover {store} --partition {}`; the other partitions go on",
                partition.partition
            )
        };
        let message = format!("a majority of its copies is gone with the disks of {pods}; {left}");
        ("QuorumLost", message)
    } else if voters.len() - lost.len() - silent.len() < majority {
        let pods = silent.join(", ");
        let message = format!("no majority: no member on {pods}; get these pods running again");
        ("QuorumUnavailable", message)
    } else {
        let message = "its members are electing a leader: no action; if it lasts, look at the logs \
                       of the storage pods";
        ("NoLeader", message.to_owned())
    };
    Some(UnhealthyPartition {
        partition: partition.partition,
        reason: reason.to_owned(),
        message,
    })
}

/// A voter and where it is.
struct Voter {
    member: u64,
    node_id: u64,
    ordinal: Option<u32>,
}

/// The voters of a partition as its newest member tells, or else as they were first planned.
fn voters(
    store: &str,
    plan: &Plan,
    partition: &PlannedPartition,
    views: &BTreeMap<u32, NodeView>,
) -> Vec<Voter> {
    if let Some(newest) = newest_membership(plan, views, partition.partition) {
        let voters = newest.voters.iter().filter_map(|member| {
            let (node_id, address) = newest.places.get(member)?;
            Some(Voter {
                member: *member,
                node_id: *node_id,
                ordinal: names::ordinal_of_address(store, address),
            })
        });
        return voters.collect();
    }
    let planned = partition.members.iter().map(|(ordinal, member)| Voter {
        member: member.0,
        node_id: plan.node(*ordinal).map_or(0, |node| node.node_id.0),
        ordinal: Some(*ordinal),
    });
    planned.collect()
}

/// What is wrong with the pods, in the order of their ordinals.
#[must_use]
pub fn troubles(pods: &BTreeMap<u32, Arc<StoragePodView>>) -> Vec<Trouble> {
    pods.values()
        .filter_map(|pod| pod_trouble::of(pod))
        .collect()
}

/// Those of these pods that do not serve, although Kubernetes reports no trouble with them, each with
/// why.
#[must_use]
pub fn silent_pods(
    store: &str,
    ordinals: impl IntoIterator<Item = u32>,
    nodes: &BTreeMap<u32, NodeState>,
) -> Vec<String> {
    let silent = ordinals.into_iter().filter_map(|ordinal| {
        let why = match nodes.get(&ordinal) {
            Some(NodeState::Up(_)) => return None,
            Some(NodeState::Unheard) => "it is not connected yet",
            Some(NodeState::Silent(why)) => why.as_str(),
            None => "it has no pod",
        };
        Some(format!("{} ({why})", names::pod(store, ordinal)))
    });
    silent.collect()
}
