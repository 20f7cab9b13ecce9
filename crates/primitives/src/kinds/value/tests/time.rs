//! Times to live.

use atomix_proto::multiraft::v1::{Tick, command};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_value_expires_when_its_time_has_come_and_not_before() {
    type Store = fn(Option<prost_types::Duration>) -> Operation;
    let stores: [(Option<&str>, Store); 3] = [
        (None, |ttl| set_with("n", ttl)),
        (None, |ttl| insert_with("n", ttl)),
        (Some("o"), |ttl| update_with("n", 0, ttl)),
    ];
    for (before, store) in stores {
        let (mut partition, session, _) = with_value(before);
        let ttl = Some((2 * SECOND).try_into().unwrap());
        partition.run(session, store(ttl)).unwrap();
        let stored = present(&partition);
        assert_eq!(partition.machine.next_timer(), Some(2 * SECOND));
        let early = partition.tick(2 * SECOND - Duration::from_nanos(1));
        assert_eq!(early.events, vec![]);
        assert_eq!(present(&partition), stored);
        let applied = partition.tick(Duration::from_nanos(1));
        let expired = event::Deleted {
            value: stored,
            expired: true,
        };
        assert_eq!(events(&applied), vec![event::Event::Deleted(expired)]);
        assert_eq!(present(&partition), None);
        assert_eq!(partition.machine.primitives().count(), 0);
        assert_eq!(partition.machine.usage().primitives, 0);
    }
}

#[test]
fn a_write_replaces_the_time_to_live_and_a_refused_one_does_not() {
    let (mut partition, session, _) = with_value(None);
    partition.run(session, set_for("a", SECOND)).unwrap();
    let version = present(&partition).unwrap().version;
    for refused in [insert("b"), update("b", version + 1), delete(version + 1)] {
        assert!(partition.run(session, refused).is_err());
        assert_eq!(partition.machine.next_timer(), Some(SECOND));
    }
    // An equal value renews time to live and version.
    partition.tick(SECOND / 2);
    partition.run(session, set_for("a", SECOND)).unwrap();
    assert_eq!(partition.machine.next_timer(), Some(SECOND + SECOND / 2));
    assert!(present(&partition).unwrap().version > version);
    // 0 is none.
    for zero in [set_for("a", Duration::ZERO), update("a", 0)] {
        partition.run(session, set_for("a", SECOND)).unwrap();
        partition.run(session, zero).unwrap();
        assert_eq!(partition.machine.next_timer(), None);
    }
    partition.tick(100 * SECOND);
    assert!(present(&partition).is_some());
    // Deleting leaves no timer that takes the next value away.
    partition.run(session, set_for("a", SECOND)).unwrap();
    partition.run(session, delete(0)).unwrap();
    partition.run(session, insert("b")).unwrap();
    assert_eq!(partition.tick(2 * SECOND).events, vec![]);
    assert!(present(&partition).is_some());
}

#[test]
fn a_ttl_beyond_all_time_is_no_overflow() {
    let (mut partition, session, _) = with_value(None);
    partition.tick(SECOND);
    let longest = prost_types::Duration {
        seconds: i64::MAX,
        nanos: 999_999_999,
    };
    partition
        .run(session, set_with("v", Some(longest)))
        .unwrap();
    assert_eq!(partition.bytes(), partition.restored().bytes());
    partition.tick(1_000 * SECOND);
    assert!(present(&partition).is_some());
}

/// A defect of the original: its timers started anew from the time of the snapshot, on one replica.
#[test]
fn a_restored_replica_expires_the_value_at_the_same_entry_as_the_others() {
    let (mut steady, session, _) = with_value(None);
    steady.run(session, set_for("v", 2 * SECOND)).unwrap();
    steady.tick(SECOND);
    let mut restored = steady.restored();
    for after in [SECOND / 2, SECOND / 2] {
        assert_eq!(steady.tick(after), restored.tick(after));
        assert_eq!(steady.bytes(), restored.bytes());
    }
    assert_eq!(present(&steady), None);
}

/// A defect of the original: an idle partition expired nothing, and what had expired was read.
#[test]
fn a_tick_alone_expires_the_value_and_no_later_command_sees_it() {
    let (mut partition, session, _) = with_value(None);
    partition.run(session, set_for("v", SECOND)).unwrap();
    assert_eq!(partition.machine.next_timer(), Some(SECOND));
    partition.tick(SECOND);
    assert_eq!(present(&partition), None);

    partition.run(session, set_for("v", SECOND)).unwrap();
    partition.time += SECOND;
    let late = partition.run(session, update("n", 0));
    assert_eq!(code(&late), Some(ErrorCode::NotFound));
}

/// A defect of the original.
#[test]
fn a_jump_of_the_leaders_clock_expires_nothing() {
    let (mut partition, session, _) = with_value(None);
    partition.run(session, set_for("v", SECOND)).unwrap();
    let mut entry = batch(partition.time, vec![command::Command::Tick(Tick {})]);
    entry.wall_time_millis = u64::MAX;
    partition.index += 1;
    let applied = partition.machine.apply(partition.index, &entry);
    assert_eq!(applied.events, vec![]);
    assert!(present(&partition).is_some());
    assert_eq!(partition.machine.next_timer(), Some(SECOND));
}
