//! Who the members of a group are, and what a change makes of them.

use std::collections::{BTreeMap, BTreeSet};

use openraft::ChangeMembers;

use crate::ids::{MemberId, NodeId};
use crate::position::LogPosition;
use crate::record::MemberAddress;
use crate::types::{self, Peer, StoredMembership, member};

/// The members of a group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Membership {
    /// The log entry that it is from; `None` before the group is initialized.
    pub position: Option<LogPosition>,
    /// The voters; of the new configuration while a joint change is going on.
    pub voters: BTreeSet<MemberId>,
    /// Voters of the configuration that a joint change is leaving.
    pub outgoing_voters: BTreeSet<MemberId>,
    /// Members that do not vote.
    pub learners: BTreeSet<MemberId>,
    /// Where each of them lives.
    pub addresses: BTreeMap<MemberId, MemberAddress>,
}

/// A change of members. Each is one proposal; a change of voters passes through a joint
/// configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberChange {
    /// Adds a member that does not vote.
    AddLearner {
        /// The member.
        member: MemberId,
        /// Where it lives.
        address: MemberAddress,
    },
    /// Removes a member that does not vote.
    RemoveLearner(MemberId),
    /// Makes a voter of a learner, and in the same change removes the voter whose place it takes.
    AddVoter {
        /// The learner.
        member: MemberId,
        /// The voter to remove.
        replaces: Option<MemberId>,
    },
    /// Removes a voter.
    RemoveVoter(MemberId),
    /// Ends a joint configuration: only the new voters remain.
    Complete,
}

impl Membership {
    pub(crate) fn of(stored: &StoredMembership) -> Self {
        let members = |ids: &BTreeSet<u64>| ids.iter().copied().map(member).collect();
        let mut configurations = stored.get_joint_config().iter().rev().map(members);
        let voters: BTreeSet<MemberId> = configurations.next().unwrap_or_default();
        let outgoing_voters: BTreeSet<MemberId> = configurations.next().unwrap_or_default();
        let addresses: BTreeMap<MemberId, MemberAddress> = stored
            .nodes()
            .map(|(id, peer)| (member(*id), address(peer)))
            .collect();
        let learners = addresses
            .keys()
            .filter(|id| !voters.contains(id) && !outgoing_voters.contains(id))
            .copied()
            .collect();
        Self {
            position: stored.log_id().as_ref().map(types::position),
            voters,
            outgoing_voters,
            learners,
            addresses,
        }
    }

    /// Whether a change from the outgoing voters to the voters is going on.
    pub fn is_joint(&self) -> bool {
        !self.outgoing_voters.is_empty()
    }

    /// Whether it is a voter, an outgoing voter or a learner.
    pub fn contains(&self, member: MemberId) -> bool {
        self.addresses.contains_key(&member)
    }

    /// The voters after a change; `None` when it changes no voter.
    pub fn voters_after(&self, change: &MemberChange) -> Option<BTreeSet<MemberId>> {
        let mut voters = self.voters.clone();
        match change {
            MemberChange::AddVoter { member, replaces } => {
                voters.insert(*member);
                if let Some(replaced) = replaces {
                    voters.remove(replaced);
                }
            }
            MemberChange::RemoveVoter(member) => {
                voters.remove(member);
            }
            MemberChange::AddLearner { .. }
            | MemberChange::RemoveLearner(_)
            | MemberChange::Complete => return None,
        }
        Some(voters)
    }
}

fn address(peer: &Peer) -> MemberAddress {
    MemberAddress {
        node_id: NodeId(peer.node_id),
        address: peer.address.clone(),
    }
}

impl MemberChange {
    /// What to propose; `None` when nothing would change.
    ///
    /// # Errors
    /// When the membership does not allow the change.
    pub(crate) fn proposal(
        &self,
        membership: &Membership,
    ) -> Result<Option<ChangeMembers<u64, Peer>>, String> {
        let is_voter = |member: &MemberId| membership.voters.contains(member);
        if membership.is_joint() && *self != Self::Complete {
            return Err("another change of voters is not complete yet".to_owned());
        }
        let only = |member: &MemberId| BTreeSet::from([member.0]);
        Ok(match self {
            Self::AddLearner { member, address } => match membership.addresses.get(member) {
                None => Some(ChangeMembers::AddNodes(BTreeMap::from([(
                    member.0,
                    Peer::new(address),
                )]))),
                Some(known) if known.node_id == address.node_id => None,
                Some(known) => {
                    return Err(format!(
                        "member {member} lives on node {:016x} already",
                        known.node_id.0
                    ));
                }
            },
            Self::RemoveLearner(member) if is_voter(member) => {
                return Err(format!("member {member} is a voter"));
            }
            Self::RemoveLearner(member) => membership
                .contains(*member)
                .then(|| ChangeMembers::RemoveNodes(only(member))),
            Self::AddVoter { member, replaces } => {
                if !membership.contains(*member) {
                    return Err(format!("member {member} is no learner"));
                }
                if *replaces == Some(*member) {
                    return Err(format!("member {member} cannot take its own place"));
                }
                let replaced = replaces.filter(is_voter);
                if is_voter(member) && replaced.is_none() {
                    return Ok(None);
                }
                let mut changes = vec![ChangeMembers::AddVoterIds(only(member))];
                if let Some(replaced) = replaced {
                    changes.push(ChangeMembers::RemoveVoters(only(&replaced)));
                }
                Some(ChangeMembers::Batch(changes))
            }
            Self::RemoveVoter(member) if !is_voter(member) => None,
            Self::RemoveVoter(member) => {
                if membership.voters.len() == 1 {
                    return Err(format!("member {member} is the last voter"));
                }
                Some(ChangeMembers::RemoveVoters(only(member)))
            }
            // Adds nobody: openraft takes the next step towards the new voters.
            Self::Complete => membership
                .is_joint()
                .then(|| ChangeMembers::AddVoterIds(BTreeSet::new())),
        })
    }
}

/// Whether a member keeps up with its leader, by what it reports itself once a heartbeat. What the
/// leader knows of a member's log is no proof: a dead member's log may match.
#[derive(Debug, Default)]
pub(crate) struct CatchUp {
    /// The leader's commit index one heartbeat ago.
    committed_before: Option<u64>,
    in_a_row: u32,
}

impl CatchUp {
    /// Reports that must be level without one between that is not.
    const ENOUGH: u32 = 3;

    /// Takes what the member reported as applied, if it answered, and the commit index of the
    /// leader now. True once the member is caught up.
    pub(crate) fn observe(&mut self, applied: Option<u64>, committed_now: u64) -> bool {
        let before = self.committed_before.replace(committed_now);
        let is_level =
            before.is_some_and(|before| applied.is_some_and(|applied| applied >= before));
        self.in_a_row = if is_level { self.in_a_row + 1 } else { 0 };
        self.in_a_row >= Self::ENOUGH
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    /// A membership, a change, and a part of what is proposed; `None` = nothing would change.
    type Case<'a> = (
        &'a Membership,
        MemberChange,
        Result<Option<&'static str>, ()>,
    );
    /// What a member reports at each heartbeat, and the leader's commit index then.
    type Reports = &'static [(Option<u64>, u64)];

    fn at(node: u64) -> MemberAddress {
        MemberAddress {
            node_id: NodeId(node),
            address: format!("node-{node}:5681"),
        }
    }

    fn membership(voters: &[u64], outgoing: &[u64], learners: &[u64]) -> Membership {
        let set = |ids: &[u64]| ids.iter().copied().map(MemberId).collect::<BTreeSet<_>>();
        let all = [voters, outgoing, learners].concat();
        Membership {
            position: Some(LogPosition { term: 1, index: 9 }),
            voters: set(voters),
            outgoing_voters: set(outgoing),
            learners: set(learners),
            addresses: all.iter().map(|id| (MemberId(*id), at(*id))).collect(),
        }
    }

    #[test]
    fn a_change_is_proposed_once_and_only_where_it_makes_sense() {
        let add = |id| MemberChange::AddLearner {
            member: MemberId(id),
            address: at(id),
        };
        let vote = |id, replaces: Option<u64>| MemberChange::AddVoter {
            member: MemberId(id),
            replaces: replaces.map(MemberId),
        };
        let remove = |id| MemberChange::RemoveVoter(MemberId(id));
        let forget = |id| MemberChange::RemoveLearner(MemberId(id));
        let three = membership(&[1, 2, 3], &[], &[4]);
        let joint = membership(&[2, 3, 4], &[1, 2, 3], &[]);
        let alone = membership(&[1], &[], &[4]);
        let cases: [Case<'_>; 18] = [
            (&three, add(5), Ok(Some("AddNodes"))),
            (&three, add(4), Ok(None)),
            (&three, add(1), Ok(None)),
            (&three, forget(4), Ok(Some("RemoveNodes"))),
            (&three, forget(9), Ok(None)),
            (&three, forget(1), Err(())),
            (&three, vote(4, None), Ok(Some("Batch"))),
            (&three, vote(4, Some(1)), Ok(Some("RemoveVoters"))),
            (&three, vote(1, None), Ok(None)),
            (&three, vote(9, None), Err(())),
            (&three, vote(4, Some(4)), Err(())),
            (&three, remove(1), Ok(Some("RemoveVoters"))),
            (&three, remove(4), Ok(None)),
            (&three, MemberChange::Complete, Ok(None)),
            (&alone, remove(1), Err(())),
            (&alone, vote(4, Some(1)), Ok(Some("RemoveVoters"))),
            (&joint, MemberChange::Complete, Ok(Some("AddVoterIds"))),
            (&joint, remove(2), Err(())),
        ];
        for (membership, change, expected) in cases {
            let found = change.proposal(membership);
            match (expected, &found) {
                (Ok(Some(part)), Ok(Some(proposal))) => {
                    assert!(
                        format!("{proposal}").contains(part),
                        "{change:?}: {proposal}"
                    );
                }
                (Ok(None), Ok(None)) | (Err(()), Err(_)) => {}
                (expected, found) => panic!("{change:?}: {found:?}, not {expected:?}"),
            }
        }
        let moved = MemberChange::AddLearner {
            member: MemberId(4),
            address: at(7),
        };
        assert!(moved.proposal(&three).is_err(), "a member never moves");
        let after = three.voters_after(&vote(4, Some(1))).unwrap();
        assert_eq!(after, BTreeSet::from([2, 3, 4].map(MemberId)));
    }

    #[test]
    fn caught_up_means_three_level_reports_in_a_row() {
        let cases: [(Reports, bool); 7] = [
            (&[(Some(9), 9), (Some(9), 9), (Some(9), 9)], false),
            (
                &[(Some(9), 9), (Some(9), 9), (Some(9), 9), (Some(9), 9)],
                true,
            ),
            // Level with the commit index of one heartbeat ago, though never with the present one.
            (
                &[(Some(0), 5), (Some(5), 9), (Some(9), 12), (Some(12), 20)],
                true,
            ),
            (
                &[
                    (Some(9), 9),
                    (Some(9), 9),
                    (None, 9),
                    (Some(9), 9),
                    (Some(9), 9),
                ],
                false,
            ),
            (
                &[
                    (Some(9), 9),
                    (Some(9), 9),
                    (Some(8), 9),
                    (Some(9), 9),
                    (Some(9), 9),
                ],
                false,
            ),
            (
                &[(None, 9), (None, 9), (None, 9), (None, 9), (None, 9)],
                false,
            ),
            (
                &[
                    (Some(0), 9),
                    (Some(8), 9),
                    (Some(8), 9),
                    (Some(8), 9),
                    (Some(8), 9),
                ],
                false,
            ),
        ];
        for (reports, expected) in cases {
            let mut catch_up = CatchUp::default();
            let mut last = false;
            for (applied, committed) in reports {
                last = catch_up.observe(*applied, *committed);
            }
            assert_eq!(last, expected, "{reports:?}");
        }
    }
}
