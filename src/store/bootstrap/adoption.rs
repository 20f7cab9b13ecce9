//! Data without a plan: a Store was deleted and its disks were kept, or the plan's ConfigMap is
//! gone. What the nodes hold says what the plan must have been. Pure.
//!
//! The groups go on as they are, under the uid of the Store that began them; nothing is sent to any
//! node. So an adopted plan is marked from the start, and members move by `placement` alone.

use std::collections::{BTreeMap, BTreeSet};

use crate::store::bootstrap::plan_record::{HexId, Plan, PlannedNode, PlannedPartition};
use crate::store::bootstrap::{Desired, Observed};
use crate::store::nodes::node_view::NodeView;

/// What is to become of data that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Adoption {
    /// This is its plan.
    Plan(Box<Plan>),
    /// These ordinals have not answered yet.
    Waiting(Vec<u32>),
    /// It is not this Store's; why, and what a person can do.
    Unfit(String),
}

/// Makes the plan that the found data must have come from.
#[must_use]
pub fn adopt(desired: &Desired, observed: &Observed) -> Adoption {
    let mut nodes: Vec<&NodeView> = Vec::new();
    let mut silent = Vec::new();
    for (ordinal, address) in (0_u32..).zip(&desired.addresses) {
        let at = usize::try_from(ordinal).unwrap_or(usize::MAX);
        match observed.nodes.get(at).and_then(Option::as_ref) {
            Some(view) => nodes.push(view),
            None => silent.push((ordinal, address)),
        }
    }
    if !silent.is_empty() {
        let ordinals = silent.into_iter().map(|(ordinal, _)| ordinal);
        return Adoption::Waiting(ordinals.collect());
    }
    match plan(desired, &nodes) {
        Ok(plan) => Adoption::Plan(Box::new(plan)),
        Err(unfit) => Adoption::Unfit(unfit),
    }
}

fn plan(desired: &Desired, nodes: &[&NodeView]) -> Result<Plan, String> {
    let holders = nodes.iter().filter(|view| !view.groups.is_empty());
    let origins: BTreeSet<&str> = holders
        .clone()
        .map(|view| view.store_uid.as_str())
        .collect();
    let [store_uid] = origins.iter().copied().collect::<Vec<_>>()[..] else {
        return Err(format!(
            "they hold the data of {} different Stores ({})",
            origins.len(),
            origins.into_iter().collect::<Vec<_>>().join(", ")
        ));
    };
    let incarnation = holders.map(|view| view.incarnation).max().unwrap_or(0);
    let held = held_members(nodes, incarnation);
    let highest = held.keys().next_back().copied().unwrap_or(0);
    if highest != desired.partitions {
        return Err(format!(
            "they hold {highest} partitions and this Store has {}: create it with \
             spec.multiRaft.partitions: {highest}",
            desired.partitions
        ));
    }
    let mut partitions = Vec::new();
    for partition in 1..=desired.partitions {
        let members = held.get(&partition).cloned().unwrap_or_default();
        let Some(initializer) = members.keys().next().copied() else {
            return Err(format!(
                "no member of partition {partition} is on them that was ever part of its group: \
                 start with as many replicas as the earlier Store had"
            ));
        };
        partitions.push(PlannedPartition {
            partition,
            members,
            initializer,
        });
    }
    let planned = nodes.iter().zip(&desired.addresses);
    let planned = planned.map(|(node, address)| PlannedNode {
        node_id: HexId(node.node_id),
        address: address.clone(),
    });
    let election_timeout = desired.timings.election_timeout.as_millis();
    Ok(Plan {
        store_uid: store_uid.to_owned(),
        incarnation,
        election_timeout_millis: u64::try_from(election_timeout).unwrap_or(u64::MAX),
        snapshot_entry_threshold: desired.timings.snapshot_entry_threshold,
        nodes: planned.collect(),
        partitions,
    })
}

/// By partition and ordinal, the members that have seen a membership.
fn held_members(nodes: &[&NodeView], incarnation: u64) -> BTreeMap<u32, BTreeMap<u32, HexId>> {
    let mut held: BTreeMap<u32, BTreeMap<u32, HexId>> = BTreeMap::new();
    for (ordinal, view) in (0_u32..).zip(nodes) {
        if view.incarnation != incarnation {
            continue;
        }
        for (partition, group) in &view.groups {
            let members = held.entry(*partition).or_default();
            if group.membership.is_some() {
                members.insert(ordinal, HexId(group.member_id));
            }
        }
    }
    held
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::bootstrap::StoredPlan;
    use crate::store::nodes::node_view::{GroupView, MembershipView};
    use crate::store::spec::validate::Timings;

    fn desired(replicas: u32, partitions: u32) -> Desired {
        Desired {
            store_uid: "new".to_owned(),
            addresses: (0..replicas)
                .map(|ordinal| format!("n-{ordinal}"))
                .collect(),
            partitions,
            replication_factor: 3,
            timings: Timings {
                election_timeout: Duration::from_secs(1),
                snapshot_entry_threshold: 0,
            },
            ephemeral: false,
        }
    }

    fn view(node_id: u64, uid: &str, groups: &[(u32, u64, bool)]) -> Option<NodeView> {
        let groups = groups.iter().map(|(partition, member_id, is_admitted)| {
            let group = GroupView {
                member_id: *member_id,
                membership: is_admitted.then(MembershipView::default),
                ..GroupView::default()
            };
            (*partition, group)
        });
        Some(NodeView {
            node_id,
            store_uid: uid.to_owned(),
            incarnation: 2,
            version: String::new(),
            operator: String::new(),
            groups: groups.collect(),
        })
    }

    fn adopted(nodes: Vec<Option<NodeView>>, partitions: u32) -> Adoption {
        let desired = desired(u32::try_from(nodes.len()).unwrap_or(0), partitions);
        let observed = Observed {
            stored: StoredPlan::Absent,
            was_bootstrapped: false,
            nodes,
            zones: BTreeMap::new(),
            live_replicas: 0,
        };
        adopt(&desired, &observed)
    }

    #[test]
    fn the_plan_is_what_the_nodes_hold_and_keeps_whose_data_it_is() {
        let nodes = vec![
            view(7, "old", &[(1, 10, true), (2, 20, true)]),
            view(8, "", &[]),
            view(9, "old", &[(1, 12, true), (2, 22, false)]),
        ];
        let Adoption::Plan(plan) = adopted(nodes, 2) else {
            panic!("it fits");
        };
        assert_eq!((plan.store_uid.as_str(), plan.incarnation), ("old", 2));
        let members: Vec<Vec<(u32, u64)>> = plan
            .partitions
            .iter()
            .map(|planned| planned.members.iter().map(|(at, id)| (*at, id.0)).collect())
            .collect();
        // A Join that never got anything is no member.
        assert_eq!(members, [vec![(0, 10), (2, 12)], vec![(0, 20)]]);
        assert_eq!(Plan::parse(&plan.to_json()), Ok(*plan), "it can be stored");
    }

    #[test]
    fn what_is_not_whole_is_not_adopted() {
        let whole = || view(7, "old", &[(1, 10, true), (2, 20, true)]);
        assert_eq!(adopted(vec![whole(), None], 2), Adoption::Waiting(vec![1]));
        for (nodes, partitions, says) in [
            (vec![whole()], 3, "spec.multiRaft.partitions: 2"),
            (vec![whole()], 1, "spec.multiRaft.partitions: 2"),
            (
                vec![whole(), view(8, "other", &[(1, 11, true)])],
                2,
                "2 different Stores (old, other)",
            ),
            (
                vec![view(7, "old", &[(2, 20, true)])],
                2,
                "no member of partition 1",
            ),
            (
                vec![view(7, "old", &[(1, 10, false), (2, 20, true)])],
                2,
                "no member of partition 1",
            ),
        ] {
            let Adoption::Unfit(why) = adopted(nodes, partitions) else {
                panic!("it does not fit: {says}");
            };
            assert!(why.contains(says), "{why}");
        }
    }
}
