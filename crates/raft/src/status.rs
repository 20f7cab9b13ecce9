//! What a group tells about itself.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::ids::{MemberId, PartitionId};
use crate::position::LogPosition;
use crate::record::MemberAddress;

/// What this member is at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Shut down, or failed.
    Stopped,
    /// Receives the log but does not vote.
    Learner,
    /// Votes.
    Follower,
    /// Stands for election, or leads without having heard of a quorum within the lease.
    Candidate,
    /// Leads, and a quorum acknowledged it within the lease.
    Leader,
}

/// What a leader knows about another member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberProgress {
    /// The member.
    pub member_id: MemberId,
    /// The highest log index known to be on its disk; 0 = none.
    pub matched: u64,
    /// Since its last answer to a heartbeat or append; `None` = never.
    pub since_last_contact: Option<Duration>,
}

/// A group as this node sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupStatus {
    /// The partition.
    pub partition_id: PartitionId,
    /// This node's member.
    pub member_id: MemberId,
    /// What it is.
    pub role: Role,
    /// The highest term seen.
    pub term: u64,
    /// The leader of `term`. On the leader itself only while a quorum acknowledges it.
    pub leader: Option<MemberId>,
    /// The leader's `host:port`, when the membership names it.
    pub leader_address: Option<String>,
    /// The voters; of the new configuration while a joint change is going on.
    pub voters: BTreeSet<MemberId>,
    /// Voters of the configuration that a joint change is leaving.
    pub outgoing_voters: BTreeSet<MemberId>,
    /// Members that do not vote.
    pub learners: BTreeSet<MemberId>,
    /// The log entry that the membership is from; `None` before the group is initialized.
    pub membership: Option<LogPosition>,
    /// Where each voter and learner lives.
    pub addresses: BTreeMap<MemberId, MemberAddress>,
    /// The last applied log index; 0 = none.
    pub applied: u64,
    /// The last log index known to be committed; 0 = none.
    pub committed: u64,
    /// The last log index; 0 = none. Perhaps not yet on disk.
    pub last_log: u64,
    /// The last log index that a snapshot on this disk holds; 0 = none.
    pub snapshot: u64,
    /// Entries up to here are gone from the log; 0 = none.
    pub compacted: u64,
    /// On the leader: the other members.
    pub progress: Vec<MemberProgress>,
}

/// Something that happened to this node's member of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupEvent {
    /// The member has applied everything that was committed when it started.
    MemberReady {
        /// The member.
        member_id: MemberId,
    },
    /// The leader or its term changed.
    LeaderChanged {
        /// The term.
        term: u64,
        /// The leader, if known.
        leader: Option<MemberId>,
    },
    /// Another membership is in force.
    MembershipChanged {
        /// The log entry that it is from.
        membership: LogPosition,
    },
    /// A snapshot was written.
    SnapshotCreated {
        /// The last log index that it holds.
        index: u64,
    },
    /// A snapshot was received from the leader.
    SnapshotInstalled {
        /// The last log index that it holds.
        index: u64,
    },
    /// Entries were removed from the log.
    LogCompacted {
        /// The last one that was.
        index: u64,
    },
}
