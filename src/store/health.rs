//! Which partitions and nodes are well, and what to say of those that are not. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::names;
use super::plan_record::{Plan, PlannedPartition};
use super::pod_trouble::{self, Trouble};
use super::pods::StoragePodView;
use super::watches::NodeState;
use crate::crd::store::UnhealthyPartition;

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
    let mut missing = Vec::new();
    for (ordinal, member) in &partition.members {
        let view = nodes.get(ordinal).and_then(NodeState::view);
        let group = view
            .filter(|view| view.store_uid == plan.store_uid && view.incarnation == plan.incarnation)
            .and_then(|view| view.groups.get(&partition.partition))
            .filter(|group| group.member_id == member.0);
        match group {
            Some(group) if group.leads => return None,
            Some(_) => {}
            None => missing.push(names::pod(store, *ordinal)),
        }
    }
    let majority = partition.members.len() / 2 + 1;
    let (reason, message) = if partition.members.len() - missing.len() < majority {
        let pods = missing.join(", ");
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

/// What is wrong with the pods, in the order of their ordinals.
#[must_use]
pub fn troubles(pods: &BTreeMap<u32, Arc<StoragePodView>>) -> Vec<Trouble> {
    pods.values()
        .filter_map(|pod| pod_trouble::of(pod))
        .collect()
}

/// The pods that do not serve, although Kubernetes reports no trouble with them, each with why.
#[must_use]
pub fn silent_pods(store: &str, replicas: u32, nodes: &BTreeMap<u32, NodeState>) -> Vec<String> {
    let silent = (0..replicas).filter_map(|ordinal| {
        let why = match nodes.get(&ordinal) {
            Some(NodeState::Up(_)) => return None,
            Some(NodeState::Silent(why)) => why.as_str(),
            None => "it has no pod",
        };
        Some(format!("{} ({why})", names::pod(store, ordinal)))
    });
    silent.collect()
}
