//! What a node stores about each of its groups besides the log.

use std::collections::BTreeMap;
use std::time::Duration;

use atomix_proto::multiraft::v1 as pb;
use bytes::Bytes;

use crate::ids::{MemberId, NodeId, PartitionId};
use crate::position::LogPosition;

/// Where a member lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberAddress {
    /// The data directory.
    pub node_id: NodeId,
    /// `host:port` of the peer port.
    pub address: String,
}

/// The time scale of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timings {
    /// About how long a group is without a leader when the leader dies: after 0.6 of it without a
    /// heartbeat (plus a random part) a member stands for election.
    pub election_timeout: Duration,
    /// Entries since the last snapshot before which none is taken by number.
    pub snapshot_entry_threshold: u64,
}

impl Default for Timings {
    fn default() -> Self {
        Self {
            election_timeout: Duration::from_secs(1),
            snapshot_entry_threshold: 10_000,
        }
    }
}

/// The durable record of this node's member of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupRecord {
    /// The partition.
    pub partition_id: PartitionId,
    /// This node's member.
    pub member_id: MemberId,
    /// Which store's data this is.
    pub store_uid: String,
    /// Counts the bootstraps of the store.
    pub incarnation: u64,
    /// The one member that initializes the group; `None` when this member joins a group that
    /// exists already.
    pub initializer: Option<MemberId>,
    /// The voters that the group starts with. What the members are later is in the log.
    pub members: BTreeMap<MemberId, MemberAddress>,
    /// Which plan this came from; compared, never looked into.
    pub plan_digest: Bytes,
    /// The time scale.
    pub timings: Timings,
    /// True for a member that never votes.
    pub observer: bool,
    /// The member that this one takes the place of.
    pub replaces: Option<MemberId>,
    /// Of a member that joins: the membership that it may be added to; `None` = any.
    pub expected_membership: Option<LogPosition>,
    /// Of a member that joins: a leader said that it is a member.
    pub admitted: bool,
}

impl GroupRecord {
    /// Whether a group with the other record may run on what is stored here: a process may run it with
    /// other timings.
    pub(crate) fn is_for(&self, other: &Self) -> bool {
        let timings = self.timings;
        *self
            == Self {
                timings,
                ..other.clone()
            }
    }

    /// Whether both are about the same stay of the same partition; what a repeated Join may change
    /// is left out.
    pub(crate) fn is_same_stay(&self, other: &Self) -> bool {
        let Self {
            partition_id,
            member_id,
            store_uid,
            incarnation,
            initializer,
            members: _,
            plan_digest: _,
            timings,
            observer: _,
            replaces: _,
            expected_membership: _,
            admitted: _,
        } = self;
        *partition_id == other.partition_id
            && *member_id == other.member_id
            && *store_uid == other.store_uid
            && *incarnation == other.incarnation
            && *initializer == other.initializer
            && *timings == other.timings
    }

    pub(crate) fn to_stored(&self) -> pb::StoredGroup {
        let Self {
            partition_id,
            member_id,
            store_uid,
            incarnation,
            initializer,
            members,
            plan_digest,
            timings,
            observer,
            replaces,
            expected_membership,
            admitted,
        } = self;
        let members = members
            .iter()
            .map(|(member, address)| pb::membership::Member {
                member_id: member.0,
                node_id: address.node_id.0,
                address: address.address.clone(),
            })
            .collect();
        pb::StoredGroup {
            partition_id: partition_id.0,
            member_id: member_id.0,
            store_uid: store_uid.clone(),
            incarnation: *incarnation,
            initializer: initializer.map_or(0, |member| member.0),
            members,
            plan_digest: plan_digest.clone(),
            election_timeout_nanos: u64::try_from(timings.election_timeout.as_nanos())
                .unwrap_or(u64::MAX),
            snapshot_entry_threshold: timings.snapshot_entry_threshold,
            observer: *observer,
            replaces: replaces.map_or(0, |member| member.0),
            expected_membership: expected_membership.map(|position| pb::LogId {
                term: position.term,
                index: position.index,
            }),
            admitted: *admitted,
        }
    }

    pub(crate) fn from_stored(stored: pb::StoredGroup) -> Self {
        let members = stored
            .members
            .into_iter()
            .map(|member| {
                let address = MemberAddress {
                    node_id: NodeId(member.node_id),
                    address: member.address,
                };
                (MemberId(member.member_id), address)
            })
            .collect();
        Self {
            partition_id: PartitionId(stored.partition_id),
            member_id: MemberId(stored.member_id),
            store_uid: stored.store_uid,
            incarnation: stored.incarnation,
            initializer: some_member(stored.initializer),
            members,
            plan_digest: stored.plan_digest,
            timings: Timings {
                election_timeout: Duration::from_nanos(stored.election_timeout_nanos),
                snapshot_entry_threshold: stored.snapshot_entry_threshold,
            },
            observer: stored.observer,
            replaces: some_member(stored.replaces),
            expected_membership: stored.expected_membership.map(|log_id| LogPosition {
                term: log_id.term,
                index: log_id.index,
            }),
            admitted: stored.admitted,
        }
    }
}

fn some_member(id: u64) -> Option<MemberId> {
    (id != 0).then_some(MemberId(id))
}
