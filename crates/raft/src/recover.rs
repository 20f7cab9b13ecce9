//! Recovery of a group whose quorum is lost for good: one member that is left goes on as the only
//! voter, with all that is in its log.
//!
//! Raft alone never does this, because it is not safe: what only the lost members had is gone, and
//! should a majority of them come back, they are a second group of the same data. So it happens by
//! the word of a person, and the survivor goes on as a new member, under a new id: messages between
//! it and the former members are refused as those of strangers, and the former id stays used.
//!
//! The machine is told by an entry of its own, behind everything else in the log: its state may lag
//! behind what the group had acknowledged, and only the machine knows what must not come again.
//!
//! Everything is written in one batch: after a crash the member is the former one, or the new one.

use std::collections::BTreeMap;

use atomix_proto::multiraft::v1 as pb;
use bytes::Bytes;
use openraft::EntryPayload;
use prost::Message as _;

use crate::error::StorageError;
use crate::ids::{MemberId, NodeId, PartitionId};
use crate::log::{GroupLog, Operation, disk};
use crate::membership::Membership;
use crate::position::LogPosition;
use crate::record::{GroupRecord, MemberAddress};
use crate::snapshot::{self, SnapshotStore};
use crate::types::{
    self, Entry, LogId, Membership as RaftMembership, Payload, Peer, StoredMembership, Vote,
};

/// Entries that are read at once in search of the last membership.
const STEP: u64 = 64;

/// Why a group was not recovered; nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// There is nothing of it here.
    #[error("this data directory holds no member of partition {0}")]
    NotHere(PartitionId),
    /// It would be changed under its own feet.
    #[error("partition {0} is running; stop it first")]
    Running(PartitionId),
    /// The caller means another member.
    #[error("this data directory holds member {found} of partition {partition}, not {wanted}")]
    OtherMember {
        /// The partition.
        partition: PartitionId,
        /// The member that the caller means.
        wanted: MemberId,
        /// The member that is here.
        found: MemberId,
    },
    /// It joined and got nothing yet.
    #[error(
        "member {member} of partition {partition} has never received who the members are, so it has \
         no data: recover from another one"
    )]
    NoMembership {
        /// The partition.
        partition: PartitionId,
        /// The member.
        member: MemberId,
    },
    /// A snapshot was installed and the log behind it not cleaned yet.
    #[error(
        "the snapshot of partition {0} is newer than its log: start the node once, stop it, and try \
         again"
    )]
    LogBehindSnapshot(PartitionId),
    /// What was compacted is in no snapshot that can be read.
    #[error(
        "the log of partition {partition} is compacted up to entry {compacted}, and no whole snapshot \
         reaches that: recover from another member"
    )]
    NoSnapshot {
        /// The partition.
        partition: PartitionId,
        /// The last compacted entry.
        compacted: u64,
    },
    /// The disk.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// What is known about a group that may be recovered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outlook {
    /// The partition.
    pub partition: PartitionId,
    /// The member that is here.
    pub member: MemberId,
    /// Who the members are, as far as this one knows.
    pub membership: Membership,
    /// The last entry of its log; `None` = there is none.
    pub last: Option<LogPosition>,
    /// The last entry that it knows to be committed.
    pub committed: Option<LogPosition>,
}

impl Outlook {
    /// Where this node's member lives.
    fn address(&self, record: &GroupRecord) -> Option<MemberAddress> {
        let known = self.membership.addresses.get(&self.member);
        known.or_else(|| record.members.get(&self.member)).cloned()
    }

    /// The other members, which are given up.
    pub fn others(&self) -> BTreeMap<MemberId, MemberAddress> {
        let mut others = self.membership.addresses.clone();
        others.remove(&self.member);
        others
    }
}

/// Reads what there is to recover.
///
/// # Errors
/// When it cannot be read, or there is nothing to go on with.
pub(crate) async fn look(
    record: &GroupRecord,
    log: &GroupLog,
    snapshots: &SnapshotStore,
) -> Result<Outlook, RecoverError> {
    let partition = record.partition_id;
    let unreadable = |error: std::io::Error| StorageError(error.to_string());
    let newest = snapshots.list().map_err(unreadable)?.into_iter().next();
    let (last, committed, first) =
        log.inspect(|state| (state.last, state.committed, state.first()));
    let compacted = log.inspect(|state| state.purged);
    if let Some(compacted) = snapshot::compacted_beyond(compacted, newest.as_ref()) {
        return Err(RecoverError::NoSnapshot {
            partition,
            compacted,
        });
    }
    let snapshot_last = newest.as_ref().and_then(|file| file.meta().last_log_id);
    if snapshot_last.map(|id| id.index) > last.map(|id| id.index) {
        return Err(RecoverError::LogBehindSnapshot(partition));
    }
    let in_log = last_membership(log, first, last).await?;
    let in_snapshot = || newest.map(|file| file.meta().last_membership.clone());
    let membership = in_log.or_else(in_snapshot);
    let membership = membership.filter(|stored| stored.log_id().is_some());
    let Some(membership) = membership else {
        return Err(RecoverError::NoMembership {
            partition,
            member: record.member_id,
        });
    };
    Ok(Outlook {
        partition,
        member: record.member_id,
        membership: Membership::of(&membership),
        last: last.as_ref().map(types::position),
        committed: committed.as_ref().map(types::position),
    })
}

async fn last_membership(
    log: &GroupLog,
    first: u64,
    last: Option<LogId>,
) -> Result<Option<StoredMembership>, StorageError> {
    let mut end = last.map_or(0, |last| last.index + 1);
    while first < end {
        let start = first.max(end.saturating_sub(STEP));
        let entries = log.entries(start..end, None).await;
        let entries = entries.map_err(|error| StorageError(error.to_string()))?;
        let found = entries.into_iter().rev().find_map(|entry| {
            let EntryPayload::Membership(membership) = entry.payload else {
                return None;
            };
            Some(StoredMembership::new(Some(entry.log_id), membership))
        });
        if found.is_some() {
            return Ok(found);
        }
        end = start;
    }
    Ok(None)
}

/// What is written for a recovery.
pub(crate) struct Recovery {
    pub(crate) record: GroupRecord,
    pub(crate) entries: Vec<Entry>,
    pub(crate) vote: Vote,
}

/// Makes the member the only voter, as `new_member`; `notice` is the payload of the entry behind
/// that, which tells the machine. Pure.
///
/// # Errors
/// When it does not know where it lives itself.
pub(crate) fn plan(
    record: &GroupRecord,
    outlook: &Outlook,
    vote: Option<Vote>,
    new_member: MemberId,
    notice: Bytes,
) -> Result<Recovery, RecoverError> {
    let no_membership = || RecoverError::NoMembership {
        partition: record.partition_id,
        member: record.member_id,
    };
    let address = outlook.address(record).ok_or_else(no_membership)?;
    let last = outlook.last.ok_or_else(no_membership)?;
    // Above every term that it has seen: no entry of an older leader is taken for a newer one.
    let voted = vote.map_or(0, |vote| vote.leader_id.term);
    let term = voted.max(last.term) + 1;
    let voters = [[new_member.0].into()];
    let nodes = BTreeMap::from([(new_member.0, Peer::new(&address))]);
    let membership = RaftMembership::new(voters.into(), nodes).map_err(|_| no_membership())?;
    Ok(Recovery {
        record: GroupRecord {
            member_id: new_member,
            // As if it had joined: no plan of a bootstrap names this member.
            initializer: None,
            members: BTreeMap::from([(new_member, address)]),
            observer: false,
            replaces: None,
            expected_membership: None,
            admitted: true,
            ..record.clone()
        },
        entries: vec![
            Entry {
                log_id: LogId::new_term_index(term, last.index + 1),
                payload: EntryPayload::Membership(membership),
            },
            Entry {
                log_id: LogId::new_term_index(term, last.index + 2),
                payload: EntryPayload::Normal(Payload(notice)),
            },
        ],
        vote: Vote::new(term, new_member.0),
    })
}

/// The former members of a group, which this node's member has gone on without.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FormerMembers {
    /// Where they lived.
    pub members: BTreeMap<MemberId, MemberAddress>,
}

impl FormerMembers {
    /// With the members of another recovery of the same group.
    pub(crate) fn and(mut self, more: BTreeMap<MemberId, MemberAddress>) -> Self {
        self.members.extend(more);
        self
    }

    pub(crate) fn put(&self, partition: PartitionId) -> Operation {
        let members = self.members.iter();
        let members = members.map(|(member, address)| pb::membership::Member {
            member_id: member.0,
            node_id: address.node_id.0,
            address: address.address.clone(),
        });
        let stored = pb::StoredFormerMembers {
            members: members.collect(),
        };
        Operation::PutNode(disk::former_key(partition.0), stored.encode_to_vec())
    }

    pub(crate) fn from_stored(stored: pb::StoredFormerMembers) -> Self {
        let members = stored.members.into_iter().map(|member| {
            let address = MemberAddress {
                node_id: NodeId(member.node_id),
                address: member.address,
            };
            (MemberId(member.member_id), address)
        });
        Self {
            members: members.collect(),
        }
    }
}
