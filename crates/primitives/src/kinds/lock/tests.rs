#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails"
)]

mod model;

use atomix_proto::multiraft::v1::{Operation, command};
use proptest::prelude::*;

use super::*;
use crate::tests::rules::{edits, forged_snapshots_never_panic, logs, replicas_agree};
use crate::tests::support::*;
use crate::{Access, Kinds, Outcome, Reply, SessionId};

const SECOND: Duration = Duration::from_secs(1);

fn lock(owner: u64) -> Operation {
    lock_within(owner, None)
}

fn lock_within(owner: u64, timeout: Option<Duration>) -> Operation {
    let timeout = timeout.map(|timeout| timeout.try_into().unwrap());
    lock_with(owner, timeout)
}

fn lock_with(owner: u64, timeout: Option<prost_types::Duration>) -> Operation {
    operation(
        "lock",
        "l",
        "Lock",
        owner,
        &LockRequest { id: None, timeout },
    )
}

fn unlock(owner: u64) -> Operation {
    operation("lock", "l", "Unlock", owner, &UnlockRequest { id: None })
}

fn get_lock() -> Operation {
    operation("lock", "l", "GetLock", 0, &GetLockRequest { id: None })
}

fn version(reply: Reply) -> u64 {
    LockResponse::decode(reply.unwrap()).unwrap().version
}

/// The version of the present grant.
fn held(partition: &Partition) -> Option<u64> {
    match partition.machine.query(&get_lock()) {
        Ok(reply) => Some(GetLockResponse::decode(reply).unwrap().version),
        Err(error) => {
            assert_eq!(error.code, ErrorCode::NotFound);
            None
        }
    }
}

#[test]
fn each_method_does_what_it_says() {
    let aborted = Some(ErrorCode::Aborted);
    let invalid = Some(ErrorCode::InvalidArgument);
    let at_once = Some(Duration::ZERO);
    // The present holder (0 = nobody), the operation, its error, the holder afterwards.
    let table = [
        (0, lock(1), None, 1),
        (0, lock_within(1, at_once), None, 1),
        (0, lock_within(1, Some(SECOND)), None, 1),
        (1, lock_within(2, at_once), aborted, 1),
        (1, lock_within(1, at_once), aborted, 1),
        (0, unlock(1), aborted, 0),
        (1, unlock(1), None, 0),
        (1, unlock(2), aborted, 1),
        (0, lock(0), invalid, 0),
        (1, unlock(0), invalid, 1),
    ];
    for (case, (before, operation, error, after)) in table.into_iter().enumerate() {
        let mut partition = Partition::new();
        let session = partition.open();
        if before != 0 {
            partition.run(session, lock(before)).unwrap();
        }
        let reply = partition.run(session, operation);
        assert_eq!(code(&reply), error, "case {case}");
        assert_eq!(held(&partition).is_some(), after != 0, "case {case}");
        assert_eq!(
            partition.machine.primitives().count(),
            usize::from(after != 0),
            "case {case}"
        );
        if after != 0 {
            assert!(partition.run(session, unlock(after)).is_ok(), "case {case}");
        }
    }
}

#[test]
fn a_negative_or_malformed_timeout_is_invalid_before_and_after_the_proposal() {
    let mut partition = Partition::new();
    let session = partition.open();
    for (seconds, nanos) in [(-1, 0), (0, -1), (1, 1_000_000_000)] {
        let operation = lock_with(1, Some(prost_types::Duration { seconds, nanos }));
        let early = Kinds::standard().validate(&operation).unwrap_err();
        assert_eq!(early.code, ErrorCode::InvalidArgument);
        assert!(early.message.starts_with("timeout: "));
        assert_eq!(partition.run(session, operation), Err(early));
    }
    let garbage = Operation {
        request: vec![0xff; 3].into(),
        ..lock(1)
    };
    let early = Kinds::standard().validate(&garbage).unwrap_err();
    assert_eq!(early.code, ErrorCode::InvalidArgument);
    assert_eq!(held(&partition), None);
}

#[test]
fn only_get_lock_is_a_read() {
    let kinds = Kinds::standard();
    assert_eq!(kinds.access(&lock(1)), Ok(Access::Write));
    assert_eq!(kinds.access(&unlock(1)), Ok(Access::Write));
    assert_eq!(kinds.access(&get_lock()), Ok(Access::Read));
}

#[test]
fn the_lock_is_granted_in_the_order_of_arrival_with_versions_that_grow() {
    let mut partition = Partition::new();
    let (one, two) = (partition.open(), partition.open());
    let mut last = version(partition.run(one, lock(1)));
    assert_eq!(held(&partition), Some(last));
    for (session, sequence, owner) in [(two, 1, 1), (one, 1, 2), (two, 2, 1)] {
        let waiting = operate(session, sequence, 0, lock(owner));
        assert_eq!(partition.one(waiting), Outcome::Pending);
    }
    // Who holds it, who is next.
    for (holder, next) in [
        ((one, 1), (two, 1)),
        ((two, 1), (one, 1)),
        ((one, 2), (two, 2)),
    ] {
        partition = partition.restored();
        let sequence = last + 100;
        let applied = partition.apply(vec![operate(holder.0, sequence, 0, unlock(holder.1))]);
        let granted = version(completed(&applied, next.0, next.1).unwrap());
        assert_eq!(applied.completed.len(), 1);
        assert!(granted > last);
        assert_eq!(held(&partition), Some(granted));
        last = granted;
    }
}

#[test]
fn versions_grow_although_the_lock_was_gone_in_between() {
    let mut partition = Partition::new();
    let session = partition.open();
    let first = version(partition.run(session, lock(1)));
    partition.run(session, unlock(1)).unwrap();
    assert_eq!(partition.machine.primitives().count(), 0);
    assert!(version(partition.run(session, lock(1))) > first);
}

#[test]
fn an_owner_that_holds_the_lock_queues_like_everybody_else() {
    let mut partition = Partition::new();
    let session = partition.open();
    let first = version(partition.run(session, lock(1)));
    assert_eq!(
        partition.one(operate(session, 1, 0, lock(1))),
        Outcome::Pending
    );
    assert_eq!(held(&partition), Some(first));
    let applied = partition.apply(vec![operate(session, 2, 0, unlock(1))]);
    let second = version(completed(&applied, session, 1).unwrap());
    assert_eq!(held(&partition), Some(second));
}

#[test]
fn who_waited_long_enough_is_aborted_and_the_others_keep_their_places() {
    let mut partition = Partition::new();
    let session = partition.open();
    partition.run(session, lock(1)).unwrap();
    for (sequence, timeout) in [(1, Some(SECOND)), (2, Some(3 * SECOND)), (3, None)] {
        let waiting = operate(session, sequence, 0, lock_within(2, timeout));
        assert_eq!(partition.one(waiting), Outcome::Pending);
    }
    assert_eq!(partition.machine.next_timer(), Some(SECOND));
    let applied = partition.tick(SECOND);
    let refused = completed(&applied, session, 1).unwrap();
    assert_eq!(code(&refused), Some(ErrorCode::Aborted));
    assert_eq!(applied.completed.len(), 1);

    partition = partition.restored();
    assert_eq!(partition.machine.next_timer(), Some(3 * SECOND));
    let applied = partition.apply(vec![operate(session, 4, 0, unlock(1))]);
    assert!(completed(&applied, session, 2).unwrap().is_ok());
    // A grant has no time-out any more.
    assert_eq!(partition.machine.next_timer(), None);
    let before = held(&partition);
    assert_eq!(partition.tick(10 * SECOND).completed, vec![]);
    assert_eq!(held(&partition), before);
}

#[test]
fn a_timeout_beyond_all_time_waits_without_overflow() {
    let mut partition = Partition::new();
    let session = partition.open();
    partition.tick(SECOND);
    partition.run(session, lock(1)).unwrap();
    let longest = prost_types::Duration {
        seconds: i64::MAX,
        nanos: 999_999_999,
    };
    let waiting = operate(session, 1, 0, lock_with(2, Some(longest)));
    assert_eq!(partition.one(waiting), Outcome::Pending);
    assert_eq!(partition.bytes(), partition.restored().bytes());
    let applied = partition.apply(vec![operate(session, 2, 0, unlock(1))]);
    assert!(completed(&applied, session, 1).unwrap().is_ok());
}

#[test]
fn a_withdrawn_waiter_leaves_the_line_with_its_timer_and_a_late_withdrawal_frees_the_lock() {
    let mut partition = Partition::new();
    let session = partition.open();
    let first = version(partition.run(session, lock(1)));
    partition.one(operate(session, 1, 0, lock_within(2, Some(SECOND))));
    partition.one(operate(session, 2, 0, lock(3)));
    let applied = partition.apply(vec![cancel(session, 1)]);
    let withdrawn = completed(&applied, session, 1).unwrap();
    assert_eq!(code(&withdrawn), Some(ErrorCode::Cancelled));
    assert_eq!(partition.machine.next_timer(), None);
    assert_eq!(held(&partition), Some(first));

    let applied = partition.apply(vec![operate(session, 3, 0, unlock(1))]);
    assert!(completed(&applied, session, 2).unwrap().is_ok());
    // The grant and the withdrawal crossed each other.
    partition.one(operate(session, 4, 0, lock(4)));
    let applied = partition.apply(vec![cancel(session, 2)]);
    assert!(completed(&applied, session, 4).unwrap().is_ok());
    // An earlier grant cannot take the present one away.
    let present = held(&partition);
    partition.one(cancel(session, 2));
    assert_eq!(held(&partition), present);
    assert!(partition.run(session, unlock(4)).is_ok());
    assert_eq!(partition.machine.primitives().count(), 0);
}

#[test]
fn the_lock_goes_on_when_its_owner_or_its_session_ends() {
    type End = fn(SessionId) -> command::Command;
    let ends: [End; 3] = [
        |session| release_owner(session, 1),
        close,
        |session| expire(&[session]),
    ];
    for end in ends {
        let mut partition = Partition::new();
        let (one, two) = (partition.open(), partition.open());
        let first = version(partition.run(one, lock(1)));
        // The owner's own waiter goes with it.
        partition.one(operate(one, 1, 0, lock(1)));
        partition.one(operate(two, 1, 0, lock(1)));
        let applied = partition.apply(vec![end(one)]);
        assert!(completed(&applied, one, 1).unwrap().is_err());
        let granted = version(completed(&applied, two, 1).unwrap());
        assert!(granted > first);
        assert_eq!(held(&partition), Some(granted));
        partition.apply(vec![end(two)]);
        assert_eq!(held(&partition), None);
        assert_eq!(partition.machine.primitives().count(), 0);
    }
}

/// A defect of the original.
#[test]
fn closing_an_earlier_holders_session_frees_nothing() {
    let mut partition = Partition::new();
    let (one, two, three) = (partition.open(), partition.open(), partition.open());
    partition.run(one, lock(1)).unwrap();
    partition.one(operate(two, 1, 0, lock(1)));
    partition.run(one, unlock(1)).unwrap();
    let granted = held(&partition);
    assert!(granted.is_some());
    partition.one(close(one));
    assert_eq!(held(&partition), granted);
    assert_eq!(partition.try_run(three, lock(1)), Outcome::Pending);
    assert!(partition.run(two, unlock(1)).is_ok());
}

/// A defect of the original.
#[test]
fn two_clients_in_one_pod_are_two_owners() {
    let mut partition = Partition::new();
    let session = partition.open();
    let first = version(partition.run(session, lock(1)));
    let stranger = partition.run(session, unlock(2));
    assert_eq!(code(&stranger), Some(ErrorCode::Aborted));
    assert_eq!(partition.try_run(session, lock(2)), Outcome::Pending);
    partition.one(release_owner(session, 2));
    assert_eq!(held(&partition), Some(first));
    partition.one(release_owner(session, 1));
    assert_eq!(held(&partition), None);
}

/// A defect of the original: its timers started anew from the time of the snapshot, on one replica.
#[test]
fn a_restored_replica_ends_a_wait_at_the_same_entry_as_the_others() {
    let mut steady = Partition::new();
    let session = steady.open();
    steady.run(session, lock(1)).unwrap();
    steady.one(operate(session, 1, 0, lock_within(2, Some(2 * SECOND))));
    steady.tick(SECOND);
    let mut restored = steady.restored();
    for after in [SECOND / 2, SECOND / 2] {
        assert_eq!(steady.tick(after), restored.tick(after));
        assert_eq!(steady.bytes(), restored.bytes());
    }
    assert_eq!(steady.machine.next_timer(), None);
}

#[test]
fn bytes_count_the_holder_and_the_line() {
    let mut partition = Partition::new();
    let session = partition.open();
    partition.run(session, lock(1)).unwrap();
    let one = partition.machine.usage().primitives;
    for sequence in 1..=3 {
        partition.one(operate(session, sequence, 0, lock(2)));
    }
    assert_eq!(partition.machine.usage().primitives, one + 3 * CLAIM_BYTES);
    assert_eq!(
        partition.restored().machine.usage(),
        partition.machine.usage()
    );
    partition.one(close(session));
    assert_eq!(partition.machine.usage().primitives, 0);
}

fn random_operation() -> impl Strategy<Value = Operation> {
    let timeout = || proptest::option::of((-1_i64..3, -1_i32..1_000_000_001));
    prop_oneof![
        4 => (0_u64..4).prop_map(lock),
        3 => (0_u64..4, 0_u64..900)
            .prop_map(|(owner, wait)| lock_within(owner, Some(Duration::from_millis(wait)))),
        1 => (0_u64..4, timeout()).prop_map(|(owner, timeout)| {
            let timeout =
                timeout.map(|(seconds, nanos)| prost_types::Duration { seconds, nanos });
            lock_with(owner, timeout)
        }),
        4 => (0_u64..4).prop_map(unlock),
        1 => Just(get_lock()),
    ]
}

proptest! {
    #[test]
    fn replicas_agree_over_any_log(log in logs(random_operation()), restore_at in 0_usize..60) {
        replicas_agree(&log, restore_at)?;
    }

    #[test]
    fn a_forged_section_never_panics(log in logs(random_operation()), edits in edits()) {
        forged_snapshots_never_panic(&log, &edits)?;
    }
}
