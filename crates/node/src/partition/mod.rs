//! One partition on this node: its Raft member, what its leader does, and the way in for requests.
//!
//! Not for the streams that requests come from (module `exchange`) nor for what operations mean
//! (crate `primitives`).

mod answers;
mod clock;
mod deadlines;
mod leadership;
mod machine;
mod proposer;
mod reader;

use std::sync::Arc;
use std::time::Duration;

use atomix_primitives::{Access, Kinds, SessionId};
use atomix_proto::multiraft::v1::{
    Failure, Operate, Operation, PartitionLeader, Request, command, request,
};
use atomix_raft::{
    Engine, GroupEvent, GroupRecord, GroupStatus, PeerMessage, PeerReply, StartError, Transport,
};
use prost::Message as _;
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::exchange::{KeepAliveTicket, Ticket};
use crate::faults::Faults;
use crate::metrics::PartitionMetrics;
use answers::Asker;
use leadership::{Duties, Leadership, leader_of};
use machine::PartitionMachine;

pub(crate) use answers::{exhausted, protocol, unknown_outcome, unknown_partition, wrong_store};

/// The Raft member of a partition.
pub(crate) type Group = atomix_raft::Group<PartitionMachine>;

/// Commands, and reads, that wait for one partition's leader.
const QUEUE: usize = 16_384;
/// One operation's request message.
const MAX_REQUEST_BYTES: usize = 1 << 20;
const SESSION_TIMEOUTS: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(24 * 3600);

/// A command on its way into the log.
struct Proposal {
    command: command::Command,
    asker: Asker,
}

/// Something to answer once the leadership is confirmed.
enum Read {
    Query {
        operation: Operation,
        ticket: Ticket,
    },
    KeepAlive {
        session: SessionId,
        ticket: KeepAliveTicket,
    },
}

/// The queue of proposals.
#[derive(Clone)]
struct Proposals {
    sender: mpsc::Sender<Proposal>,
}

impl Proposals {
    fn push(&self, proposal: Proposal) {
        match self.sender.try_send(proposal) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(proposal)) => proposal
                .asker
                .fail(answers::unavailable("the partition's queue is full")),
            Err(mpsc::error::TrySendError::Closed(proposal)) => proposal
                .asker
                .fail(answers::unavailable("the partition stops")),
        }
    }
}

/// What the tasks of a partition share.
struct Inner {
    group: Group,
    kinds: Arc<Kinds>,
    leadership: Leadership,
    proposals: Proposals,
    reads: mpsc::Sender<Read>,
    metrics: PartitionMetrics,
}

impl Inner {
    fn duties(&self) -> Duties<'_> {
        Duties {
            group: &self.group,
            leadership: &self.leadership,
            proposals: &self.proposals,
            election_timeout: self.election_timeout(),
        }
    }

    fn election_timeout(&self) -> Duration {
        self.group.record().timings.election_timeout
    }

    /// How long an entry may take until its outcome counts as unknown.
    fn propose_timeout(&self) -> Duration {
        self.election_timeout() * 2
    }
}

/// What a partition needs of the node.
#[derive(Clone)]
pub(crate) struct Environment {
    pub(crate) engine: Engine,
    pub(crate) kinds: Arc<Kinds>,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) faults: Faults,
    pub(crate) metrics: crate::metrics::Metrics,
    pub(crate) events: broadcast::Sender<PartitionEvent>,
}

/// An event of one partition.
#[derive(Debug, Clone)]
pub(crate) struct PartitionEvent {
    pub(crate) partition: u32,
    pub(crate) event: GroupEvent,
}

/// A running partition.
pub(crate) struct Partition {
    inner: Arc<Inner>,
    stopping: CancellationToken,
    tasks: parking_lot::Mutex<Vec<JoinHandle<()>>>,
}

impl Partition {
    /// Starts this node's member; the initializer of a new group initializes it.
    ///
    /// # Errors
    /// When its data cannot be read.
    pub(crate) async fn start(
        environment: &Environment,
        record: GroupRecord,
    ) -> Result<Self, StartError> {
        let partition = record.partition_id;
        let initializes = record.initializer == Some(record.member_id);
        let machine = PartitionMachine::new(
            partition,
            Arc::clone(&environment.kinds),
            environment.faults.clone(),
        );
        let transport = Arc::clone(&environment.transport);
        let group = Box::pin(Group::start(
            &environment.engine,
            record,
            machine,
            transport,
        ))
        .await?;
        let events = group.subscribe();

        let (proposal_sender, proposals) = mpsc::channel(QUEUE);
        let (read_sender, reads) = mpsc::channel(QUEUE);
        let inner = Arc::new(Inner {
            group,
            kinds: Arc::clone(&environment.kinds),
            leadership: Leadership::default(),
            proposals: Proposals {
                sender: proposal_sender,
            },
            reads: read_sender,
            metrics: environment.metrics.partition(partition),
        });
        let stopping = CancellationToken::new();
        let spawn = |name: &str, task: futures::future::BoxFuture<'static, ()>| {
            let stopping = stopping.clone();
            let name = format!("{name} of partition {partition}");
            environment.faults.spawn(name, async move {
                tokio::select! {
                    () = task => {}
                    () = stopping.cancelled() => {}
                }
            })
        };
        let mut tasks = vec![
            spawn(
                "proposer",
                Box::pin(proposer::run(Arc::clone(&inner), proposals)),
            ),
            spawn("reader", Box::pin(reader::run(Arc::clone(&inner), reads))),
            spawn(
                "leader's duties",
                Box::pin(lead(Arc::clone(&inner), events, environment.events.clone())),
            ),
        ];
        if initializes {
            let initializing = initialize(Arc::clone(&inner), environment.faults.clone());
            tasks.push(spawn("initializer", Box::pin(initializing)));
        }
        Ok(Self {
            inner,
            stopping,
            tasks: parking_lot::Mutex::new(tasks),
        })
    }

    /// Stops the member; its data stays.
    pub(crate) async fn stop(&self) {
        self.stopping.cancel();
        let tasks = std::mem::take(&mut *self.tasks.lock());
        for task in tasks {
            // A panic was reported as a fault.
            let _ = task.await;
        }
        Box::pin(self.inner.group.shutdown()).await;
        self.inner.metrics.remove();
    }

    pub(crate) fn record(&self) -> &GroupRecord {
        self.inner.group.record()
    }

    pub(crate) fn status(&self) -> GroupStatus {
        self.inner.group.status()
    }

    /// Who leads, as this node knows it.
    pub(crate) fn leader(&self) -> Option<PartitionLeader> {
        leader_of(&self.status(), self.record())
    }

    /// Takes a message of another member. It is queued during the call.
    pub(crate) fn handle(
        &self,
        message: PeerMessage,
    ) -> impl Future<Output = PeerReply> + Send + 'static + use<> {
        self.inner.group.handle(message)
    }

    /// Takes a driver's request. Never blocks.
    pub(crate) fn request(&self, request: Request, ticket: Ticket) {
        let Request {
            id: _,
            partition_id: _,
            body,
        } = request;
        let Some(body) = body else {
            return ticket.fail(protocol("a request that this version does not know"));
        };
        let command = match body {
            request::Body::Query(query) => return self.query(query.operation, ticket),
            request::Body::Operate(operate) => {
                if let Err(failure) = self.check_operate(&operate) {
                    return ticket.fail(failure);
                }
                self.touch(SessionId(operate.session));
                command::Command::Operate(operate)
            }
            request::Body::OpenSession(open) => {
                let timeout = Duration::from_nanos(open.timeout_nanos);
                if !SESSION_TIMEOUTS.contains(&timeout) {
                    return ticket.fail(invalid("timeout_nanos: must be 100 ms to 24 h"));
                }
                if open.client.len() > 256 {
                    return ticket.fail(invalid("client: is longer than 256 bytes"));
                }
                command::Command::OpenSession(open)
            }
            request::Body::CloseSession(close) => command::Command::CloseSession(close),
            request::Body::Cancel(cancel) => command::Command::Cancel(cancel),
            request::Body::ReleaseOwner(release) => command::Command::ReleaseOwner(release),
        };
        self.inner.proposals.push(Proposal {
            command,
            asker: Asker::Driver(ticket),
        });
    }

    /// Takes a driver's keep-alive. Never blocks.
    pub(crate) fn keep_alive(&self, session: SessionId, ticket: KeepAliveTicket) {
        // Counted from the arrival, before anything is waited for.
        self.touch(session);
        let read = Read::KeepAlive { session, ticket };
        if let Err(error) = self.inner.reads.try_send(read) {
            let (mpsc::error::TrySendError::Full(read) | mpsc::error::TrySendError::Closed(read)) =
                error;
            read.fail();
        }
    }

    fn query(&self, operation: Option<Operation>, ticket: Ticket) {
        let Some(operation) = operation else {
            return ticket.fail(protocol("operation: it is missing"));
        };
        if let Err(failure) = self.check(&operation, Access::Read) {
            return ticket.fail(failure);
        }
        if let Err(error) = self.inner.reads.try_send(Read::Query { operation, ticket }) {
            let (mpsc::error::TrySendError::Full(read) | mpsc::error::TrySendError::Closed(read)) =
                error;
            read.fail();
        }
    }

    fn check_operate(&self, operate: &Operate) -> Result<(), Failure> {
        if operate.sequence == 0 {
            return Err(invalid("sequence: must be at least 1"));
        }
        let Some(operation) = &operate.operation else {
            return Err(invalid("operation: it is missing"));
        };
        self.check(operation, Access::Write)
    }

    fn check(&self, operation: &Operation, expected: Access) -> Result<(), Failure> {
        if operation.encoded_len() > MAX_REQUEST_BYTES {
            return Err(exhausted(format!(
                "the operation is larger than {MAX_REQUEST_BYTES} bytes"
            )));
        }
        let kinds = &self.inner.kinds;
        kinds
            .validate(operation)
            .map_err(|error| answers::operation(&error))?;
        let access = kinds
            .access(operation)
            .map_err(|error| answers::operation(&error))?;
        if access != expected {
            return Err(invalid(match expected {
                Access::Read => "method: it writes; send it as an operation of a session",
                Access::Write => "method: it only reads; send it as a query",
            }));
        }
        Ok(())
    }

    fn touch(&self, session: SessionId) {
        self.inner
            .leadership
            .with(|term, now| term.deadlines.touch(session, now));
    }
}

impl Read {
    fn fail(self) {
        let failure = answers::unavailable("the partition's queue is full, or it stops");
        match self {
            Self::Query { ticket, .. } => ticket.fail(failure),
            Self::KeepAlive { ticket, .. } => ticket.answer(Some(failure)),
        }
    }
}

fn invalid(message: &str) -> Failure {
    answers::operation(&atomix_primitives::OperationError::invalid(message))
}

/// Does the leader's duties when something happens, and at least four times in an election timeout.
async fn lead(
    inner: Arc<Inner>,
    mut events: broadcast::Receiver<GroupEvent>,
    watchers: broadcast::Sender<PartitionEvent>,
) {
    let partition = inner.group.record().partition_id.0;
    loop {
        let pause = inner.duties().look().await;
        inner.metrics.observe(&inner.group.status());
        let next_look = Instant::now() + pause;
        let waited = tokio::select! {
            event = events.recv() => event,
            () = tokio::time::sleep_until(next_look) => continue,
        };
        let event = match waited {
            Ok(event) => event,
            Err(broadcast::error::RecvError::Lagged(missed)) => {
                tracing::warn!(partition, missed, "events of the group were lost");
                let status = inner.group.status();
                GroupEvent::LeaderChanged {
                    term: status.term,
                    leader: status.leader,
                }
            }
            Err(broadcast::error::RecvError::Closed) => return,
        };
        // Nobody may watch.
        let _ = watchers.send(PartitionEvent { partition, event });
    }
}

async fn initialize(inner: Arc<Inner>, faults: Faults) {
    if let Err(error) = inner.group.initialize().await {
        let partition = inner.group.record().partition_id;
        faults.report(format!("partition {partition}: {error}"));
    }
}
