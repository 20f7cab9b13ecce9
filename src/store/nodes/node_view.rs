//! What a storage node said about itself, reduced to what decisions and status need.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use atomix_proto::multiraft::v1::group_status::Role;
use atomix_proto::multiraft::v1::{GetStatusResponse, GroupStatus};

use crate::store::bootstrap::plan_record::Plan;

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

impl NodeView {
    /// Places members where the plan has them if the node does not say where they are. Programs of the
    /// first version do not, and cannot move members either, so there the plan is still right.
    pub fn place_as_planned(&mut self, plan: &Plan) {
        for planned in &plan.partitions {
            let group = self.groups.get_mut(&planned.partition);
            let Some(membership) = group.and_then(|group| group.membership.as_mut()) else {
                continue;
            };
            if !membership.places.is_empty() {
                continue;
            }
            let members = planned.members.iter();
            let members = members.filter(|(_, member)| membership.voters.contains(&member.0));
            membership.places = members
                .filter_map(|(ordinal, member)| {
                    let node = plan.node(*ordinal)?;
                    Some((member.0, (node.node_id.0, node.address.clone())))
                })
                .collect();
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::bootstrap::plan_record::{HexId, PlannedNode, PlannedPartition};

    #[test]
    fn only_members_whose_place_nobody_tells_lie_where_they_were_planned() {
        let node = |at: u64| PlannedNode {
            node_id: HexId(at + 100),
            address: format!("tulip-{at}.tulip.garden.svc:5681"),
        };
        let planned = |partition| PlannedPartition {
            partition,
            members: [(0, HexId(10)), (1, HexId(11))].into(),
            initializer: 0,
        };
        let plan = Plan {
            store_uid: "u".to_owned(),
            incarnation: 1,
            election_timeout_millis: 1000,
            snapshot_entry_threshold: 0,
            nodes: vec![node(0), node(1)],
            partitions: vec![planned(1), planned(2), planned(3)],
        };
        let group = |voters: &[u64], places: &[(u64, (u64, String))]| GroupView {
            membership: Some(MembershipView {
                voters: voters.iter().copied().collect(),
                places: places.iter().cloned().collect(),
                ..MembershipView::default()
            }),
            ..GroupView::default()
        };
        let elsewhere = [(10, (7, "elsewhere:1".to_owned()))];
        let mut view = NodeView {
            node_id: 100,
            store_uid: "u".to_owned(),
            incarnation: 1,
            version: String::new(),
            operator: String::new(),
            groups: [
                (1, group(&[10, 11], &[])),
                (2, group(&[10, 12], &elsewhere)),
                (3, GroupView::default()),
            ]
            .into(),
        };
        view.place_as_planned(&plan);
        let places = |partition: u32| {
            let membership = view.groups.get(&partition)?.membership.as_ref()?;
            Some(membership.places.clone())
        };
        let as_planned = [(10, 0_u64), (11, 1)].map(|(member, at)| {
            let PlannedNode { node_id, address } = node(at);
            (member, (node_id.0, address))
        });
        assert_eq!(places(1), Some(as_planned.into()));
        assert_eq!(places(2), Some(elsewhere.into()));
        assert_eq!(places(3), None);
    }
}
