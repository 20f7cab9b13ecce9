//! Sessions and exactly-once.

use atomix_proto::multiraft::v1::{OpenSession, Operate, Operation, Recovered, SetLimits, command};
use proptest::prelude::*;

use super::support::*;
use crate::{Admission, ErrorCode, Outcome, SessionId};

#[test]
fn a_repeated_operation_is_answered_the_same_and_applied_once() {
    let mut partition = Partition::new();
    let session = partition.open();
    let command = operate(session, 1, 0, increment("c", 5));
    let first = partition.one(command.clone());
    let second = partition.one(command);
    assert_eq!(first, second);
    assert_eq!(counter_value(&partition.machine, "c"), 5);
}

#[test]
fn a_repeated_failure_is_answered_the_same_even_when_it_would_succeed_now() {
    let mut partition = Partition::new();
    let session = partition.open();
    partition.run(session, increment("c", i64::MAX)).unwrap();
    let failing = operate(session, 1, 0, increment("c", 1));
    let first = partition.one(failing.clone());
    partition.run(session, increment("c", -10)).unwrap();
    assert_eq!(partition.one(failing), first);
    assert_eq!(counter_value(&partition.machine, "c"), i64::MAX - 10);
}

#[test]
fn an_acknowledged_sequence_that_is_asked_again_is_an_explicit_error() {
    let mut partition = Partition::new();
    let session = partition.open();
    partition.one(operate(session, 1, 0, increment("c", 1)));
    partition.one(operate(session, 2, 1, increment("c", 1)));
    let Outcome::Reply(again) = partition.one(operate(session, 1, 0, increment("c", 1))) else {
        panic!("it was not answered");
    };
    assert_eq!(code(&again), Some(ErrorCode::FailedPrecondition));
    assert_eq!(counter_value(&partition.machine, "c"), 2);

    let Outcome::Reply(own) = partition.one(operate(session, 9, 9, increment("c", 1))) else {
        panic!("it was not answered");
    };
    assert_eq!(code(&own), Some(ErrorCode::FailedPrecondition));
    let Outcome::Reply(zero) = partition.one(operate(session, 0, 0, increment("c", 1))) else {
        panic!("it was not answered");
    };
    assert_eq!(code(&zero), Some(ErrorCode::FailedPrecondition));
}

#[test]
fn an_open_sequence_below_the_floor_keeps_its_reply_and_can_still_be_new() {
    let mut partition = Partition::new();
    let session = partition.open();
    partition.one(operate(session, 1, 0, increment("c", 1)));
    partition.one(operate(session, 2, 0, increment("c", 1)));
    partition.one(operate_with_open(session, 5, 4, &[2, 3], increment("c", 1)));
    assert_eq!(partition.machine.session(session).unwrap().operations, 2);

    let repeated = partition.one(operate(session, 2, 0, increment("c", 1)));
    assert!(matches!(repeated, Outcome::Reply(Ok(_))));
    assert_eq!(counter_value(&partition.machine, "c"), 3);
    let late = partition.one(operate(session, 3, 0, increment("c", 1)));
    assert!(matches!(late, Outcome::Reply(Ok(_))));
    assert_eq!(counter_value(&partition.machine, "c"), 4);

    // An older copy with a lower floor opens nothing again.
    partition.one(operate_with_open(session, 6, 5, &[], increment("c", 1)));
    partition.one(operate_with_open(session, 7, 4, &[2], increment("c", 1)));
    let Outcome::Reply(again) = partition.one(operate(session, 2, 0, increment("c", 1))) else {
        panic!("it was not answered");
    };
    assert_eq!(code(&again), Some(ErrorCode::FailedPrecondition));
}

#[test]
fn a_full_window_refuses_and_remembers_that_it_refused() {
    let mut partition = Partition::new();
    partition.one(set_limits(SetLimits {
        session_window_operations: 3,
        ..SetLimits::default()
    }));
    let session = partition.open();
    for sequence in 1..=3 {
        partition.one(operate(session, sequence, 0, increment("c", 1)));
    }
    let refused = partition.one(operate(session, 4, 0, increment("c", 1)));
    let Outcome::Reply(reply) = &refused else {
        panic!("it was not answered");
    };
    assert_eq!(code(reply), Some(ErrorCode::ResourceExhausted));
    partition.one(operate(session, 5, 3, increment("c", 1)));
    assert_eq!(
        partition.one(operate(session, 4, 3, increment("c", 1))),
        refused
    );
    assert_eq!(counter_value(&partition.machine, "c"), 4);
}

#[test]
fn replies_beyond_the_byte_limit_are_refused_until_some_are_acknowledged() {
    let mut partition = Partition::new();
    partition.one(set_limits(SetLimits {
        session_window_reply_bytes: 10,
        ..SetLimits::default()
    }));
    let session = partition.open();
    partition.one(operate(session, 1, 0, put("k", "a value of many bytes")));
    let Outcome::Reply(reply) = partition.one(operate(session, 2, 0, increment("c", 1))) else {
        panic!("it was not answered");
    };
    assert_eq!(code(&reply), Some(ErrorCode::ResourceExhausted));
    let accepted = partition.one(operate(session, 3, 2, increment("c", 1)));
    assert!(matches!(accepted, Outcome::Reply(Ok(_))));
}

#[test]
fn the_default_window_is_4096_operations() {
    let mut partition = Partition::new();
    let session = partition.open();
    let commands = (1..=4_097)
        .map(|sequence| operate(session, sequence, 0, increment("c", 1)))
        .collect();
    let applied = partition.apply(commands);
    assert!(matches!(applied.outcomes[4_095], Outcome::Reply(Ok(_))));
    let Outcome::Reply(reply) = &applied.outcomes[4_096] else {
        panic!("it was not answered");
    };
    assert_eq!(code(reply), Some(ErrorCode::ResourceExhausted));
}

#[test]
fn operations_that_wait_leave_room_for_those_that_end_the_waiting() {
    let mut partition = Partition::new();
    let session = partition.open();
    partition.one(operate(session, 1, 0, acquire(1)));
    let waiting = (2..=1_025).map(|sequence| operate(session, sequence, 0, acquire(2)));
    let applied = partition.apply(waiting.collect());
    assert!(
        applied
            .outcomes
            .iter()
            .all(|outcome| *outcome == Outcome::Pending)
    );
    partition = partition.restored();
    let Outcome::Reply(refused) = partition.one(operate(session, 1_026, 0, acquire(3))) else {
        panic!("it waits");
    };
    assert_eq!(code(&refused), Some(ErrorCode::ResourceExhausted));
    // Refused, it stands in no line: the next in line gets the lock, and there is room for one more.
    let released = partition.apply(vec![operate(session, 1_027, 0, unlock(1))]);
    assert!(matches!(released.outcomes[0], Outcome::Reply(Ok(_))));
    assert_eq!(released.completed.len(), 1);
    assert_eq!(released.completed[0].sequence.0, 2);
    let outcomes = [1_028, 1_029].map(|next| partition.one(operate(session, next, 0, acquire(3))));
    assert_eq!(outcomes[0], Outcome::Pending);
    assert!(matches!(&outcomes[1], Outcome::Reply(Err(_))));
}

#[test]
fn an_owner_gives_up_one_primitive_and_keeps_the_others() {
    let mut partition = Partition::new();
    let session = partition.open();
    let acquire_in = |name: &str, owner| Operation {
        primitive: name.to_owned(),
        ..acquire(owner)
    };
    partition.run(session, acquire_in("a", 1)).unwrap();
    partition.run(session, acquire_in("b", 1)).unwrap();
    for (sequence, name) in [(1, "a"), (2, "b")] {
        let waits = partition.one(operate(session, sequence, 0, acquire_in(name, 2)));
        assert_eq!(waits, Outcome::Pending);
    }
    // What it holds there, and what it waits for there; a copy changes nothing.
    for (owner, name, completed) in [(1, "a", 1), (1, "a", 0), (2, "b", 2), (2, "b", 0)] {
        let release = release_owner_in(session, owner, "probe", name);
        let applied = partition.apply(vec![release]);
        let told = applied
            .completed
            .iter()
            .map(|done| done.sequence.0)
            .sum::<u64>();
        assert_eq!(told, completed, "{owner} {name}");
    }
    // "a" is the second owner's now, and "b" still the first one's.
    for (sequence, name) in [(3, "a"), (4, "b")] {
        let waits = partition.one(operate(session, sequence, 0, acquire_in(name, 3)));
        assert_eq!(waits, Outcome::Pending);
    }
    let applied = partition.apply(vec![release_owner(session, 1), release_owner(session, 2)]);
    assert_eq!(applied.completed.len(), 2);
}

#[test]
fn a_session_that_ignores_its_window_is_ended() {
    let mut partition = Partition::new();
    partition.one(set_limits(SetLimits {
        session_window_operations: 2,
        ..SetLimits::default()
    }));
    let session = partition.open();
    let commands = (1..=17)
        .map(|sequence| operate(session, sequence, 0, increment("c", 1)))
        .collect();
    let applied = partition.apply(commands);
    assert_eq!(applied.outcomes.last(), Some(&Outcome::SessionLost));
    assert_eq!(applied.ended_sessions, vec![session]);
    assert_eq!(counter_value(&partition.machine, "c"), 2);
}

#[test]
fn a_closed_or_expired_session_is_lost_and_ending_it_again_is_fine() {
    let mut partition = Partition::new();
    let (one, two, three) = (partition.open(), partition.open(), partition.open());
    assert_eq!(partition.one(close(one)), Outcome::Done);
    assert_eq!(partition.one(close(one)), Outcome::Done);
    assert_eq!(partition.one(expire(&[one, two])), Outcome::Done);
    for lost in [one, two, SessionId(0), SessionId(u64::MAX)] {
        let outcome = partition.one(operate(lost, 1, 0, increment("c", 1)));
        assert_eq!(outcome, Outcome::SessionLost);
        assert_eq!(partition.one(cancel(lost, 1)), Outcome::SessionLost);
        assert_eq!(partition.one(release_owner(lost, 1)), Outcome::SessionLost);
    }
    let left: Vec<SessionId> = partition.machine.sessions().map(|(id, _)| id).collect();
    assert_eq!(left, vec![three]);
    assert_eq!(counter_value(&partition.machine, "c"), 0);
}

#[test]
fn a_session_without_a_timeout_is_refused() {
    let mut partition = Partition::new();
    let open = OpenSession {
        timeout_nanos: 0,
        client: String::new(),
    };
    let Outcome::Reply(reply) = partition.one(command::Command::OpenSession(open)) else {
        panic!("it was not answered");
    };
    assert_eq!(code(&reply), Some(ErrorCode::InvalidArgument));
}

#[test]
fn the_leader_learns_what_to_do_with_an_operation_before_it_proposes_it() {
    let mut partition = Partition::new();
    partition.one(set_limits(SetLimits {
        session_window_operations: 2,
        ..SetLimits::default()
    }));
    let session = partition.open();
    let ask = |sequence, acknowledged, operation| Operate {
        session: session.0,
        sequence,
        acknowledged,
        operation: Some(operation),
        open: Vec::new(),
    };
    let machine = &partition.machine;
    assert_eq!(
        machine.admit(&ask(1, 0, increment("c", 1))),
        Ok(Admission::Propose)
    );
    let elsewhere = Operate {
        session: 99,
        ..ask(1, 0, increment("c", 1))
    };
    assert_eq!(machine.admit(&elsewhere), Ok(Admission::SessionLost));
    let nothing = Operate {
        operation: None,
        ..ask(1, 0, increment("c", 1))
    };
    assert_eq!(
        machine.admit(&nothing).unwrap_err().code,
        ErrorCode::InvalidArgument
    );
    let unknown = ask(1, 0, operation("sundial", "s", "Read", 0, &()));
    assert_eq!(
        machine.admit(&unknown).unwrap_err().code,
        ErrorCode::Unimplemented
    );

    let Outcome::Reply(reply) = partition.one(operate(session, 1, 0, acquire(1))) else {
        panic!("the lock was not free");
    };
    partition.one(operate(session, 2, 0, acquire(2)));
    let machine = &partition.machine;
    assert_eq!(
        machine.admit(&ask(1, 0, acquire(1))),
        Ok(Admission::Answered(reply))
    );
    assert_eq!(
        machine.admit(&ask(2, 0, acquire(2))),
        Ok(Admission::Pending)
    );
    assert_eq!(
        machine.admit(&ask(3, 0, acquire(3))).unwrap_err().code,
        ErrorCode::ResourceExhausted
    );
    assert_eq!(
        machine.admit(&ask(3, 1, acquire(3))),
        Ok(Admission::Propose)
    );
}

proptest! {
    #[test]
    fn duplicates_in_any_order_change_a_counter_once_each(
        order in proptest::collection::vec((1_u64..20, any::<bool>()), 1..200),
    ) {
        let mut partition = Partition::new();
        let session = partition.open();
        let mut answers = std::collections::BTreeMap::new();
        for (sequence, restart) in order {
            if restart {
                partition = partition.restored();
            }
            let delta = i64::try_from(sequence).unwrap();
            let outcome = partition.one(operate(session, sequence, 0, increment("c", delta)));
            let first = answers.entry(sequence).or_insert_with(|| outcome.clone());
            prop_assert_eq!(&*first, &outcome);
        }
        let expected: u64 = answers.keys().sum();
        prop_assert_eq!(counter_value(&partition.machine, "c"), i64::try_from(expected).unwrap());
    }
}

#[test]
fn a_recovered_partition_ends_its_sessions_and_gives_no_id_or_token_out_again() {
    // What the group had acknowledged, and the member that was left, which lacks the end of it.
    let mut group = Partition::new();
    let kept = group.open();
    group.run(kept, increment("c", 5)).unwrap();
    let mut left = Partition::new();
    assert_eq!(left.open(), kept);
    left.run(kept, increment("c", 5)).unwrap();
    assert_eq!(
        snapshot_bytes(&left.machine),
        snapshot_bytes(&group.machine)
    );
    let lost = group.open();

    let followed = group.machine.event_position();
    let applied = left.apply(vec![command::Command::Recovered(Recovered {})]);
    assert_eq!(applied.stop, None);
    assert_eq!(applied.ended_sessions, [kept]);
    assert_eq!(applied.outcomes, [Outcome::Done]);
    assert_eq!(left.machine.sessions().count(), 0);
    assert_eq!(counter_value(&left.machine, "c"), 5, "the data stays");
    // Somebody may have followed events that never happened now.
    assert!(left.machine.events_after(followed).is_err());
    let now = left.machine.event_position();
    assert!(left.machine.events_after(now).is_ok());
    let copy = left.restored();
    assert!(copy.machine.events_after(followed).is_err());
    assert!(copy.machine.events_after(now).is_ok());

    let repeated = left.try_run(kept, increment("c", 5));
    assert_eq!(repeated, Outcome::SessionLost);
    let unknown = left.try_run(lost, increment("c", 5));
    assert_eq!(unknown, Outcome::SessionLost);
    let next = left.open();
    assert!(next.0 > lost.0 && next.0 > 1 << 32, "{next:?}");

    // Again, as often as it is recovered.
    left.one(command::Command::Recovered(Recovered {}));
    assert!(left.open().0 > 2 << 32);
}
