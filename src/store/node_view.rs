//! What a storage node said about itself, reduced to what decisions and status need.

use std::collections::BTreeMap;

use atomix_proto::multiraft::v1::GetStatusResponse;
use atomix_proto::multiraft::v1::group_status::Role;

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
    /// Its members, by partition.
    pub groups: BTreeMap<u32, GroupView>,
}

/// One member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupView {
    /// The member's id.
    pub member_id: u64,
    /// It leads, and a quorum acknowledged it.
    pub leads: bool,
    /// The leader as it knows it; 0 = none.
    pub leader: u64,
    /// It knows of a committed entry.
    pub has_committed: bool,
}

impl From<GetStatusResponse> for NodeView {
    fn from(answer: GetStatusResponse) -> Self {
        let groups = answer.groups.into_iter().map(|group| {
            let view = GroupView {
                member_id: group.member_id,
                leads: group.role() == Role::Leader,
                leader: group.leader,
                has_committed: group.committed > 0,
            };
            (group.partition_id, view)
        });
        Self {
            node_id: answer.node_id,
            store_uid: answer.store_uid,
            incarnation: answer.incarnation,
            version: answer.version,
            groups: groups.collect(),
        }
    }
}
