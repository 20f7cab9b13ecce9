//! Tables of single decisions; `model` plays whole histories.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::store::nodes::node_view::{GroupView, MembershipView};

mod model;

const UID: &str = "store-uid";

fn desired(replicas: u32, partitions: u32, factor: u32) -> Desired {
    Desired {
        store_uid: UID.to_owned(),
        addresses: (0..replicas)
            .map(|ordinal| format!("tulip-{ordinal}:5681"))
            .collect(),
        partitions,
        replication_factor: factor,
        timings: Timings {
            election_timeout: Duration::from_secs(1),
            snapshot_entry_threshold: 0,
        },
        ephemeral: false,
    }
}

fn empty_node(node_id: u64) -> NodeView {
    NodeView {
        node_id,
        store_uid: String::new(),
        incarnation: 0,
        version: "1".to_owned(),
        operator: String::new(),
        groups: BTreeMap::new(),
    }
}

fn counter() -> impl FnMut() -> u64 {
    let mut next = 0_u64;
    move || {
        next += 1;
        // Spread over 64 bits; ids are the upper 63.
        next.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

fn observed(stored: StoredPlan, nodes: Vec<Option<NodeView>>) -> Observed {
    Observed {
        stored,
        was_bootstrapped: false,
        live_replicas: u32::try_from(nodes.len()).unwrap(),
        nodes,
        zones: BTreeMap::new(),
    }
}

/// The node as it is after it accepted the plan.
fn bootstrapped_node(plan: &Plan, ordinal: u32, has_committed: bool) -> NodeView {
    let groups = plan
        .request_for(ordinal)
        .partitions
        .into_iter()
        .map(|config| {
            let view = GroupView {
                member_id: config.member_id,
                has_committed,
                ..GroupView::default()
            };
            (config.partition_id, view)
        });
    NodeView {
        store_uid: plan.store_uid.clone(),
        incarnation: plan.incarnation,
        groups: groups.collect(),
        ..empty_node(plan.node(ordinal).unwrap().node_id.0)
    }
}

fn made_plan(desired: &Desired, node_ids: &[u64]) -> Plan {
    let nodes: Vec<NodeView> = node_ids.iter().map(|id| empty_node(*id)).collect();
    new_plan(
        desired,
        &BTreeMap::new(),
        &nodes.iter().collect::<Vec<_>>(),
        1,
        &mut counter(),
    )
}

fn ours(plan: &Plan, bootstrapped: bool) -> StoredPlan {
    StoredPlan::Ours {
        plan: Box::new(plan.clone()),
        bootstrapped,
    }
}

#[test]
fn found_data_is_adopted_once_every_ordinal_has_answered_and_is_never_bootstrapped() {
    let desired = desired(3, 4, 3);
    let plan = made_plan(&desired, &[1, 2, 3]);
    let earlier = Plan {
        store_uid: "earlier".to_owned(),
        incarnation: 4,
        ..plan
    };
    let node = |ordinal| {
        let mut node = bootstrapped_node(&earlier, ordinal, true);
        for group in node.groups.values_mut() {
            group.membership = Some(MembershipView::default());
        }
        Some(node)
    };
    let waiting = observed(StoredPlan::Absent, vec![node(0), None, node(2)]);
    let decision = decide(&desired, &waiting, &mut counter());
    assert_eq!(decision, Decision::wait(Phase::WaitingForNodes(vec![1])));

    // One disk is empty: the groups go on with the others.
    let found = observed(
        StoredPlan::Absent,
        vec![node(0), Some(empty_node(9)), node(2)],
    );
    let decision = decide(&desired, &found, &mut counter());
    let [Action::AdoptPlan(adopted)] = decision.actions.as_slice() else {
        panic!("{decision:?}");
    };
    assert_eq!(
        (adopted.store_uid.as_str(), adopted.incarnation),
        ("earlier", 4)
    );
    let marked = observed(ours(adopted, true), found.nodes.clone());
    let decision = decide(&desired, &marked, &mut counter());
    assert_eq!(decision, Decision::wait(Phase::Done));

    let unfit = Desired {
        partitions: 5,
        ..desired
    };
    let decision = decide(&unfit, &found, &mut counter());
    assert!(
        matches!(&decision.phase, Phase::Unadoptable(why) if why.contains("partitions: 4")),
        "{decision:?}"
    );
    assert!(decision.actions.is_empty());
}

#[test]
fn nothing_is_planned_before_every_ordinal_has_answered_empty() {
    let desired = desired(3, 4, 3);
    let silent = observed(
        StoredPlan::Absent,
        vec![Some(empty_node(1)), None, Some(empty_node(3))],
    );
    let decision = decide(&desired, &silent, &mut counter());
    assert_eq!(decision, Decision::wait(Phase::WaitingForNodes(vec![1])));

    let mut forgotten = observed(
        StoredPlan::Absent,
        vec![
            Some(empty_node(1)),
            Some(empty_node(2)),
            Some(empty_node(3)),
        ],
    );
    forgotten.was_bootstrapped = true;
    let decision = decide(&desired, &forgotten, &mut counter());
    assert_eq!(decision, Decision::wait(Phase::PlanMissing));

    forgotten.was_bootstrapped = false;
    let decision = decide(&desired, &forgotten, &mut counter());
    assert!(matches!(
        decision.actions.as_slice(),
        [Action::CreatePlan(_)]
    ));
}

#[test]
fn the_mark_waits_for_every_member_and_every_commit() {
    let desired = desired(3, 2, 3);
    let plan = made_plan(&desired, &[1, 2, 3]);
    let node = |ordinal, committed| Some(bootstrapped_node(&plan, ordinal, committed));
    let empty = |ordinal: u32| Some(empty_node(plan.node(ordinal).unwrap().node_id.0));
    for (nodes, expected) in [
        (
            vec![empty(0), empty(1), None],
            vec![
                Action::Bootstrap { ordinal: 0 },
                Action::Bootstrap { ordinal: 1 },
            ],
        ),
        (vec![node(0, true), node(1, true), None], vec![]),
        (
            vec![node(0, true), node(1, true), empty(2)],
            vec![Action::Bootstrap { ordinal: 2 }],
        ),
        (vec![node(0, false), node(1, false), node(2, false)], vec![]),
        (
            vec![node(0, false), node(1, true), node(2, false)],
            vec![Action::MarkBootstrapped],
        ),
    ] {
        let observed = observed(ours(&plan, false), nodes);
        assert_eq!(
            decide(&desired, &observed, &mut counter()).actions,
            expected
        );
    }
}

#[test]
fn a_lost_disk_means_a_new_incarnation_before_the_mark_and_never_after() {
    let mut desired = desired(3, 2, 3);
    let plan = made_plan(&desired, &[1, 2, 3]);
    let nodes = vec![
        Some(bootstrapped_node(&plan, 0, true)),
        Some(bootstrapped_node(&plan, 1, true)),
        Some(empty_node(9)),
    ];
    let before = decide(
        &desired,
        &observed(ours(&plan, false), nodes.clone()),
        &mut counter(),
    );
    let [Action::ReplacePlan(next)] = before.actions.as_slice() else {
        panic!("{before:?}");
    };
    assert_eq!(next.incarnation, 2);
    assert_eq!(next.node(2).unwrap().node_id, HexId(9));

    let after = decide(
        &desired,
        &observed(ours(&plan, true), nodes),
        &mut counter(),
    );
    assert_eq!(after, Decision::wait(Phase::Done));

    // Every disk is lost: only a Store whose data may die starts again.
    let all_new = vec![
        Some(empty_node(7)),
        Some(empty_node(8)),
        Some(empty_node(9)),
    ];
    let observed = observed(ours(&plan, true), all_new);
    let kept = decide(&desired, &observed, &mut counter());
    assert_eq!(kept, Decision::wait(Phase::Done));
    desired.ephemeral = true;
    let mut more_pods = observed.clone();
    more_pods.live_replicas = 4;
    let kept = decide(&desired, &more_pods, &mut counter());
    assert_eq!(
        kept,
        Decision::wait(Phase::Done),
        "one pod has not answered"
    );
    let renewed = decide(&desired, &observed, &mut counter());
    assert!(matches!(
        renewed.actions.as_slice(),
        [Action::ReplacePlan(_)]
    ));
}

#[test]
fn plans_that_are_not_ours_or_unreadable_stop_everything() {
    let desired = desired(1, 1, 1);
    for (stored, phase) in [
        (StoredPlan::OfEarlierStore, Phase::WaitingForEarlierPlan),
        (
            StoredPlan::NameTaken("belongs to nobody".to_owned()),
            Phase::NameTaken("belongs to nobody".to_owned()),
        ),
        (
            StoredPlan::Damaged("x".to_owned()),
            Phase::PlanDamaged("x".to_owned()),
        ),
    ] {
        let observed = observed(stored, vec![Some(empty_node(1))]);
        assert_eq!(
            decide(&desired, &observed, &mut counter()),
            Decision::wait(phase)
        );
    }
}

proptest! {
    #[test]
    fn members_and_initializers_are_spread_evenly(
        (replicas, factor) in prop_oneof![
            (1_u32..64, Just(1_u32)), (3_u32..64, Just(3)), (5_u32..64, Just(5)), (7_u32..64, Just(7)),
        ],
        partitions in 1_u32..200,
    ) {
        let desired = desired(replicas, partitions, factor);
        let ids: Vec<u64> = (1..=u64::from(replicas)).collect();
        let plan = made_plan(&desired, &ids);
        prop_assert_eq!(&Plan::parse(&plan.to_json()).unwrap(), &plan);
        let (mut members, mut initializers) = (vec![0_u32; ids.len()], vec![0_u32; ids.len()]);
        for partition in &plan.partitions {
            prop_assert_eq!(partition.members.len(), factor as usize);
            for (ordinal, member) in &partition.members {
                prop_assert!(member.0 < 1 << 63);
                members[*ordinal as usize] += 1;
            }
            initializers[partition.initializer as usize] += 1;
        }
        let spread = |counts: &[u32]| counts.iter().max().unwrap() - counts.iter().min().unwrap();
        prop_assert!(spread(&members) <= 1, "{:?}", members);
        prop_assert!(spread(&initializers) <= 2, "{:?}", initializers);
    }
}
