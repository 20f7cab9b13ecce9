//! The `memory` driver: the state machine of one partition inside the sidecar's own process.
//!
//! For development and tests. Each sidecar has its own data, one instance for each store; it is gone
//! when the store is disconnected or the sidecar ends. Nothing is replicated, nothing is written.
//! The configuration is an empty JSON object, or nothing.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Weak};
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use atomix_primitives::{Access, Applied, Kinds, OperationError, Outcome, Reply, StateMachine};
use atomix_proto::multiraft::v1::command::Command as CommandKind;
use atomix_proto::multiraft::v1::{
    Cancel, Command, CommandBatch, OpenSession, Operate, Operation, ReleaseOwner, Tick,
};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;

use crate::driver::{Connection, ConnectionState, Description, Driver, Invocation, Owner, StoreId};
use crate::error::{DriverError, ErrorKind};

/// Serves stores from this process's memory.
pub struct MemoryDriver {
    kinds: Arc<Kinds>,
}

impl MemoryDriver {
    /// The driver's name.
    pub const NAME: &str = "memory";
    /// The version of the configuration format.
    pub const VERSION: &str = "v1";
}

impl Default for MemoryDriver {
    fn default() -> Self {
        Self {
            kinds: Arc::new(Kinds::standard()),
        }
    }
}

#[async_trait]
impl Driver for MemoryDriver {
    fn describe(&self) -> Description {
        Description {
            name: Self::NAME.to_owned(),
            version: Self::VERSION.to_owned(),
            kinds: self.kinds.names().map(ToString::to_string).collect(),
        }
    }

    async fn connect(
        &self,
        _store: &StoreId,
        config: &[u8],
    ) -> Result<Arc<dyn Connection>, DriverError> {
        check_config(config)?;
        Ok(MemoryConnection::start(Arc::clone(&self.kinds))?)
    }
}

fn check_config(config: &[u8]) -> Result<(), DriverError> {
    if config.is_empty() {
        return Ok(());
    }
    let fields: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(config)
        .map_err(|error| DriverError::invalid(format!("config is not a JSON object: {error}")))?;
    match fields.keys().next() {
        None => Ok(()),
        Some(field) => Err(DriverError::invalid(format!(
            "config field {field} is unknown: the memory driver has none"
        ))),
    }
}

struct MemoryConnection {
    kinds: Arc<Kinds>,
    session: u64,
    store: Mutex<Store>,
    /// The timer that is due first may have changed.
    timers_changed: Arc<Notify>,
    state: watch::Sender<ConnectionState>,
    itself: Weak<Self>,
}

struct Store {
    machine: StateMachine,
    started: Instant,
    index: u64,
    sequence: u64,
    /// Who waits for operations that were answered with Pending.
    waiting: HashMap<u64, oneshot::Sender<Reply>>,
    /// The operations that were answered with Pending and whose callers have not taken the reply.
    open: BTreeSet<u64>,
    closed: bool,
}

impl Store {
    fn apply(&mut self, command: CommandKind) -> Applied {
        self.index += 1;
        let wall_time = SystemTime::now().duration_since(UNIX_EPOCH);
        let batch = CommandBatch {
            time_nanos: saturating_u64(self.started.elapsed().as_nanos()),
            wall_time_millis: saturating_u64(wall_time.unwrap_or_default().as_millis()),
            commands: vec![Command {
                command: Some(command),
            }],
        };
        let applied = self.machine.apply(self.index, &batch);
        for completed in &applied.completed {
            if let Some(waiting) = self.waiting.remove(&completed.sequence.0) {
                let _ = waiting.send(completed.result.clone());
            }
        }
        applied
    }

    /// Sequences are acknowledged at once, nothing here is asked for twice; but what was granted to a
    /// caller that went away must stay known until it is given back.
    fn acknowledged(&self) -> (u64, Vec<u64>) {
        (self.sequence, self.open.iter().copied().collect())
    }
}

enum Begun {
    Answered(Reply),
    Waits(u64, oneshot::Receiver<Reply>),
}

impl MemoryConnection {
    fn start(kinds: Arc<Kinds>) -> Result<Arc<Self>, DriverError> {
        let mut store = Store {
            machine: StateMachine::new(Arc::clone(&kinds)),
            started: Instant::now(),
            index: 0,
            sequence: 0,
            waiting: HashMap::new(),
            open: BTreeSet::new(),
            closed: false,
        };
        // Nobody expires it: sessions end only when somebody says so.
        let opened = store.apply(CommandKind::OpenSession(OpenSession {
            timeout_nanos: u64::MAX,
            client: MemoryDriver::NAME.to_owned(),
        }));
        let Some(Outcome::Session(session)) = opened.outcomes.into_iter().next() else {
            return Err(defect("the state machine opened no session"));
        };
        let (state, _) = watch::channel(ConnectionState::Connected);
        let connection = Arc::new_cyclic(|itself| Self {
            kinds,
            session: session.0,
            store: Mutex::new(store),
            timers_changed: Arc::new(Notify::new()),
            state,
            itself: Weak::clone(itself),
        });
        let timers_changed = Arc::clone(&connection.timers_changed);
        tokio::spawn(fire_timers(Arc::downgrade(&connection), timers_changed));
        Ok(connection)
    }

    /// When the first timer is due, if one is set; `None` when the connection is closed.
    fn next_timer(&self) -> Option<Option<Instant>> {
        let store = self.store.lock();
        if store.closed {
            return None;
        }
        let due = store.machine.next_timer();
        Some(due.and_then(|due| store.started.checked_add(due)))
    }

    fn apply(&self, command: CommandKind) {
        self.store.lock().apply(command);
        self.timers_changed.notify_one();
    }

    fn begin(&self, operation: Operation) -> Result<Begun, DriverError> {
        let mut store = self.store.lock();
        if store.closed {
            return Err(disconnected());
        }
        let (acknowledged, open) = store.acknowledged();
        store.sequence += 1;
        let sequence = store.sequence;
        let (waiting, reply) = oneshot::channel();
        // Before it is applied: the same entry may complete it.
        store.waiting.insert(sequence, waiting);
        let applied = store.apply(CommandKind::Operate(Operate {
            session: self.session,
            sequence,
            acknowledged,
            operation: Some(operation),
            open,
        }));
        self.timers_changed.notify_one();
        let outcome = applied.outcomes.into_iter().next();
        if outcome == Some(Outcome::Pending) {
            store.open.insert(sequence);
        } else {
            store.waiting.remove(&sequence);
        }
        match outcome {
            Some(Outcome::Reply(reply)) => Ok(Begun::Answered(reply)),
            Some(Outcome::Pending) => Ok(Begun::Waits(sequence, reply)),
            Some(Outcome::Session(_) | Outcome::SessionLost | Outcome::Done) | None => {
                Err(defect("the state machine did not answer the operation"))
            }
        }
    }

    async fn wait(
        &self,
        sequence: u64,
        reply: oneshot::Receiver<Reply>,
        deadline: Instant,
    ) -> Result<Bytes, DriverError> {
        let withdrawal = Withdrawal {
            connection: &self.itself,
            sequence,
            answered: false,
        };
        match tokio::time::timeout_at(deadline, reply).await {
            Ok(Ok(reply)) => {
                withdrawal.not_needed();
                reply.map_err(operation_error)
            }
            Ok(Err(_)) => Err(disconnected()),
            Err(_) => Err(DriverError::new(
                ErrorKind::Timeout,
                "the deadline passed while the operation waited",
            )),
        }
    }
}

/// Withdraws an operation unless its caller has taken the reply. The reply may be there: what was
/// granted to a caller that is gone is given back.
struct Withdrawal<'a> {
    connection: &'a Weak<MemoryConnection>,
    sequence: u64,
    answered: bool,
}

impl Withdrawal<'_> {
    fn not_needed(mut self) {
        self.answered = true;
    }
}

impl Drop for Withdrawal<'_> {
    fn drop(&mut self) {
        let Some(connection) = self.connection.upgrade() else {
            return;
        };
        let mut store = connection.store.lock();
        store.waiting.remove(&self.sequence);
        if !self.answered {
            store.apply(CommandKind::Cancel(Cancel {
                session: connection.session,
                sequence: self.sequence,
            }));
        }
        store.open.remove(&self.sequence);
        drop(store);
        connection.timers_changed.notify_one();
    }
}

#[async_trait]
impl Connection for MemoryConnection {
    async fn configure(&self, config: &[u8]) -> Result<(), DriverError> {
        check_config(config)
    }

    async fn invoke(&self, invocation: Invocation) -> Result<Bytes, DriverError> {
        let operation = Operation {
            kind: invocation.kind,
            primitive: invocation.primitive,
            method: invocation.method,
            request: invocation.request,
            owner: invocation.owner.0,
        };
        self.kinds.validate(&operation).map_err(operation_error)?;
        match self.kinds.access(&operation).map_err(operation_error)? {
            Access::Read => {
                // What is due has happened before anybody reads.
                self.apply(CommandKind::Tick(Tick {}));
                let store = self.store.lock();
                if store.closed {
                    return Err(disconnected());
                }
                store.machine.query(&operation).map_err(operation_error)
            }
            Access::Write => match self.begin(operation)? {
                Begun::Answered(reply) => reply.map_err(operation_error),
                Begun::Waits(sequence, reply) => {
                    self.wait(sequence, reply, invocation.deadline).await
                }
            },
        }
    }

    async fn release_owner(&self, owner: Owner, _deadline: Instant) -> Result<(), DriverError> {
        self.apply(CommandKind::ReleaseOwner(ReleaseOwner {
            session: self.session,
            owner: owner.0,
        }));
        Ok(())
    }

    fn state(&self) -> watch::Receiver<ConnectionState> {
        self.state.subscribe()
    }

    async fn disconnect(&self) {
        let mut store = self.store.lock();
        store.closed = true;
        store.waiting.clear();
        drop(store);
        self.state.send_replace(ConnectionState::Connecting {
            reason: "disconnected".to_owned(),
        });
        self.timers_changed.notify_one();
    }
}

impl Drop for MemoryConnection {
    fn drop(&mut self) {
        // Lets the task of the timers see that it is not needed any more.
        self.timers_changed.notify_one();
    }
}

/// Fires timers when they are due, until the connection is closed or gone.
async fn fire_timers(connection: Weak<MemoryConnection>, timers_changed: Arc<Notify>) {
    loop {
        let Some(due) = connection.upgrade().and_then(|alive| alive.next_timer()) else {
            return;
        };
        match due {
            Some(due) => tokio::select! {
                () = tokio::time::sleep_until(due) => {
                    if let Some(alive) = connection.upgrade() {
                        alive.apply(CommandKind::Tick(Tick {}));
                    }
                }
                () = timers_changed.notified() => {}
            },
            None => timers_changed.notified().await,
        }
    }
}

fn saturating_u64(number: u128) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

fn operation_error(error: OperationError) -> DriverError {
    DriverError::new(ErrorKind::from_code(error.code.to_i32()), error.message)
}

fn disconnected() -> DriverError {
    DriverError::new(ErrorKind::Unavailable, "the store is disconnected")
}

fn defect(what: &str) -> DriverError {
    DriverError::new(ErrorKind::Internal, what)
}

#[cfg(test)]
mod tests;
