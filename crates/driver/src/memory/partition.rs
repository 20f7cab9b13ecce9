//! The one partition of a memory store: its state machine, its time, and who waits.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Weak};
use std::time::{SystemTime, UNIX_EPOCH};

use atomix_primitives::{Applied, EventPosition, Followers, Kinds, Outcome, Reply, StateMachine};
use atomix_proto::multiraft::v1::command::Command as CommandKind;
use atomix_proto::multiraft::v1::{
    Cancel, Command, CommandBatch, FollowEvents, OpenSession, Operate, Operation, Tick,
};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::{MemoryDriver, events};
use crate::driver::{Holdings, Owner};
use crate::error::{DriverError, ErrorKind};
use crate::spread::{Grant, Happened, PartitionId, Partitions, operation_error};

/// The partition.
pub(super) struct MemoryPartition {
    session: u64,
    pub(super) store: Mutex<Store>,
    /// The timer that is due first may have changed.
    timers_changed: Arc<Notify>,
    itself: Weak<Self>,
}

/// What the lock of a partition is for.
pub(super) struct Store {
    pub(super) machine: StateMachine,
    started: Instant,
    index: u64,
    sequence: u64,
    /// Who waits for operations that were answered with Pending.
    waiting: HashMap<u64, oneshot::Sender<Reply>>,
    /// The operations that were answered with Pending and whose callers have not taken the reply.
    open: BTreeSet<u64>,
    /// Who waits for events.
    pub(super) followers: Followers<oneshot::Sender<EventPosition>>,
    pub(super) closed: bool,
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
        for (caller, before) in self.followers.called_by(&applied.events) {
            let _ = caller.send(before);
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
    Answered(u64, Bytes),
    Waits(u64, oneshot::Receiver<Reply>),
}

impl MemoryPartition {
    pub(super) fn start(kinds: Arc<Kinds>) -> Result<Arc<Self>, DriverError> {
        let mut store = Store {
            machine: StateMachine::new(kinds),
            started: Instant::now(),
            index: 0,
            sequence: 0,
            waiting: HashMap::new(),
            open: BTreeSet::new(),
            followers: Followers::default(),
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
        let partition = Arc::new_cyclic(|itself| Self {
            session: session.0,
            store: Mutex::new(store),
            timers_changed: Arc::new(Notify::new()),
            itself: Weak::clone(itself),
        });
        let timers_changed = Arc::clone(&partition.timers_changed);
        tokio::spawn(fire_timers(Arc::downgrade(&partition), timers_changed));
        Ok(partition)
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

    pub(super) fn apply(&self, command: CommandKind) {
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
        if outcome != Some(Outcome::Pending) {
            store.waiting.remove(&sequence);
        }
        match outcome {
            Some(Outcome::Reply(Err(error))) => Err(operation_error(error)),
            Some(Outcome::Reply(Ok(reply))) => {
                store.open.insert(sequence);
                Ok(Begun::Answered(sequence, reply))
            }
            Some(Outcome::Pending) => {
                store.open.insert(sequence);
                Ok(Begun::Waits(sequence, reply))
            }
            Some(Outcome::Session(_) | Outcome::SessionLost | Outcome::Done) | None => {
                Err(defect("the state machine did not answer the operation"))
            }
        }
    }

    /// Whoever is told the reply takes it, or gives back what it grants.
    fn withdrawal(&self, sequence: u64) -> Withdrawal {
        Withdrawal {
            partition: Weak::clone(&self.itself),
            sequence,
            answered: false,
        }
    }

    async fn wait(
        &self,
        sequence: u64,
        reply: oneshot::Receiver<Reply>,
        deadline: Instant,
    ) -> Result<Granted, DriverError> {
        let withdrawal = self.withdrawal(sequence);
        match tokio::time::timeout_at(deadline, reply).await {
            Ok(Ok(Ok(reply))) => Ok(Granted { reply, withdrawal }),
            Ok(Ok(Err(error))) => {
                withdrawal.not_needed();
                Err(operation_error(error))
            }
            Ok(Err(_)) => Err(disconnected()),
            Err(_) => Err(DriverError::new(
                ErrorKind::Timeout,
                "the deadline passed while the operation waited",
            )),
        }
    }

    /// Gives up what an owner has.
    pub(super) fn release_owner(&self, owner: Owner, holdings: Holdings<'_>) {
        // Applied at once, it can mean nothing that comes later.
        let release = holdings.release(self.session, owner, u64::MAX);
        self.apply(CommandKind::ReleaseOwner(release));
    }

    /// Ends it; whatever waits fails.
    pub(super) fn close(&self) {
        let mut store = self.store.lock();
        store.closed = true;
        store.waiting.clear();
        store.followers.clear();
        drop(store);
        // Lets the task of the timers see that it is not needed any more.
        self.timers_changed.notify_one();
    }
}

impl Partitions for MemoryPartition {
    type Grant = Granted;

    fn count(&self) -> u32 {
        1
    }

    async fn read(
        &self,
        _partition: PartitionId,
        operation: Operation,
        _deadline: Instant,
    ) -> Result<Bytes, DriverError> {
        // What is due has happened before anybody reads.
        self.apply(CommandKind::Tick(Tick {}));
        let store = self.store.lock();
        if store.closed {
            return Err(disconnected());
        }
        store.machine.query(&operation).map_err(operation_error)
    }

    async fn write(
        &self,
        _partition: PartitionId,
        operation: Operation,
        deadline: Instant,
    ) -> Result<Granted, DriverError> {
        match self.begin(operation)? {
            Begun::Answered(sequence, reply) => {
                let withdrawal = self.withdrawal(sequence);
                Ok(Granted { reply, withdrawal })
            }
            Begun::Waits(sequence, reply) => self.wait(sequence, reply, deadline).await,
        }
    }

    async fn events(
        &self,
        _partition: PartitionId,
        asked: FollowEvents,
        _incarnation: u64,
        deadline: Instant,
    ) -> Result<Happened, DriverError> {
        let events = events::next(self, asked, deadline).await?;
        Ok(Happened {
            events,
            incarnation: 0,
        })
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

/// Withdraws an operation unless its caller has taken the reply. The reply may be there: what was
/// granted to a caller that is gone is given back.
struct Withdrawal {
    partition: Weak<MemoryPartition>,
    sequence: u64,
    answered: bool,
}

impl Withdrawal {
    fn not_needed(mut self) {
        self.answered = true;
    }
}

impl Drop for Withdrawal {
    fn drop(&mut self) {
        let Some(partition) = self.partition.upgrade() else {
            return;
        };
        let mut store = partition.store.lock();
        store.waiting.remove(&self.sequence);
        if !self.answered {
            store.apply(CommandKind::Cancel(Cancel {
                session: partition.session,
                sequence: self.sequence,
            }));
        }
        store.open.remove(&self.sequence);
        drop(store);
        partition.timers_changed.notify_one();
    }
}

/// Fires timers when they are due, until the partition is closed or gone.
async fn fire_timers(partition: Weak<MemoryPartition>, timers_changed: Arc<Notify>) {
    loop {
        let Some(due) = partition.upgrade().and_then(|alive| alive.next_timer()) else {
            return;
        };
        match due {
            Some(due) => tokio::select! {
                () = tokio::time::sleep_until(due) => {
                    if let Some(alive) = partition.upgrade() {
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

pub(super) fn disconnected() -> DriverError {
    DriverError::new(ErrorKind::Unavailable, "the store is disconnected")
}

fn defect(what: &str) -> DriverError {
    DriverError::new(ErrorKind::Internal, what)
}
