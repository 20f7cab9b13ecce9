//! Requests to one partition: finds its leader and repeats a request until it is answered or its
//! deadline has passed. This is the one place that decides what is sent again, and where.
//!
//! Not for sessions and sequence numbers; requests that are sent again must be safe to repeat.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use atomix_primitives::Kinds;
use atomix_proto::multiraft::v1::{
    Failure, Operate, Operation, PartitionLeader, failure, request, response,
};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::link::{Answered, LinkError, jittered};
use super::nodes::Nodes;
use crate::error::{DriverError, ErrorKind};
use crate::spread::{Happened, PartitionId};

const MIN_BACKOFF: Duration = Duration::from_millis(20);
const MAX_BACKOFF: Duration = Duration::from_millis(250);
/// How long an operation that waits for others is waited for before the node is asked again. A node
/// that is silent altogether is found out by other requests.
const WAITING_PATIENCE: Duration = Duration::from_secs(10);

/// What became of a request.
#[derive(Debug)]
pub(crate) enum Answer {
    /// The reply of an operation or query.
    Reply(Bytes),
    /// What happened to a primitive, and in which incarnation of the store's data.
    Events(Happened),
    /// The session that was opened.
    Session(Opened),
    /// Done, without a reply.
    Done,
    /// The operation's own error.
    Failed(DriverError),
    /// The session does not exist (any more).
    SessionLost,
    /// The deadline passed; why it took so long.
    Expired(String),
    /// The connection was closed.
    Closed,
}

/// A session as the partition opened it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Opened {
    pub(crate) id: u64,
    /// The incarnation of the store's data that it belongs to; 0 = the node does not say.
    pub(crate) incarnation: u64,
}

/// An answer, and whether an earlier attempt may have been carried out unseen.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) answer: Answer,
    /// True when an attempt ended without a definite answer: it may have been applied.
    pub(crate) uncertain: bool,
}

/// One partition as seen from here.
pub(crate) struct Partition {
    id: PartitionId,
    kinds: Arc<Kinds>,
    nodes: Arc<Nodes>,
    closed: CancellationToken,
    place: Mutex<Place>,
}

#[derive(Debug, Default)]
struct Place {
    /// Who leads, as far as known.
    leader: Option<SocketAddr>,
    /// Where the search for an unknown leader goes on.
    next_member: usize,
    /// A node that cannot serve the partition, and since when it has not.
    unavailable: Option<(SocketAddr, Instant)>,
}

/// One request's search for the leader.
struct Search {
    deadline: Instant,
    backoff: Duration,
    tried: usize,
    /// A node that was silent, and until when hints to it are not followed.
    silent: Option<(SocketAddr, Instant)>,
    /// Nodes that do not host the partition though they host others, and since when no node has
    /// answered anything else.
    strangers: BTreeSet<SocketAddr>,
    strange_since: Instant,
    last_reason: String,
}

impl Search {
    fn new(deadline: Instant) -> Self {
        Self {
            deadline,
            backoff: MIN_BACKOFF,
            tried: 0,
            silent: None,
            strangers: BTreeSet::new(),
            strange_since: Instant::now(),
            last_reason: String::new(),
        }
    }

    fn met_stranger(&mut self, node: SocketAddr) {
        if self.strangers.is_empty() {
            self.strange_since = Instant::now();
        }
        self.strangers.insert(node);
    }
}

/// How a search goes on after an attempt.
enum Step {
    Answered(Answer),
    /// Ask another node, at once while some have not been asked.
    TryAnother,
    /// Ask again after a pause.
    Pause,
}

impl Partition {
    pub(crate) fn new(
        id: PartitionId,
        kinds: Arc<Kinds>,
        nodes: Arc<Nodes>,
        closed: CancellationToken,
    ) -> Self {
        Self {
            id,
            kinds,
            nodes,
            closed,
            place: Mutex::new(Place {
                leader: None,
                // Partitions begin their search at different nodes.
                next_member: id.0 as usize,
                unavailable: None,
            }),
        }
    }

    pub(crate) fn id(&self) -> PartitionId {
        self.id
    }

    /// Who to ask: the leader, or the next member while it is not known.
    pub(crate) fn target(&self) -> Option<SocketAddr> {
        let members = self.nodes.members();
        let mut place = self.place.lock();
        if place.leader.is_some() {
            return place.leader;
        }
        let index = place.next_member.checked_rem(members.len())?;
        place.next_member = place.next_member.wrapping_add(1);
        members.get(index).copied()
    }

    /// Another node says that this one leads.
    pub(crate) fn follow(&self, leader: SocketAddr) {
        self.place.lock().leader = Some(leader);
    }

    /// A node has answered as only the leader does.
    pub(crate) fn note_served_by(&self, node: SocketAddr) {
        let mut place = self.place.lock();
        place.leader = Some(node);
        place.unavailable = place.unavailable.filter(|(other, _)| *other != node);
    }

    /// A node leads but cannot serve now. If that lasts longer than an election, it may be cut off
    /// from the others, which have another leader: they are asked, too.
    pub(crate) fn note_unavailable(&self, node: SocketAddr) {
        let mut place = self.place.lock();
        let known = place.unavailable.filter(|(other, _)| *other == node);
        let (_, since) = *place
            .unavailable
            .insert(known.unwrap_or((node, Instant::now())));
        if since.elapsed() > self.nodes.timeouts().election && place.leader == Some(node) {
            place.leader = None;
        }
    }

    /// Forgets the leader if it is this one.
    pub(crate) fn forget_leader(&self, leader: SocketAddr) {
        let mut place = self.place.lock();
        if place.leader == Some(leader) {
            place.leader = None;
        }
        // Whether it leads again later, and cannot serve then, is another matter.
        place.unavailable = place.unavailable.filter(|(other, _)| *other != leader);
    }

    /// The nodes may be others now.
    pub(crate) fn forget_any_leader(&self) {
        self.place.lock().leader = None;
    }

    /// Sends a request until there is an answer. `body` is called for each attempt; `session_of` is
    /// the incarnation of the session that the request belongs to, 0 without one.
    pub(crate) async fn call(
        &self,
        body: impl Fn() -> request::Body,
        session_of: u64,
        deadline: Instant,
    ) -> Outcome {
        let mut uncertain = false;
        let mut search = Search::new(deadline);
        loop {
            if self.closed.is_cancelled() {
                return Outcome {
                    answer: Answer::Closed,
                    uncertain,
                };
            }
            if Instant::now() >= deadline {
                return Outcome {
                    answer: Answer::Expired(search.last_reason),
                    uncertain,
                };
            }
            if let Some(misfit) = self.misfit(&search).filter(|_| !uncertain) {
                let error = DriverError::new(ErrorKind::FailedPrecondition, misfit);
                return Outcome {
                    answer: Answer::Failed(error),
                    uncertain,
                };
            }
            let step = match self.target() {
                Some(target) => {
                    self.attempt(target, body(), session_of, &mut search, &mut uncertain)
                        .await
                }
                None => {
                    search.last_reason = self.nodes.why_unreachable();
                    Step::Pause
                }
            };
            let pause = match step {
                Step::Answered(answer) => return Outcome { answer, uncertain },
                Step::TryAnother => {
                    search.tried += 1;
                    search.tried >= self.nodes.members().len().max(2)
                }
                Step::Pause => true,
            };
            if pause {
                search.tried = 0;
                let wake = (Instant::now() + jittered(search.backoff)).min(deadline);
                search.backoff = (search.backoff * 2).min(MAX_BACKOFF);
                tokio::select! {
                    () = tokio::time::sleep_until(wake) => {}
                    () = self.closed.cancelled() => {}
                }
            }
        }
    }

    /// Why the configuration does not fit the store, as far as can be told.
    fn misfit(&self, search: &Search) -> Option<String> {
        if let Some(misfit) = self.nodes.misfit() {
            return Some(misfit);
        }
        // A store that is being created, or a partition that moves, is known to some node soon.
        let patience = self.nodes.timeouts().election * 2;
        if search.strangers.is_empty() || search.strange_since.elapsed() < patience {
            return None;
        }
        let members = self.nodes.members();
        let nobody_knows_it = members.iter().all(|node| search.strangers.contains(node));
        nobody_knows_it.then(|| {
            format!(
                "config field partitions says {}, but no storage node hosts partition {}: {}",
                self.nodes.partitions(),
                self.id.0,
                search.last_reason
            )
        })
    }

    async fn attempt(
        &self,
        target: SocketAddr,
        body: request::Body,
        session_of: u64,
        search: &mut Search,
        uncertain: &mut bool,
    ) -> Step {
        let Some(link) = self.nodes.link(target) else {
            return Step::Answered(Answer::Closed);
        };
        let patience = self.nodes.timeouts().election + self.wait_of(&body);
        let give_up = search.deadline.min(Instant::now() + patience);
        let request = link.request(self.id.0, body, session_of);
        let answered = tokio::select! {
            answered = tokio::time::timeout_at(give_up, request) => answered,
            () = self.closed.cancelled() => {
                *uncertain = true;
                return Step::Answered(Answer::Closed);
            }
        };
        match answered {
            Err(_) => {
                *uncertain = true;
                search.strangers.clear();
                search.last_reason = format!("node {target} did not answer within {patience:?}");
                search.silent = Some((target, Instant::now() + patience));
                self.forget_leader(target);
                Step::TryAnother
            }
            Ok(Err(error)) => {
                *uncertain |= matches!(error, LinkError::Broken(_));
                search.strangers.clear();
                search.last_reason = error.to_string();
                self.forget_leader(target);
                Step::TryAnother
            }
            Ok(Ok(answered)) => self.judge(target, answered, search, uncertain).await,
        }
    }

    async fn judge(
        &self,
        target: SocketAddr,
        answered: Answered,
        search: &mut Search,
        uncertain: &mut bool,
    ) -> Step {
        let incarnation = answered.incarnation;
        let answer = match answered.outcome {
            response::Outcome::Failure(failure) => {
                return self.judge_failure(target, failure, search, uncertain).await;
            }
            response::Outcome::Session(id) => Answer::Session(Opened { id, incarnation }),
            response::Outcome::Reply(reply) => Answer::Reply(reply),
            response::Outcome::Events(events) => Answer::Events(Happened {
                events,
                incarnation,
            }),
            response::Outcome::Done(_) => Answer::Done,
        };
        self.note_served_by(target);
        Step::Answered(answer)
    }

    async fn judge_failure(
        &self,
        target: SocketAddr,
        failure: Failure,
        search: &mut Search,
        uncertain: &mut bool,
    ) -> Step {
        use failure::Reason;
        let reason = failure.reason();
        let hosts_others = failure.code == tonic::Code::NotFound as i32;
        if reason == Reason::UnknownPartition && hosts_others {
            search.met_stranger(target);
            self.nodes.seek();
        } else {
            search.strangers.clear();
        }
        match reason {
            // Not the leader alone says so: what is wrong with a request, any node may find.
            Reason::Operation => {
                let kind = ErrorKind::from_code(failure.code);
                Step::Answered(Answer::Failed(DriverError::new(kind, failure.message)))
            }
            Reason::SessionLost => {
                self.note_served_by(target);
                Step::Answered(Answer::SessionLost)
            }
            Reason::NotLeader => {
                search.last_reason = format!(
                    "partition {} has no leader that answers: node {target} does not lead it",
                    self.id.0
                );
                self.forget_leader(target);
                self.follow_hint(target, failure.leader, search).await;
                Step::TryAnother
            }
            Reason::Unavailable => {
                search.last_reason = failure.message;
                self.note_unavailable(target);
                Step::Pause
            }
            Reason::OutcomeUnknown => {
                *uncertain = true;
                search.last_reason = failure.message;
                Step::Pause
            }
            Reason::UnknownPartition | Reason::WrongStore | Reason::Protocol => {
                search.last_reason = format!("node {target}: {}", failure.message);
                self.forget_leader(target);
                Step::TryAnother
            }
        }
    }

    /// How long a node that is well may take because it was asked to wait.
    fn wait_of(&self, body: &request::Body) -> Duration {
        match body {
            request::Body::FollowEvents(asked) => Duration::from_nanos(asked.wait_nanos),
            request::Body::Operate(Operate {
                operation: Some(operation),
                ..
            }) if self.may_wait(operation) => WAITING_PATIENCE,
            request::Body::OpenSession(_)
            | request::Body::CloseSession(_)
            | request::Body::Operate(_)
            | request::Body::Query(_)
            | request::Body::Cancel(_)
            | request::Body::ReleaseOwner(_) => Duration::ZERO,
        }
    }

    fn may_wait(&self, operation: &Operation) -> bool {
        let method = self.kinds.method(&operation.kind, &operation.method);
        method.is_some_and(|method| method.wait.is_some())
    }

    async fn follow_hint(
        &self,
        target: SocketAddr,
        hint: Option<PartitionLeader>,
        search: &Search,
    ) {
        let Some(hint) = hint.filter(|hint| !hint.address.is_empty()) else {
            return;
        };
        let Some(leader) = self
            .nodes
            .resolve_hint(&hint.address, search.deadline)
            .await
        else {
            return;
        };
        let still_silent = search
            .silent
            .is_some_and(|(silent, until)| silent == leader && Instant::now() < until);
        if leader != target && !still_silent {
            self.follow(leader);
        }
    }
}
