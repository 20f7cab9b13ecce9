//! What losing a pod's disk would mean for the partitions. Pure.

use atomix_proto::operator::v1::member::Role;
use atomix_proto::operator::v1::{GetPartitionsResponse, Member, Partition};

/// The pod that a member is on, as it says itself or its group does.
pub(super) fn pod_of(member: &Member) -> &str {
    if member.pod.is_empty() {
        &member.placed_on
    } else {
        &member.pod
    }
}

/// Whether the member has a voice in elections.
pub(super) fn votes(member: &&Member) -> bool {
    matches!(member.role(), Role::Voter | Role::OutgoingVoter)
}

/// What losing a disk does to one partition with a copy on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Loss {
    pub(super) partition: u32,
    /// Copies that answer, without that one.
    pub(super) left: usize,
    /// Copies that are needed to go on.
    pub(super) needed: usize,
}

impl Loss {
    /// The partition stops.
    pub(super) fn is_fatal(&self) -> bool {
        self.left < self.needed
    }
}

/// What losing the disk of a pod does to each partition with a copy on it.
pub(super) fn losses(found: &GetPartitionsResponse, pod: &str) -> Vec<Loss> {
    let concerned = found.partitions.iter().filter(|partition| {
        let mut members = partition.members.iter();
        members.any(|member| pod_of(member) == pod)
    });
    concerned.map(|partition| loss(partition, pod)).collect()
}

fn loss(partition: &Partition, pod: &str) -> Loss {
    let voters = || partition.members.iter().filter(votes);
    let left = voters().filter(|member| !member.pod.is_empty() && member.pod != pod);
    Loss {
        partition: partition.partition_id,
        left: left.count(),
        needed: voters().count() / 2 + 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(member_id: u64, pod: &str, placed_on: &str, role: Role) -> Member {
        Member {
            member_id,
            pod: pod.to_owned(),
            role: role.into(),
            placed_on: placed_on.to_owned(),
            ..Member::default()
        }
    }

    #[test]
    fn only_voters_that_answer_count_and_only_partitions_with_a_copy_there() {
        let partition = |partition_id, members| Partition {
            partition_id,
            members,
            ..Partition::default()
        };
        let found = GetPartitionsResponse {
            nodes: Vec::new(),
            partitions: vec![
                partition(
                    1,
                    vec![
                        member(1, "tulip-0", "tulip-0", Role::Voter),
                        member(2, "tulip-1", "tulip-1", Role::Voter),
                        member(3, "", "tulip-2", Role::Voter),
                    ],
                ),
                partition(
                    2,
                    vec![
                        member(4, "tulip-0", "tulip-0", Role::Voter),
                        member(5, "", "tulip-1", Role::Voter),
                        member(6, "", "tulip-2", Role::Voter),
                        member(7, "tulip-3", "tulip-3", Role::Learner),
                    ],
                ),
                partition(3, vec![member(8, "tulip-0", "tulip-0", Role::Voter)]),
            ],
        };
        let loss = |partition, left, needed| Loss {
            partition,
            left,
            needed,
        };
        assert_eq!(losses(&found, "tulip-2"), [loss(1, 2, 2), loss(2, 1, 2)]);
        let losses: Vec<bool> = losses(&found, "tulip-0")
            .iter()
            .map(Loss::is_fatal)
            .collect();
        assert_eq!(losses, [true, true, true]);
        assert!(super::losses(&found, "tulip-9").is_empty());
    }
}
