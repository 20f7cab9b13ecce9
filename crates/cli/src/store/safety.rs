//! What losing a pod's disk would mean for the partitions. Pure.
//!
//! Only pods that answer tell of partitions. So what is not told counts against the loss: a partition
//! that nobody tells of may have its last copy on that disk.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{Display, Formatter};

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

/// What losing a disk does to one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loss {
    /// It has a copy there, or may have one.
    Copy {
        partition: u32,
        /// Copies that answer, without that one.
        left: usize,
        /// Copies that are needed to go on.
        needed: usize,
    },
    /// Nobody leads it, so nobody knows which copies it has and which of them are whole.
    Leaderless { partition: u32 },
    /// No pod that answers has a copy: that disk may be all that is left of it.
    Unknown { partition: u32 },
}

impl Loss {
    /// The partition stops, or nothing shows that it goes on.
    pub(super) fn is_fatal(&self) -> bool {
        match self {
            Self::Copy { left, needed, .. } => left < needed,
            Self::Leaderless { .. } | Self::Unknown { .. } => true,
        }
    }
}

impl Display for Loss {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Copy {
                partition,
                left,
                needed,
            } => write!(
                formatter,
                "partition {partition}: {left} of the {needed} copies that it needs would answer"
            ),
            Self::Leaderless { partition } => write!(
                formatter,
                "partition {partition}: it has no leader, so nobody knows whether it can spare a copy"
            ),
            Self::Unknown { partition } => write!(
                formatter,
                "partition {partition}: no pod that answers has a copy; this may be the last one"
            ),
        }
    }
}

/// What losing the disk of a pod does to the partitions of a Store with `total` of them: to each
/// with a copy there, and to each that is not known well enough to say that it has none there.
pub(super) fn losses(found: &GetPartitionsResponse, pod: &str, total: u32) -> Vec<Loss> {
    let told: BTreeMap<u32, &Partition> = found
        .partitions
        .iter()
        .map(|partition| (partition.partition_id, partition))
        .collect();
    // Those of the Store, and what is told beyond them.
    let all: BTreeSet<u32> = (1..=total).chain(told.keys().copied()).collect();
    let losses = all.into_iter().filter_map(|id| match told.get(&id) {
        None => Some(Loss::Unknown { partition: id }),
        Some(partition) if partition.leader == 0 => Some(Loss::Leaderless { partition: id }),
        Some(partition) => loss(partition, pod),
    });
    losses.collect()
}

fn loss(partition: &Partition, pod: &str) -> Option<Loss> {
    let mut members = partition.members.iter();
    let may_be_there = |member: &Member| {
        let at = pod_of(member);
        at.is_empty() || at == pod
    };
    if !members.any(may_be_there) {
        return None;
    }
    let voters = || partition.members.iter().filter(votes);
    let left = voters().filter(|member| !member.pod.is_empty() && member.pod != pod);
    Some(Loss::Copy {
        partition: partition.partition_id,
        left: left.count(),
        needed: voters().count() / 2 + 1,
    })
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

    fn partition(partition_id: u32, leader: u64, members: Vec<Member>) -> Partition {
        Partition {
            partition_id,
            leader,
            members,
            ..Partition::default()
        }
    }

    fn answer(partitions: Vec<Partition>) -> GetPartitionsResponse {
        GetPartitionsResponse {
            nodes: Vec::new(),
            partitions,
        }
    }

    fn copy(partition: u32, left: usize, needed: usize) -> Loss {
        Loss::Copy {
            partition,
            left,
            needed,
        }
    }

    #[test]
    fn only_voters_that_answer_count_and_only_partitions_with_a_copy_there() {
        let found = answer(vec![
            partition(
                1,
                1,
                vec![
                    member(1, "tulip-0", "tulip-0", Role::Voter),
                    member(2, "tulip-1", "tulip-1", Role::Voter),
                    member(3, "", "tulip-2", Role::Voter),
                ],
            ),
            partition(
                2,
                4,
                vec![
                    member(4, "tulip-0", "tulip-0", Role::Voter),
                    member(5, "", "tulip-1", Role::Voter),
                    member(6, "", "tulip-2", Role::Voter),
                    member(7, "tulip-3", "tulip-3", Role::Learner),
                ],
            ),
            partition(3, 8, vec![member(8, "tulip-0", "tulip-0", Role::Voter)]),
        ]);
        assert_eq!(losses(&found, "tulip-2", 3), [copy(1, 2, 2), copy(2, 1, 2)]);
        let fatal: Vec<bool> = losses(&found, "tulip-0", 3)
            .iter()
            .map(Loss::is_fatal)
            .collect();
        assert_eq!(fatal, [true, true, true]);
        assert_eq!(losses(&found, "tulip-9", 3), []);
    }

    #[test]
    fn a_partition_that_nobody_tells_of_may_have_its_last_copy_there() {
        let unknown = |partition| Loss::Unknown { partition };
        let lost = losses(&answer(Vec::new()), "tulip-0", 2);
        assert_eq!(lost, [unknown(1), unknown(2)]);
        // The holders of partition 2 are down; those of 1 answer, and are others than this one.
        let voters = ["tulip-1", "tulip-2", "tulip-3"];
        let voters = (1..)
            .zip(voters)
            .map(|(id, pod)| member(id, pod, pod, Role::Voter));
        let found = answer(vec![partition(1, 1, voters.collect())]);
        let lost = losses(&found, "tulip-0", 2);
        assert_eq!(lost, [unknown(2)]);
        assert!(lost.iter().all(Loss::is_fatal));
    }

    #[test]
    fn of_a_partition_without_a_leader_no_copy_can_be_spared() {
        // What a member that was away tells may be an old membership.
        let members = |pods: [&str; 3]| {
            let members = (1..).zip(pods);
            let members = members.map(|(id, pod)| member(id, pod, pod, Role::Voter));
            members.collect()
        };
        let found = answer(vec![partition(
            1,
            0,
            members(["tulip-0", "tulip-1", "tulip-2"]),
        )]);
        for pod in ["tulip-2", "tulip-4"] {
            let lost = losses(&found, pod, 1);
            assert_eq!(lost, [Loss::Leaderless { partition: 1 }], "{pod}");
            assert!(lost.iter().all(Loss::is_fatal));
        }
    }

    #[test]
    fn a_member_at_an_unknown_place_may_be_there() {
        let voters = vec![
            member(1, "tulip-0", "tulip-0", Role::Voter),
            member(2, "tulip-1", "tulip-1", Role::Voter),
            member(3, "", "", Role::Voter),
        ];
        let found = answer(vec![partition(1, 1, voters)]);
        assert_eq!(losses(&found, "tulip-2", 1), [copy(1, 2, 2)]);
    }
}
