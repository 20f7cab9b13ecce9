//! The requests, replies and snapshot records of the kind `probe`.

use bytes::Bytes;
use prost::Message;

use crate::context::Transaction;
use crate::ids::{OperationId, Sequence, SessionId};

/// Writes a key; with a ttl it is gone after it.
#[derive(Clone, PartialEq, Message)]
pub struct PutRequest {
    /// The key.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// Its value.
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
    /// Nanoseconds; 0 = none.
    #[prost(uint64, tag = "3")]
    pub ttl_nanos: u64,
}

/// Names a key, for `Get` and `Remove`.
#[derive(Clone, PartialEq, Message)]
pub struct KeyRequest {
    /// The key.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
}

/// A key's value, answered by `Put`, `Get` and `Remove`; the payload of events.
#[derive(Clone, PartialEq, Message)]
pub struct Item {
    /// The value.
    #[prost(bytes = "bytes", tag = "1")]
    pub value: Bytes,
    /// Grows with each change.
    #[prost(uint64, tag = "2")]
    pub version: u64,
    /// Only in events: the key is gone.
    #[prost(bool, tag = "3")]
    pub removed: bool,
}

/// Queues for the lock.
#[derive(Clone, PartialEq, Message)]
pub struct AcquireRequest {
    /// Nanoseconds to wait at most; 0 = for ever.
    #[prost(uint64, tag = "1")]
    pub timeout_nanos: u64,
}

/// The lock was granted.
#[derive(Clone, PartialEq, Message)]
pub struct AcquireReply {
    /// Only grows.
    #[prost(uint64, tag = "1")]
    pub token: u64,
}

/// Gives the lock back.
#[derive(Clone, PartialEq, Message)]
pub struct UnlockRequest {}

/// Claims keys for a transaction (`Prepare`), or ends its claims (`Finish`).
#[derive(Clone, PartialEq, Message)]
pub struct TransactionRequest {
    /// The deciding partition.
    #[prost(uint32, tag = "1")]
    pub coordinator: u32,
    /// The transaction's session.
    #[prost(uint64, tag = "2")]
    pub session: u64,
    /// The transaction's sequence.
    #[prost(uint64, tag = "3")]
    pub sequence: u64,
    /// The keys.
    #[prost(bytes = "bytes", repeated, tag = "4")]
    pub keys: Vec<Bytes>,
    /// What the keys get when it commits.
    #[prost(bytes = "bytes", tag = "5")]
    pub value: Bytes,
    /// Only for `Finish`.
    #[prost(bool, tag = "6")]
    pub commit: bool,
}

impl TransactionRequest {
    pub(super) fn transaction(&self) -> Transaction {
        Transaction {
            coordinator: self.coordinator,
            operation: OperationId {
                session: SessionId(self.session),
                sequence: Sequence(self.sequence),
            },
        }
    }
}

/// Nothing more to say.
#[derive(Clone, PartialEq, Message)]
pub struct Empty {}

/// A timer in a snapshot.
#[derive(Clone, PartialEq, Message)]
pub(super) struct TimerRecord {
    #[prost(uint64, tag = "1")]
    pub(super) deadline_nanos: u64,
    #[prost(uint64, tag = "2")]
    pub(super) number: u64,
}

/// One record of the section: a key, the holder or a waiter.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Record {
    #[prost(oneof = "Content", tags = "1, 2, 3")]
    pub(super) content: Option<Content>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Content {
    #[prost(message, tag = "1")]
    Item(ItemRecord),
    #[prost(message, tag = "2")]
    Holder(ClaimRecord),
    #[prost(message, tag = "3")]
    Waiter(ClaimRecord),
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ItemRecord {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) value: Bytes,
    #[prost(uint64, tag = "3")]
    pub(super) version: u64,
    #[prost(message, optional, tag = "4")]
    pub(super) timer: Option<TimerRecord>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ClaimRecord {
    #[prost(uint64, tag = "1")]
    pub(super) number: u64,
    #[prost(uint64, tag = "2")]
    pub(super) session: u64,
    #[prost(uint64, tag = "3")]
    pub(super) sequence: u64,
    #[prost(uint64, tag = "4")]
    pub(super) owner: u64,
    #[prost(message, optional, tag = "5")]
    pub(super) timer: Option<TimerRecord>,
}
