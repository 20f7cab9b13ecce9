//! Raft groups: openraft behind our own types, one durable log for all groups of a process.
//!
//! An [`Engine`] is one data directory: the node's identity, the records of its groups, and one
//! log that all groups write to. A [`Group`] is this node's member of one partition: it replicates
//! payloads that it does not look into and applies them to a [`Machine`].
//!
//! Not for the network (see [`Transport`]), nor for what a payload means. No type of openraft or
//! raft-engine is part of the public API.

mod boots;
mod codec;
mod device;
mod engine;
mod error;
mod fatal;
mod group;
mod host;
mod ids;
mod log;
mod machine;
mod membership;
mod network;
mod open;
mod options;
mod position;
mod record;
mod recover;
mod snapshot;
mod status;
mod transport;
mod types;

#[cfg(test)]
#[allow(clippy::expect_used)]
mod suite;

pub use boots::{BootCounters, StaleBoot};
pub use device::{DiskChange, DiskFaults};
pub use engine::{Engine, StoredOperator};
pub use error::{
    ChangeError, InitializeError, LeaderHint, OpenError, ProposeError, ReadError, StartError,
    StorageError, TransferError,
};
pub use fatal::FatalError;
pub use group::{Group, ReadIndex};
pub use ids::{MemberId, NodeId, PartitionId};
pub use machine::Machine;
pub use membership::{MemberChange, Membership};
pub use network::MemberReport;
pub use options::{EngineOptions, WriteFailure};
pub use position::LogPosition;
pub use record::{GroupRecord, MemberAddress, Timings};
pub use recover::{FormerMembers, Outlook, RecoverError};
pub use status::{GroupEvent, GroupStatus, MemberProgress, Role};
pub use transport::{Class, PeerTarget, Transport, TransportError};

pub use atomix_proto::multiraft::v1::{PeerMessage, PeerRefusal, PeerReply, peer_refusal};
