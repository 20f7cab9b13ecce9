//! The kind `countermap`: signed 64-bit numbers by key.
//!
//! A key with the number 0 exists; a key that was never set reads as NOT_FOUND, and `Increment`,
//! `Decrement` and `Set` take it for 0. `prev_value` always compares, 0 included. There are no
//! versions, no times to live and no transactions. Locks of keys are those of `keyed/locks.rs`.

use std::io;
use std::time::Duration;

use atomix_proto::multiraft::v1::PageRequest;
use atomix_proto::runtime::countermap::v1::{
    ClearRequest, ClearResponse, DecrementRequest, DecrementResponse, Entry, Event, GetRequest,
    GetResponse, IncrementRequest, IncrementResponse, InsertRequest, InsertResponse, LockRequest,
    RemoveRequest, RemoveResponse, SetRequest, SetResponse, SizeRequest, SizeResponse,
    UnlockRequest, UpdateRequest, UpdateResponse, event,
};
use bytes::Bytes;
use imbl::OrdSet;
use prost::Message;

use crate::context::{Context, View};
use crate::error::{ErrorCode, OperationError, SnapshotError};
use crate::ids::{OperationId, TimerId};
use crate::kind::{Answer, Method, Primitive, Progress, Released};
use crate::section::{SectionReader, SectionWriter};

use super::keyed::locks::{self, KeyLocks};
use super::keyed::table::{Table, Value};
use super::keyed::{Due, key_exists, no_key, page, size, text};
use super::wire::{answer, decode, done, length_of_time, no_method, no_read, no_write};

mod section;
mod spread;
#[cfg(test)]
mod tests;

/// The state of one counter map.
#[derive(Clone, Debug, Default)]
pub struct CounterMap {
    entries: Table<Number>,
    locks: KeyLocks,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Number(i64);

impl Value for Number {
    fn bytes(&self) -> u64 {
        8
    }
}

/// A decoded and checked request.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the API's methods and fields")]
pub enum Request {
    Size,
    Set(Bytes, i64),
    Insert(Bytes, i64),
    Update {
        key: Bytes,
        value: i64,
        prev_value: i64,
    },
    Increment(Bytes, i64),
    Decrement(Bytes, i64),
    Get(Bytes),
    Remove {
        key: Bytes,
        prev_value: i64,
    },
    Clear,
    Lock {
        keys: OrdSet<Bytes>,
        /// How long it waits at most; `None` = until it is cancelled.
        timeout: Option<Duration>,
    },
    Unlock {
        keys: OrdSet<Bytes>,
    },
    /// Asks for a page of entries.
    Page(PageRequest),
}

impl Primitive for CounterMap {
    type Request = Request;

    const KIND: &'static str = "countermap";
    const METHODS: &'static [Method] = &[
        Method::read("Size"),
        Method::write("Set"),
        Method::write("Insert"),
        Method::write("Update"),
        Method::write("Increment"),
        Method::write("Decrement"),
        Method::read("Get"),
        Method::write("Remove"),
        Method::write("Clear"),
        Method::write("Lock").owned().waiting(locks::asked_wait),
        Method::write("Unlock").owned(),
        Method::read("Page"),
    ];
    const OWNS: bool = true;

    fn parse(method: &str, request: &Bytes) -> Result<Request, OperationError> {
        match method {
            "Size" => decode(request).map(|_: SizeRequest| Request::Size),
            "Set" => decode(request).map(|set: SetRequest| Request::Set(set.key.into(), set.value)),
            "Insert" => decode(request)
                .map(|insert: InsertRequest| Request::Insert(insert.key.into(), insert.value)),
            "Update" => decode(request).map(|update: UpdateRequest| Request::Update {
                key: update.key.into(),
                value: update.value,
                prev_value: update.prev_value,
            }),
            "Increment" => decode(request)
                .map(|add: IncrementRequest| Request::Increment(add.key.into(), add.delta)),
            "Decrement" => decode(request).map(|subtract: DecrementRequest| {
                Request::Decrement(subtract.key.into(), subtract.delta)
            }),
            "Get" => decode(request).map(|get: GetRequest| Request::Get(get.key.into())),
            "Remove" => decode(request).map(|remove: RemoveRequest| Request::Remove {
                key: remove.key.into(),
                prev_value: remove.prev_value,
            }),
            "Clear" => decode(request).map(|_: ClearRequest| Request::Clear),
            "Lock" => {
                let lock: LockRequest = decode(request)?;
                Ok(Request::Lock {
                    keys: locks::keys(lock.keys)?,
                    timeout: length_of_time("timeout", lock.timeout.as_ref())?,
                })
            }
            "Unlock" => {
                let unlock: UnlockRequest = decode(request)?;
                let keys = locks::keys(unlock.keys)?;
                Ok(Request::Unlock { keys })
            }
            "Page" => decode(request).map(Request::Page),
            _ => Err(no_method(Self::KIND, method)),
        }
    }

    fn execute(
        &mut self,
        request: Request,
        context: &mut Context<'_>,
    ) -> Result<Progress, OperationError> {
        match request {
            Request::Set(key, value) => {
                let prev_value = self.get(&key).unwrap_or_default();
                self.set(key, value, context);
                done(&SetResponse { prev_value })
            }
            Request::Insert(key, _) if self.get(&key).is_some() => Err(key_exists(&key)),
            Request::Insert(key, value) => {
                self.set(key, value, context);
                done(&InsertResponse {})
            }
            Request::Update {
                key,
                value,
                prev_value,
            } => {
                self.expect(&key, prev_value)?;
                self.set(key, value, context);
                done(&UpdateResponse { prev_value })
            }
            Request::Increment(key, delta) => {
                let prev_value = self.get(&key).unwrap_or_default();
                let sum = prev_value.checked_add(delta);
                let value = sum.ok_or_else(|| overflow(&key, prev_value, "adding", delta))?;
                self.set(key, value, context);
                done(&IncrementResponse { prev_value })
            }
            Request::Decrement(key, delta) => {
                let prev_value = self.get(&key).unwrap_or_default();
                let difference = prev_value.checked_sub(delta);
                let value =
                    difference.ok_or_else(|| overflow(&key, prev_value, "subtracting", delta))?;
                self.set(key, value, context);
                done(&DecrementResponse { prev_value })
            }
            Request::Remove { key, prev_value } => {
                self.expect(&key, prev_value)?;
                self.entries.remove(&key);
                removed(key, prev_value, context);
                done(&RemoveResponse { value: prev_value })
            }
            Request::Clear => {
                for (key, Number(value)) in self.entries.clear() {
                    removed(key, value, context);
                }
                done(&ClearResponse {})
            }
            Request::Lock { keys, timeout } => self.locks.lock(keys, timeout, context),
            Request::Unlock { keys } => self.locks.unlock(&keys, context),
            Request::Size | Request::Get(_) | Request::Page(_) => Err(no_write()),
        }
    }

    fn query(&self, request: Request, view: &View<'_>) -> Result<Answer, OperationError> {
        match request {
            Request::Size => answer(&SizeResponse {
                size: size(self.entries.len()),
            }),
            Request::Get(key) => {
                let value = self.get(&key).ok_or_else(|| no_key(&key))?;
                answer(&GetResponse { value })
            }
            Request::Page(request) => {
                page::of_keys(self.entries.entries(), &request, view, |key, number| {
                    Entry {
                        key: text(key),
                        value: number.0,
                    }
                })
            }
            Request::Set(..)
            | Request::Insert(..)
            | Request::Update { .. }
            | Request::Increment(..)
            | Request::Decrement(..)
            | Request::Remove { .. }
            | Request::Clear
            | Request::Lock { .. }
            | Request::Unlock { .. } => Err(no_read()),
        }
    }

    fn timer(&mut self, _timer: TimerId, tag: &Bytes, context: &mut Context<'_>) {
        match Due::from_tag(tag) {
            Some(Due::Lock(number)) => self.locks.time_out(number, context),
            Some(Due::Expiry(_)) | None => {}
        }
    }

    fn cancel(&mut self, operation: OperationId, context: &mut Context<'_>) -> bool {
        self.locks.cancel(operation, context)
    }

    fn release(&mut self, released: Released, context: &mut Context<'_>) {
        self.locks.release(released, context);
    }

    fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.locks.is_empty()
    }

    fn bytes(&self) -> u64 {
        self.entries.bytes() + self.locks.bytes()
    }

    fn write(&self, _version: u32, section: &mut SectionWriter<'_>) -> io::Result<()> {
        section::write(self, section)
    }

    fn read(_version: u32, section: &mut SectionReader<'_>) -> Result<Self, SnapshotError> {
        section::read(section)
    }
}

impl CounterMap {
    fn get(&self, key: &[u8]) -> Option<i64> {
        self.entries.get(key).map(|number| number.0)
    }

    /// The key must exist with this number.
    fn expect(&self, key: &[u8], expected: i64) -> Result<(), OperationError> {
        let present = self.get(key).ok_or_else(|| no_key(key))?;
        if present == expected {
            return Ok(());
        }
        Err(OperationError::conflict(format!(
            "conflict: the key {:?} is {present}, not {expected}; read it and try again",
            text(key)
        )))
    }

    fn set(&mut self, key: Bytes, value: i64, context: &mut Context<'_>) {
        let previous = self.entries.insert(key.clone(), Number(value));
        let event = match previous {
            None => event::Event::Inserted(event::Inserted { value }),
            Some(Number(prev_value)) => event::Event::Updated(event::Updated { value, prev_value }),
        };
        emit(key, event, context);
    }
}

fn removed(key: Bytes, value: i64, context: &mut Context<'_>) {
    let removed = event::Removed { value };
    emit(key, event::Event::Removed(removed), context);
}

fn emit(key: Bytes, event: event::Event, context: &mut Context<'_>) {
    let event = Event {
        key: text(&key),
        event: Some(event),
    };
    context.emit(key, event.encode_to_vec().into());
}

fn overflow(key: &[u8], present: i64, doing: &str, delta: i64) -> OperationError {
    let message = format!(
        "{doing} {delta} takes the key {:?} out of 64 bits, it stays at {present}",
        text(key)
    );
    OperationError::new(ErrorCode::OutOfRange, message)
}
