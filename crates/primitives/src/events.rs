//! The ring of the last events of a partition. It is part of the state and of snapshots, so every
//! replica can continue any subscription whose position the ring still has.

use bytes::Bytes;
use imbl::OrdMap;

use crate::error::EventsLost;
use crate::ids::{EventPosition, PrimitiveKey};
use crate::limits::Limits;

/// Something that happened to a primitive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its place among all events of the partition.
    pub position: EventPosition,
    /// The primitive.
    pub primitive: PrimitiveKey,
    /// The key within the primitive, for subscriptions to one key; empty when it has no keys.
    pub key: Bytes,
    /// The encoded event message of the kind.
    pub payload: Bytes,
}

/// What an event costs beside its key and payload, in bytes; part of active version 1.
const EVENT_OVERHEAD: u64 = 64;

impl Event {
    fn bytes(&self) -> u64 {
        let variable = self.key.len() + self.payload.len() + self.primitive.name.len();
        EVENT_OVERHEAD + variable as u64
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct EventRing {
    events: OrdMap<EventPosition, Event>,
    bytes: u64,
    /// The last event that has left the ring: what follows a position before it is incomplete.
    lost_through: Option<EventPosition>,
}

impl EventRing {
    pub(crate) fn push(&mut self, event: Event, limits: &Limits) {
        self.bytes += event.bytes();
        self.events.insert(event.position, event);
        self.trim(limits);
    }

    pub(crate) fn trim(&mut self, limits: &Limits) {
        while self.bytes > limits.event_ring_bytes
            || self.events.len() as u64 > limits.event_ring_count
        {
            let Some(oldest) = self.events.get_min().map(|(position, _)| *position) else {
                return;
            };
            if let Some(event) = self.events.remove(&oldest) {
                self.bytes = self.bytes.saturating_sub(event.bytes());
            }
            self.lost_through = Some(oldest);
        }
    }

    pub(crate) fn after(
        &self,
        position: EventPosition,
    ) -> Result<impl Iterator<Item = &Event>, EventsLost> {
        if self.lost_through.is_some_and(|lost| position < lost) {
            return Err(EventsLost);
        }
        let following = (
            std::ops::Bound::Excluded(position),
            std::ops::Bound::Unbounded,
        );
        Ok(self.events.range(following).map(|(_, event)| event))
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Event> {
        self.events.values()
    }

    pub(crate) fn lost_through(&self) -> Option<EventPosition> {
        self.lost_through
    }

    /// The ring of a snapshot, before its events are added one by one.
    pub(crate) fn restored(lost_through: Option<EventPosition>) -> Self {
        Self {
            lost_through,
            ..Self::default()
        }
    }

    /// Adds an event of a snapshot; false if it is not after all others.
    pub(crate) fn restore(&mut self, event: Event) -> bool {
        let newest = self.events.get_max().map(|(position, _)| *position);
        if newest.max(self.lost_through) >= Some(event.position) {
            return false;
        }
        self.bytes += event.bytes();
        self.events.insert(event.position, event);
        true
    }
}
