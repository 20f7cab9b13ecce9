//! The kind `lock`: one holder, and a fair line of those who wait.
//!
//! A lock is granted in the order of arrival and is not re-entrant: the threads of an application
//! share a connection, so an owner that holds the lock queues like everybody else. Each grant has a
//! version, a fencing token that only grows. The lock goes to the next in line when it is given
//! back, when the grant is withdrawn, and when its owner or the owner's session ends; it belongs to
//! one grant, so the end of an earlier holder frees nothing. A free lock does not exist.
//!
//! `Create` and `Close` are the sidecar's business and no methods here. A lock emits no events. A
//! `Lock` without a timeout waits until it is withdrawn: the caller's deadline is the driver's
//! business.

mod section;
mod spread;

use std::io;
use std::time::Duration;

use atomix_proto::runtime::lock::v1::{
    GetLockRequest, GetLockResponse, LockRequest, LockResponse, UnlockRequest, UnlockResponse,
};
use bytes::Bytes;
use imbl::OrdMap;
use prost::Message;

use crate::context::{Context, View};
use crate::error::{ErrorCode, OperationError, SnapshotError};
use crate::ids::{OperationId, Owner, TimerId};
use crate::kind::{Answer, Method, Primitive, Progress, Released};
use crate::section::{SectionReader, SectionWriter};

use super::wire::{answer, asked_wait, decode, done, length_of_time, no_method, no_read, no_write};

#[cfg(test)]
mod tests;

/// What the holder and each one who waits cost, in bytes; part of active version 1.
const CLAIM_BYTES: u64 = 64;

/// The state of one lock. Nobody waits for a lock that is free.
#[derive(Clone, Debug, Default)]
pub struct Lock {
    holder: Option<Holder>,
    /// Who waits, by arrival.
    line: OrdMap<u64, Waiter>,
    /// The places in the line by operation.
    places: OrdMap<OperationId, u64>,
}

#[derive(Clone, Copy, Debug)]
struct Holder {
    version: u64,
    operation: OperationId,
    owner: Owner,
}

#[derive(Clone, Copy, Debug)]
struct Waiter {
    operation: OperationId,
    owner: Owner,
    timer: Option<TimerId>,
}

/// A decoded request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Takes the lock, or queues for it.
    Lock {
        /// How long to wait; 0 = not at all, `None` = until it is withdrawn.
        timeout: Option<Duration>,
    },
    /// Gives the lock back.
    Unlock,
    /// Asks for the version of the present grant.
    GetLock,
}

impl Primitive for Lock {
    type Request = Request;

    const KIND: &'static str = "lock";
    const METHODS: &'static [Method] = &[
        Method::write("Lock").owned().waiting(lock_wait),
        Method::write("Unlock").owned(),
        Method::read("GetLock"),
    ];
    const OWNS: bool = true;

    fn parse(method: &str, request: &Bytes) -> Result<Request, OperationError> {
        match method {
            "Lock" => {
                let lock: LockRequest = decode(request)?;
                let timeout = length_of_time("timeout", lock.timeout.as_ref())?;
                Ok(Request::Lock { timeout })
            }
            "Unlock" => decode(request).map(|_: UnlockRequest| Request::Unlock),
            "GetLock" => decode(request).map(|_: GetLockRequest| Request::GetLock),
            _ => Err(no_method(Self::KIND, method)),
        }
    }

    fn execute(
        &mut self,
        request: Request,
        context: &mut Context<'_>,
    ) -> Result<Progress, OperationError> {
        match request {
            Request::Lock { timeout } => self.lock(timeout, context),
            Request::Unlock => self.unlock(context),
            Request::GetLock => Err(no_write()),
        }
    }

    fn query(&self, request: Request, _view: &View<'_>) -> Result<Answer, OperationError> {
        match request {
            Request::GetLock => match self.holder {
                Some(Holder { version, .. }) => answer(&GetLockResponse { version }),
                None => Err(OperationError::new(
                    ErrorCode::NotFound,
                    "nobody holds the lock",
                )),
            },
            Request::Lock { .. } | Request::Unlock => Err(no_read()),
        }
    }

    fn timer(&mut self, _timer: TimerId, tag: &Bytes, context: &mut Context<'_>) {
        let Some(place) = tag.first_chunk().map(|place| u64::from_be_bytes(*place)) else {
            return;
        };
        if let Some(waiter) = self.take(place) {
            context.complete(waiter.operation, Err(not_free_in_time()));
        }
    }

    fn cancel(&mut self, operation: OperationId, context: &mut Context<'_>) -> bool {
        if self.holder.is_some_and(|held| held.operation == operation) {
            self.grant_next(context);
            return true;
        }
        let Some(place) = self.places.get(&operation).copied() else {
            return false;
        };
        self.leave_line(place, context).is_some()
    }

    fn release(&mut self, released: Released, context: &mut Context<'_>) {
        let is_covered = |held: Holder| released.covers(held.owner, held.operation);
        if self.holder.is_some_and(is_covered) {
            self.grant_next(context);
        }
    }

    fn is_empty(&self) -> bool {
        self.holder.is_none() && self.line.is_empty()
    }

    fn bytes(&self) -> u64 {
        let claims = u64::from(self.holder.is_some()) + self.line.len() as u64;
        claims * CLAIM_BYTES
    }

    fn write(&self, _version: u32, section: &mut SectionWriter<'_>) -> io::Result<()> {
        section::write(self, section)
    }

    fn read(_version: u32, section: &mut SectionReader<'_>) -> Result<Self, SnapshotError> {
        section::read(section)
    }
}

impl Lock {
    fn lock(
        &mut self,
        timeout: Option<Duration>,
        context: &mut Context<'_>,
    ) -> Result<Progress, OperationError> {
        let (operation, owner) = context.owning_caller()?;
        if self.holder.is_none() {
            let version = context.operation();
            self.holder = Some(Holder {
                version,
                operation,
                owner,
            });
            return done(&LockResponse { version });
        }
        if timeout.is_some_and(|timeout| timeout.is_zero()) {
            return Err(not_free_in_time());
        }
        let place = context.operation();
        let timer = timeout.map(|timeout| {
            let tag = Bytes::copy_from_slice(&place.to_be_bytes());
            context.set_timer(timeout, tag)
        });
        self.queue(
            place,
            Waiter {
                operation,
                owner,
                timer,
            },
        );
        Ok(Progress::Pending)
    }

    fn unlock(&mut self, context: &mut Context<'_>) -> Result<Progress, OperationError> {
        let (_, owner) = context.owning_caller()?;
        if self.holder.is_none_or(|held| held.owner != owner) {
            return Err(OperationError::conflict(
                "conflict: this connection does not hold the lock; lock it first",
            ));
        }
        self.grant_next(context);
        done(&UnlockResponse {})
    }

    /// Takes the lock from its holder and gives it to the first in line.
    fn grant_next(&mut self, context: &mut Context<'_>) {
        self.holder = None;
        let first = self.line.get_min().map(|(place, _)| *place);
        let Some(next) = first.and_then(|place| self.leave_line(place, context)) else {
            return;
        };
        let version = context.operation();
        self.holder = Some(Holder {
            version,
            operation: next.operation,
            owner: next.owner,
        });
        let granted = LockResponse { version };
        context.complete(next.operation, Ok(granted.encode_to_vec().into()));
    }

    fn queue(&mut self, place: u64, waiter: Waiter) {
        self.places.insert(waiter.operation, place);
        self.line.insert(place, waiter);
    }

    fn leave_line(&mut self, place: u64, context: &mut Context<'_>) -> Option<Waiter> {
        let waiter = self.take(place)?;
        if let Some(timer) = waiter.timer {
            context.clear_timer(timer);
        }
        Some(waiter)
    }

    fn take(&mut self, place: u64) -> Option<Waiter> {
        let waiter = self.line.remove(&place)?;
        self.places.remove(&waiter.operation);
        Some(waiter)
    }
}

fn lock_wait(request: &Bytes) -> Option<Duration> {
    asked_wait(LockRequest::decode(request.clone()).ok()?.timeout)
}

fn not_free_in_time() -> OperationError {
    OperationError::conflict("conflict: another holds the lock and it was not free in time")
}
