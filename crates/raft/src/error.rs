//! Why something did not work, and what that means for whoever asked.

use std::io;
use std::path::PathBuf;

use crate::ids::{MemberId, NodeId, PartitionId};

/// Who leads, as far as the refusing member knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaderHint {
    /// The leader.
    pub member_id: MemberId,
    /// Its node.
    pub node_id: NodeId,
    /// Its node's peer address, `host:port`.
    pub address: String,
}

/// Why a data directory cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// An ordinary I/O error.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process has it open.
    #[error("data directory {} is in use by another process", .0.display())]
    Locked(PathBuf),
    /// There is a log without the node's identity, or an identity without its log.
    #[error(
        "data directory {} is incomplete: {reason}; do not start a node on it; replace the node with `store replace-node`",
        path.display()
    )]
    Incomplete {
        /// The directory.
        path: PathBuf,
        /// What is missing.
        reason: String,
    },
    /// Entries that were acknowledged are damaged.
    #[error(
        "the log in {} is damaged: {reason}; acknowledged entries would be lost; replace the node with `store replace-node`",
        path.display()
    )]
    Damaged {
        /// The directory.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// Written by a newer program.
    #[error("the data in {} has format {format}, which this version does not know", path.display())]
    UnknownFormat {
        /// The directory.
        path: PathBuf,
        /// The format found.
        format: u32,
    },
}

/// A write to the log did not happen because the engine is closed or has failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot write to the log: {0}")]
pub struct StorageError(pub String);

/// Why a group was not started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// `Engine::create_group` was not called, or the record differs from the stored one.
    #[error("partition {0} has another record on disk than the one to start with, or none")]
    RecordMismatch(PartitionId),
    /// It runs already.
    #[error("partition {0} is started already")]
    AlreadyStarted(PartitionId),
    /// The timings make no sense.
    #[error(
        "partition {partition} cannot start with election timeout {election_timeout:?}: {reason}"
    )]
    Timings {
        /// The partition.
        partition: PartitionId,
        /// What was asked for.
        election_timeout: std::time::Duration,
        /// Why not.
        reason: String,
    },
    /// What was compacted is in no snapshot that can be read.
    #[error(
        "cannot start partition {partition}: its log is compacted up to entry {compacted}, and no whole \
         snapshot reaches that; acknowledged entries would be lost; replace the node with \
         `store replace-node`"
    )]
    NoSnapshot {
        /// The partition.
        partition: PartitionId,
        /// The last compacted entry.
        compacted: u64,
    },
    /// Its log, snapshot or state cannot be read.
    #[error("cannot start partition {partition}: {reason}")]
    Storage {
        /// The partition.
        partition: PartitionId,
        /// What was found.
        reason: String,
    },
}

/// Why `Group::initialize` failed. A group that is initialized already is no failure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InitializeError {
    /// Another member does that.
    #[error("member {0} is not the initializer of its group")]
    NotInitializer(MemberId),
    /// Refused or failed.
    #[error("cannot initialize the group: {0}")]
    Failed(String),
}

/// Why a proposal has no outcome.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Certainly not applied; ask the leader.
    #[error("not the leader")]
    NotLeader(Option<LeaderHint>),
    /// Certainly not applied; may work later, here or at another member.
    #[error("not available: {0}")]
    Unavailable(String),
    /// Perhaps applied, perhaps applied later, perhaps never.
    #[error("the outcome is unknown: {0}")]
    Unknown(String),
}

/// Why the members were not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// Nothing changed; ask the leader.
    #[error("not the leader")]
    NotLeader(Option<LeaderHint>),
    /// Nothing more changed: the members are others, or another change is going on. Look again.
    #[error("the membership is changing: {0}")]
    Conflict(String),
    /// Nothing changed, and nothing will: the members do not allow it.
    #[error("refused: {0}")]
    Refused(String),
    /// Nothing changed; may work later.
    #[error("not available: {0}")]
    Unavailable(String),
    /// Perhaps changed, perhaps changed later, perhaps never.
    #[error("the outcome is unknown: {0}")]
    Unknown(String),
}

/// Why the leadership was not handed over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// Ask the leader.
    #[error("not the leader")]
    NotLeader(Option<LeaderHint>),
    /// Another transfer is going on.
    #[error("the leadership is being handed over already")]
    Busy,
    /// Nothing was tried: the member could not take over at once.
    #[error("refused: {0}")]
    Refused(String),
    /// Tried; who leads next is not known.
    #[error("the outcome is unknown: {0}")]
    Unknown(String),
}

/// Why there is no read index.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Ask the leader.
    #[error("not the leader")]
    NotLeader(Option<LeaderHint>),
    /// No quorum confirmed the leadership in time, or the state did not catch up in time.
    #[error("not available: {0}")]
    Unavailable(String),
}
