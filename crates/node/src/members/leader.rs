//! What the leader of a group does when it is asked to change the members. It remembers nothing
//! between two requests: the membership says how far a change is.

use std::time::Duration;

use atomix_raft::{
    ChangeError, LeaderHint, MemberChange, MemberId, Membership, ReadError, Role, TransferError,
};
use tokio::time::Instant;
use tonic::Code;

use super::answer::Answer;
use super::wish::{Next, Stop, Wish};
use crate::partition::Partition;

/// How long one request is worked on at least; who asked asks again.
const PATIENCE: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(20);

/// What one look at the membership led to.
enum Looked {
    Answer(Answer),
    /// Look again; what happened.
    Again(String),
}

/// Does for a wish as much as can be done at once.
pub(super) async fn fulfil(partition: &Partition, wish: &Wish) -> Answer {
    let deadline = deadline(partition);
    loop {
        let progress = match Box::pin(look(partition, wish, deadline)).await {
            Looked::Answer(answer) => return answer,
            Looked::Again(progress) => progress,
        };
        if Instant::now() >= deadline {
            return pending(&partition.group().membership(), wish, progress);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// To find out whether a member is caught up takes some heartbeats.
fn deadline(partition: &Partition) -> Instant {
    let election_timeout = partition.record().timings.election_timeout;
    Instant::now() + PATIENCE.max(election_timeout * 2)
}

fn pending(membership: &Membership, wish: &Wish, progress: String) -> Answer {
    Answer::Pending {
        progress,
        is_member: membership.contains(wish.member()),
    }
}

async fn look(partition: &Partition, wish: &Wish, deadline: Instant) -> Looked {
    let group = partition.group();
    if let Err(answer) = confirm_leadership(partition).await {
        return match answer {
            Answer::Pending { progress, .. } => Looked::Again(progress),
            answer => Looked::Answer(answer),
        };
    }
    let membership = group.membership();
    let change = match wish.next(&membership) {
        // Its data is deleted then, so the removal must be committed.
        Err(Stop::Removed { member }) if belongs(partition, member) => {
            return Looked::Again("the removal is not committed yet".to_owned());
        }
        Err(Stop::Removed { .. }) => return Looked::Answer(Answer::NoMember),
        Err(stop) => return Looked::Answer(Answer::refused(stop.code(), stop.to_string())),
        Ok(Next::Change(change)) => change,
        Ok(Next::Settled) => {
            let index = membership.position.map_or(0, |position| position.index);
            if group.wait_applied(index, deadline).await && group.applied_membership() == membership
            {
                return Looked::Answer(Answer::Settled);
            }
            return Looked::Again("the change is not committed yet".to_owned());
        }
    };
    let answer_pending = |progress| Looked::Answer(pending(&membership, wish, progress));
    if let MemberChange::AddVoter { member, .. } = &change
        && let Err(progress) = group.caught_up(*member, deadline).await
    {
        return answer_pending(format!("a learner, not caught up: {progress}"));
    }
    if let Some(voters) = membership.voters_after(&change) {
        let level = group.level_members(&voters).await;
        if level.len() <= voters.len() / 2 {
            let reason = format!(
                "of the {} voters after the change only {} answer and are caught up",
                voters.len(),
                level.len()
            );
            return match wish {
                Wish::Admit(_) => answer_pending(reason),
                Wish::Dismiss(_) => {
                    Looked::Answer(Answer::refused(Code::FailedPrecondition, reason))
                }
            };
        }
        let me = partition.record().member_id;
        let successors = voters.intersection(&membership.voters).copied().collect();
        if !voters.contains(&me) {
            match group.hand_over(&successors, deadline).await {
                Ok(()) => return Looked::Answer(Answer::OtherLeader(leader(partition))),
                Err(TransferError::NotLeader(hint)) => {
                    return Looked::Answer(Answer::OtherLeader(hint));
                }
                Err(error @ (TransferError::Busy | TransferError::Unknown(_))) => {
                    return Looked::Again(error.to_string());
                }
                // Nobody can take over at once: it removes itself, and the others elect.
                Err(TransferError::Refused(reason)) => {
                    tracing::info!(reason, "the leader removes itself");
                }
            }
        }
    }
    let _one = partition.changing().await;
    let changed = group.change_members(&change, membership.position, deadline);
    match changed.await {
        Ok(_) => Looked::Again("a change is committed".to_owned()),
        Err(ChangeError::NotLeader(hint)) => Looked::Answer(Answer::OtherLeader(hint)),
        Err(ChangeError::Refused(reason)) => {
            Looked::Answer(Answer::refused(Code::FailedPrecondition, reason))
        }
        Err(
            error @ (ChangeError::Conflict(_)
            | ChangeError::Unavailable(_)
            | ChangeError::Unknown(_)),
        ) => Looked::Again(error.to_string()),
    }
}

/// Confirms with a quorum that this member leads, and that it has applied what was committed.
///
/// # Errors
/// `OtherLeader`, or `Pending` when it leads but no quorum answers.
async fn confirm_leadership(partition: &Partition) -> Result<(), Answer> {
    let group = partition.group();
    let deadline = Instant::now() + partition.record().timings.election_timeout;
    match group.linearizable_read(deadline).await {
        Ok(_) => Ok(()),
        Err(ReadError::NotLeader(hint)) => {
            Err(Answer::OtherLeader(hint.or_else(|| leader(partition))))
        }
        Err(ReadError::Unavailable(reason)) => match group.status().role {
            Role::Leader | Role::Candidate => Err(Answer::Pending {
                progress: reason,
                is_member: false,
            }),
            Role::Stopped | Role::Learner | Role::Follower => {
                Err(Answer::OtherLeader(leader(partition)))
            }
        },
    }
}

/// Whom this member takes for the leader, if it is another one.
fn leader(partition: &Partition) -> Option<LeaderHint> {
    let group = partition.group();
    let hint = group.leader_hint(&group.status())?;
    (hint.member_id != partition.record().member_id).then_some(hint)
}

/// Says whether a member belongs to the group.
pub(super) async fn standing(partition: &Partition, member: MemberId) -> Answer {
    if let Err(answer) = confirm_leadership(partition).await {
        return answer;
    }
    if belongs(partition, member) {
        Answer::Settled
    } else {
        Answer::NoMember
    }
}

/// Whether it is a member before or after a change that is not committed yet.
fn belongs(partition: &Partition, member: MemberId) -> bool {
    let group = partition.group();
    group.applied_membership().contains(member) || group.membership().contains(member)
}

/// Hands the leadership to a member.
pub(super) async fn transfer(partition: &Partition, to: MemberId) -> Answer {
    let deadline = deadline(partition);
    let group = partition.group();
    if group.status().role != Role::Leader {
        return Answer::OtherLeader(leader(partition));
    }
    match group.transfer_leadership(to, deadline).await {
        Ok(()) => Answer::Settled,
        Err(TransferError::NotLeader(hint)) => Answer::OtherLeader(hint),
        Err(error @ TransferError::Refused(_)) => {
            Answer::refused(Code::FailedPrecondition, error.to_string())
        }
        Err(error @ TransferError::Busy) => Answer::refused(Code::Aborted, error.to_string()),
        Err(error @ TransferError::Unknown(_)) => {
            Answer::refused(Code::Unavailable, error.to_string())
        }
    }
}
