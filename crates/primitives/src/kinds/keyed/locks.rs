//! Advisory locks on keys: they exclude other locks and nothing else.
//!
//! An operation takes all its keys at once, when none of them is held and no operation that came
//! before it wants one of them. So it is fair, and within a partition two operations cannot wait for
//! each other; between partitions the caller keeps their order. A lock is not re-entrant: its own
//! owner waits for it too.

use std::collections::BTreeSet;
use std::time::Duration;

use atomix_proto::runtime::map::v1::LockRequest;
use bytes::Bytes;
use imbl::{OrdMap, OrdSet};
use prost::Message as _;

use crate::context::Context;
use crate::error::OperationError;
use crate::ids::{OperationId, Owner, Sequence, SessionId, TimerId};
use crate::kind::{Progress, Released};
use crate::kinds::wire;

use super::{Due, text};

mod record;

pub(crate) use record::LocksRecord;

/// What a held key costs beside its name, in bytes; part of active version 1.
const HELD_OVERHEAD: u64 = 96;
/// What a wanted key costs beside its name, in bytes; part of active version 1.
const WANTED_OVERHEAD: u64 = 64;

/// The locks of one primitive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct KeyLocks {
    held: OrdMap<Bytes, Hold>,
    /// The held keys by the operation that took them.
    taken: OrdSet<(OperationId, Bytes)>,
    /// The operations that wait, by arrival.
    line: OrdMap<u64, Waiter>,
    numbers: OrdMap<OperationId, u64>,
    /// Who wants a key, by arrival.
    wanted: OrdSet<(Bytes, u64)>,
    bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Hold {
    operation: OperationId,
    owner: Owner,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Waiter {
    operation: OperationId,
    owner: Owner,
    keys: OrdSet<Bytes>,
    timer: Option<TimerId>,
}

/// The keys of a request: at least one, each once, in order.
///
/// # Errors
/// INVALID_ARGUMENT when there is none.
pub(crate) fn keys(names: Vec<String>) -> Result<OrdSet<Bytes>, OperationError> {
    if names.is_empty() {
        let message = "keys: it is empty; name the keys to lock or unlock";
        return Err(OperationError::invalid(message));
    }
    Ok(names.into_iter().map(Bytes::from).collect())
}

/// How long a `Lock` asks to wait; maps and counter maps have the same message.
pub(crate) fn asked_wait(request: &Bytes) -> Option<Duration> {
    wire::asked_wait(LockRequest::decode(request.clone()).ok()?.timeout)
}

impl KeyLocks {
    /// Takes the keys for the caller, or waits: until the time-out, without one until it is
    /// cancelled, and with one of 0 not at all. It is answered with an empty message.
    ///
    /// # Errors
    /// ABORTED when the keys are not free and the time-out is 0; INVALID_ARGUMENT without an owner.
    pub(crate) fn lock(
        &mut self,
        keys: OrdSet<Bytes>,
        timeout: Option<Duration>,
        context: &mut Context<'_>,
    ) -> Result<Progress, OperationError> {
        let (operation, owner) = context.owning_caller()?;
        let number = context.operation();
        let is_free = |key: &Bytes| !self.held.contains_key(key) && self.first_for(key).is_none();
        if keys.iter().all(is_free) {
            self.take(&keys, Hold { operation, owner });
            return Ok(Progress::Done(Bytes::new()));
        }
        if timeout.is_some_and(|timeout| timeout.is_zero()) {
            return Err(not_free());
        }
        let timer = timeout.map(|timeout| context.set_timer(timeout, Due::Lock(number).tag()));
        let waiter = Waiter {
            operation,
            owner,
            keys,
            timer,
        };
        self.join_line(number, waiter);
        Ok(Progress::Pending)
    }

    /// Gives the caller's keys back.
    ///
    /// # Errors
    /// ABORTED when it does not hold every one of them; then it keeps those it holds.
    pub(crate) fn unlock(
        &mut self,
        keys: &OrdSet<Bytes>,
        context: &mut Context<'_>,
    ) -> Result<Progress, OperationError> {
        let owner = context.caller().and_then(|caller| caller.owner);
        for key in keys {
            let holder = self.held.get(key).map(|hold| hold.owner);
            if holder.is_none() || holder != owner {
                return Err(OperationError::conflict(format!(
                    "the key {:?} is not locked by this client; no key of its partition was unlocked",
                    text(key)
                )));
            }
        }
        self.give_back(keys);
        self.grant(keys, context);
        Ok(Progress::Done(Bytes::new()))
    }

    /// An operation's wait has lasted as long as it may.
    pub(crate) fn time_out(&mut self, number: u64, context: &mut Context<'_>) {
        if let Some(waiter) = self.leave_line(number) {
            context.complete(waiter.operation, Err(not_free()));
            self.grant(&waiter.keys, context);
        }
    }

    /// Forgets an operation that waits, or gives back what it took. True if there was something.
    pub(crate) fn cancel(&mut self, operation: OperationId, context: &mut Context<'_>) -> bool {
        if let Some(number) = self.numbers.get(&operation).copied() {
            self.withdraw(number, context);
            return true;
        }
        let start = (operation, Bytes::new());
        let keys: OrdSet<Bytes> = self
            .taken
            .range(start..)
            .take_while(|(taken_by, _)| *taken_by == operation)
            .map(|(_, key)| key.clone())
            .collect();
        self.give_back(&keys);
        self.grant(&keys, context);
        !keys.is_empty()
    }

    /// Gives back everything that an owner or a session has.
    pub(crate) fn release(&mut self, released: Released, context: &mut Context<'_>) {
        let session = match released {
            Released::Owner { owner, .. } => owner.session,
            Released::Session(session) => session,
        };
        let first = first_of(session);
        let waiting: Vec<u64> = self
            .numbers
            .range(first..)
            .take_while(|(operation, _)| operation.session == session)
            .map(|(_, number)| *number)
            .filter(|number| {
                let waiter = self.line.get(number);
                waiter.is_some_and(|waiter| released.covers(waiter.owner, waiter.operation))
            })
            .collect();
        for number in waiting {
            self.withdraw(number, context);
        }
        let keys: OrdSet<Bytes> = self
            .taken
            .range((first, Bytes::new())..)
            .take_while(|(operation, _)| operation.session == session)
            .filter(|(_, key)| {
                let hold = self.held.get(key);
                hold.is_some_and(|hold| released.covers(hold.owner, hold.operation))
            })
            .map(|(_, key)| key.clone())
            .collect();
        self.give_back(&keys);
        self.grant(&keys, context);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.held.is_empty() && self.line.is_empty()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The first operation in the line for a key.
    fn first_for(&self, key: &Bytes) -> Option<u64> {
        let line = (key.clone(), 0)..=(key.clone(), u64::MAX);
        self.wanted.range(line).next().map(|(_, number)| *number)
    }

    /// Answers the operations that can go on now that these keys have changed hands.
    fn grant(&mut self, keys: &OrdSet<Bytes>, context: &mut Context<'_>) {
        // Whoever waits on for a key waits whatever others are granted here: they take keys. So each
        // is looked at once, also where one wants all of many keys.
        let mut wait_on = BTreeSet::new();
        for key in keys {
            let Some(number) = self.first_for(key) else {
                continue;
            };
            if wait_on.contains(&number) {
                continue;
            }
            let Some(waiter) = self.line.get(&number) else {
                continue;
            };
            let is_next =
                |key: &Bytes| !self.held.contains_key(key) && self.first_for(key) == Some(number);
            if !waiter.keys.iter().all(is_next) {
                wait_on.insert(number);
                continue;
            }
            if let Some(waiter) = self.leave_line(number) {
                if let Some(timer) = waiter.timer {
                    context.clear_timer(timer);
                }
                let (operation, owner) = (waiter.operation, waiter.owner);
                self.take(&waiter.keys, Hold { operation, owner });
                context.complete(operation, Ok(Bytes::new()));
            }
        }
    }

    fn withdraw(&mut self, number: u64, context: &mut Context<'_>) {
        if let Some(waiter) = self.leave_line(number) {
            if let Some(timer) = waiter.timer {
                context.clear_timer(timer);
            }
            self.grant(&waiter.keys, context);
        }
    }

    fn take(&mut self, keys: &OrdSet<Bytes>, hold: Hold) {
        for key in keys {
            self.bytes += HELD_OVERHEAD + key.len() as u64;
            self.held.insert(key.clone(), hold);
            self.taken.insert((hold.operation, key.clone()));
        }
    }

    fn give_back(&mut self, keys: &OrdSet<Bytes>) {
        for key in keys {
            if let Some(hold) = self.held.remove(key) {
                self.taken.remove(&(hold.operation, key.clone()));
                let bytes = HELD_OVERHEAD + key.len() as u64;
                self.bytes = self.bytes.saturating_sub(bytes);
            }
        }
    }

    fn join_line(&mut self, number: u64, waiter: Waiter) {
        for key in &waiter.keys {
            self.bytes += WANTED_OVERHEAD + key.len() as u64;
            self.wanted.insert((key.clone(), number));
        }
        self.numbers.insert(waiter.operation, number);
        self.line.insert(number, waiter);
    }

    fn leave_line(&mut self, number: u64) -> Option<Waiter> {
        let waiter = self.line.remove(&number)?;
        self.numbers.remove(&waiter.operation);
        for key in &waiter.keys {
            self.wanted.remove(&(key.clone(), number));
            let bytes = WANTED_OVERHEAD + key.len() as u64;
            self.bytes = self.bytes.saturating_sub(bytes);
        }
        Some(waiter)
    }
}

fn first_of(session: SessionId) -> OperationId {
    let sequence = Sequence(0);
    OperationId { session, sequence }
}

fn not_free() -> OperationError {
    OperationError::conflict("the keys were not free in time; others hold them, try again")
}
