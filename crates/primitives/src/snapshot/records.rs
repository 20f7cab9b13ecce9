//! The records of a snapshot file. They are stored on disks: numbers never change meaning, and a
//! change that an older program must not overlook raises a version.

use atomix_proto::multiraft::v1::Operation;
use bytes::Bytes;
use prost::Message;

/// The format of the file as a whole.
pub(super) const FORMAT: u32 = 1;
/// Told apart from any other file of frames.
pub(super) const MAGIC: &str = "atomix partition snapshot";

/// The sorts of section, in their order in the file.
pub(super) mod sort {
    pub(in crate::snapshot) const SESSION: u32 = 1;
    pub(in crate::snapshot) const PRIMITIVE: u32 = 2;
    pub(in crate::snapshot) const TIMERS: u32 = 3;
    pub(in crate::snapshot) const EVENTS: u32 = 4;
}

/// The version of all sections that are not a primitive's.
pub(super) const FRAME_SECTION: u32 = 1;

#[derive(Clone, PartialEq, Message)]
pub(super) struct Header {
    #[prost(string, tag = "1")]
    pub(super) magic: String,
    #[prost(uint32, tag = "2")]
    pub(super) format: u32,
    #[prost(uint32, tag = "3")]
    pub(super) active_version: u32,
    #[prost(uint64, tag = "4")]
    pub(super) applied_index: u64,
    #[prost(uint64, tag = "5")]
    pub(super) time_nanos: u64,
    #[prost(uint64, tag = "6")]
    pub(super) counter: u64,
    #[prost(uint64, tag = "7")]
    pub(super) event_ring_bytes: u64,
    #[prost(uint64, tag = "8")]
    pub(super) event_ring_count: u64,
    #[prost(uint64, tag = "9")]
    pub(super) session_window_operations: u64,
    #[prost(uint64, tag = "10")]
    pub(super) session_window_reply_bytes: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Section {
    #[prost(uint32, tag = "1")]
    pub(super) sort: u32,
    #[prost(uint32, tag = "2")]
    pub(super) version: u32,
    /// A session's id.
    #[prost(uint64, tag = "3")]
    pub(super) session: u64,
    /// A primitive's kind and name.
    #[prost(string, tag = "4")]
    pub(super) kind: String,
    #[prost(string, tag = "5")]
    pub(super) name: String,
}

/// The first record of a session's section; the others are [`Entry`].
#[derive(Clone, PartialEq, Message)]
pub(super) struct Session {
    #[prost(uint64, tag = "1")]
    pub(super) timeout_nanos: u64,
    #[prost(string, tag = "2")]
    pub(super) client: String,
    #[prost(uint64, tag = "3")]
    pub(super) floor: u64,
    #[prost(uint64, repeated, tag = "4")]
    pub(super) open: Vec<u64>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Entry {
    #[prost(uint64, tag = "1")]
    pub(super) sequence: u64,
    /// Empty when the entry is done and its kind grants nothing.
    #[prost(string, tag = "2")]
    pub(super) kind: String,
    #[prost(string, tag = "3")]
    pub(super) name: String,
    #[prost(oneof = "Progress", tags = "4, 5, 6")]
    pub(super) progress: Option<Progress>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Progress {
    #[prost(message, tag = "4")]
    Waiting(Waiting),
    #[prost(bytes = "bytes", tag = "5")]
    Reply(Bytes),
    #[prost(message, tag = "6")]
    Error(Error),
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Waiting {
    /// 0 = none.
    #[prost(uint64, tag = "1")]
    pub(super) owner: u64,
    #[prost(message, optional, tag = "2")]
    pub(super) parked: Option<ParkedOperation>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ParkedOperation {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) key: Bytes,
    #[prost(uint64, tag = "2")]
    pub(super) number: u64,
    #[prost(message, optional, tag = "3")]
    pub(super) operation: Option<Operation>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Error {
    #[prost(int32, tag = "1")]
    pub(super) code: i32,
    #[prost(string, tag = "2")]
    pub(super) message: String,
}

/// The first record of a primitive's section; the others are the kind's own.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Instance {
    #[prost(uint64, repeated, tag = "1")]
    pub(super) sessions: Vec<u64>,
    #[prost(message, repeated, tag = "2")]
    pub(super) intents: Vec<Intent>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Intent {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) key: Bytes,
    #[prost(uint32, tag = "2")]
    pub(super) coordinator: u32,
    #[prost(uint64, tag = "3")]
    pub(super) session: u64,
    #[prost(uint64, tag = "4")]
    pub(super) sequence: u64,
    #[prost(uint64, tag = "5")]
    pub(super) placed_at_nanos: u64,
    #[prost(bytes = "bytes", tag = "6")]
    pub(super) payload: Bytes,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Timer {
    #[prost(uint64, tag = "1")]
    pub(super) deadline_nanos: u64,
    #[prost(uint64, tag = "2")]
    pub(super) number: u64,
    #[prost(string, tag = "3")]
    pub(super) kind: String,
    #[prost(string, tag = "4")]
    pub(super) name: String,
    #[prost(bytes = "bytes", tag = "5")]
    pub(super) tag: Bytes,
}

/// The first record of the events' section; the others are [`Event`].
#[derive(Clone, PartialEq, Message)]
pub(super) struct Ring {
    #[prost(message, optional, tag = "1")]
    pub(super) lost_through: Option<Position>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Position {
    #[prost(uint64, tag = "1")]
    pub(super) operation: u64,
    #[prost(uint32, tag = "2")]
    pub(super) ordinal: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Event {
    #[prost(message, optional, tag = "1")]
    pub(super) position: Option<Position>,
    #[prost(string, tag = "2")]
    pub(super) kind: String,
    #[prost(string, tag = "3")]
    pub(super) name: String,
    #[prost(bytes = "bytes", tag = "4")]
    pub(super) key: Bytes,
    #[prost(bytes = "bytes", tag = "5")]
    pub(super) payload: Bytes,
}
