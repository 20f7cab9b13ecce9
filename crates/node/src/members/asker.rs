//! Finds the leader of a group and asks it.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use atomix_proto::multiraft::v1::members_client::MembersClient;
use atomix_proto::multiraft::v1::members_request::Ask;
use atomix_proto::multiraft::v1::{MembersRequest, MembersResponse};
use atomix_raft::GroupRecord;
use tokio::time::Instant;
use tonic::transport::Endpoint;
use tonic::{Code, Request};

use super::answer::Answer;
use super::service;
use crate::hosted::Hosted;
use crate::reach::Reach;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// At least; longer than a leader works on one request.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Asks leaders for changes of members.
pub(crate) struct Asker {
    hosted: Arc<Hosted>,
    reach: Reach,
}

/// What a leader answered.
pub(crate) struct Answered {
    pub(crate) answer: Answer,
    /// True when it was this node's own member.
    pub(crate) by_own_member: bool,
}

impl Asker {
    pub(crate) fn new(hosted: Arc<Hosted>, reach: Reach) -> Self {
        Self { hosted, reach }
    }

    /// Asks the leader of the group that `record` is a member of: this node if it leads, then
    /// whoever this node takes for the leader, then every member that it knows of. Answers are
    /// never `OtherLeader`.
    ///
    /// # Errors
    /// Why no leader answered.
    pub(crate) async fn ask(
        &self,
        record: &GroupRecord,
        ask: Ask,
        deadline: Instant,
    ) -> Result<Answered, String> {
        let request = MembersRequest {
            store_uid: record.store_uid.clone(),
            incarnation: record.incarnation,
            partition_id: record.partition_id.0,
            ask: Some(ask),
        };
        let mut reason = "no other member is known".to_owned();
        let mut next = VecDeque::new();
        if let Some(partition) = self.hosted.get(record.partition_id) {
            let own = Box::pin(service::answer(&self.hosted, request.clone())).await;
            match own {
                Answer::OtherLeader(hint) => {
                    next.extend(hint.map(|hint| hint.address));
                }
                answer => {
                    return Ok(Answered {
                        answer,
                        by_own_member: true,
                    });
                }
            }
            let membership = partition.group().membership();
            next.extend(self.others(membership.addresses.values()));
        }
        next.extend(self.others(record.members.values()));

        let patience = ANSWER_TIMEOUT.max(record.timings.election_timeout * 4);
        let mut asked = BTreeSet::new();
        while let Some(address) = next.pop_front() {
            if Instant::now() >= deadline {
                break;
            }
            if !asked.insert(address.clone()) {
                continue;
            }
            let give_up = deadline.min(Instant::now() + patience);
            match self.ask_node(&address, request.clone(), give_up).await {
                Ok(Answer::OtherLeader(hint)) => {
                    reason = format!("{address} does not lead");
                    if let Some(hint) = hint {
                        next.push_front(hint.address);
                    }
                }
                // It was a member once; others may know more.
                Ok(Answer::Refused {
                    code: Code::NotFound,
                    message,
                }) => reason = format!("{address}: {message}"),
                Ok(answer) => {
                    return Ok(Answered {
                        answer,
                        by_own_member: false,
                    });
                }
                Err(failed) => reason = format!("{address}: {failed}"),
            }
        }
        Err(format!("no leader answers ({reason})"))
    }

    fn others<'a>(
        &self,
        members: impl Iterator<Item = &'a atomix_raft::MemberAddress>,
    ) -> Vec<String> {
        let me = self.hosted.node_id();
        members
            .filter(|member| member.node_id != me)
            .map(|member| member.address.clone())
            .collect()
    }

    /// Asks one node.
    ///
    /// # Errors
    /// Why it does not answer.
    pub(crate) async fn ask_node(
        &self,
        address: &str,
        request: MembersRequest,
        deadline: Instant,
    ) -> Result<Answer, String> {
        let settings = |endpoint: Endpoint| endpoint.connect_timeout(CONNECT_TIMEOUT);
        let channel = self.reach.connect(address, settings).await?;
        let request = Request::new(request);
        let patience = deadline.saturating_duration_since(Instant::now());
        let mut client = MembersClient::new(channel);
        let answered = client.ask(request);
        let answered = tokio::time::timeout(patience, answered);
        let answered = answered
            .await
            .map_err(|_| "no answer in time".to_owned())?
            .map_err(|status| format!("{}: {}", status.code(), status.message()))?;
        let MembersResponse { answer } = answered.into_inner();
        answer
            .map(Answer::from)
            .ok_or_else(|| "an answer that this version does not know".to_owned())
    }
}
