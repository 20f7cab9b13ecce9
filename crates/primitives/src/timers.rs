//! The one timer table of a partition, ordered by (deadline, operation counter).
//!
//! Deadlines are state-machine times, so a snapshot carries them unchanged and all replicas fire
//! the same timers at the same entry.

use std::time::Duration;

use bytes::Bytes;
use imbl::OrdMap;

use crate::ids::{PrimitiveKey, TimerId};

/// What a timer is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Timer {
    pub(crate) primitive: PrimitiveKey,
    /// The primitive's own note of what is due.
    pub(crate) tag: Bytes,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct TimerTable {
    timers: OrdMap<TimerId, Timer>,
}

impl TimerTable {
    pub(crate) fn set(&mut self, id: TimerId, timer: Timer) {
        self.timers.insert(id, timer);
    }

    /// Removes a timer if it is one of this primitive's.
    pub(crate) fn clear(&mut self, id: TimerId, primitive: &PrimitiveKey) -> bool {
        let owned = self
            .timers
            .get(&id)
            .is_some_and(|timer| timer.primitive == *primitive);
        if owned {
            self.timers.remove(&id);
        }
        owned
    }

    pub(crate) fn take(&mut self, id: TimerId) -> Option<Timer> {
        self.timers.remove(&id)
    }

    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        self.timers.get_min().map(|(id, _)| id.deadline)
    }

    /// The timers that are due at `now`, in order, as the table stands; it may change meanwhile.
    pub(crate) fn due(&self, now: Duration) -> Vec<TimerId> {
        let last = TimerId {
            deadline: now,
            number: u64::MAX,
        };
        self.timers.range(..=last).map(|(id, _)| *id).collect()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&TimerId, &Timer)> {
        self.timers.iter()
    }

    pub(crate) fn len(&self) -> usize {
        self.timers.len()
    }
}
