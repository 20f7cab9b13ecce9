//! `Node.Recover`: the other groups of the node go on meanwhile.

use std::time::Duration;

use atomix_proto::multiraft::v1::{RecoverRequest, RecoverResponse};
use atomix_raft::{MemberId, PartitionId, Role};
use tonic::Status;

use super::fresh_member;
use crate::hosted::{HostError, Hosted};
use crate::members::Joiner;
use crate::partition::Partition;

/// A group is not called lost sooner after a leader's last message, or the node's start.
const LEAST_SILENCE: Duration = Duration::from_secs(3);

/// Makes this node's member the only voter of its group. The same again is no error.
///
/// # Errors
/// INVALID_ARGUMENT without ids; NOT_FOUND when the partition is not here; FAILED_PRECONDITION when
/// another member is, or the group has a leader; INTERNAL when the disk fails.
pub(crate) async fn recover(
    hosted: &Hosted,
    joiner: &Joiner,
    request: RecoverRequest,
) -> Result<RecoverResponse, Status> {
    let (partition, member) = (
        PartitionId(request.partition_id),
        MemberId(request.member_id),
    );
    if partition.0 == 0 || member.0 == 0 {
        return Err(Status::invalid_argument(
            "give partition_id and member_id, the member that this node has of it",
        ));
    }
    let record = hosted.record(partition).ok_or_else(|| {
        Status::not_found(format!(
            "this node holds no member of partition {partition}"
        ))
    })?;
    if record.member_id != member {
        if hosted.departed(partition).contains(&member) && record.initializer.is_none() {
            return Ok(answer(record.member_id));
        }
        return Err(Status::failed_precondition(format!(
            "this node holds member {} of partition {partition}, not {member}",
            record.member_id
        )));
    }
    if let Some(running) = hosted.get(partition) {
        expect_silence(&running)?;
    }
    joiner.stop(partition).await;
    let recovered = hosted.recover(partition, member, fresh_member()).await;
    let record = recovered.map_err(|error| match error {
        HostError::Recover(error) => Status::failed_precondition(error.to_string()),
        HostError::Storage(_) | HostError::Start(_) => Status::internal(error.to_string()),
    })?;
    tracing::warn!(%partition, former = %member, member = %record.member_id, "recovered a group");
    Ok(answer(record.member_id))
}

fn answer(member: MemberId) -> RecoverResponse {
    RecoverResponse {
        member_id: member.0,
    }
}

/// A group that has a leader has a quorum.
fn expect_silence(partition: &Partition) -> Result<(), Status> {
    let record = partition.record();
    let id = record.partition_id;
    if partition.status().role == Role::Leader {
        return Err(Status::failed_precondition(format!(
            "partition {id} has its quorum: this member leads it; replace single members with \
             `kubectl atomix store replace-node`"
        )));
    }
    let silence = partition.group().since_heard();
    let limit = LEAST_SILENCE.max(record.timings.election_timeout * 4);
    if silence < limit {
        // The same words each time: they are kept in a status.
        return Err(Status::failed_precondition(format!(
            "partition {id} may have its quorum: less than {limit:?} ago a leader or candidate was \
             heard, or this node was started; try again after that, and where another voter is left, \
             recover from that one"
        )));
    }
    Ok(())
}
