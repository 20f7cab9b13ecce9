//! Single plans, told apart.

use super::*;

/// Groups by the ordinals of their voters: member id = partition * 100 + ordinal, disk = ordinal + 1.
fn observed(groups: &[&[u32]], pods: u32) -> Observed {
    let mut observed = Observed {
        live_replicas: pods,
        ..Observed::default()
    };
    for ordinal in 0..pods {
        let node = Node {
            node_id: u64::from(ordinal) + 1,
            ..Node::default()
        };
        observed.nodes.insert(ordinal, node);
    }
    for (partition, ordinals) in (1_u32..).zip(groups) {
        let mut group = Group {
            membership: (3, 30),
            ..Group::default()
        };
        for ordinal in *ordinals {
            let member = id(partition, *ordinal);
            group.voters.insert(member);
            place(&mut group, member, *ordinal);
            hold(
                &mut observed,
                partition,
                *ordinal,
                member,
                HeldState::Admitted,
            );
        }
        group.leader = *group.voters.first().unwrap();
        observed.groups.insert(partition, Some(group));
    }
    observed
}

fn id(partition: u32, ordinal: u32) -> u64 {
    u64::from(partition * 100 + ordinal)
}

fn place(group: &mut Group, member: u64, ordinal: u32) {
    let place = Place {
        node_id: u64::from(ordinal) + 1,
        ordinal: Some(ordinal),
        address: format!("tulip-{ordinal}:5681"),
    };
    group.places.insert(member, place);
}

fn hold(observed: &mut Observed, partition: u32, ordinal: u32, member: u64, state: HeldState) {
    if let Some(node) = observed.nodes.get_mut(&ordinal) {
        let member_id = member;
        node.held.insert(partition, Held { member_id, state });
    }
}

fn group_of(observed: &mut Observed, partition: u32) -> &mut Group {
    observed
        .groups
        .get_mut(&partition)
        .unwrap()
        .as_mut()
        .unwrap()
}

const MINTED: u64 = 77;

fn decide(replicas: u32, factor: u32, observed: &Observed) -> Decision {
    let desired = Desired {
        replicas,
        replication_factor: factor,
    };
    plan(&desired, observed, &mut || MINTED)
}

/// One word a change.
fn shown(decision: &Decision) -> Vec<String> {
    let shown = decision.actions.iter().map(|action| match action {
        Action::Join(join) => format!(
            "join {} of {} at {} for {:?}, {:?}",
            join.member_id, join.partition, join.ordinal, join.replaces, join.purpose
        ),
        Action::Leave(leave) => format!(
            "leave {} of {} via {}, {:?}",
            leave.member_id, leave.partition, leave.via, leave.purpose
        ),
    });
    shown.collect()
}

#[test]
fn what_is_as_it_should_be_stays() {
    let all = observed(&[&[0, 1, 2], &[0, 1, 2], &[0, 1, 2]], 3);
    let decision = decide(3, 3, &all);
    assert!(decision.is_settled(), "{decision:?}");
    assert_eq!(decision.replicas, 3);
    assert_eq!(decision.potential.displaced, 0);
}

#[test]
fn new_nodes_get_members_one_at_a_time_from_the_fullest() {
    let seen = observed(&[&[0, 1, 2], &[0, 1, 2], &[0, 1, 2]], 5);
    let decision = decide(5, 3, &seen);
    assert_eq!(
        shown(&decision),
        ["join 77 of 1 at 3 for Some(102), Spread"]
    );
    assert_eq!(decision.replicas, 5);
}

#[test]
fn pods_go_only_after_their_members() {
    let all = observed(&[&[0, 1, 4], &[1, 2, 3]], 5);
    let decision = decide(3, 3, &all);
    assert_eq!(shown(&decision), ["join 77 of 1 at 2 for Some(104), Drain"]);
    assert_eq!(decision.replicas, 5);

    let moved = observed(&[&[0, 1, 2], &[1, 2, 3]], 5);
    let decision = decide(3, 3, &moved);
    assert_eq!(shown(&decision), ["join 77 of 2 at 0 for Some(203), Drain"]);
    assert_eq!(decision.replicas, 4, "the last pod is empty");

    // A pod that does not answer may hold anything, and one that holds something stays.
    let mut silent = observed(&[&[0, 1, 2], &[0, 1, 2]], 5);
    silent.nodes.remove(&4);
    assert_eq!(decide(3, 3, &silent).replicas, 5);
    silent.nodes.remove(&3);
    assert_eq!(decide(3, 3, &silent).replicas, 5);
    hold(&mut silent, 1, 2, 102, HeldState::Admitted);
    silent.nodes.clear();
    assert_eq!(decide(3, 3, &silent).replicas, 5, "nothing is readable");
    assert_eq!(decide(7, 3, &silent).replicas, 5, "nothing is readable");
}

#[test]
fn a_pod_that_went_too_early_comes_back() {
    let mut seen = observed(&[&[0, 1, 4]], 5);
    seen.nodes.remove(&4);
    seen.nodes.remove(&3);
    seen.live_replicas = 3;
    assert_eq!(decide(3, 3, &seen).replicas, 5);
    seen.groups.insert(1, None);
    assert_eq!(decide(3, 3, &seen).replicas, 3);
    seen.hearsay.insert(4);
    assert_eq!(decide(3, 3, &seen).replicas, 5);
}

#[test]
fn an_empty_disk_is_replaced_and_a_silent_node_is_not() {
    let groups: Vec<&[u32]> = vec![&[0, 1, 2]; 10];
    let mut seen = observed(&groups, 3);
    seen.nodes.remove(&2);
    let decision = decide(3, 3, &seen);
    assert!(decision.actions.is_empty(), "{decision:?}");

    let empty = Node {
        node_id: 99,
        ..Node::default()
    };
    seen.nodes.insert(2, empty);
    let decision = decide(3, 3, &seen);
    assert_eq!(decision.actions.len(), MAX_REPAIRS);
    assert_eq!(decision.lost.len(), 10);
    assert_eq!(
        shown(&decision)[0],
        "join 77 of 1 at 2 for Some(102), Repair"
    );
    let Action::Join(join) = &decision.actions[0] else {
        panic!("{decision:?}");
    };
    assert_eq!((join.node_id, join.expected), (99, (3, 30)));

    seen.nodes.remove(&2);
    seen.lost_disks.insert(3);
    let decision = decide(3, 3, &seen);
    assert!(decision.actions.is_empty(), "no node can take it");
    assert!(decision.waiting.contains(&Wait::NoTarget { partition: 1 }));
    seen.nodes.insert(
        3,
        Node {
            node_id: 4,
            ..Node::default()
        },
    );
    assert_eq!(decide(4, 3, &seen).actions.len(), MAX_REPAIRS);
}

#[test]
fn what_was_begun_is_finished_or_undone_first() {
    let base = observed(&[&[0, 1, 2], &[0, 1, 2], &[0, 1, 2]], 4);
    // The reply was lost before the leader was asked: the node has an id, which is used again.
    let mut begun = base.clone();
    hold(&mut begun, 2, 3, 555, HeldState::Joining);
    assert_eq!(
        shown(&decide(4, 3, &begun)),
        ["join 555 of 2 at 3 for Some(202), Spread"]
    );
    assert_eq!(shown(&decide(3, 3, &begun)), ["leave 555 of 2 via 3, Undo"]);
    assert_eq!(decide(3, 3, &begun).replicas, 4);

    // A member without a role.
    let mut learner = begun.clone();
    hold(&mut learner, 2, 3, 555, HeldState::Admitted);
    let group = group_of(&mut learner, 2);
    group.learners.insert(555);
    place(group, 555, 3);
    assert_eq!(
        shown(&decide(4, 3, &learner)),
        ["join 555 of 2 at 3 for Some(202), Spread"]
    );
    assert_eq!(
        shown(&decide(3, 3, &learner)),
        ["leave 555 of 2 via 0, Undo"]
    );
    // Its node is away: the leader's word decides.
    let mut away = learner.clone();
    away.nodes.remove(&3);
    assert!(decide(4, 3, &away).actions.is_empty());
    group_of(&mut away, 2).silent.insert(555);
    assert_eq!(shown(&decide(4, 3, &away)), ["leave 555 of 2 via 0, Undo"]);

    // A joint configuration is completed, whatever is wanted by now.
    let mut joint = learner;
    let group = group_of(&mut joint, 2);
    group.learners.clear();
    group.outgoing = group.voters.clone();
    group.voters.remove(&202);
    group.voters.insert(555);
    assert_eq!(
        shown(&decide(3, 3, &joint)),
        ["join 555 of 2 at 3 for Some(202), Spread"]
    );

    // A member that was removed while its node was away is cleaned away.
    let mut removed = base;
    hold(&mut removed, 1, 3, 444, HeldState::Admitted);
    assert_eq!(
        shown(&decide(4, 3, &removed)),
        ["leave 444 of 1 via 3, Undo"]
    );
}

#[test]
fn nothing_is_changed_by_choice_while_a_member_is_away() {
    let mut seen = observed(&[&[0, 1, 3], &[0, 1, 3]], 4);
    group_of(&mut seen, 1).silent.insert(101);
    let decision = decide(3, 3, &seen);
    assert_eq!(shown(&decision), ["join 77 of 2 at 2 for Some(203), Drain"]);
    let away = Wait::Unreachable {
        partition: 1,
        ordinal: Some(1),
    };
    assert!(decision.waiting.contains(&away), "{decision:?}");
}

#[test]
fn the_number_of_copies_changes_member_by_member() {
    let one = observed(&[&[0]], 3);
    assert_eq!(
        shown(&decide(3, 3, &one)),
        ["join 77 of 1 at 1 for None, Copies"]
    );
    let three = observed(&[&[0, 1, 2]], 3);
    assert_eq!(
        shown(&decide(3, 1, &three)),
        ["leave 101 of 1 via 0, Copies"]
    );
    // The one that is lost goes, not one that is there.
    let mut four = observed(&[&[0, 1, 2, 3]], 4);
    four.nodes.get_mut(&2).unwrap().node_id = 99;
    assert_eq!(
        shown(&decide(4, 3, &four)),
        ["leave 102 of 1 via 0, Copies"]
    );
    // Two that answer of four are no majority to go on with.
    let mut weak = observed(&[&[0, 1, 2, 3]], 4);
    weak.nodes.get_mut(&2).unwrap().node_id = 99;
    group_of(&mut weak, 1).silent.extend([101, 103]);
    let decision = decide(4, 3, &weak);
    assert!(decision.actions.is_empty(), "{decision:?}");
    assert!(
        decision
            .waiting
            .contains(&Wait::NoMajority { partition: 1 })
    );
}

#[test]
fn copies_are_kept_in_zones_of_their_own() {
    let mut seen = observed(&[&[0, 1, 2]], 5);
    let zones = ["a", "a", "b", "c", "c"];
    for (ordinal, zone) in (0_u32..).zip(zones) {
        seen.zones.insert(ordinal, zone.to_owned());
    }
    let decision = decide(5, 3, &seen);
    assert_eq!(
        shown(&decision),
        ["join 77 of 1 at 3 for Some(101), Spread"]
    );
    assert_eq!(decision.potential.collisions, 1);
    // A leaving member's successor avoids the zones that are taken.
    let mut leaving = observed(&[&[1, 2, 4]], 5);
    leaving.zones = seen.zones.clone();
    leaving.zones.insert(3, "b".to_owned());
    leaving.zones.insert(0, "c".to_owned());
    assert_eq!(
        shown(&decide(4, 3, &leaving)),
        ["join 77 of 1 at 0 for Some(104), Drain"]
    );
}
