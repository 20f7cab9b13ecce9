//! Events and their ring.

use atomix_proto::multiraft::v1::SetLimits;

use super::support::*;
use crate::{EventPosition, EventsLost, OperationError};

#[test]
fn a_subscription_sees_each_change_after_its_position_once_and_in_order() {
    let mut partition = Partition::new();
    let session = partition.open();
    partition.run(session, put("before", "v")).unwrap();
    let position = partition.machine.event_position();
    let mut seen = Vec::new();
    for key in ["a", "b", "a"] {
        let command = operate(session, seen.len() as u64 + 1, 0, put(key, "v"));
        seen.extend(partition.apply(vec![command]).events);
    }
    assert_eq!(seen.len(), 3);
    let resume = |partition: &Partition, position| -> Vec<_> {
        let events = partition.machine.events_after(position).unwrap();
        events.cloned().collect()
    };
    assert_eq!(resume(&partition, position), seen);
    assert_eq!(resume(&partition.restored(), position), seen);
    assert_eq!(resume(&partition, seen[0].position), seen[1..]);
    assert_eq!(resume(&partition, partition.machine.event_position()), []);
}

#[test]
fn events_of_one_operation_are_numbered() {
    let mut partition = Partition::new();
    let session = partition.open();
    partition
        .run(session, prepare(1, &["a", "b"], "v"))
        .unwrap();
    let end = operate(session, 1, 0, finish(1, &["a", "b"], true));
    let events = partition.apply(vec![end]).events;
    assert_eq!(events[0].position.operation, events[1].position.operation);
    assert_eq!(events[0].position.ordinal, 0);
    assert_eq!(events[1].position.ordinal, 1);
}

#[test]
fn a_position_older_than_the_ring_is_data_loss() {
    let mut partition = Partition::new();
    partition.one(set_limits(SetLimits {
        event_ring_count: 2,
        ..SetLimits::default()
    }));
    let session = partition.open();
    let position = partition.machine.event_position();
    partition.run(session, put("a", "1")).unwrap();
    partition.run(session, put("a", "2")).unwrap();
    let after_two = partition.machine.event_position();
    assert_eq!(partition.machine.events_after(position).unwrap().count(), 2);

    partition.run(session, put("a", "3")).unwrap();
    for partition in [&partition, &partition.restored()] {
        let lost = partition.machine.events_after(position);
        assert_eq!(lost.err(), Some(EventsLost));
        assert_eq!(
            partition.machine.events_after(after_two).unwrap().count(),
            1
        );
    }
    let kept = partition.machine.events_after(after_two).unwrap().next();
    let first = kept.unwrap().position;
    partition.run(session, put("a", "4")).unwrap();
    partition.run(session, put("a", "5")).unwrap();
    // The first of the three is gone, but who has seen it misses nothing.
    assert_eq!(partition.machine.events_after(first).unwrap().count(), 2);
    assert!(partition.machine.events_after(after_two).is_err());
    let told = OperationError::from(EventsLost);
    assert_eq!(told.code, crate::ErrorCode::DataLoss);
    assert_eq!(told.message, "events lost, read again");
}

#[test]
fn the_ring_is_bounded_in_bytes_too_and_a_smaller_limit_trims_it_at_once() {
    let mut partition = Partition::new();
    let session = partition.open();
    let position = partition.machine.event_position();
    for _ in 0..10 {
        partition.run(session, put("a", "0123456789")).unwrap();
    }
    let all = partition.machine.usage().events;
    assert_eq!(
        partition.machine.events_after(position).unwrap().count(),
        10
    );
    partition.one(set_limits(SetLimits {
        event_ring_bytes: all / 2,
        ..SetLimits::default()
    }));
    assert!(partition.machine.usage().events <= all / 2);
    assert!(partition.machine.events_after(position).is_err());
    partition.one(set_limits(SetLimits {
        event_ring_bytes: 1,
        ..SetLimits::default()
    }));
    let events = {
        let command = operate(session, 1, 0, put("a", "too large for the ring"));
        partition.apply(vec![command]).events
    };
    assert_eq!(events.len(), 1);
    assert_eq!(partition.machine.usage().events, 0);
}

#[test]
fn a_position_from_the_future_has_no_events_yet() {
    let partition = Partition::new();
    let future = EventPosition::after_operation(u64::MAX);
    assert_eq!(partition.machine.events_after(future).unwrap().count(), 0);
}
