//! The client of one partition: the session with it, and operations that are applied exactly once.
//!
//! - A session is opened with a partition at the first mutation there and kept alive from then on.
//! - A mutation has (session, sequence); it is sent again under the same pair until it is answered,
//!   so it is applied at most once.
//! - When the session is lost while an attempt may have been applied, the answer is UNKNOWN and the
//!   mutation is never sent under another session. When no attempt can have been applied (the
//!   session was lost while it was idle), a new session is opened without the caller's notice.
//! - Reads have no session and are linearizable; sending them again is always safe.

use std::sync::Arc;

use atomix_primitives::Kinds;
use atomix_proto::multiraft::v1::{
    Cancel, CloseSession, FollowEvents, OpenSession, Operate, Operation, Query, request,
};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::nodes::Nodes;
use super::partition::{Answer, Opened, Outcome, Partition};
use super::session::{Session, Ticket};
use crate::driver::{Holdings, Owner};
use crate::error::{DriverError, ErrorKind};
use crate::spread::{Grant, Happened, PartitionId};

/// One partition and the session with it.
pub(crate) struct PartitionClient {
    pub(crate) partition: Partition,
    nodes: Arc<Nodes>,
    client_name: String,
    session: Mutex<Option<Arc<Session>>>,
    /// Held while a session is being opened, so that only one is.
    opening: tokio::sync::Mutex<()>,
}

impl PartitionClient {
    pub(super) fn new(
        id: PartitionId,
        kinds: &Arc<Kinds>,
        nodes: &Arc<Nodes>,
        client_name: &str,
        closed: CancellationToken,
    ) -> Self {
        Self {
            partition: Partition::new(id, Arc::clone(kinds), Arc::clone(nodes), closed),
            nodes: Arc::clone(nodes),
            client_name: client_name.to_owned(),
            session: Mutex::default(),
            opening: tokio::sync::Mutex::default(),
        }
    }

    /// The session with this partition, unless it is lost. With the data that it belongs to it is.
    pub(crate) fn live_session(&self) -> Option<Arc<Session>> {
        let session = self.session.lock().clone();
        let session = session.filter(|session| !session.is_lost())?;
        if self.nodes.has_begun_again_since(session.incarnation()) {
            self.session_is_lost(&session);
            return None;
        }
        Some(session)
    }

    pub(super) async fn read(
        &self,
        operation: Operation,
        deadline: Instant,
    ) -> Result<Bytes, DriverError> {
        let body = || {
            request::Body::Query(Query {
                session: 0,
                operation: Some(operation.clone()),
            })
        };
        match self.partition.call(body, 0, deadline).await.answer {
            Answer::Reply(reply) => Ok(reply),
            Answer::Failed(error) => Err(error),
            Answer::Expired(reason) => Err(expired(&reason)),
            Answer::Closed => Err(closed(false)),
            Answer::Events(_) | Answer::Session(_) | Answer::Done | Answer::SessionLost => {
                Err(unexpected_answer())
            }
        }
    }

    /// What happens after a position of this incarnation, or the present position. Asking again is
    /// always safe.
    pub(super) async fn events(
        &self,
        asked: FollowEvents,
        incarnation: u64,
        deadline: Instant,
    ) -> Result<Happened, DriverError> {
        let body = || request::Body::FollowEvents(asked.clone());
        let answered = self.partition.call(body, incarnation, deadline);
        match answered.await.answer {
            Answer::Events(happened) => Ok(happened),
            Answer::SessionLost => Err(DriverError::new(
                ErrorKind::DataLoss,
                "the store has begun again, without what was told so far: read again",
            )),
            Answer::Failed(error) => Err(error),
            Answer::Expired(reason) => Err(expired(&reason)),
            Answer::Closed => Err(closed(false)),
            Answer::Reply(_) | Answer::Session(_) | Answer::Done => Err(unexpected_answer()),
        }
    }

    /// Carries out a mutation whose effect the caller may give back.
    pub(super) async fn write(
        self: &Arc<Self>,
        operation: Operation,
        deadline: Instant,
    ) -> Result<Granted, DriverError> {
        loop {
            let session = self.session(deadline).await?;
            let Ok(ticket) = tokio::time::timeout_at(deadline, session.begin()).await else {
                return Err(expired(
                    "too many operations of this session are unanswered",
                ));
            };
            let withdrawal = Withdrawal::of(self, ticket);
            let body = || {
                let acknowledged = session.acknowledged();
                request::Body::Operate(Operate {
                    session: session.id(),
                    sequence: withdrawal.sequence(),
                    acknowledged: acknowledged.through,
                    operation: Some(operation.clone()),
                    open: acknowledged.open,
                })
            };
            let answered = self.partition.call(body, session.incarnation(), deadline);
            let Outcome { answer, uncertain } = answered.await;
            match answer {
                Answer::Reply(reply) => return Ok(Granted { reply, withdrawal }),
                Answer::Failed(error) => {
                    withdrawal.not_needed();
                    return Err(error);
                }
                Answer::SessionLost => {
                    withdrawal.not_needed();
                    self.session_is_lost(&session);
                    if uncertain {
                        return Err(DriverError::new(
                            ErrorKind::Unknown,
                            "the session was lost with the operation in flight: it may or may not \
                             have been applied; read before you repeat it",
                        ));
                    }
                }
                Answer::Expired(reason) => {
                    if !uncertain {
                        withdrawal.not_needed();
                    }
                    return Err(expired(&reason));
                }
                Answer::Closed => {
                    withdrawal.not_needed();
                    return Err(closed(uncertain));
                }
                Answer::Events(_) | Answer::Session(_) | Answer::Done => {
                    return Err(unexpected_answer());
                }
            }
        }
    }

    /// The session with this partition; opened if there is none.
    async fn session(&self, deadline: Instant) -> Result<Arc<Session>, DriverError> {
        if let Some(session) = self.live_session() {
            return Ok(session);
        }
        let Ok(_opening) = tokio::time::timeout_at(deadline, self.opening.lock()).await else {
            return Err(expired("no session could be opened with the partition"));
        };
        if let Some(session) = self.live_session() {
            return Ok(session);
        }
        let timeout = self.nodes.timeouts().session;
        let asked = Instant::now();
        let body = || {
            request::Body::OpenSession(OpenSession {
                timeout_nanos: u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX),
                client: self.client_name.clone(),
            })
        };
        // A session whose answer was lost stays behind unused and expires by itself.
        match self.partition.call(body, 0, deadline).await.answer {
            Answer::Session(Opened { id, incarnation }) => {
                tracing::info!(
                    partition = self.partition.id().0,
                    session = id,
                    "session opened"
                );
                let session = Arc::new(Session::new(id, incarnation, timeout, asked));
                *self.session.lock() = Some(Arc::clone(&session));
                // The keeper sleeps until the earliest keep-alive that it knows of.
                self.nodes.session_opened();
                Ok(session)
            }
            Answer::Failed(error) => Err(error),
            Answer::Expired(reason) => Err(expired(&reason)),
            Answer::Closed => Err(closed(false)),
            Answer::Reply(_) | Answer::Events(_) | Answer::Done | Answer::SessionLost => {
                Err(unexpected_answer())
            }
        }
    }

    /// The next mutation opens a new session.
    pub(crate) fn session_is_lost(&self, session: &Session) {
        if session.set_lost() {
            tracing::warn!(
                partition = self.partition.id().0,
                session = session.id(),
                "session lost; what it owned is released, the next operation opens another"
            );
        }
    }

    /// Releases what an owner holds in this partition. Goes on until the partition knows: an outage ends
    /// no session, and what a connection that is gone has locked would stay locked.
    pub(super) async fn release_owner(
        &self,
        owner: Owner,
        holdings: Holdings<'_>,
    ) -> Result<(), DriverError> {
        let Some(session) = self.live_session() else {
            return Ok(());
        };
        // What is taken from now on is not meant, however late a copy of the command comes.
        let through = session.last();
        if through == 0 {
            return Ok(());
        }
        let body = || request::Body::ReleaseOwner(holdings.release(session.id(), owner, through));
        while !session.is_lost() {
            let deadline = Instant::now() + session.timeout();
            let released = self.partition.call(body, session.incarnation(), deadline);
            match released.await.answer {
                Answer::Failed(error) => return Err(error),
                Answer::Expired(reason) => {
                    tracing::debug!(
                        reason,
                        owner = owner.0,
                        "an owner could not be released yet"
                    );
                }
                Answer::SessionLost => self.session_is_lost(&session),
                Answer::Closed
                | Answer::Done
                | Answer::Reply(_)
                | Answer::Events(_)
                | Answer::Session(_) => return Ok(()),
            }
        }
        Ok(())
    }

    pub(super) async fn close(&self, deadline: Instant) {
        let Some(session) = self.live_session() else {
            return;
        };
        session.set_lost();
        let body = || {
            request::Body::CloseSession(CloseSession {
                session: session.id(),
            })
        };
        let closed = self.partition.call(body, session.incarnation(), deadline);
        closed.await;
    }

    /// Tells the partition that nobody waits for an operation any more. Goes on until the partition
    /// knows: an outage ends no session, and what was granted meanwhile would stay granted.
    async fn withdraw(&self, ticket: Ticket) {
        let session = ticket.session();
        let body = || {
            request::Body::Cancel(Cancel {
                session: session.id(),
                sequence: ticket.sequence(),
            })
        };
        while !session.is_lost() {
            let deadline = Instant::now() + session.timeout();
            let withdrawn = self.partition.call(body, session.incarnation(), deadline);
            match withdrawn.await.answer {
                Answer::Expired(reason) => {
                    tracing::debug!(reason, "an operation could not be withdrawn yet");
                }
                Answer::SessionLost => return self.session_is_lost(session),
                Answer::Done
                | Answer::Closed
                | Answer::Failed(_)
                | Answer::Reply(_)
                | Answer::Events(_)
                | Answer::Session(_) => return,
            }
        }
    }
}

/// The reply of a mutation. What it granted is given back when this is dropped.
pub(super) struct Granted {
    reply: Bytes,
    withdrawal: Withdrawal,
}

impl Grant for Granted {
    fn keep(self) -> Bytes {
        self.withdrawal.not_needed();
        self.reply
    }
}

/// Withdraws an operation when it is dropped, unless its answer is known. The sequence stays open
/// until the partition knows, so that it does not forget the operation too early.
struct Withdrawal {
    client: Arc<PartitionClient>,
    ticket: Option<Ticket>,
}

impl Withdrawal {
    fn of(client: &Arc<PartitionClient>, ticket: Ticket) -> Self {
        Self {
            client: Arc::clone(client),
            ticket: Some(ticket),
        }
    }

    fn sequence(&self) -> u64 {
        self.ticket.as_ref().map_or(0, Ticket::sequence)
    }

    fn not_needed(mut self) {
        self.ticket = None;
    }
}

impl Drop for Withdrawal {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket.take() else {
            return;
        };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let client = Arc::clone(&self.client);
            runtime.spawn(async move { client.withdraw(ticket).await });
        }
    }
}

fn expired(reason: &str) -> DriverError {
    let message = if reason.is_empty() {
        "the deadline passed before the store answered".to_owned()
    } else {
        format!("the deadline passed before the store answered: {reason}")
    };
    DriverError::new(ErrorKind::Timeout, message)
}

fn closed(uncertain: bool) -> DriverError {
    if uncertain {
        return DriverError::new(
            ErrorKind::Unknown,
            "the store was disconnected with the operation in flight: it may have been applied",
        );
    }
    DriverError::new(ErrorKind::Unavailable, "the store is being disconnected")
}

fn unexpected_answer() -> DriverError {
    DriverError::new(
        ErrorKind::Internal,
        "the storage node answered with something that was not asked for",
    )
}
