//! Which partitions and nodes are well, and what to say of those that are not. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::store::bootstrap::plan_record::{Plan, PlannedPartition};
use crate::store::members::placement::newest_membership;
use crate::store::names;
use crate::store::nodes::node_view::NodeView;
use crate::store::nodes::watches::NodeState;
use crate::store::objects::pods::StoragePodView;
use crate::store::reason::Reason;
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
    /// Some that are not, first those that have lost their majority for good.
    pub unhealthy: Vec<UnhealthyPartition>,
}

/// Judges every partition of the plan.
#[must_use]
pub fn partitions(store: &str, plan: &Plan, nodes: &BTreeMap<u32, NodeState>) -> PartitionHealth {
    let views = nodes
        .iter()
        .filter_map(|(ordinal, state)| Some((*ordinal, state.view()?)))
        .collect();
    let partitions = plan.partitions.iter();
    let mut unhealthy: Vec<_> = partitions
        .filter_map(|partition| judge(store, plan, partition, &views))
        .collect();
    let count = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
    let total = count(plan.partitions.len());
    let ready = total - count(unhealthy.len());
    // However many there are, what only a person can mend is told.
    unhealthy.sort_by_key(|partition| partition.reason != Reason::QuorumLost.as_str());
    unhealthy.truncate(LISTED);
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
    views: &BTreeMap<u32, &NodeView>,
) -> Option<UnhealthyPartition> {
    let is_ours =
        |view: &&NodeView| view.store_uid == plan.store_uid && view.incarnation == plan.incarnation;
    let mut groups = views
        .values()
        .copied()
        .filter(is_ours)
        .filter_map(|view| view.groups.get(&partition.partition));
    if groups.any(|group| group.leads) {
        return None;
    }
    let voters = voters(store, plan, partition, views);
    let (mut silent, mut lost) = (Vec::new(), Vec::new());
    for voter in &voters {
        let pod = match voter.ordinal {
            Some(ordinal) => names::pod(store, ordinal),
            None => "a pod that is unknown".to_owned(),
        };
        match voter
            .ordinal
            .and_then(|ordinal| views.get(&ordinal).copied())
        {
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
    views: &BTreeMap<u32, &NodeView>,
) -> Vec<Voter> {
    let nodes = views.values().copied();
    if let Some(newest) = newest_membership(plan, nodes, partition.partition) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::bootstrap::plan_record::{HexId, PlannedNode};
    use crate::store::nodes::node_view::GroupView;

    const PARTITIONS: u32 = 30;

    /// Three copies of each on nodes 0 to 2, but of the last one on nodes 2 to 4.
    fn plan() -> Plan {
        let partition = |partition: u32| {
            let first = if partition == PARTITIONS { 2 } else { 0 };
            PlannedPartition {
                partition,
                members: (first..first + 3)
                    .map(|ordinal| (ordinal, HexId(u64::from(partition * 10 + ordinal))))
                    .collect(),
                initializer: first,
            }
        };
        Plan {
            store_uid: "u".to_owned(),
            incarnation: 1,
            election_timeout_millis: 1000,
            snapshot_entry_threshold: 0,
            nodes: (1..=5)
                .map(|id| PlannedNode {
                    node_id: HexId(id),
                    address: format!("a{id}"),
                })
                .collect(),
            partitions: (1..=PARTITIONS).map(partition).collect(),
        }
    }

    /// A node with its members, none of which leads.
    fn node(ordinal: u32) -> NodeView {
        let of_plan = plan().partitions;
        let groups = of_plan.iter().filter_map(|partition| {
            let member_id = partition.members.get(&ordinal)?.0;
            let group = GroupView {
                member_id,
                has_committed: true,
                ..GroupView::default()
            };
            Some((partition.partition, group))
        });
        NodeView {
            node_id: u64::from(ordinal + 1),
            store_uid: "u".to_owned(),
            incarnation: 1,
            version: "0.1.0".to_owned(),
            operator: String::new(),
            groups: groups.collect(),
        }
    }

    fn judged(nodes: BTreeMap<u32, NodeState>) -> (u32, Vec<(u32, String)>) {
        let health = partitions("tulip", &plan(), &nodes);
        assert_eq!(health.total, PARTITIONS);
        let unhealthy = health.unhealthy.into_iter();
        let unhealthy = unhealthy.map(|partition| (partition.partition, partition.reason));
        (health.ready, unhealthy.collect())
    }

    fn up(ordinals: impl IntoIterator<Item = u32>) -> BTreeMap<u32, NodeState> {
        let nodes = ordinals.into_iter();
        nodes
            .map(|ordinal| (ordinal, NodeState::Up(node(ordinal))))
            .collect()
    }

    fn on_a_new_disk(ordinal: u32) -> NodeState {
        NodeState::Up(NodeView {
            node_id: u64::from(ordinal + 100),
            store_uid: String::new(),
            groups: BTreeMap::new(),
            ..node(ordinal)
        })
    }

    #[test]
    fn a_partition_is_ready_when_a_member_leads() {
        let mut leader = node(1);
        for group in leader.groups.values_mut() {
            group.leads = true;
        }
        let mut nodes = up(0..5);
        nodes.insert(1, NodeState::Up(leader));
        let (ready, unhealthy) = judged(nodes);
        assert_eq!(ready, PARTITIONS - 1);
        assert_eq!(unhealthy, [(PARTITIONS, "NoLeader".to_owned())]);
    }

    #[test]
    fn a_partition_is_lost_with_the_disks_of_a_majority_only() {
        for (gone, silent, expected) in [
            (vec![], vec![], "NoLeader"),
            (vec![0], vec![], "NoLeader"),
            (vec![], vec![0, 1], "QuorumUnavailable"),
            (vec![0], vec![1], "QuorumUnavailable"),
            (vec![0, 1], vec![], "QuorumLost"),
        ] {
            let mut nodes = up(0..5);
            for ordinal in &gone {
                nodes.insert(*ordinal, on_a_new_disk(*ordinal));
            }
            for ordinal in &silent {
                nodes.insert(*ordinal, NodeState::Silent("refused".to_owned()));
            }
            let (ready, unhealthy) = judged(nodes);
            assert_eq!(ready, 0);
            let first = unhealthy.first().map(|(_, reason)| reason.as_str());
            assert_eq!(first, Some(expected), "{gone:?} {silent:?}");
        }
    }

    #[test]
    fn one_that_is_lost_is_told_however_many_others_are_not_ready() {
        let mut nodes = up([2]);
        nodes.extend([3, 4].map(|ordinal| (ordinal, on_a_new_disk(ordinal))));
        let (ready, unhealthy) = judged(nodes);
        assert_eq!((ready, unhealthy.len()), (0, LISTED));
        assert_eq!(
            unhealthy.first(),
            Some(&(PARTITIONS, "QuorumLost".to_owned()))
        );
        assert_eq!(
            unhealthy.get(1),
            Some(&(1, "QuorumUnavailable".to_owned())),
            "then in their order"
        );
    }
}
