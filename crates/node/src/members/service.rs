//! The Members service: what nodes ask the leaders of their groups.

use std::sync::Arc;

use atomix_proto::multiraft::v1::members_request::Ask;
use atomix_proto::multiraft::v1::members_server::Members;
use atomix_proto::multiraft::v1::{MembersRequest, MembersResponse, Retirement};
use atomix_raft::{MemberId, PartitionId};
use tonic::{Code, Request, Response, Status};

use super::answer::Answer;
use super::leader;
use super::wish::Wish;
use crate::hosted::Hosted;

/// Serves the other nodes.
pub(crate) struct MembersService {
    pub(crate) hosted: Arc<Hosted>,
}

#[tonic::async_trait]
impl Members for MembersService {
    async fn ask(
        &self,
        request: Request<MembersRequest>,
    ) -> Result<Response<MembersResponse>, Status> {
        let hosted = Arc::clone(&self.hosted);
        // A task of its own: a caller that gives up must not end a change half way.
        let answering = tokio::spawn(async move { answer(&hosted, request.into_inner()).await });
        let answer = answering
            .await
            .map_err(|error| Status::internal(format!("the change broke off: {error}")))?;
        Ok(Response::new(MembersResponse {
            answer: Some(answer.into()),
        }))
    }
}

/// Answers a request to the leader of a group, as far as this node leads it.
pub(super) async fn answer(hosted: &Hosted, request: MembersRequest) -> Answer {
    let MembersRequest {
        store_uid,
        incarnation,
        partition_id,
        ask,
    } = request;
    let not_here = || {
        Answer::refused(
            Code::NotFound,
            format!("this node does not host partition {partition_id}"),
        )
    };
    let Some(partition) = hosted.get(PartitionId(partition_id)) else {
        return not_here();
    };
    let record = partition.record();
    if record.store_uid != store_uid || record.incarnation != incarnation {
        return not_here();
    }
    match ask {
        Some(Ask::Admit(admission)) => {
            leader::fulfil(&partition, &Wish::Admit(admission.into())).await
        }
        Some(Ask::Dismiss(dismissal)) => {
            leader::fulfil(&partition, &Wish::Dismiss(dismissal.into())).await
        }
        Some(Ask::Transfer(transfer)) => {
            leader::transfer(&partition, MemberId(transfer.member_id)).await
        }
        Some(Ask::Standing(standing)) => {
            leader::standing(&partition, MemberId(standing.member_id)).await
        }
        Some(Ask::Retire(retirement)) => {
            let (partition, member) = (record.partition_id, record.member_id);
            retire(hosted, partition, member, &retirement).await
        }
        None => Answer::refused(
            Code::Unimplemented,
            "a request that this version does not know",
        ),
    }
}

/// Deletes the member that this node has, if its group goes on without it.
async fn retire(
    hosted: &Hosted,
    partition: PartitionId,
    member: MemberId,
    retirement: &Retirement,
) -> Answer {
    if retirement.member_ids.contains(&member.0) {
        tracing::warn!(%partition, %member, "the group was recovered without this member");
        if let Err(error) = hosted.depart(partition, member).await {
            return Answer::refused(Code::Internal, error.to_string());
        }
    }
    Answer::NoMember
}
