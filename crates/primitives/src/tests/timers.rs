//! State-machine time and the timer table.

use std::time::Duration;

use super::support::*;
use crate::{ErrorCode, Outcome};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_key_is_gone_when_its_time_has_come_and_not_before() {
    let mut partition = Partition::new();
    let session = partition.open();
    partition
        .run(session, put_with_ttl("k", "v", 2 * SECOND))
        .unwrap();
    assert_eq!(partition.machine.next_timer(), Some(2 * SECOND));
    partition.tick(2 * SECOND - Duration::from_nanos(1));
    assert!(partition.machine.query(&get("k")).is_ok());
    let applied = partition.tick(Duration::from_nanos(1));
    assert_eq!(applied.events.len(), 1);
    assert_eq!(
        code(&partition.machine.query(&get("k"))),
        Some(ErrorCode::NotFound)
    );
    assert_eq!(partition.machine.next_timer(), None);
    assert_eq!(partition.machine.primitives().count(), 0);
}

#[test]
fn due_timers_fire_before_the_commands_of_their_entry() {
    let mut partition = Partition::new();
    let session = partition.open();
    partition
        .run(session, put_with_ttl("k", "v", SECOND))
        .unwrap();
    partition.time = 5 * SECOND;
    let gone = partition.run(session, remove("k"));
    assert_eq!(code(&gone), Some(ErrorCode::NotFound));
}

#[test]
fn timers_fire_in_the_order_of_deadline_then_of_setting() {
    let mut partition = Partition::new();
    let session = partition.open();
    for (key, ttl) in [("b", 2), ("a", 2), ("c", 1)] {
        let put = put_with_ttl(key, "v", ttl * SECOND);
        partition.run(session, put).unwrap();
    }
    let applied = partition.tick(3 * SECOND);
    let order: Vec<&[u8]> = applied.events.iter().map(|event| &*event.key).collect();
    assert_eq!(order, [b"c", b"b", b"a"]);
}

#[test]
fn time_never_goes_back() {
    let mut partition = Partition::new();
    let session = partition.open();
    partition.tick(10 * SECOND);
    partition.time = SECOND;
    partition
        .run(session, put_with_ttl("k", "v", SECOND))
        .unwrap();
    assert_eq!(partition.machine.time(), 10 * SECOND);
    assert_eq!(partition.machine.next_timer(), Some(11 * SECOND));
}

#[test]
fn writing_a_key_again_replaces_its_timer() {
    let mut partition = Partition::new();
    let session = partition.open();
    partition
        .run(session, put_with_ttl("k", "v", SECOND))
        .unwrap();
    partition.run(session, put("k", "v")).unwrap();
    assert_eq!(partition.machine.next_timer(), None);
    partition.tick(5 * SECOND);
    assert!(partition.machine.query(&get("k")).is_ok());
}

#[test]
fn a_waiter_that_waited_long_enough_is_refused_and_leaves_the_line() {
    let mut partition = Partition::new();
    let session = partition.open();
    partition.run(session, acquire(1)).unwrap();
    let waiting = operate(session, 1, 0, acquire_within(2, SECOND));
    assert_eq!(partition.one(waiting), Outcome::Pending);
    let applied = partition.tick(SECOND);
    let refused = completed(&applied, session, 1).unwrap();
    assert_eq!(code(&refused), Some(ErrorCode::Aborted));
    let applied = partition.apply(vec![operate(session, 2, 0, unlock(1))]);
    assert_eq!(applied.completed, vec![]);
}

#[test]
fn a_granted_waiter_has_no_timer_left() {
    let mut partition = Partition::new();
    let session = partition.open();
    partition.run(session, acquire(1)).unwrap();
    partition.one(operate(session, 1, 0, acquire_within(2, SECOND)));
    partition.run(session, unlock(1)).unwrap();
    assert_eq!(partition.machine.next_timer(), None);
    partition.tick(2 * SECOND);
    assert!(partition.run(session, unlock(2)).is_ok());
}

#[test]
fn timers_go_on_over_a_snapshot_with_their_first_deadline() {
    let mut partition = Partition::new();
    let session = partition.open();
    partition
        .run(session, put_with_ttl("k", "v", 3 * SECOND))
        .unwrap();
    partition.tick(2 * SECOND);
    let mut restored = partition.restored();
    assert_eq!(restored.machine.next_timer(), Some(3 * SECOND));
    let (left, right) = (partition.tick(SECOND), restored.tick(SECOND));
    assert_eq!(left, right);
    assert_eq!(left.events.len(), 1);
    assert_eq!(partition.bytes(), restored.bytes());
}

#[test]
fn a_ttl_beyond_all_time_is_no_overflow() {
    let mut partition = Partition::new();
    let session = partition.open();
    partition.tick(10 * SECOND);
    let put = put_with_ttl("k", "v", Duration::from_nanos(u64::MAX));
    partition.run(session, put).unwrap();
    assert_eq!(
        partition.machine.next_timer(),
        Some(Duration::from_nanos(u64::MAX))
    );
    assert_eq!(partition.bytes(), partition.restored().bytes());
}
