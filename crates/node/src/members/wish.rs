//! The next change that a wish needs, by the membership alone. Pure.

use atomix_proto::multiraft::v1 as pb;
use atomix_raft::{LogPosition, MemberAddress, MemberChange, MemberId, Membership, NodeId};
use thiserror::Error;
use tonic::Code;

/// What a leader is asked to make so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wish {
    Admit(Admission),
    Dismiss(Dismissal),
}

/// A node wants its member to be in the group, in a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Admission {
    pub(crate) member: MemberId,
    pub(crate) address: MemberAddress,
    /// Stays without a vote.
    pub(crate) observer: bool,
    pub(crate) replaces: Option<MemberId>,
    pub(crate) expected: Option<LogPosition>,
    /// The leader said before that it is a member: gone means removed.
    pub(crate) admitted: bool,
}

/// A member is to be in the group no longer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Dismissal {
    pub(crate) member: MemberId,
    pub(crate) expected: Option<LogPosition>,
}

/// What is to be done next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Next {
    /// It is so.
    Settled,
    Change(MemberChange),
}

/// Why nothing more is done.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum Stop {
    #[error(
        "the membership is that of entry {} of term {}, not of entry {} of term {}; plan again",
        found.index, found.term, expected.index, expected.term
    )]
    OtherMembership {
        expected: LogPosition,
        found: LogPosition,
    },
    #[error("member {member} was removed from the group; its id is not used again")]
    Removed { member: MemberId },
    #[error("member {member} lives on node {:016x}", node.0)]
    LivesElsewhere { member: MemberId, node: NodeId },
    #[error("node {:016x} has member {member} in the group already; it must leave first", node.0)]
    NodeHasMember { node: NodeId, member: MemberId },
    #[error("member {member} votes; an observer joins with a member id of its own")]
    Votes { member: MemberId },
    #[error("member {replaced} votes; an observer cannot take its place")]
    ReplacesVoter { replaced: MemberId },
    #[error("member {member} is the last voter; add another one first")]
    LastVoter { member: MemberId },
}

impl Stop {
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::OtherMembership { .. } => Code::Aborted,
            Self::Removed { .. }
            | Self::LivesElsewhere { .. }
            | Self::NodeHasMember { .. }
            | Self::Votes { .. }
            | Self::ReplacesVoter { .. }
            | Self::LastVoter { .. } => Code::FailedPrecondition,
        }
    }
}

impl Wish {
    pub(crate) fn member(&self) -> MemberId {
        match self {
            Self::Admit(admission) => admission.member,
            Self::Dismiss(dismissal) => dismissal.member,
        }
    }

    /// The next change towards the wish.
    ///
    /// # Errors
    /// Why it cannot come true.
    pub(crate) fn next(&self, membership: &Membership) -> Result<Next, Stop> {
        match self {
            Self::Admit(admission) => admission.next(membership),
            Self::Dismiss(dismissal) => dismissal.next(membership),
        }
    }
}

/// The expected membership counts before the first change for a member only.
fn check_expected(expected: Option<LogPosition>, membership: &Membership) -> Result<(), Stop> {
    let found = membership.position.unwrap_or_default();
    match expected {
        Some(expected) if expected != found => Err(Stop::OtherMembership { expected, found }),
        Some(_) | None => Ok(()),
    }
}

impl Admission {
    fn next(&self, membership: &Membership) -> Result<Next, Stop> {
        let Self {
            member,
            address,
            observer,
            replaces,
            expected,
            admitted,
        } = self;
        let member = *member;
        let change = |change| Ok(Next::Change(change));
        match membership.addresses.get(&member) {
            None if *admitted => return Err(Stop::Removed { member }),
            None => {
                check_expected(*expected, membership)?;
                if let Some(other) = member_on(membership, address.node_id) {
                    return Err(Stop::NodeHasMember {
                        node: address.node_id,
                        member: other,
                    });
                }
                if membership.is_joint() {
                    return change(MemberChange::Complete);
                }
                return change(MemberChange::AddLearner {
                    member,
                    address: address.clone(),
                });
            }
            Some(known) if known.node_id != address.node_id => {
                return Err(Stop::LivesElsewhere {
                    member,
                    node: known.node_id,
                });
            }
            Some(_) => {}
        }
        if membership.is_joint() {
            return change(MemberChange::Complete);
        }
        let replaced = replaces.filter(|replaced| membership.contains(*replaced));
        let replaced_voter = replaced.filter(|replaced| membership.voters.contains(replaced));
        let votes = membership.voters.contains(&member);
        match (observer, votes, replaced_voter, replaced) {
            (true, true, _, _) => Err(Stop::Votes { member }),
            (true, false, Some(replaced), _) => Err(Stop::ReplacesVoter { replaced }),
            (false, false, replaces, _) => change(MemberChange::AddVoter { member, replaces }),
            (false, true, Some(replaced), _) => change(MemberChange::RemoveVoter(replaced)),
            (_, _, None, Some(replaced)) => change(MemberChange::RemoveLearner(replaced)),
            (_, _, None, None) => Ok(Next::Settled),
        }
    }
}

fn member_on(membership: &Membership, node: NodeId) -> Option<MemberId> {
    let mut members = membership.addresses.iter();
    members
        .find(|(_, address)| address.node_id == node)
        .map(|(member, _)| *member)
}

impl Dismissal {
    fn next(&self, membership: &Membership) -> Result<Next, Stop> {
        let Self { member, expected } = self;
        let member = *member;
        let change = |change| Ok(Next::Change(change));
        if !membership.contains(member) {
            return Ok(Next::Settled);
        }
        // Half removed: the first change for it is done.
        let leaves =
            membership.outgoing_voters.contains(&member) && !membership.voters.contains(&member);
        if !leaves {
            check_expected(*expected, membership)?;
        }
        if membership.is_joint() {
            return change(MemberChange::Complete);
        }
        if !membership.voters.contains(&member) {
            return change(MemberChange::RemoveLearner(member));
        }
        if membership.voters.len() == 1 {
            return Err(Stop::LastVoter { member });
        }
        change(MemberChange::RemoveVoter(member))
    }
}

impl From<&Admission> for pb::Admission {
    fn from(admission: &Admission) -> Self {
        let Admission {
            member,
            address,
            observer,
            replaces,
            expected,
            admitted,
        } = admission;
        Self {
            member_id: member.0,
            node_id: address.node_id.0,
            address: address.address.clone(),
            observer: *observer,
            replaces: replaces.map_or(0, |member| member.0),
            expected_membership: expected.map(expected_message),
            admitted: *admitted,
        }
    }
}

impl From<pb::Admission> for Admission {
    fn from(message: pb::Admission) -> Self {
        Self {
            member: MemberId(message.member_id),
            address: MemberAddress {
                node_id: NodeId(message.node_id),
                address: message.address,
            },
            observer: message.observer,
            replaces: (message.replaces != 0).then_some(MemberId(message.replaces)),
            expected: message.expected_membership.map(expected_position),
            admitted: message.admitted,
        }
    }
}

impl From<&Dismissal> for pb::Dismissal {
    fn from(dismissal: &Dismissal) -> Self {
        Self {
            member_id: dismissal.member.0,
            expected_membership: dismissal.expected.map(expected_message),
        }
    }
}

impl From<pb::Dismissal> for Dismissal {
    fn from(message: pb::Dismissal) -> Self {
        Self {
            member: MemberId(message.member_id),
            expected: message.expected_membership.map(expected_position),
        }
    }
}

fn expected_message(position: LogPosition) -> pb::ExpectedMembership {
    pb::ExpectedMembership {
        term: position.term,
        index: position.index,
    }
}

pub(super) fn expected_position(message: pb::ExpectedMembership) -> LogPosition {
    LogPosition {
        term: message.term,
        index: message.index,
    }
}

#[cfg(test)]
mod tests;
