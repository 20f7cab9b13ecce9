#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn at(node: u64) -> MemberAddress {
    MemberAddress {
        node_id: NodeId(node),
        address: format!("node-{node}:5681"),
    }
}

/// Member n lives on node n.
fn membership(voters: &[u64], outgoing: &[u64], learners: &[u64]) -> Membership {
    let set = |ids: &[u64]| ids.iter().copied().map(MemberId).collect::<BTreeSet<_>>();
    let all = [voters, outgoing, learners].concat();
    Membership {
        position: Some(LogPosition { term: 2, index: 9 }),
        voters: set(voters),
        outgoing_voters: set(outgoing),
        learners: set(learners),
        addresses: all.iter().map(|id| (MemberId(*id), at(*id))).collect(),
    }
}

fn join(member: u64) -> Admission {
    Admission {
        member: MemberId(member),
        address: at(member),
        observer: false,
        replaces: None,
        expected: None,
        admitted: false,
    }
}

fn replace(member: u64, replaced: u64) -> Admission {
    Admission {
        replaces: Some(MemberId(replaced)),
        ..join(member)
    }
}

fn observe(member: u64) -> Admission {
    Admission {
        observer: true,
        ..join(member)
    }
}

const OTHER: Option<LogPosition> = Some(LogPosition { term: 2, index: 8 });

#[test]
fn a_joining_member_becomes_learner_then_voter_in_the_place_of_another() {
    let three = membership(&[1, 2, 3], &[], &[]);
    let learning = membership(&[1, 2, 3], &[], &[4]);
    let four = membership(&[1, 2, 3, 4], &[], &[]);
    let joint = membership(&[2, 3, 4], &[1, 2, 3], &[]);
    let replaced = membership(&[2, 3, 4], &[], &[]);
    let learn = |id| MemberChange::AddLearner {
        member: MemberId(id),
        address: at(id),
    };
    let vote = |replaces: Option<u64>| MemberChange::AddVoter {
        member: MemberId(4),
        replaces: replaces.map(MemberId),
    };
    let cases = [
        (join(4), &three, Some(learn(4))),
        (join(4), &learning, Some(vote(None))),
        (join(4), &four, None),
        (join(1), &three, None),
        (join(5), &joint, Some(MemberChange::Complete)),
        (replace(4, 1), &three, Some(learn(4))),
        (replace(4, 1), &learning, Some(vote(Some(1)))),
        (replace(4, 1), &joint, Some(MemberChange::Complete)),
        (replace(4, 1), &replaced, None),
        // The one to replace is gone, or the new one voted before.
        (replace(4, 9), &learning, Some(vote(None))),
        (
            replace(4, 1),
            &four,
            Some(MemberChange::RemoveVoter(MemberId(1))),
        ),
        (observe(4), &three, Some(learn(4))),
        (observe(4), &learning, None),
        (
            Admission {
                replaces: Some(MemberId(4)),
                ..observe(5)
            },
            &membership(&[1, 2, 3], &[], &[4, 5]),
            Some(MemberChange::RemoveLearner(MemberId(4))),
        ),
        // It is a member: what was expected before its first change counts no longer.
        (
            Admission {
                expected: OTHER,
                ..join(4)
            },
            &learning,
            Some(vote(None)),
        ),
        (
            Admission {
                expected: three.position,
                ..join(4)
            },
            &three,
            Some(learn(4)),
        ),
    ];
    for (admission, membership, expected) in cases {
        let next = Wish::Admit(admission.clone()).next(membership).unwrap();
        let expected = expected.map_or(Next::Settled, Next::Change);
        assert_eq!(next, expected, "{admission:?} with {membership:?}");
    }
}

#[test]
fn what_cannot_come_true_is_refused_by_name() {
    let three = membership(&[1, 2, 3], &[], &[]);
    let learning = membership(&[1, 2, 3], &[], &[4]);
    let elsewhere = Admission {
        address: at(7),
        ..join(4)
    };
    let second = Admission {
        address: at(1),
        ..join(4)
    };
    let dismiss = |member, expected| {
        Wish::Dismiss(Dismissal {
            member: MemberId(member),
            expected,
        })
    };
    let cases = [
        (
            Wish::Admit(Admission {
                expected: OTHER,
                ..join(4)
            }),
            &three,
            Code::Aborted,
        ),
        (
            Wish::Admit(Admission {
                admitted: true,
                ..join(4)
            }),
            &three,
            Code::FailedPrecondition,
        ),
        (Wish::Admit(elsewhere), &learning, Code::FailedPrecondition),
        (Wish::Admit(second), &three, Code::FailedPrecondition),
        (Wish::Admit(observe(1)), &three, Code::FailedPrecondition),
        (
            Wish::Admit(Admission {
                observer: true,
                ..replace(4, 1)
            }),
            &learning,
            Code::FailedPrecondition,
        ),
        (dismiss(1, OTHER), &three, Code::Aborted),
        (
            dismiss(1, None),
            &membership(&[1], &[], &[4]),
            Code::FailedPrecondition,
        ),
    ];
    for (wish, membership, code) in cases {
        let stop = wish.next(membership).unwrap_err();
        assert_eq!(stop.code(), code, "{wish:?}: {stop}");
    }
}

#[test]
fn a_leaving_member_is_removed_once() {
    let joint = membership(&[2, 3], &[1, 2, 3], &[]);
    let cases = [
        (
            1,
            None,
            membership(&[1, 2, 3], &[], &[4]),
            Some(MemberChange::RemoveVoter(MemberId(1))),
        ),
        (
            4,
            None,
            membership(&[1, 2, 3], &[], &[4]),
            Some(MemberChange::RemoveLearner(MemberId(4))),
        ),
        (1, None, joint.clone(), Some(MemberChange::Complete)),
        // The first change for it is done, so the expected membership counts no longer.
        (1, OTHER, joint, Some(MemberChange::Complete)),
        (1, OTHER, membership(&[2, 3], &[], &[]), None),
        (9, OTHER, membership(&[2, 3], &[], &[]), None),
    ];
    for (member, expected, membership, change) in cases {
        let wish = Wish::Dismiss(Dismissal {
            member: MemberId(member),
            expected,
        });
        let next = wish.next(&membership).unwrap();
        let change = change.map_or(Next::Settled, Next::Change);
        assert_eq!(next, change, "member {member} of {membership:?}");
    }
}

/// What a change makes of a membership, in the two steps of a joint change where there are any.
fn carry_out(membership: &mut Membership, change: &MemberChange) {
    match change {
        MemberChange::AddLearner { member, address } => {
            membership.addresses.insert(*member, address.clone());
            membership.learners.insert(*member);
        }
        MemberChange::RemoveLearner(member) => {
            membership.addresses.remove(member);
            membership.learners.remove(member);
        }
        MemberChange::AddVoter { .. } | MemberChange::RemoveVoter(_) => {
            let after = membership.voters_after(change).unwrap();
            membership.outgoing_voters = std::mem::replace(&mut membership.voters, after);
            let voters = membership.voters.clone();
            membership
                .learners
                .retain(|member| !voters.contains(member));
        }
        MemberChange::Complete => {
            let voters = membership.voters.clone();
            for gone in std::mem::take(&mut membership.outgoing_voters).difference(&voters) {
                membership.addresses.remove(gone);
            }
        }
    }
    let position = membership.position.get_or_insert_default();
    position.index += 1;
}

proptest! {
    #[test]
    fn every_wish_settles_in_few_changes_and_never_takes_the_last_voter(
        voters in proptest::collection::btree_set(1_u64..5, 1..4),
        learners in proptest::collection::btree_set(5_u64..8, 0..3),
        member in 1_u64..10,
        replaces in proptest::option::of(1_u64..10),
        observer: bool,
        dismisses: bool,
    ) {
        let voters: Vec<u64> = voters.into_iter().collect();
        let learners: Vec<u64> = learners.into_iter().collect();
        let mut membership = membership(&voters, &[], &learners);
        let wish = if dismisses {
            Wish::Dismiss(Dismissal { member: MemberId(member), expected: membership.position })
        } else {
            Wish::Admit(Admission {
                replaces: replaces.filter(|replaced| *replaced != member).map(MemberId),
                observer,
                ..join(member)
            })
        };
        let mut changes = 0;
        loop {
            match wish.next(&membership) {
                Err(_) => break,
                Ok(Next::Settled) => {
                    prop_assert!(!membership.is_joint() || dismisses);
                    let is_member = membership.contains(MemberId(member));
                    prop_assert_eq!(is_member, !dismisses);
                    break;
                }
                Ok(Next::Change(change)) => {
                    carry_out(&mut membership, &change);
                    prop_assert!(!membership.voters.is_empty());
                    changes += 1;
                    prop_assert!(changes <= 5, "{:?} goes on: {:?}", wish, membership);
                }
            }
        }
    }
}
