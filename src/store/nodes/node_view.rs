//! What a storage node said about itself, reduced to what decisions and status need.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use atomix_proto::multiraft::v1::group_status::Role;
use atomix_proto::multiraft::v1::{GetStatusResponse, GroupStatus};

/// A node's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeView {
    /// The id of its disk.
    pub node_id: u64,
    /// Whose data it holds; empty without groups.
    pub store_uid: String,
    /// Incarnation of its groups.
    pub incarnation: u64,
    /// Version of its program.
    pub version: String,
    /// The operator that it listens to; empty before any.
    pub operator: String,
    /// Its members, by partition.
    pub groups: BTreeMap<u32, GroupView>,
}

/// One member, and the group as it sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupView {
    /// The member's id.
    pub member_id: u64,
    /// It leads, and a quorum acknowledged it.
    pub leads: bool,
    /// The leader as it knows it; 0 = none.
    pub leader: u64,
    /// It knows of a committed entry.
    pub has_committed: bool,
    /// The last log index that it knows to be committed; 0 = none.
    pub committed: u64,
    /// Its data is stored, but it does not run.
    pub is_stopped: bool,
    /// The highest term that it has seen.
    pub term: u64,
    /// Who the members are; `None` before it has received any membership.
    pub membership: Option<MembershipView>,
    /// On the leader: since when each other member has not answered; `None` = it never did.
    pub contacts: BTreeMap<u64, Option<Duration>>,
    /// On the leader: the highest log index that it knows to be on each other member's disk.
    pub matched: BTreeMap<u64, u64>,
    /// The election timeout that it runs with; `None` = its program does not say.
    pub election_timeout: Option<Duration>,
}

/// The members of a group as one of them sees them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MembershipView {
    /// Term and index of the log entry that it is from.
    pub position: (u64, u64),
    /// The voters; the coming ones while a joint change goes on.
    pub voters: BTreeSet<u64>,
    /// The voters that a joint change is leaving.
    pub outgoing: BTreeSet<u64>,
    /// Members without a vote.
    pub learners: BTreeSet<u64>,
    /// Where they are: node id and host:port.
    pub places: BTreeMap<u64, (u64, String)>,
}

impl From<GetStatusResponse> for NodeView {
    fn from(answer: GetStatusResponse) -> Self {
        let groups = answer.groups.into_iter();
        Self {
            node_id: answer.node_id,
            store_uid: answer.store_uid,
            incarnation: answer.incarnation,
            version: answer.version,
            operator: answer.operator_id,
            groups: groups
                .map(|group| (group.partition_id, group.into()))
                .collect(),
        }
    }
}

impl From<GroupStatus> for GroupView {
    fn from(group: GroupStatus) -> Self {
        let role = group.role();
        let contacts = group.progress.iter().map(|member| {
            let since = member.since_last_contact;
            let since = since.and_then(|since| Duration::try_from(since).ok());
            (member.member_id, since)
        });
        let contacts = contacts.collect();
        let matched = group.progress.iter();
        let matched = matched.map(|member| (member.member_id, member.matched));
        let matched = matched.collect();
        let timeout = group.raft.and_then(|raft| raft.election_timeout);
        let places = group.members.into_iter();
        let places = places.map(|place| (place.member_id, (place.node_id, place.address)));
        let membership = group.membership.map(|position| MembershipView {
            position: (position.term, position.index),
            voters: group.voters.into_iter().collect(),
            outgoing: group.outgoing_voters.into_iter().collect(),
            learners: group.learners.into_iter().collect(),
            places: places.collect(),
        });
        Self {
            member_id: group.member_id,
            leads: role == Role::Leader,
            leader: group.leader,
            has_committed: group.committed > 0,
            committed: group.committed,
            is_stopped: role == Role::Stopped,
            term: group.term,
            membership,
            contacts,
            matched,
            election_timeout: timeout.and_then(|timeout| Duration::try_from(timeout).ok()),
        }
    }
}
