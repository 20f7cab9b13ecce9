//! A connection to one multi-raft store: sessions with its partitions, and operations that are
//! applied exactly once.
//!
//! - A session is opened with a partition at the first mutation there and kept alive from then on.
//! - A mutation has (session, sequence); it is sent again under the same pair until it is answered,
//!   so it is applied at most once.
//! - When the session is lost while an attempt may have been applied, the answer is UNKNOWN and the
//!   mutation is never sent under another session. When no attempt can have been applied (the
//!   session was lost while it was idle), a new session is opened without the caller's notice.
//! - Reads have no session and are linearizable; sending them again is always safe.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use atomix_primitives::{Access, Kinds};
use atomix_proto::multiraft::v1::{
    Cancel, CloseSession, OpenSession, Operate, Operation, Query, ReleaseOwner, request,
};
use bytes::Bytes;
use futures::future::join_all;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::config::Config;
use super::keep_alive;
use super::nodes::Nodes;
use super::partition::{Answer, Outcome, Partition};
use super::routing::{PartitionId, partition_of_operation};
use super::session::{Session, Ticket};
use crate::driver::{Connection, ConnectionState, Invocation, Owner, StoreId};
use crate::error::{DriverError, ErrorKind};
use crate::resolver::Resolver;

/// How long `disconnect` spends on closing sessions; what it cannot close expires by itself.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

/// A connection to a multi-raft store.
pub(crate) struct MultiRaftConnection {
    kinds: Arc<Kinds>,
    nodes: Arc<Nodes>,
    partitions: Vec<Arc<PartitionClient>>,
    closed: CancellationToken,
    /// Ends the background tasks also when the connection is dropped without a disconnect.
    _close_on_drop: DropGuard,
}

/// One partition and the session with it.
pub(crate) struct PartitionClient {
    pub(crate) partition: Partition,
    nodes: Arc<Nodes>,
    client_name: String,
    session: Mutex<Option<Arc<Session>>>,
    /// Held while a session is being opened, so that only one is.
    opening: tokio::sync::Mutex<()>,
}

impl MultiRaftConnection {
    pub(crate) fn start(
        store: &StoreId,
        config: &Config,
        kinds: Arc<Kinds>,
        resolver: Arc<dyn Resolver>,
    ) -> Self {
        let closed = CancellationToken::new();
        let nodes = Nodes::new(config, resolver);
        let client_name = format!("{store} driver {}", env!("CARGO_PKG_VERSION"));
        let partitions: Vec<_> = (1..=config.partitions)
            .map(|id| {
                Arc::new(PartitionClient {
                    partition: Partition::new(PartitionId(id), Arc::clone(&nodes), closed.clone()),
                    nodes: Arc::clone(&nodes),
                    client_name: client_name.clone(),
                    session: Mutex::default(),
                    opening: tokio::sync::Mutex::default(),
                })
            })
            .collect();
        let background = {
            let nodes = Arc::clone(&nodes);
            let partitions = partitions.clone();
            async move {
                tokio::join!(nodes.follow(), keep_alive::run(&nodes, &partitions));
            }
        };
        let stopped = closed.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = stopped.cancelled() => {}
                () = background => {}
            }
        });
        Self {
            kinds,
            nodes,
            partitions,
            closed: closed.clone(),
            _close_on_drop: closed.drop_guard(),
        }
    }

    fn partition_of(&self, operation: &Operation) -> Result<&Arc<PartitionClient>, DriverError> {
        let count = u32::try_from(self.partitions.len()).unwrap_or(u32::MAX);
        let PartitionId(id) = partition_of_operation(operation, count);
        self.partitions
            .get(id as usize - 1)
            .ok_or_else(|| DriverError::new(ErrorKind::Internal, "the store has no partitions"))
    }
}

#[async_trait]
impl Connection for MultiRaftConnection {
    async fn configure(&self, config: &[u8]) -> Result<(), DriverError> {
        let config = Config::parse(config)?;
        if config.partitions as usize != self.partitions.len() {
            return Err(DriverError::invalid(format!(
                "config field partitions cannot change: it is {}",
                self.partitions.len()
            )));
        }
        self.nodes.configure(&config);
        for client in &self.partitions {
            client.partition.forget_any_leader();
        }
        Ok(())
    }

    async fn invoke(&self, invocation: Invocation) -> Result<Bytes, DriverError> {
        let Invocation {
            kind,
            primitive,
            method,
            request,
            owner,
            deadline,
        } = invocation;
        let operation = Operation {
            kind,
            primitive,
            method,
            request,
            owner: owner.0,
        };
        self.kinds.validate(&operation).map_err(operation_error)?;
        let client = self.partition_of(&operation)?;
        match self.kinds.access(&operation).map_err(operation_error)? {
            Access::Read => client.read(operation, deadline).await,
            Access::Write => client.write(operation, deadline).await,
        }
    }

    async fn release_owner(&self, owner: Owner, deadline: Instant) -> Result<(), DriverError> {
        let released = self.partitions.iter().map(|client| async move {
            let Some(session) = client.live_session() else {
                return Ok(());
            };
            let body = || {
                request::Body::ReleaseOwner(ReleaseOwner {
                    session: session.id(),
                    owner: owner.0,
                })
            };
            match client.partition.call(body, deadline).await.answer {
                Answer::Failed(error) => Err(error),
                Answer::Expired(reason) => Err(expired(&reason)),
                Answer::Closed => Err(closed(false)),
                Answer::Done | Answer::SessionLost | Answer::Reply(_) | Answer::Session(_) => {
                    Ok(())
                }
            }
        });
        join_all(released).await.into_iter().collect()
    }

    fn state(&self) -> watch::Receiver<ConnectionState> {
        self.nodes.state()
    }

    async fn disconnect(&self) {
        let deadline = Instant::now() + CLOSE_PATIENCE;
        let reached = *self.nodes.state().borrow() == ConnectionState::Connected;
        if reached && !self.closed.is_cancelled() {
            join_all(self.partitions.iter().map(|client| client.close(deadline))).await;
        }
        self.closed.cancel();
        self.nodes.close();
    }
}

impl PartitionClient {
    pub(crate) fn live_session(&self) -> Option<Arc<Session>> {
        self.session
            .lock()
            .clone()
            .filter(|session| !session.is_lost())
    }

    async fn read(&self, operation: Operation, deadline: Instant) -> Result<Bytes, DriverError> {
        let body = || {
            request::Body::Query(Query {
                session: 0,
                operation: Some(operation.clone()),
            })
        };
        match self.partition.call(body, deadline).await.answer {
            Answer::Reply(reply) => Ok(reply),
            Answer::Failed(error) => Err(error),
            Answer::Expired(reason) => Err(expired(&reason)),
            Answer::Closed => Err(closed(false)),
            Answer::Session(_) | Answer::Done | Answer::SessionLost => Err(unexpected_answer()),
        }
    }

    async fn write(
        self: &Arc<Self>,
        operation: Operation,
        deadline: Instant,
    ) -> Result<Bytes, DriverError> {
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
            let Outcome { answer, uncertain } = self.partition.call(body, deadline).await;
            match answer {
                Answer::Reply(reply) => {
                    withdrawal.not_needed();
                    return Ok(reply);
                }
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
                Answer::Session(_) | Answer::Done => return Err(unexpected_answer()),
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
        match self.partition.call(body, deadline).await.answer {
            Answer::Session(id) => {
                tracing::info!(
                    partition = self.partition.id().0,
                    session = id,
                    "session opened"
                );
                let session = Arc::new(Session::new(id, timeout, asked));
                *self.session.lock() = Some(Arc::clone(&session));
                // The keeper sleeps until the earliest keep-alive that it knows of.
                self.nodes.session_opened();
                Ok(session)
            }
            Answer::Failed(error) => Err(error),
            Answer::Expired(reason) => Err(expired(&reason)),
            Answer::Closed => Err(closed(false)),
            Answer::Reply(_) | Answer::Done | Answer::SessionLost => Err(unexpected_answer()),
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

    async fn close(&self, deadline: Instant) {
        let Some(session) = self.live_session() else {
            return;
        };
        session.set_lost();
        let body = || {
            request::Body::CloseSession(CloseSession {
                session: session.id(),
            })
        };
        self.partition.call(body, deadline).await;
    }

    /// Tells the partition that nobody waits for an operation any more.
    async fn withdraw(&self, ticket: Ticket) {
        let session = ticket.session();
        let body = || {
            request::Body::Cancel(Cancel {
                session: session.id(),
                sequence: ticket.sequence(),
            })
        };
        let deadline = Instant::now() + session.timeout();
        let outcome = self.partition.call(body, deadline).await;
        if matches!(outcome.answer, Answer::SessionLost) {
            self.session_is_lost(session);
        }
    }
}

/// Withdraws an operation when it is dropped, unless its answer is known. The sequence stays open
/// until the partition knows, so that it does not forget the operation too early.
struct Withdrawal<'a> {
    client: &'a Arc<PartitionClient>,
    ticket: Option<Ticket>,
}

impl<'a> Withdrawal<'a> {
    fn of(client: &'a Arc<PartitionClient>, ticket: Ticket) -> Self {
        Self {
            client,
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

impl Drop for Withdrawal<'_> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket.take() else {
            return;
        };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let client = Arc::clone(self.client);
            runtime.spawn(async move { client.withdraw(ticket).await });
        }
    }
}

fn operation_error(error: atomix_primitives::OperationError) -> DriverError {
    DriverError::new(ErrorKind::from_code(error.code.to_i32()), error.message)
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
