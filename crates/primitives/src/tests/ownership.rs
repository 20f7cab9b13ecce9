//! Deferred replies, cancelling, owners and the ends of sessions.

use std::time::Duration;

use atomix_proto::multiraft::v1::Operation;
use atomix_proto::runtime::{countermap, election, lock, map};

use super::support::*;
use crate::{ErrorCode, Outcome};

#[test]
fn a_waiting_operation_is_completed_by_a_later_entry_and_remembered() {
    let mut partition = Partition::new();
    let (one, two) = (partition.open(), partition.open());
    let first = token(partition.run(one, acquire(1)));
    let waiting = operate(two, 1, 0, acquire(1));
    assert_eq!(partition.one(waiting.clone()), Outcome::Pending);
    assert_eq!(partition.one(waiting.clone()), Outcome::Pending);

    let applied = partition.apply(vec![operate(one, 7, 0, unlock(1))]);
    let reply = completed(&applied, two, 1).unwrap();
    assert!(token(reply.clone()) > first);
    assert_eq!(partition.one(waiting), Outcome::Reply(reply));
}

#[test]
fn a_cancelled_waiter_leaves_the_line() {
    let mut partition = Partition::new();
    let session = partition.open();
    partition.run(session, acquire(1)).unwrap();
    assert_eq!(
        partition.one(operate(session, 1, 0, acquire(2))),
        Outcome::Pending
    );
    assert_eq!(
        partition.one(operate(session, 2, 0, acquire(3))),
        Outcome::Pending
    );

    let applied = partition.apply(vec![cancel(session, 1)]);
    let cancelled = completed(&applied, session, 1).unwrap();
    assert_eq!(code(&cancelled), Some(ErrorCode::Cancelled));

    let applied = partition.apply(vec![operate(session, 3, 0, unlock(1))]);
    assert_eq!(completed(&applied, session, 1), None);
    assert!(completed(&applied, session, 2).unwrap().is_ok());
    let again = partition.one(operate(session, 1, 0, acquire(2)));
    assert_eq!(again, Outcome::Reply(cancelled));
}

#[test]
fn a_cancel_that_comes_after_the_grant_gives_the_grant_back() {
    let mut partition = Partition::new();
    let session = partition.open();
    partition.one(operate(session, 1, 0, acquire(1)));
    partition.one(operate(session, 2, 0, acquire(2)));
    let applied = partition.apply(vec![cancel(session, 1)]);
    assert!(completed(&applied, session, 2).unwrap().is_ok());
    let Outcome::Reply(again) = partition.one(operate(session, 1, 0, acquire(1))) else {
        panic!("it was not answered");
    };
    assert_eq!(code(&again), Some(ErrorCode::Cancelled));
    assert!(partition.run(session, unlock(2)).is_ok());
}

#[test]
fn a_cancel_that_overtakes_its_operation_keeps_it_from_being_applied() {
    let mut partition = Partition::new();
    let session = partition.open();
    assert_eq!(partition.one(cancel(session, 1)), Outcome::Done);
    let Outcome::Reply(late) = partition.one(operate(session, 1, 0, acquire(1))) else {
        panic!("it was not answered");
    };
    assert_eq!(code(&late), Some(ErrorCode::Cancelled));
    assert!(partition.run(session, acquire(2)).is_ok());
}

#[test]
fn cancelling_a_finished_operation_that_holds_nothing_keeps_its_reply() {
    let mut partition = Partition::new();
    let session = partition.open();
    let command = operate(session, 1, 0, increment("c", 1));
    let reply = partition.one(command.clone());
    assert_eq!(partition.one(cancel(session, 1)), Outcome::Done);
    assert_eq!(partition.one(command), reply);
    assert_eq!(counter_value(&partition.machine, "c"), 1);
}

#[test]
fn acknowledging_a_waiting_operation_withdraws_it() {
    let mut partition = Partition::new();
    let session = partition.open();
    partition.run(session, acquire(1)).unwrap();
    partition.one(operate(session, 1, 0, acquire(2)));
    let applied = partition.apply(vec![operate(session, 2, 1, acquire(3))]);
    let withdrawn = completed(&applied, session, 1).unwrap();
    assert_eq!(code(&withdrawn), Some(ErrorCode::Cancelled));
    let applied = partition.apply(vec![operate(session, 3, 0, unlock(1))]);
    assert!(completed(&applied, session, 2).unwrap().is_ok());
}

#[test]
fn a_released_owner_loses_its_waiters_and_its_lock_but_no_other_owner_does() {
    let mut partition = Partition::new();
    let session = partition.open();
    partition.one(operate(session, 1, 0, acquire(1)));
    partition.one(operate(session, 2, 0, acquire(1)));
    partition.one(operate(session, 3, 0, acquire(2)));
    partition.one(operate(session, 4, 0, acquire(3)));

    let applied = partition.apply(vec![release_owner(session, 1)]);
    let own = completed(&applied, session, 2).unwrap();
    assert_eq!(code(&own), Some(ErrorCode::Cancelled));
    assert!(completed(&applied, session, 3).unwrap().is_ok());
    assert_eq!(completed(&applied, session, 4), None);
    // Nothing is left to release.
    let applied = partition.apply(vec![release_owner(session, 1)]);
    assert_eq!(applied.completed, vec![]);
    assert!(partition.run(session, unlock(2)).is_ok());
}

/// An operation of each kind that owns something, by which the owner takes it.
fn takings(owner: u64) -> [Operation; 5] {
    let id = None;
    let timeout = None;
    let keys = || vec!["k".to_owned()];
    [
        acquire(owner),
        operation(
            "lock",
            "l",
            "Lock",
            owner,
            &lock::v1::LockRequest { id, timeout },
        ),
        operation(
            "map",
            "m",
            "Lock",
            owner,
            &map::v1::LockRequest {
                id: None,
                keys: keys(),
                timeout,
            },
        ),
        operation(
            "countermap",
            "c",
            "Lock",
            owner,
            &countermap::v1::LockRequest {
                id: None,
                keys: keys(),
                timeout,
            },
        ),
        operation(
            "election",
            "e",
            "Enter",
            owner,
            &election::v1::EnterRequest {
                id: None,
                candidate: "one".to_owned(),
            },
        ),
    ]
}

#[test]
fn a_release_that_comes_late_frees_nothing_that_was_taken_since() {
    for taking in takings(1) {
        let kind = taking.kind.clone();
        let mut partition = Partition::new();
        let session = partition.open();
        let exists = |partition: &Partition| partition.machine.primitives().count() == 1;
        let take = |partition: &mut Partition, sequence| {
            let outcome = partition.one(operate(session, sequence, 0, taking.clone()));
            assert!(
                matches!(outcome, Outcome::Reply(Ok(_))),
                "{kind}: {outcome:?}"
            );
        };
        let release = |partition: &mut Partition, through| {
            let outcome = partition.one(release_owner_through(session, 1, through));
            assert_eq!(outcome, Outcome::Done, "{kind}");
        };
        take(&mut partition, 1);
        release(&mut partition, 1);
        assert!(!exists(&partition), "{kind}: it was not released");
        take(&mut partition, 2);
        release(&mut partition, 1);
        assert!(
            exists(&partition),
            "{kind}: a copy released what is taken since"
        );
        release(&mut partition, 2);
        assert!(!exists(&partition), "{kind}: it was not released");
    }
}

#[test]
fn a_release_that_comes_late_withdraws_nobody_who_waits_since() {
    let [probe, lock, map, countermap, _] = takings(1);
    for taking in [probe, lock, map, countermap] {
        let kind = taking.kind.clone();
        let mut partition = Partition::new();
        let session = partition.open();
        let holder = Operation {
            owner: 2,
            ..taking.clone()
        };
        partition.one(operate(session, 1, 0, holder));
        for sequence in [2, 3] {
            let outcome = partition.one(operate(session, sequence, 0, taking.clone()));
            assert_eq!(outcome, Outcome::Pending, "{kind}");
        }
        let applied = partition.apply(vec![release_owner_through(session, 1, 2)]);
        let withdrawn: Vec<u64> = applied
            .completed
            .iter()
            .map(|done| done.sequence.0)
            .collect();
        assert_eq!(withdrawn, [2], "{kind}");
    }
}

#[test]
fn closing_an_earlier_holders_session_leaves_the_present_holder_alone() {
    let mut partition = Partition::new();
    let (one, two, three) = (partition.open(), partition.open(), partition.open());
    partition.run(one, acquire(1)).unwrap();
    partition.run(one, unlock(1)).unwrap();
    partition.run(two, acquire(1)).unwrap();
    partition.one(close(one));
    assert_eq!(partition.try_run(three, acquire(1)), Outcome::Pending);
    assert!(partition.run(two, unlock(1)).is_ok());
}

#[test]
fn an_ended_session_frees_what_it_held_and_answers_what_it_waited_for() {
    let mut partition = Partition::new();
    let (one, two, three) = (partition.open(), partition.open(), partition.open());
    partition.one(operate(one, 1, 0, acquire(1)));
    partition.one(operate(two, 1, 0, acquire(1)));
    partition.one(operate(three, 1, 0, acquire(1)));
    partition.one(operate(one, 2, 0, acquire(2)));

    let applied = partition.apply(vec![expire(&[one, two])]);
    assert_eq!(applied.ended_sessions, vec![one, two]);
    let lost = completed(&applied, one, 2).unwrap();
    assert_eq!(code(&lost), Some(ErrorCode::Unknown));
    assert!(completed(&applied, three, 1).unwrap().is_ok());
}

#[test]
fn a_primitive_is_gone_when_it_holds_nothing() {
    let mut partition = Partition::new();
    let session = partition.open();
    let exist = |partition: &Partition| partition.machine.primitives().count();
    partition.run(session, increment("c", 3)).unwrap();
    partition.run(session, acquire(1)).unwrap();
    partition.run(session, put("k", "v")).unwrap();
    assert_eq!(exist(&partition), 2);
    assert!(partition.machine.usage().primitives > 0);

    partition.run(session, increment("c", -3)).unwrap();
    assert_eq!(exist(&partition), 1);
    partition.run(session, remove("k")).unwrap();
    assert_eq!(exist(&partition), 1);
    partition.run(session, unlock(1)).unwrap();
    assert_eq!(exist(&partition), 0);
    assert_eq!(partition.machine.usage().primitives, 0);
}

#[test]
fn bytes_are_accounted_to_primitives_and_sessions() {
    let mut partition = Partition::new();
    let session = partition.open();
    let of_session = |partition: &Partition| partition.machine.session(session).unwrap().bytes;
    partition.one(operate(session, 1, 0, put("k", "0123456789")));
    let before = partition.machine.usage().primitives;
    assert!(of_session(&partition) >= 10);
    partition.one(operate(session, 2, 1, put("k", "01234567890123456789")));
    assert_eq!(partition.machine.usage().primitives, before + 10);
    let sum: u64 = partition.machine.primitives().map(|(_, bytes)| bytes).sum();
    assert_eq!(sum, partition.machine.usage().primitives);
    partition.one(operate(session, 3, 2, remove("k")));
    assert_eq!(partition.machine.usage().primitives, 0);
}

#[test]
fn tokens_only_grow_over_snapshots_too() {
    let mut partition = Partition::new();
    let session = partition.open();
    let mut last = 0;
    for _ in 0..5 {
        let granted = token(partition.run(session, acquire_within(1, Duration::from_secs(1))));
        assert!(granted > last);
        last = granted;
        partition.run(session, unlock(1)).unwrap();
        partition = partition.restored();
    }
}
