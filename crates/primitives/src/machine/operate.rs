//! Operations of sessions: exactly once, waiting for keys included.

use atomix_proto::multiraft::v1::{Operate, Operation};

use crate::context::{Caller, View, draw};
use crate::error::{ErrorCode, OperationError, Reply};
use crate::ids::{OperationId, Owner, OwnerNumber, PrimitiveKey, Sequence, SessionId};
use crate::kind::{Access, Answer, Progress};
use crate::kinds::Kinds;
use crate::limits::Limits;
use crate::output::{Completed, Outcome};
use crate::session::{Done, Entry, Known, Parked, Waiting};
use crate::state::State;

use super::run::Run;

/// How far an operation came in one attempt.
enum Attempt {
    Replied(Reply),
    /// The primitive has it.
    Waits,
    Parks(bytes::Bytes),
}

impl Run<'_> {
    pub(super) fn operate(&mut self, operate: &Operate) -> Outcome {
        let id = OperationId {
            session: SessionId(operate.session),
            sequence: Sequence(operate.sequence),
        };
        let Some(session) = self.state.sessions.get_mut(&id.session) else {
            return Outcome::SessionLost;
        };
        let withdrawn = session.acknowledge(operate.acknowledged, &operate.open);
        for (sequence, waiting) in withdrawn {
            let session = id.session;
            self.withdraw(OperationId { session, sequence }, &waiting);
        }

        let limits = self.state.limits;
        let Some(session) = self.state.sessions.get(&id.session) else {
            return Outcome::SessionLost;
        };
        match session.look_up(id.sequence) {
            Known::Forgotten => {
                return Outcome::Reply(Err(forgotten(id.session, id.sequence)));
            }
            Known::Recorded(Entry::Waiting(_)) => return Outcome::Pending,
            Known::Recorded(Entry::Done(done)) => return Outcome::Reply(done.reply.clone()),
            Known::New => {}
        }
        if session.is_overrun(&limits) {
            self.end_session(id.session);
            return Outcome::SessionLost;
        }
        if session.is_full(&limits) {
            // Remembered, so that a copy of it that comes later cannot succeed after the client has
            // been told that it failed.
            let refused = Err(window_full(id.session));
            return self.record(id, None, refused);
        }
        match operate.operation.as_ref() {
            Some(operation) => self.first_attempt(id, operation),
            None => {
                let missing = OperationError::invalid("operation: it is missing");
                self.record(id, None, Err(missing))
            }
        }
    }

    fn first_attempt(&mut self, id: OperationId, operation: &Operation) -> Outcome {
        let key = match self.check(operation) {
            Ok(key) => key,
            Err(error) => return self.record(id, None, Err(error)),
        };
        let attempt = self.attempt(id, &key, operation);
        self.remember(id, &key, operation, attempt)
    }

    fn remember(
        &mut self,
        id: OperationId,
        key: &PrimitiveKey,
        operation: &Operation,
        attempt: Attempt,
    ) -> Outcome {
        match attempt {
            Attempt::Replied(reply) => self.record(id, Some(key), reply),
            Attempt::Waits => {
                let limits = self.state.limits;
                let session = self.state.sessions.get(&id.session);
                if session.is_some_and(|session| !session.may_wait(&limits)) {
                    self.cancel_in(key, id);
                    return self.record(id, Some(key), Err(too_many_wait(&limits)));
                }
                self.wait(id, key, operation, None);
                Outcome::Pending
            }
            Attempt::Parks(waited) => {
                self.park(id, key, operation, waited);
                Outcome::Pending
            }
        }
    }

    /// Runs an operation again whose key has no intent any more.
    pub(super) fn run_parked(
        &mut self,
        key: &PrimitiveKey,
        waited: &bytes::Bytes,
        number: u64,
        id: OperationId,
    ) {
        self.unpark(key, waited, number);
        let Some(operation) = self.take_parked(id, number) else {
            self.state.settle(key);
            return;
        };
        let attempt = self.attempt(id, key, &operation);
        // The line is shorter, and a read settles nothing.
        self.state.settle(key);
        if let Outcome::Reply(result) = self.remember(id, key, &operation, attempt) {
            self.output.completed.push(Completed {
                session: id.session,
                sequence: id.sequence,
                result,
            });
        }
    }

    /// Takes an operation out of the line of a key.
    pub(super) fn unpark(&mut self, key: &PrimitiveKey, waited: &bytes::Bytes, number: u64) {
        if let Some(instance) = self.state.primitives.get_mut(key) {
            instance.parked.remove(&(waited.clone(), number));
        }
    }

    fn take_parked(&self, id: OperationId, number: u64) -> Option<Operation> {
        let session = self.state.sessions.get(&id.session)?;
        let Some(Entry::Waiting(waiting)) = session.entry(id.sequence) else {
            return None;
        };
        let parked = waiting.parked.as_ref()?;
        (parked.number == number).then(|| parked.operation.clone())
    }

    fn check(&self, operation: &Operation) -> Result<PrimitiveKey, OperationError> {
        let needed = self.kinds.version_needed(operation)?;
        super::check_active(needed, self.state.active_version)?;
        primitive_key(self.kinds, operation)
    }

    fn attempt(&mut self, id: OperationId, key: &PrimitiveKey, operation: &Operation) -> Attempt {
        match self.kinds.access(operation) {
            Ok(Access::Write) => self.attempt_write(id, key, operation),
            Ok(Access::Read) => self.attempt_read(key, operation),
            Err(error) => Attempt::Replied(Err(error)),
        }
    }

    fn attempt_write(
        &mut self,
        id: OperationId,
        key: &PrimitiveKey,
        operation: &Operation,
    ) -> Attempt {
        let number = owner_number(operation);
        let owner = number.map(|number| Owner {
            session: id.session,
            number,
        });
        let caller = Caller {
            operation: id,
            owner,
        };
        let called = self.call(key, caller, |primitive, context| {
            primitive.execute(&operation.method, &operation.request, context)
        });
        let Some(called) = called else {
            return Attempt::Replied(Err(no_kind(key.kind)));
        };
        match called.result {
            Ok(Progress::Done(reply)) => Attempt::Replied(Ok(reply)),
            Ok(Progress::Pending) => match called.own_reply {
                Some(reply) => Attempt::Replied(reply),
                None => Attempt::Waits,
            },
            Ok(Progress::WaitsForKey(_)) if called.ended_an_intent => {
                Attempt::Replied(Err(broken(key, "it ended an intent and waits for another")))
            }
            Ok(Progress::WaitsForKey(waited)) => self.parks(key, waited),
            Err(error) => Attempt::Replied(Err(error)),
        }
    }

    fn attempt_read(&self, key: &PrimitiveKey, operation: &Operation) -> Attempt {
        match read(self.kinds, self.state, key, operation) {
            Ok(Answer::Reply(reply)) => Attempt::Replied(Ok(reply)),
            Ok(Answer::WaitsForKey(waited)) => self.parks(key, waited),
            Err(error) => Attempt::Replied(Err(error)),
        }
    }

    /// Nobody would ever wake an operation that waits for a key without an intent.
    fn parks(&self, key: &PrimitiveKey, waited: bytes::Bytes) -> Attempt {
        let instance = self.state.primitives.get(key);
        if instance.is_some_and(|instance| instance.intents.get(&waited).is_some()) {
            return Attempt::Parks(waited);
        }
        Attempt::Replied(Err(broken(key, "it waits for a key that is free")))
    }

    fn park(
        &mut self,
        id: OperationId,
        key: &PrimitiveKey,
        operation: &Operation,
        waited: bytes::Bytes,
    ) {
        let number = draw(&mut self.state.counter);
        if let Some(instance) = self.state.primitives.get_mut(key) {
            instance.parked.insert((waited.clone(), number), id);
        }
        self.state.settle(key);
        let parked = Parked {
            key: waited,
            number,
            operation: operation.clone(),
        };
        self.wait(id, key, operation, Some(parked));
    }

    fn wait(
        &mut self,
        id: OperationId,
        key: &PrimitiveKey,
        operation: &Operation,
        parked: Option<Parked>,
    ) {
        let waiting = Waiting {
            primitive: key.clone(),
            owner: owner_number(operation),
            parked,
        };
        if let Some(session) = self.state.sessions.get_mut(&id.session) {
            session.record(id.sequence, Entry::Waiting(waiting));
        }
    }

    /// Remembers an operation's final answer.
    pub(super) fn record(
        &mut self,
        id: OperationId,
        key: Option<&PrimitiveKey>,
        reply: Reply,
    ) -> Outcome {
        if let Some(session) = self.state.sessions.get_mut(&id.session) {
            let done = Done {
                primitive: key.cloned(),
                reply: reply.clone(),
            };
            session.record(id.sequence, Entry::Done(done));
        }
        Outcome::Reply(reply)
    }
}

pub(super) fn primitive_key(
    kinds: &Kinds,
    operation: &Operation,
) -> Result<PrimitiveKey, OperationError> {
    let kind = kinds
        .name(&operation.kind)
        .ok_or_else(|| no_kind(&operation.kind))?;
    let name = operation.primitive.as_str().into();
    Ok(PrimitiveKey { kind, name })
}

/// Asks a primitive; one that does not exist answers like a new one.
pub(super) fn read(
    kinds: &Kinds,
    state: &State,
    key: &PrimitiveKey,
    operation: &Operation,
) -> Result<Answer, OperationError> {
    let now = state.time;
    let (method, request) = (&operation.method, &operation.request);
    let operation = state.counter;
    match state.primitives.get(key) {
        Some(instance) => {
            let intents = Some(&instance.intents);
            let view = View {
                now,
                operation,
                intents,
            };
            instance.primitive().query(method, request, &view)
        }
        None => {
            let (_, absent) = kinds.create(key.kind).ok_or_else(|| no_kind(key.kind))?;
            let view = View {
                now,
                operation,
                intents: None,
            };
            absent.query(method, request, &view)
        }
    }
}

fn no_kind(kind: &str) -> OperationError {
    OperationError::unimplemented(format!("the kind {kind:?} does not exist here"))
}

fn owner_number(operation: &Operation) -> Option<OwnerNumber> {
    (operation.owner != 0).then_some(OwnerNumber(operation.owner))
}

pub(super) fn forgotten(session: SessionId, sequence: Sequence) -> OperationError {
    let message = format!(
        "sequence {} of session {} was acknowledged and its reply is forgotten; use a new sequence",
        sequence.0, session.0
    );
    OperationError::new(ErrorCode::FailedPrecondition, message)
}

pub(super) fn window_full(session: SessionId) -> OperationError {
    let message = format!(
        "session {} has too many unacknowledged operations or replies; acknowledge some first",
        session.0
    );
    OperationError::new(ErrorCode::ResourceExhausted, message)
}

fn too_many_wait(limits: &Limits) -> OperationError {
    let message = format!(
        "{} operations of this session wait already, for locks as a rule; wait with fewer at once, or give \
         them a timeout",
        limits.session_waiting_operations()
    );
    OperationError::new(ErrorCode::ResourceExhausted, message)
}

fn broken(key: &PrimitiveKey, what: &str) -> OperationError {
    OperationError::new(
        ErrorCode::Internal,
        format!("{key} broke its contract: {what}"),
    )
}
