//! Following what happens to one primitive: which events are asked for, what the ring has of them,
//! and who waits for the next.
//!
//! Nothing here is replicated: every replica that has come as far can go on with a subscription.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::error::EventsLost;
use crate::events::Event;
use crate::ids::{EventPosition, PrimitiveKey};
use crate::machine::StateMachine;

/// Events that one reading looks at, so that applying does not wait for long.
const LOOKED_AT: usize = 4_096;
/// A reading ends behind the event that reaches this many bytes.
const READ_BYTES: usize = 256 << 10;

/// Which events are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventFilter {
    /// Of this primitive.
    pub primitive: PrimitiveKey,
    /// Of this key only; `None` = of all.
    pub key: Option<Bytes>,
}

impl EventFilter {
    fn has(&self, event: &Event) -> bool {
        let is_its_key = self.key.as_ref().is_none_or(|key| *key == event.key);
        is_its_key && event.primitive == self.primitive
    }
}

/// What the ring has after a position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventsRead {
    /// In order.
    pub events: Vec<Event>,
    /// Every event up to here is among them, or was not asked for.
    pub through: EventPosition,
    /// Whether `through` is the present: nothing later has happened.
    pub is_all: bool,
}

impl StateMachine {
    /// The events of a primitive; `None` when its kind does not exist here.
    pub fn event_filter(&self, kind: &str, name: &str, key: Option<Bytes>) -> Option<EventFilter> {
        let kind = self.kinds().name(kind)?;
        let name = name.into();
        Some(EventFilter {
            primitive: PrimitiveKey { kind, name },
            key,
        })
    }

    /// Some of the events after a position, in order. None when this replica has not come that far.
    ///
    /// # Errors
    /// The ring no longer has all of them.
    pub fn read_events(
        &self,
        filter: &EventFilter,
        after: EventPosition,
    ) -> Result<EventsRead, EventsLost> {
        let mut read = EventsRead {
            events: Vec::new(),
            through: after,
            is_all: false,
        };
        let mut bytes = 0;
        for (looked_at, event) in self.events_after(after)?.enumerate() {
            if looked_at >= LOOKED_AT || bytes >= READ_BYTES {
                return Ok(read);
            }
            read.through = event.position;
            if filter.has(event) {
                bytes += event.payload.len() + event.key.len();
                read.events.push(event.clone());
            }
        }
        read.through = self.event_position().max(after);
        read.is_all = true;
        Ok(read)
    }
}

/// Names one who waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FollowerId {
    primitive: PrimitiveKey,
    number: u64,
}

#[derive(Debug)]
struct Follower<W> {
    filter: EventFilter,
    after: EventPosition,
    waiter: W,
}

/// Who waits for the next event of what. A waiter joins in the same step in which it has read
/// everything up to the present, so that nothing comes between.
#[derive(Debug)]
pub struct Followers<W> {
    by_primitive: BTreeMap<PrimitiveKey, BTreeMap<u64, Follower<W>>>,
    last_number: u64,
}

impl<W> Default for Followers<W> {
    fn default() -> Self {
        Self {
            by_primitive: BTreeMap::new(),
            last_number: 0,
        }
    }
}

impl<W> Followers<W> {
    /// Adds one who has read everything through a position.
    pub fn add(&mut self, filter: EventFilter, after: EventPosition, waiter: W) -> FollowerId {
        self.last_number += 1;
        let number = self.last_number;
        let primitive = filter.primitive.clone();
        let follower = Follower {
            filter,
            after,
            waiter,
        };
        let of_primitive = self.by_primitive.entry(primitive.clone()).or_default();
        of_primitive.insert(number, follower);
        FollowerId { primitive, number }
    }

    /// Takes one out who does not wait any more. False = it was called before.
    pub fn remove(&mut self, id: &FollowerId) -> bool {
        let Some(of_primitive) = self.by_primitive.get_mut(&id.primitive) else {
            return false;
        };
        let was_there = of_primitive.remove(&id.number).is_some();
        if of_primitive.is_empty() {
            self.by_primitive.remove(&id.primitive);
        }
        was_there
    }

    /// Takes out those who waited for one of these events, each with a position that its event is
    /// after and that nothing it asked for lies before.
    pub fn called_by(&mut self, events: &[Event]) -> Vec<(W, EventPosition)> {
        let mut called = Vec::new();
        if self.by_primitive.is_empty() {
            return called;
        }
        for event in events {
            let Some(of_primitive) = self.by_primitive.get_mut(&event.primitive) else {
                continue;
            };
            let before = EventPosition::after_operation(event.position.operation.saturating_sub(1));
            let waited_for = |_: &u64, follower: &mut Follower<W>| {
                event.position > follower.after && follower.filter.has(event)
            };
            for (_, follower) in of_primitive.extract_if(.., waited_for) {
                called.push((follower.waiter, before.max(follower.after)));
            }
            if of_primitive.is_empty() {
                self.by_primitive.remove(&event.primitive);
            }
        }
        called
    }

    /// How many wait.
    pub fn count(&self) -> usize {
        self.by_primitive.values().map(BTreeMap::len).sum()
    }

    /// Takes everybody out: the state was replaced, and they have to read anew.
    pub fn clear(&mut self) {
        self.by_primitive.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::support::*;

    fn key(name: &str) -> PrimitiveKey {
        let name = name.into();
        PrimitiveKey { kind: "map", name }
    }

    fn filter(name: &str, of: Option<&'static str>) -> EventFilter {
        EventFilter {
            primitive: key(name),
            key: of.map(|key| Bytes::from_static(key.as_bytes())),
        }
    }

    fn at(operation: u64, ordinal: u32) -> EventPosition {
        EventPosition { operation, ordinal }
    }

    fn event(name: &str, of: &'static str, position: EventPosition) -> Event {
        Event {
            position,
            primitive: key(name),
            key: Bytes::from_static(of.as_bytes()),
            payload: Bytes::new(),
        }
    }

    #[test]
    fn only_those_who_asked_for_an_event_are_called_and_only_once() {
        let mut followers = Followers::default();
        followers.add(filter("m", None), at(4, 0), "all");
        followers.add(filter("m", Some("k")), at(4, 0), "its key");
        followers.add(filter("m", Some("other")), at(4, 0), "another key");
        followers.add(filter("n", None), at(4, 0), "another primitive");
        followers.add(filter("m", None), at(9, 0), "one who knows it");
        let events = [event("m", "k", at(7, 1)), event("m", "k", at(7, 2))];
        assert_eq!(
            followers.called_by(&events),
            vec![
                ("all", EventPosition::after_operation(6)),
                ("its key", EventPosition::after_operation(6)),
            ]
        );
        assert_eq!(followers.called_by(&events), vec![]);
        assert_eq!(followers.count(), 3);
    }

    #[test]
    fn a_position_within_an_operation_is_not_gone_back_from() {
        let mut followers = Followers::default();
        followers.add(filter("m", None), at(7, 0), ());
        let called = followers.called_by(&[event("m", "k", at(7, 1))]);
        assert_eq!(called, vec![((), at(7, 0))]);
    }

    #[test]
    fn one_who_left_is_not_called_and_leaves_nothing_behind() {
        let mut followers = Followers::default();
        let id = followers.add(filter("m", None), at(0, 0), ());
        assert!(followers.remove(&id));
        assert!(!followers.remove(&id));
        assert_eq!(followers.called_by(&[event("m", "k", at(7, 1))]), vec![]);
        assert_eq!(followers.count(), 0);
    }

    #[test]
    fn events_are_read_in_steps_that_meet_end_to_end() {
        let mut partition = Partition::new();
        let session = partition.open();
        let start = partition.machine.event_position();
        let published = 3 * LOOKED_AT / 2;
        for number in 0..published as u64 {
            let name = if number % 2 == 0 { "even" } else { "odd" };
            let publish = atomix_proto::runtime::topic::v1::PublishRequest::default();
            let operation = operation("topic", name, "Publish", 0, &publish);
            partition.one(operate(session, number + 1, number, operation));
        }
        let machine = &partition.machine;
        assert_eq!(machine.event_filter("sundial", "s", None), None);
        let even = machine.event_filter("topic", "even", None).unwrap();
        let (mut after, mut events, mut steps) = (start, Vec::new(), 0);
        loop {
            let read = machine.read_events(&even, after).unwrap();
            after = read.through;
            events.extend(read.events);
            steps += 1;
            if read.is_all {
                break;
            }
        }
        assert_eq!((events.len(), steps), (published / 2, 2));
        assert!(events.is_sorted_by(|one, next| one.position < next.position));
        assert_eq!(after, machine.event_position());
    }
}
