//! Carries out changes of members: one Join or Leave at each of several nodes at a time.
//!
//! A node goes on with a Join after the caller's deadline, and the group refuses a change that was
//! planned on another membership. So a reply that is late, lost or a refusal of that kind is no
//! failure: the next pass looks at the nodes and goes on from there.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use atomix_proto::multiraft::v1::node_client::NodeClient;
use atomix_proto::multiraft::v1::{
    ExpectedMembership, JoinRequest, LeaveRequest, PartitionConfig, RaftTimings,
};
use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _, stream};
use thiserror::Error;
use tonic::{Code, Request, Response, Status};

use crate::context::Context;
use crate::store::bootstrap::carry_out::Announcement;
use crate::store::bootstrap::plan_record::Plan;
use crate::store::dereference::Inputs;
use crate::store::members::placement::{Action, Join, Leave, Observed, Position};
use crate::store::names;
use crate::store::objects::build::Owner;
use atomix_controller::Next;

/// How long a node may take for a change before the caller looks again.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(10);

/// The node answers at its deadline; a node that does not even do that is not waited for.
const GRACE: Duration = Duration::from_secs(1);

/// Changes that are asked for at a time.
const AT_A_TIME: usize = 8;

/// How soon what goes on is looked at again when no event comes first.
const LOOK: Duration = Duration::from_millis(500);

/// How soon a pass is repeated that changed something, or was overtaken.
const AGAIN: Duration = Duration::from_millis(20);

/// A node refused a change of members.
#[derive(Debug, Clone, Error)]
#[error("{change}: pod {pod} answered: {} ({:?})", status.message(), status.code())]
pub struct ChangeRefused {
    /// What was asked for.
    pub change: String,
    /// Who was asked.
    pub pod: String,
    /// The answer.
    pub status: Status,
}

/// What a pass changed.
#[derive(Debug, Default)]
pub struct Changed {
    /// Steps that succeeded, for people.
    pub events: Vec<Announcement>,
    /// The first refusal that does not pass by itself.
    pub error: Option<ChangeRefused>,
    /// Something changed, or another operator changed it.
    is_news: bool,
}

impl Changed {
    /// When to look again.
    #[must_use]
    pub fn next(&self) -> Next {
        Next::After(if self.is_news { AGAIN } else { LOOK })
    }
}

/// What became of one change.
enum Answer {
    Done(Announcement),
    /// It goes on.
    Unfinished,
    /// The world is another one than the plan's.
    Overtaken,
    Refused(ChangeRefused),
}

/// Changes the members of one Store.
#[derive(Debug)]
pub struct Changer<'a> {
    /// Clients and channels.
    pub context: &'a Context,
    /// The Store.
    pub owner: &'a Owner,
    /// Whose data it is, and Raft's settings.
    pub plan: &'a Plan,
    /// The pods.
    pub inputs: &'a Inputs,
    /// What the changes were planned on.
    pub observed: &'a Observed,
}

impl Changer<'_> {
    /// Carries changes of different groups out.
    pub async fn carry_out(&self, actions: &[Action]) -> Changed {
        let calls = actions.iter().map(|action| match action {
            Action::Join(join) => self.join(join).boxed(),
            Action::Leave(leave) => self.leave(leave).boxed(),
        });
        let calls: Vec<BoxFuture<'_, Answer>> = calls.collect();
        let mut answers = stream::iter(calls).buffer_unordered(AT_A_TIME);
        let mut changed = Changed::default();
        while let Some(answer) = answers.next().await {
            match answer {
                Answer::Done(event) => {
                    changed.is_news = true;
                    changed.events.push(event);
                }
                Answer::Unfinished => {}
                Answer::Overtaken => changed.is_news = true,
                Answer::Refused(refused) => {
                    changed.error.get_or_insert(refused);
                }
            }
        }
        changed
    }

    async fn join(&self, join: &Join) -> Answer {
        let request = join_request(join, self.owner, self.plan, self.observed);
        let to = names::pod(&self.owner.name, join.ordinal);
        let change = match join.from {
            Some(from) if from != join.ordinal => format!(
                "move a member of partition {} from {} to {to}",
                join.partition,
                names::pod(&self.owner.name, from)
            ),
            Some(_) | None => format!("add a member of partition {} on {to}", join.partition),
        };
        let Some(mut client) = self.client(join.ordinal) else {
            return Answer::Overtaken;
        };
        let answer = within(client.join(limited(request))).await;
        let done = Announcement {
            reason: "MemberJoined",
            action: "Join",
            note: format!("done: {change}"),
        };
        judge(answer, done, change, to)
    }

    async fn leave(&self, leave: &Leave) -> Answer {
        let request = LeaveRequest {
            partition_id: leave.partition,
            member_id: leave.member_id,
            expected_membership: Some(expected(leave.expected)),
        };
        let via = names::pod(&self.owner.name, leave.via);
        let on = leave.from.map(|from| names::pod(&self.owner.name, from));
        let change = format!(
            "remove member {:016x} of partition {} on {}",
            leave.member_id,
            leave.partition,
            on.as_deref().unwrap_or("a pod that is unknown"),
        );
        let Some(mut client) = self.client(leave.via) else {
            return Answer::Overtaken;
        };
        let answer = within(client.leave(limited(request))).await;
        let done = Announcement {
            reason: "MemberLeft",
            action: "Leave",
            note: format!("done: {change}"),
        };
        judge(answer, done, change, via)
    }

    fn client(&self, ordinal: u32) -> Option<NodeClient<atomix_controller::dialer::Channel>> {
        let control = self.inputs.pods.get(&ordinal)?.control()?;
        Some(NodeClient::new(self.context.channels.get(&control)))
    }
}

fn limited<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(CHANGE_TIMEOUT);
    request
}

async fn within<T>(
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<Response<T>, Status> {
    let answer = tokio::time::timeout(CHANGE_TIMEOUT + GRACE, call).await;
    answer.unwrap_or_else(|_elapsed| Err(Status::deadline_exceeded("no answer")))
}

fn judge<T>(
    answer: Result<Response<T>, Status>,
    done: Announcement,
    change: String,
    pod: String,
) -> Answer {
    let status = match answer {
        Ok(_) => return Answer::Done(done),
        Err(status) => status,
    };
    match status.code() {
        // It goes on without the caller.
        Code::DeadlineExceeded | Code::Cancelled => Answer::Unfinished,
        // Another membership, another member of that partition at the node, or none.
        Code::Aborted | Code::AlreadyExists | Code::NotFound => Answer::Overtaken,
        _ => Answer::Refused(ChangeRefused {
            change,
            pod,
            status,
        }),
    }
}

fn expected((term, index): Position) -> ExpectedMembership {
    ExpectedMembership { term, index }
}

/// What a node is told that joins: all present members, so that it finds the leader, and itself.
fn join_request(join: &Join, owner: &Owner, plan: &Plan, observed: &Observed) -> JoinRequest {
    let own = names::peer_address(&owner.name, &owner.namespace, join.ordinal);
    let mut members = BTreeMap::from([(join.member_id, (join.node_id, own))]);
    if let Some(Some(group)) = observed.groups.get(&join.partition) {
        for member in group.members().filter(|member| *member != join.member_id) {
            if let Some(place) = group.places.get(&member) {
                members.insert(member, (place.node_id, place.address.clone()));
            }
        }
    }
    let timeout = Duration::from_millis(plan.election_timeout_millis);
    let mut partition = PartitionConfig {
        partition_id: join.partition,
        store_uid: plan.store_uid.clone(),
        member_id: join.member_id,
        replaces: join.replaces.unwrap_or(0),
        raft: Some(RaftTimings {
            election_timeout: prost_types::Duration::try_from(timeout).ok(),
            snapshot_entry_threshold: plan.snapshot_entry_threshold,
        }),
        node_id: join.node_id,
        incarnation: plan.incarnation,
        ..PartitionConfig::default()
    };
    for (member, (node_id, address)) in members {
        partition.members.insert(member, address);
        partition.node_ids.insert(member, node_id);
    }
    JoinRequest {
        partition: Some(partition),
        expected_membership: Some(expected(join.expected)),
    }
}

#[cfg(test)]
mod tests;
