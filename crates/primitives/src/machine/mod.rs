//! The state machine of one partition, from outside.

mod call;
mod operate;
mod release;
mod run;

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use atomix_proto::multiraft::v1::{Command, CommandBatch, Operate, Operation, command};
use bytes::Bytes;

use crate::context::Intent;
use crate::error::{ErrorCode, EventsLost, OperationError, Reply, SnapshotError, Stop};
use crate::events::Event;
use crate::ids::{EventPosition, PrimitiveKey, Sequence, SessionId, duration};
use crate::kind::{Access, Answer};
use crate::kinds::Kinds;
use crate::limits::Limits;
use crate::output::Applied;
use crate::session::{Entry, Known};
use crate::snapshot::{self, Snapshot};
use crate::state::State;

use run::Run;

/// The replicated state of one partition.
pub struct StateMachine {
    kinds: Arc<Kinds>,
    pub(crate) state: State,
    /// Why this replica must not go on. Not replicated.
    stopped: Option<Stop>,
}

/// What a leader does with an operation that arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Propose it.
    Propose,
    /// It was applied before; this is its reply.
    Answered(Reply),
    /// It was applied before and waits; its reply comes with a later entry.
    Pending,
    /// The session does not exist (any more).
    SessionLost,
}

/// What came out of a read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    /// The final answer.
    Answered(Reply),
    /// A transaction has its intent on the key: ask again when [`Applied::freed_keys`] names it.
    WaitsForKey(PrimitiveKey, Bytes),
}

/// How many bytes the state holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// The primitives with their names, intents and timers.
    pub primitives: u64,
    /// The event ring.
    pub events: u64,
}

/// What is known of one session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionStatus {
    /// How long the leader waits for a keep-alive.
    pub timeout: Duration,
    /// The client's name for itself.
    pub client: String,
    /// The floor below which replies are forgotten.
    pub acknowledged: Sequence,
    /// How many operations are remembered.
    pub operations: u64,
    /// How many of them wait.
    pub waiting: u64,
    /// The bytes of their replies.
    pub bytes: u64,
}

impl StateMachine {
    /// The empty state machine of a new partition, at active version 1.
    pub fn new(kinds: Arc<Kinds>) -> Self {
        Self {
            kinds,
            state: State::new(),
            stopped: None,
        }
    }

    /// Applies one log entry: moves the time, fires what is due, then runs the commands in order.
    ///
    /// `index` is the entry's place in the log; it grows, with gaps for entries that are not for the
    /// state machine, and starts above 0. When [`Applied::stop`] is set, nothing was applied.
    pub fn apply(&mut self, index: u64, batch: &CommandBatch) -> Applied {
        let stop = self.stopped.clone().or_else(|| self.check(index, batch));
        if let Some(stop) = stop {
            self.stopped = Some(stop.clone());
            return Applied {
                stop: Some(stop),
                ..Applied::default()
            };
        }
        let mut run = Run::new(&self.kinds, &mut self.state, batch.wall_time_millis);
        run.advance(duration(batch.time_nanos));
        let outcomes = batch
            .commands
            .iter()
            .filter_map(|command| command.command.as_ref())
            .map(|command| run.command(command))
            .collect();
        let applied = Applied {
            outcomes,
            ..run.output
        };
        self.state.applied_index = index;
        applied
    }

    /// Answers a read from the state as of the last applied entry.
    ///
    /// # Errors
    /// The operation's own error; INVALID_ARGUMENT for a write; UNAVAILABLE when a transaction has
    /// its intent on the key ([`StateMachine::try_query`] names the key to wait for).
    pub fn query(&self, operation: &Operation) -> Reply {
        match self.try_query(operation) {
            Query::Answered(reply) => reply,
            Query::WaitsForKey(primitive, _) => Err(OperationError::new(
                ErrorCode::Unavailable,
                format!("a transaction is deciding about a key of {primitive}; try again"),
            )),
        }
    }

    /// Answers a read, or says which key it has to wait for.
    pub fn try_query(&self, operation: &Operation) -> Query {
        match self.checked_query(operation) {
            Ok(query) => query,
            Err(error) => Query::Answered(Err(error)),
        }
    }

    fn checked_query(&self, operation: &Operation) -> Result<Query, OperationError> {
        self.validate(operation)?;
        match self.kinds.access(operation)? {
            Access::Read => {}
            Access::Write => {
                return Err(OperationError::invalid(format!(
                    "{}.{} is a write; propose it",
                    operation.kind, operation.method
                )));
            }
        }
        let key = operate::primitive_key(&self.kinds, operation)?;
        match operate::read(&self.kinds, &self.state, &key, operation)? {
            Answer::Reply(reply) => Ok(Query::Answered(Ok(reply))),
            Answer::WaitsForKey(waited) => Ok(Query::WaitsForKey(key, waited)),
        }
    }

    /// Checks an operation like [`Kinds::validate`], and that the group's active version has it.
    ///
    /// # Errors
    /// UNIMPLEMENTED for a kind, method or field that is not here or not active yet;
    /// INVALID_ARGUMENT naming the field.
    pub fn validate(&self, operation: &Operation) -> Result<(), OperationError> {
        let needed = self.kinds.version_needed(operation)?;
        check_active(needed, self.state.active_version)
    }

    /// What a leader does with an operation before it proposes it.
    ///
    /// # Errors
    /// Why it must not be proposed: it is not valid, its reply is forgotten (FAILED_PRECONDITION),
    /// or the session has no room for it (RESOURCE_EXHAUSTED).
    pub fn admit(&self, operate: &Operate) -> Result<Admission, OperationError> {
        let operation = operate
            .operation
            .as_ref()
            .ok_or_else(|| OperationError::invalid("operation: it is missing"))?;
        self.validate(operation)?;
        let id = SessionId(operate.session);
        let Some(session) = self.state.sessions.get(&id) else {
            return Ok(Admission::SessionLost);
        };
        let sequence = Sequence(operate.sequence);
        match session.look_up(sequence) {
            Known::Forgotten => Err(operate::forgotten(id, sequence)),
            Known::Recorded(Entry::Done(done)) => Ok(Admission::Answered(done.reply.clone())),
            Known::Recorded(Entry::Waiting(_)) => Ok(Admission::Pending),
            Known::New if self.has_room(operate) => Ok(Admission::Propose),
            Known::New => Err(operate::window_full(id)),
        }
    }

    /// Whether the session has room once it has taken note of what the operation acknowledges.
    fn has_room(&self, operate: &Operate) -> bool {
        let Some(session) = self.state.sessions.get(&SessionId(operate.session)) else {
            return false;
        };
        if !session.is_full(&self.state.limits) {
            return true;
        }
        let mut session = session.clone();
        session.acknowledge(operate.acknowledged, &operate.open);
        !session.is_full(&self.state.limits)
    }

    /// The elapsed state-machine time of the last applied entry.
    pub fn time(&self) -> Duration {
        self.state.time
    }

    /// When the first timer is due; the leader proposes a `Tick` then.
    pub fn next_timer(&self) -> Option<Duration> {
        self.state.timers.next_deadline()
    }

    /// The index of the last applied entry, 0 before the first.
    pub fn applied_index(&self) -> u64 {
        self.state.applied_index
    }

    /// The version up to which all replicas have agreed to apply operations.
    pub fn active_version(&self) -> u32 {
        self.state.active_version
    }

    /// The limits in force.
    pub fn limits(&self) -> Limits {
        self.state.limits
    }

    /// Why this replica must not go on, if so.
    pub fn stopped(&self) -> Option<&Stop> {
        self.stopped.as_ref()
    }

    /// The open sessions with their timeouts, in order.
    pub fn sessions(&self) -> impl Iterator<Item = (SessionId, Duration)> + '_ {
        let sessions = self.state.sessions.iter();
        sessions.map(|(id, session)| (*id, session.timeout))
    }

    /// What is known of one session.
    pub fn session(&self, id: SessionId) -> Option<SessionStatus> {
        let session = self.state.sessions.get(&id)?;
        Some(SessionStatus {
            timeout: session.timeout,
            client: session.client.to_string(),
            acknowledged: Sequence(session.floor()),
            operations: session.remembered(),
            waiting: session.waiting().count() as u64,
            bytes: session.held_bytes(),
        })
    }

    /// The primitives that exist with the bytes they hold, in order.
    pub fn primitives(&self) -> impl Iterator<Item = (&PrimitiveKey, u64)> {
        let primitives = self.state.primitives.iter();
        primitives.map(|(key, instance)| (key, instance.charged_bytes))
    }

    /// How many bytes the state holds.
    pub fn usage(&self) -> Usage {
        Usage {
            primitives: self.state.primitive_bytes,
            events: self.state.events.bytes(),
        }
    }

    /// The intents that are placed, with their primitives and keys, in order: a leader asks the
    /// coordinators of old ones.
    pub fn intents(&self) -> impl Iterator<Item = (&PrimitiveKey, &Bytes, &Intent)> {
        self.state
            .primitives
            .iter()
            .flat_map(|(primitive, instance)| {
                let intents = instance.intents.iter();
                intents.map(move |(key, intent)| (primitive, key, intent))
            })
    }

    /// The position that a subscription starts from: after everything that has happened.
    pub fn event_position(&self) -> EventPosition {
        EventPosition::after_operation(self.state.counter)
    }

    /// The events after a position, in order. None (yet) when this replica has not come that far.
    ///
    /// # Errors
    /// The ring no longer has all of them.
    pub fn events_after(
        &self,
        position: EventPosition,
    ) -> Result<impl Iterator<Item = &Event>, EventsLost> {
        self.state.events.after(position)
    }

    pub(crate) fn kinds(&self) -> &Kinds {
        &self.kinds
    }

    /// The state as of the last applied entry, in constant time.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::new(self.state.clone())
    }

    /// A copy as of the last applied entry, in constant time: whoever reads a primitive page by page
    /// asks it, so that all pages are of one point of the log. A page that waits for a key waits in
    /// it for ever: wait for the key at the original and read from a new copy.
    #[must_use]
    pub fn frozen(&self) -> Self {
        Self {
            kinds: self.kinds.clone(),
            state: self.state.clone(),
            stopped: self.stopped.clone(),
        }
    }

    /// The state machine that a snapshot was taken of. The reader should be buffered; nothing behind
    /// the snapshot's end is read.
    ///
    /// # Errors
    /// Damage, the reader's own errors, and content that only a newer program understands.
    pub fn restore(kinds: Arc<Kinds>, reader: &mut dyn Read) -> Result<Self, SnapshotError> {
        let state = snapshot::read(&kinds, reader)?;
        Ok(Self {
            kinds,
            state,
            stopped: None,
        })
    }

    /// Why the entry must not be applied, before anything of it is.
    fn check(&self, index: u64, batch: &CommandBatch) -> Option<Stop> {
        let applied = self.state.applied_index;
        if index <= applied {
            return Some(Stop::Repeated { index, applied });
        }
        batch
            .commands
            .iter()
            .find_map(|command| self.check_command(index, command))
    }

    fn check_command(&self, index: u64, command: &Command) -> Option<Stop> {
        match command.command.as_ref() {
            None => Some(Stop::UnknownCommand { index }),
            Some(command::Command::RaiseVersion(raise)) => {
                let supported = self.kinds.supported_version();
                let version = raise.active_version;
                (version > supported).then_some(Stop::Version {
                    index,
                    version,
                    supported,
                })
            }
            Some(command::Command::Operate(operate)) => {
                let operation = operate.operation.as_ref()?;
                let needed = self.kinds.version_needed(operation);
                let is_unknown = match needed {
                    Ok(needed) => needed > self.kinds.supported_version(),
                    Err(error) => error.code == ErrorCode::Unimplemented,
                };
                is_unknown.then(|| Stop::UnknownOperation {
                    index,
                    operation: format!("{:?} {:?}", operation.kind, operation.method),
                })
            }
            Some(
                command::Command::OpenSession(_)
                | command::Command::CloseSession(_)
                | command::Command::ExpireSessions(_)
                | command::Command::Cancel(_)
                | command::Command::ReleaseOwner(_)
                | command::Command::Tick(_)
                | command::Command::SetLimits(_)
                | command::Command::Recovered(_),
            ) => None,
        }
    }
}

fn check_active(needed: u32, active: u32) -> Result<(), OperationError> {
    if needed <= active {
        return Ok(());
    }
    Err(OperationError::unimplemented(format!(
        "the operation needs version {needed}, the partition is at {active}; finish the upgrade of all nodes"
    )))
}
