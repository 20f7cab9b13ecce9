//! What a primitive sees of the partition while one of its methods runs.

use std::collections::VecDeque;
use std::ops::Bound;
use std::time::Duration;

use bytes::Bytes;
use imbl::OrdMap;
use thiserror::Error;

use crate::error::{OperationError, Reply};
use crate::events::{Event, EventRing};
use crate::ids::{
    EventPosition, Key, OperationId, Owner, PrimitiveKey, SessionId, TimerId, duration, nanos,
};
use crate::intents::Intents;
use crate::limits::Limits;
use crate::output::{Applied, Completed};
use crate::session::{Known, Session};
use crate::timers::{Timer, TimerTable};

/// Who asked for an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The operation, to complete it later.
    pub operation: OperationId,
    /// Who owns what it creates; `None` when the request carried no owner.
    pub owner: Option<Owner>,
}

/// The identity of a transaction over several keys or partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Transaction {
    /// The partition that decides: the lowest that takes part.
    pub coordinator: u32,
    /// The coordinator's session and sequence of the commit.
    pub operation: OperationId,
}

/// A transaction's claim on a key: others wait for its end and never read around it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intent {
    /// Whose it is.
    pub transaction: Transaction,
    /// The state-machine time when it was placed; an old one is asked after at the coordinator.
    pub placed_at: Duration,
    /// What the kind does to the key if the transaction commits.
    pub payload: Bytes,
}

/// Another transaction has its intent on the key. A transaction never waits for another: it aborts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("conflict: another transaction holds the key; try again")]
pub struct Busy;

/// A primitive's access to the frame during one write, timer, cancel or release.
pub struct Context<'a> {
    pub(crate) primitive: &'a PrimitiveKey,
    pub(crate) caller: Option<Caller>,
    pub(crate) operation: u64,
    pub(crate) ordinal: u32,
    pub(crate) now: Duration,
    pub(crate) wall_time_millis: u64,
    pub(crate) counter: &'a mut u64,
    pub(crate) limits: &'a Limits,
    pub(crate) sessions: &'a mut OrdMap<SessionId, Session>,
    pub(crate) timers: &'a mut TimerTable,
    pub(crate) ring: &'a mut EventRing,
    pub(crate) timers_of_primitive: &'a mut u64,
    pub(crate) intents: &'a mut Intents,
    pub(crate) output: &'a mut Applied,
    pub(crate) freed: &'a mut VecDeque<(PrimitiveKey, Key)>,
    pub(crate) ended_an_intent: bool,
    pub(crate) own_reply: Option<Reply>,
}

impl Context<'_> {
    /// The elapsed state-machine time. It never goes back.
    pub fn now(&self) -> Duration {
        self.now
    }

    /// The proposing leader's wall clock, Unix milliseconds. It can go back; for display only.
    pub fn wall_time_millis(&self) -> u64 {
        self.wall_time_millis
    }

    /// Where the operation counter stands in this call: larger than in every earlier one. The
    /// version of what the call changes.
    pub fn operation(&self) -> u64 {
        self.operation
    }

    /// One more number of the operation counter, for a call that needs several.
    pub fn draw(&mut self) -> u64 {
        draw(self.counter)
    }

    /// Who asked. `None` in timers, cancels and releases.
    pub fn caller(&self) -> Option<Caller> {
        self.caller
    }

    /// The operation and the owner of what it creates.
    ///
    /// # Errors
    /// INVALID_ARGUMENT when the request carried no owner: whoever proposes has to say it.
    pub fn owning_caller(&self) -> Result<(OperationId, Owner), OperationError> {
        let caller = self.caller.map(|caller| (caller.operation, caller.owner));
        match caller {
            Some((operation, Some(owner))) => Ok((operation, owner)),
            Some((_, None)) | None => Err(OperationError::invalid(
                "owner: it is missing; name the connection that owns what the operation creates",
            )),
        }
    }

    /// Whether the client has said that it knows the answer of an operation: then it is not withdrawn
    /// any more. Also true of a session that has ended.
    pub fn is_acknowledged(&self, operation: OperationId) -> bool {
        let session = self.sessions.get(&operation.session);
        session
            .is_none_or(|session| matches!(session.look_up(operation.sequence), Known::Forgotten))
    }

    /// Sets a timer. One that is set for now or earlier fires with the next entry.
    pub fn set_timer(&mut self, delay: Duration, tag: Bytes) -> TimerId {
        let deadline = duration(nanos(self.now.saturating_add(delay)));
        let number = draw(self.counter);
        let id = TimerId { deadline, number };
        let primitive = self.primitive.clone();
        self.timers.set(id, Timer { primitive, tag });
        *self.timers_of_primitive += 1;
        id
    }

    /// Takes a timer of this primitive back. Nothing happens when it is not set.
    pub fn clear_timer(&mut self, timer: TimerId) {
        if self.timers.clear(timer, self.primitive) {
            *self.timers_of_primitive = self.timers_of_primitive.saturating_sub(1);
        }
    }

    /// Answers an operation that waits. Nothing happens when it does not wait (any more).
    pub fn complete(&mut self, operation: OperationId, reply: Reply) {
        if self.is_caller(operation) {
            self.own_reply = Some(reply);
            return;
        }
        complete(self.sessions, self.output, operation, reply);
    }

    /// Tells subscribers what happened. `key` is empty for primitives without keys.
    pub fn emit(&mut self, key: Bytes, payload: Bytes) {
        let position = EventPosition {
            operation: self.operation,
            ordinal: self.ordinal,
        };
        self.ordinal = self.ordinal.saturating_add(1);
        let primitive = self.primitive.clone();
        let event = Event {
            position,
            primitive,
            key,
            payload,
        };
        self.output.events.push(event.clone());
        self.ring.push(event, self.limits);
    }

    /// The intent on a key, if there is one.
    pub fn intent(&self, key: &[u8]) -> Option<&Intent> {
        self.intents.get(key)
    }

    /// The first key that has an intent, for what concerns all keys.
    pub fn first_intent(&self) -> Option<&Bytes> {
        let all = Bound::Unbounded;
        self.intents.first_between(all, all)
    }

    /// Places an intent on a key. Placing it again for the same transaction replaces its payload.
    ///
    /// # Errors
    /// [`Busy`] when another transaction has its intent there; nothing has changed.
    pub fn place_intent(
        &mut self,
        key: Bytes,
        transaction: Transaction,
        payload: Bytes,
    ) -> Result<(), Busy> {
        self.intents.place(key, transaction, payload, self.now)
    }

    /// Ends a transaction's intent on a key and hands it out; `None` when it has none there. Whoever
    /// waits for the key goes on after this call, in the order of arrival.
    pub fn finish_intent(&mut self, key: &[u8], transaction: Transaction) -> Option<Intent> {
        let (key, intent) = self.intents.finish(key, transaction)?;
        self.ended_an_intent = true;
        let freed = (self.primitive.clone(), key);
        self.output.freed_keys.push(freed.clone());
        self.freed.push_back(freed);
        Some(intent)
    }

    fn is_caller(&self, operation: OperationId) -> bool {
        self.caller
            .is_some_and(|caller| caller.operation == operation)
    }
}

/// A primitive's access to the frame during a read.
#[derive(Clone, Copy)]
pub struct View<'a> {
    pub(crate) now: Duration,
    pub(crate) operation: u64,
    pub(crate) intents: Option<&'a Intents>,
}

impl View<'_> {
    /// The elapsed state-machine time of the last applied entry.
    pub fn now(&self) -> Duration {
        self.now
    }

    /// Where the operation counter stands: the read sees every event with a position up to it.
    pub fn operation(&self) -> u64 {
        self.operation
    }

    /// The intent on a key, if there is one.
    pub fn intent(&self, key: &[u8]) -> Option<&Intent> {
        self.intents?.get(key)
    }

    /// The first key in this range that has an intent, for reads that concern several keys.
    pub fn first_intent_between(&self, from: Bound<&[u8]>, to: Bound<&[u8]>) -> Option<&Bytes> {
        self.intents?.first_between(from, to)
    }
}

/// The next number of the operation counter. 2^64 operations do not happen; if they did, numbers
/// would repeat rather than a replica end.
pub(crate) fn draw(counter: &mut u64) -> u64 {
    *counter = counter.saturating_add(1);
    *counter
}

/// Gives a waiting operation its reply.
pub(crate) fn complete(
    sessions: &mut OrdMap<SessionId, Session>,
    output: &mut Applied,
    operation: OperationId,
    reply: Reply,
) {
    let waits = sessions
        .get(&operation.session)
        .is_some_and(|session| session.waits(operation.sequence));
    if !waits {
        return;
    }
    if let Some(session) = sessions.get_mut(&operation.session) {
        session.finish(operation.sequence, reply.clone());
    }
    output.completed.push(Completed {
        session: operation.session,
        sequence: operation.sequence,
        result: reply,
    });
}
