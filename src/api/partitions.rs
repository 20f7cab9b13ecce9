//! The partitions of a Store as its nodes tell of them. Pure.

use std::collections::{BTreeMap, BTreeSet};

use atomix_proto::multiraft::v1::group_status::Role as GroupRole;
use atomix_proto::multiraft::v1::{GetStatusResponse, GroupStatus};
use atomix_proto::operator::v1::member::Role;
use atomix_proto::operator::v1::{GetPartitionsResponse, Member, Partition, StorageNode};

/// What a pod's node answered, or why it did not.
pub(super) type Answer = (String, Result<GetStatusResponse, String>);

/// Puts the answers of all nodes together.
pub(super) fn partitions(answers: &[Answer]) -> GetPartitionsResponse {
    let mut told: BTreeMap<u32, Vec<(&str, &GroupStatus)>> = BTreeMap::new();
    for (pod, answer) in answers {
        let groups = answer.iter().flat_map(|status| &status.groups);
        for group in groups {
            let of_partition = told.entry(group.partition_id).or_default();
            of_partition.push((pod, group));
        }
    }
    GetPartitionsResponse {
        nodes: answers.iter().map(node).collect(),
        partitions: told
            .iter()
            .map(|(id, groups)| partition(*id, groups))
            .collect(),
    }
}

fn node((pod, answer): &Answer) -> StorageNode {
    let pod = pod.clone();
    match answer {
        Ok(status) => StorageNode {
            pod,
            node_id: status.node_id,
            version: status.version.clone(),
            trouble: String::new(),
        },
        Err(trouble) => StorageNode {
            pod,
            trouble: trouble.clone(),
            ..StorageNode::default()
        },
    }
}

/// The leader of the highest term knows the members best; without a leader, whoever knows the
/// newest membership.
fn partition(partition_id: u32, groups: &[(&str, &GroupStatus)]) -> Partition {
    let rank = |group: &GroupStatus| {
        let leads = group.role() == GroupRole::Leader;
        let membership = group.membership.unwrap_or_default();
        (leads, group.term, membership.term, membership.index)
    };
    let best = groups
        .iter()
        .map(|(_, group)| *group)
        .max_by_key(|group| rank(group));
    let Some(best) = best else {
        return Partition {
            partition_id,
            ..Partition::default()
        };
    };
    let roles = [
        (&best.voters, Role::Voter),
        (&best.outgoing_voters, Role::OutgoingVoter),
        (&best.learners, Role::Learner),
    ];
    let mut seen = BTreeSet::new();
    let mut members = Vec::new();
    for (ids, role) in roles {
        for id in ids {
            // A voter that stays is in both configurations of a change.
            if seen.insert(*id) {
                members.push(member(*id, role, groups, best));
            }
        }
    }
    members.sort_by(|one, other| (&one.pod, one.member_id).cmp(&(&other.pod, other.member_id)));
    let leads = best.role() == GroupRole::Leader;
    Partition {
        partition_id,
        term: best.term,
        leader: if leads { best.member_id } else { 0 },
        members,
    }
}

/// `best` knows where the members are.
fn member(
    member_id: u64,
    role: Role,
    groups: &[(&str, &GroupStatus)],
    best: &GroupStatus,
) -> Member {
    let mut places = best.members.iter();
    let place = places.find(|place| place.member_id == member_id);
    // A peer's host begins with its pod's name.
    let placed_on = place.and_then(|place| place.address.split(['.', ':']).next());
    let own = groups
        .iter()
        .find(|(_, group)| group.member_id == member_id);
    Member {
        member_id,
        pod: own.map(|(pod, _)| (*pod).to_owned()).unwrap_or_default(),
        role: role.into(),
        applied: own.map(|(_, group)| group.applied).unwrap_or_default(),
        placed_on: placed_on.unwrap_or_default().to_owned(),
        last_log: own.map(|(_, group)| group.last_log).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use atomix_proto::multiraft::v1::LogPosition;

    use super::*;

    fn group(member_id: u64, role: GroupRole, term: u64, membership: u64) -> GroupStatus {
        GroupStatus {
            partition_id: 1,
            member_id,
            role: role.into(),
            term,
            voters: if membership == 1 {
                vec![1, 2]
            } else {
                vec![2, 3]
            },
            outgoing_voters: if membership == 2 { vec![1, 2] } else { vec![] },
            learners: vec![4],
            membership: Some(LogPosition {
                term: 1,
                index: membership,
            }),
            applied: member_id * 10,
            ..GroupStatus::default()
        }
    }

    fn answer(pod: &str, group: GroupStatus) -> Answer {
        let status = GetStatusResponse {
            node_id: group.member_id,
            groups: vec![group],
            ..GetStatusResponse::default()
        };
        (pod.to_owned(), Ok(status))
    }

    #[test]
    fn the_leader_of_the_highest_term_says_who_is_a_member() {
        let silent = ("tulip-3".to_owned(), Err("it cannot be reached".to_owned()));
        let found = partitions(&[
            answer("tulip-0", group(1, GroupRole::Leader, 3, 1)),
            answer("tulip-1", group(2, GroupRole::Leader, 4, 2)),
            answer("tulip-2", group(3, GroupRole::Follower, 5, 1)),
            silent,
        ]);
        let [partition] = found.partitions.as_slice() else {
            panic!("{found:?}");
        };
        assert_eq!((partition.leader, partition.term), (2, 4));
        let members: Vec<(u64, &str, Role, u64)> = partition
            .members
            .iter()
            .map(|member| {
                let role = member.role();
                (member.member_id, member.pod.as_str(), role, member.applied)
            })
            .collect();
        assert_eq!(
            members,
            [
                (4, "", Role::Learner, 0),
                (1, "tulip-0", Role::OutgoingVoter, 10),
                (2, "tulip-1", Role::Voter, 20),
                (3, "tulip-2", Role::Voter, 30),
            ]
        );
        assert_eq!(found.nodes.len(), 4);
        let trouble = found.nodes.last().map(|node| node.trouble.as_str());
        assert_eq!(trouble, Some("it cannot be reached"));
    }

    #[test]
    fn without_a_leader_the_newest_membership_counts() {
        let found = partitions(&[
            answer("tulip-0", group(1, GroupRole::Follower, 4, 1)),
            answer("tulip-1", group(2, GroupRole::Candidate, 4, 3)),
        ]);
        let partition = found.partitions.first();
        assert_eq!(partition.map(|partition| partition.leader), Some(0));
        let ids = partition.map(|partition| {
            let members = partition.members.iter();
            members
                .map(|member| member.member_id)
                .collect::<BTreeSet<_>>()
        });
        assert_eq!(ids, Some(BTreeSet::from([2, 3, 4])));
    }
}
