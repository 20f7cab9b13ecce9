//! The names of things. All numbers but sequences and owner numbers come from the partition's
//! replicated operation counter and never repeat within a partition.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

/// A session: one connection of a sidecar's store to this partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u64);

/// The number of an operation within its session, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sequence(pub u64);

/// One application connection within a session, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OwnerNumber(pub u64);

/// One operation of one session; applied exactly once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OperationId {
    /// The session that asked.
    pub session: SessionId,
    /// The operation's number in it.
    pub sequence: Sequence,
}

/// Who holds what an operation created: a lock, a candidacy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Owner {
    /// The session; what it owns ends with it.
    pub session: SessionId,
    /// The application connection.
    pub number: OwnerNumber,
}

/// A primitive within a partition. The same name with another kind is another primitive.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PrimitiveKey {
    /// The kind's name: `counter`.
    pub kind: &'static str,
    /// The primitive's name.
    pub name: Arc<str>,
}

impl fmt::Display for PrimitiveKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {:?}", self.kind, self.name)
    }
}

/// A timer that is set. Timers fire in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TimerId {
    /// The state-machine time from which it is due.
    pub deadline: Duration,
    /// Where the operation counter stood when it was set.
    pub number: u64,
}

/// Where an event stands among all events of the partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventPosition {
    /// Where the operation counter stood when it happened.
    pub operation: u64,
    /// Its place among the events of that operation, from 0.
    pub ordinal: u32,
}

impl EventPosition {
    /// The position after every event that happened while the counter stood at `operation`.
    pub fn after_operation(operation: u64) -> Self {
        let ordinal = u32::MAX;
        Self { operation, ordinal }
    }
}

/// Nanoseconds, at most 2^64 - 1 (584 years): what snapshots hold.
pub(crate) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

pub(crate) fn duration(nanos: u64) -> Duration {
    Duration::from_nanos(nanos)
}

/// A key within a primitive, as the kind encodes it.
pub(crate) type Key = Bytes;
