//! Leave, and handing over the leadership: this node asks the group's leader, whichever it is.

use std::sync::Arc;
use std::time::Duration;

use atomix_proto::multiraft::v1::members_request::Ask;
use atomix_proto::multiraft::v1::{
    LeadershipTransfer, LeaveRequest, Standing, TransferLeadershipRequest,
};
use atomix_raft::{GroupRecord, MemberId, PartitionId};
use tokio::time::Instant;
use tonic::Status;

use super::answer::Answer;
use super::asker::Asker;
use super::join::Joiner;
use super::wish::{Dismissal, expected_position};
use crate::hosted::Hosted;

const PAUSE: Duration = Duration::from_millis(100);

/// Removes a member from its group: this node's own, or, when this node hosts the partition, any
/// other, which may be dead. This node's data of the partition is deleted afterwards when it was
/// its own.
///
/// # Errors
/// FAILED_PRECONDITION and ABORTED with what stands against it; NOT_FOUND when this node cannot
/// reach the group; DEADLINE_EXCEEDED with how far it is: to be called again.
pub(crate) async fn leave(
    hosted: &Arc<Hosted>,
    asker: &Asker,
    joiner: &Joiner,
    request: &LeaveRequest,
    deadline: Instant,
) -> Result<(), Status> {
    let partition = partition_of(request.partition_id)?;
    let Some(record) = hosted.record(partition) else {
        let is_own = request.member_id == 0
            || hosted
                .departed(partition)
                .contains(&MemberId(request.member_id));
        if is_own {
            return Ok(());
        }
        return Err(not_hosted(partition));
    };
    let member = match request.member_id {
        0 => record.member_id,
        member => MemberId(member),
    };
    let is_own = member == record.member_id;
    if is_own {
        // It would ask to be added again.
        joiner.stop(partition).await;
    }
    let dismissal = Dismissal {
        member,
        expected: request.expected_membership.map(expected_position),
    };
    let ask = Ask::Dismiss((&dismissal).into());
    let by_own_member = settle(asker, &record, &ask, deadline).await?;
    if is_own {
        if by_own_member {
            // It led, and removed itself: the others must have a leader before it stops.
            another_leads(asker, &record, deadline).await?;
        }
        hosted.depart(partition, member).await.map_err(|error| {
            tracing::error!(%error, "a leave failed");
            Status::internal(error.to_string())
        })?;
    }
    Ok(())
}

/// Hands the leadership of a partition to one of its members.
///
/// # Errors
/// FAILED_PRECONDITION when that member cannot take over at once; ABORTED while another transfer
/// goes on; UNAVAILABLE when it is not known who leads; NOT_FOUND when the partition is not here.
pub(crate) async fn hand_over(
    hosted: &Hosted,
    asker: &Asker,
    request: TransferLeadershipRequest,
    deadline: Instant,
) -> Result<(), Status> {
    let partition = partition_of(request.partition_id)?;
    let record = hosted
        .record(partition)
        .ok_or_else(|| not_hosted(partition))?;
    let ask = Ask::Transfer(LeadershipTransfer {
        member_id: request.member_id,
    });
    let answered = asker.ask(&record, ask, deadline).await;
    match answered.map_err(Status::unavailable)?.answer {
        Answer::Settled => Ok(()),
        Answer::Refused { code, message } => Err(Status::new(code, message)),
        Answer::Pending { progress, .. } => Err(Status::unavailable(progress)),
        Answer::OtherLeader(_) | Answer::NoMember => {
            Err(Status::unavailable("the leader is changing"))
        }
    }
}

fn partition_of(id: u32) -> Result<PartitionId, Status> {
    if id == 0 {
        return Err(Status::invalid_argument("partition_id: must be at least 1"));
    }
    Ok(PartitionId(id))
}

fn not_hosted(partition: PartitionId) -> Status {
    Status::not_found(format!(
        "this node does not host partition {partition}; ask one that does"
    ))
}

/// Asks until it is settled. True when this node's own member settled it.
async fn settle(
    asker: &Asker,
    record: &GroupRecord,
    ask: &Ask,
    deadline: Instant,
) -> Result<bool, Status> {
    loop {
        let progress = match asker.ask(record, ask.clone(), deadline).await {
            Ok(answered) => match answered.answer {
                Answer::Settled => return Ok(answered.by_own_member),
                Answer::Refused { code, message } => return Err(Status::new(code, message)),
                Answer::Pending { progress, .. } => progress,
                Answer::OtherLeader(_) | Answer::NoMember => "the leader is changing".to_owned(),
            },
            Err(reason) => reason,
        };
        pause_until(deadline, &progress).await?;
    }
}

/// Waits until a leader other than this node's member says that the member is gone.
async fn another_leads(
    asker: &Asker,
    record: &GroupRecord,
    deadline: Instant,
) -> Result<(), Status> {
    let ask = Ask::Standing(Standing {
        member_id: record.member_id.0,
    });
    loop {
        let progress = match asker.ask(record, ask.clone(), deadline).await {
            Ok(answered) if answered.answer == Answer::NoMember && !answered.by_own_member => {
                return Ok(());
            }
            Ok(_) => "removed; no other member leads yet".to_owned(),
            Err(reason) => format!("removed; {reason}"),
        };
        pause_until(deadline, &progress).await?;
    }
}

async fn pause_until(deadline: Instant, progress: &str) -> Result<(), Status> {
    if Instant::now() + PAUSE >= deadline {
        return Err(Status::deadline_exceeded(format!(
            "the member is not removed yet: {progress}"
        )));
    }
    tokio::time::sleep(PAUSE).await;
    Ok(())
}
