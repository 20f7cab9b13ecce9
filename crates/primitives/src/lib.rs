//! The replicated state machine of a partition: sessions and primitives, without I/O.
//!
//! For: everything that must come out alike on every replica. The input is the log (an index and a
//! [`CommandBatch`] per entry), the output is replies and events; there is no clock, no randomness,
//! no floating point and no iteration over unordered maps. A snapshot is byte-identical on all
//! replicas at the same index.
//!
//! Drivers ask the kinds too: which partitions of a store an operation goes to, and what a stream
//! consists of ([`spread`]). That is as pure, and a promise to the data on the disks.
//!
//! Not for: agreeing on the log (crate `raft`), keeping sessions alive (the leader's memory) or
//! answering requests (crates `node` and `driver`).
//!
//! How to use it:
//! - before proposing: [`StateMachine::admit`] for an operation, [`Kinds::access`] to know whether
//!   it is a read, which goes to [`StateMachine::query`] and never into the log;
//! - for each committed entry: [`StateMachine::apply`], once, in the order of the log;
//! - when nobody waits for an operation any more: a `Cancel`, also when its grant may be on the way.
//!   It must come before the operation is acknowledged: acknowledging withdraws one that waits, but
//!   says of a finished one that its answer has arrived;
//! - before a read, when [`StateMachine::next_timer`] is due: an entry with a `Tick`;
//! - a new kind of primitive is a folder in `kinds/` that implements [`Primitive`] and
//!   [`Spread`](spread::Spread), its `.proto` file and one line in [`Kinds::standard`].
//!
//! [`CommandBatch`]: atomix_proto::multiraft::v1::CommandBatch

mod context;
mod error;
mod events;
mod follow;
mod ids;
mod instance;
mod intents;
mod kind;
mod kinds;
mod limits;
mod machine;
mod output;
mod section;
mod session;
mod snapshot;
pub mod spread;
mod state;
mod timers;

#[cfg(test)]
mod tests;

pub use context::{Busy, Caller, Context, Intent, Transaction, View};
pub use error::{ErrorCode, EventsLost, OperationError, Reply, SnapshotError, Stop};
pub use events::Event;
pub use follow::{EventFilter, EventsRead, FollowerId, Followers};
pub use ids::{
    EventPosition, OperationId, Owner, OwnerNumber, PrimitiveKey, Sequence, SessionId, TimerId,
};
pub use kind::{Access, Answer, Method, Primitive, Progress, Released, Wait};
pub use kinds::Kinds;
pub use kinds::counter;
pub use kinds::countermap;
pub use kinds::election;
pub use kinds::indexedmap;
pub use kinds::list;
pub use kinds::lock;
pub use kinds::map;
pub use kinds::multimap;
#[cfg(any(test, feature = "test-kind"))]
pub use kinds::probe;
pub use kinds::set;
pub use kinds::topic;
pub use kinds::value;
pub use limits::Limits;
pub use machine::{Admission, Query, SessionStatus, StateMachine, Usage};
pub use output::{Applied, Completed, Outcome};
pub use section::{SectionReader, SectionWriter};
pub use snapshot::Snapshot;

/// The newest active version that this program can apply. A group whose active version is above it
/// cannot run here, and [`StateMachine::apply`] stops at the entry that raises it further.
pub const SUPPORTED_VERSION: u32 = 1;
