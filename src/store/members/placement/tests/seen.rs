//! From nodes' answers to what the planner looks at.

use std::time::Duration;

use super::*;
use crate::store::bootstrap::plan_record::{HexId, Plan, PlannedPartition};
use crate::store::nodes::node_view::{GroupView, MembershipView, NodeView};

fn stored_plan() -> Plan {
    let partition = |partition| PlannedPartition {
        partition,
        members: [(0, HexId(1))].into(),
        initializer: 0,
    };
    Plan {
        store_uid: "uid".to_owned(),
        incarnation: 3,
        election_timeout_millis: 1000,
        snapshot_entry_threshold: 0,
        nodes: Vec::new(),
        partitions: vec![partition(1), partition(2)],
    }
}

fn membership(index: u64, voters: &[u64]) -> MembershipView {
    let places = voters.iter().map(|member| {
        let address = format!("tulip-{}.tulip.meadow.svc:5681", member % 10);
        (*member, (member * 100, address))
    });
    MembershipView {
        position: (7, index),
        voters: voters.iter().copied().collect(),
        places: places.collect(),
        ..MembershipView::default()
    }
}

fn node(ordinal: u64, groups: impl IntoIterator<Item = (u32, GroupView)>) -> NodeView {
    NodeView {
        node_id: (10 + ordinal) * 100,
        store_uid: "uid".to_owned(),
        incarnation: 3,
        version: String::new(),
        operator: String::new(),
        groups: groups.into_iter().collect(),
    }
}

fn member(id: u64, term: u64, membership: Option<MembershipView>) -> GroupView {
    GroupView {
        member_id: id,
        term,
        membership,
        ..GroupView::default()
    }
}

fn see(nodes: &BTreeMap<u32, NodeView>, contact_limit: Option<Duration>) -> Observed {
    see_without_disks(nodes, contact_limit, &[])
}

fn see_without_disks(
    nodes: &BTreeMap<u32, NodeView>,
    contact_limit: Option<Duration>,
    without_disk: &[u32],
) -> Observed {
    let seen = Seen {
        store: "tulip",
        plan: &stored_plan(),
        leaders: nodes,
        holders: nodes,
        zones: &BTreeMap::new(),
        without_disk: &without_disk.iter().copied().collect(),
        live_replicas: 4,
        contact_limit,
    };
    seen.observed()
}

#[test]
fn a_group_is_what_its_newest_leader_says() {
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    let old_leader = GroupView {
        leads: true,
        ..member(10, 4, Some(membership(1, &[10])))
    };
    let leader = GroupView {
        leads: true,
        contacts: [(10, seconds(1)), (12, seconds(9)), (13, None)].into(),
        ..member(11, 5, Some(membership(8, &[10, 11, 12, 13])))
    };
    let joining = member(92, 0, None);
    let nodes = BTreeMap::from([
        (0, node(0, [(1, old_leader)])),
        (1, node(1, [(1, leader)])),
        (2, node(2, [(2, joining)])),
    ]);
    let observed = see(&nodes, seconds(2));
    let group = observed.groups[&1].as_ref().unwrap();
    assert_eq!((group.leader, group.membership), (11, (7, 8)));
    assert_eq!(group.silent, [12, 13].into());
    assert_eq!(group.ordinal_of(13), Some(3));
    assert_eq!(observed.groups[&2], None, "nobody leads it");
    assert_eq!(observed.nodes[&2].held[&2].state, HeldState::Joining);
    assert_eq!(observed.nodes[&1].held[&1].state, HeldState::Admitted);
    // A leader with a longer timeout is more patient.
    let mut patient = nodes.clone();
    let view = patient.get_mut(&1).unwrap().groups.get_mut(&1).unwrap();
    view.election_timeout = seconds(5);
    let observed = see(&patient, seconds(2));
    assert_eq!(observed.groups[&1].as_ref().unwrap().silent, [13].into());
    // What the watches told earlier says nothing of who is silent now.
    let observed = see(&nodes, None);
    assert!(observed.groups[&1].as_ref().unwrap().silent.is_empty());
}

#[test]
fn members_of_a_group_without_a_leader_are_known_from_hearsay() {
    let older = member(10, 4, Some(membership(1, &[10, 11])));
    let newer = member(12, 4, Some(membership(2, &[10, 12, 13])));
    let mut nodes = BTreeMap::from([(0, node(0, [(1, older)])), (2, node(2, [(1, newer)]))]);
    assert_eq!(see(&nodes, None).hearsay, [0, 2, 3].into());
    // Another disk is in the place of member 13.
    nodes.insert(
        3,
        NodeView {
            node_id: 5,
            ..node(3, [])
        },
    );
    assert_eq!(see(&nodes, None).hearsay, [0, 2].into());
}

#[test]
fn groups_that_are_not_of_this_store_are_no_members_of_it() {
    let held = || [(1, member(10, 4, Some(membership(1, &[10]))))];
    let nodes = BTreeMap::from([
        (
            0,
            NodeView {
                incarnation: 2,
                ..node(0, held())
            },
        ),
        (
            1,
            NodeView {
                incarnation: 4,
                ..node(1, held())
            },
        ),
        (
            2,
            NodeView {
                store_uid: "other".to_owned(),
                ..node(2, held())
            },
        ),
        (
            3,
            NodeView {
                store_uid: String::new(),
                incarnation: 0,
                ..node(3, [])
            },
        ),
    ]);
    let observed = see(&nodes, None);
    assert!(observed.nodes.values().all(|node| node.held.is_empty()));
    let foreign: Vec<bool> = observed
        .nodes
        .values()
        .map(|node| node.is_foreign)
        .collect();
    assert_eq!(
        foreign,
        [false, true, true, false],
        "a Join deletes an older one"
    );
    assert!(observed.hearsay.is_empty());
}

/// Five nodes, three copies of each partition, and the pod of ordinal 2 cannot be scheduled.
#[test]
fn a_disk_that_was_given_up_is_replaced_although_its_pod_is_pending() {
    let leader = |partition| {
        let view = GroupView {
            leads: true,
            contacts: [(11, Some(Duration::ZERO)), (12, None)].into(),
            ..member(10, 5, Some(membership(8, &[10, 11, 12])))
        };
        (partition, view)
    };
    let follower = |partition| (partition, member(11, 5, Some(membership(8, &[10, 11, 12]))));
    let nodes = BTreeMap::from([
        (0, node(0, [leader(1), leader(2)])),
        (1, node(1, [follower(1), follower(2)])),
        (3, node(3, [])),
        (4, node(4, [])),
    ]);
    let limit = Some(Duration::from_secs(2));
    let desired = Desired {
        replicas: 5,
        replication_factor: 3,
    };
    let decide = |observed: &Observed| plan(&desired, observed, &mut || 77);

    // It is only not seen: nothing is replaced.
    let observed = see(&nodes, limit);
    assert!(observed.lost_disks.is_empty());
    let decision = decide(&observed);
    assert!(decision.actions.is_empty() && decision.lost.is_empty());

    // Its claim is a new one: both copies are made elsewhere, on one node each.
    let observed = see_without_disks(&nodes, limit, &[2]);
    assert_eq!(observed.lost_disks, [1200].into());
    let decision = decide(&observed);
    assert_eq!(decision.lost, [(1, Some(2)), (2, Some(2))].into());
    let joins = decision.actions.iter().map(|action| match action {
        Action::Join(join) => (join.partition, join.ordinal, join.replaces, join.purpose),
        Action::Leave(leave) => panic!("{leave:?}"),
    });
    let joins: Vec<_> = joins.collect();
    assert_eq!(
        joins,
        [
            (1, 3, Some(12), Purpose::Repair),
            (2, 4, Some(12), Purpose::Repair),
        ]
    );
    // A claim says nothing of a disk that answers.
    let mut back = nodes.clone();
    back.insert(2, node(2, []));
    assert!(see_without_disks(&back, limit, &[2]).lost_disks.is_empty());
    // Nor of members elsewhere.
    assert!(
        see_without_disks(&nodes, limit, &[3, 4])
            .lost_disks
            .is_empty()
    );
}
