//! The kind `map`: values by key, each with a version and perhaps a time to live.
//!
//! - A version is a number of the partition's operation counter: it grows with each change of the
//!   entry and never comes back, also when the key is removed and put again.
//! - Whoever meets a key with an intent waits for its end. `Size`, `Clear` and pages of entries
//!   concern all keys of theirs and wait for each intent among them. A time to live ends also under
//!   an intent: expired data is never read.
//! - `Commit` here is that of one partition: all operations or none, in one entry.
//! - `Lock` and `Unlock` are advisory (see `keyed/locks.rs`) and do not care for intents.

use std::io;
use std::ops::Bound;

use atomix_proto::runtime::map::v1::{
    ClearResponse, CommitResponse, Entry, GetResponse, InsertResponse, PutResponse, RemoveResponse,
    SizeResponse, UpdateResponse, VersionedValue, commit_response,
};
use bytes::Bytes;
use imbl::OrdSet;

use crate::context::{Context, View};
use crate::error::{OperationError, SnapshotError};
use crate::ids::{OperationId, TimerId};
use crate::kind::{Answer, Method, Primitive, Progress, Released};
use crate::section::{SectionReader, SectionWriter};

use super::keyed::locks::{self, KeyLocks};
use super::keyed::table::{Table, Value};
use super::keyed::{Due, no_key, page, size, text};
use super::wire::{answer, done, no_read, no_write};

mod change;
mod request;
mod section;
mod spread;
#[cfg(test)]
mod tests;

use change::{Changed, Precondition};
pub use request::{Change, Request};

/// The state of one map.
#[derive(Clone, Debug, Default)]
pub struct Map {
    entries: Table<Stored>,
    locks: KeyLocks,
}

/// The value of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stored {
    value: Bytes,
    version: u64,
    /// Set when it expires.
    timer: Option<TimerId>,
}

impl Value for Stored {
    fn bytes(&self) -> u64 {
        self.value.len() as u64
    }
}

impl Stored {
    fn message(&self) -> VersionedValue {
        VersionedValue {
            value: self.value.clone(),
            version: self.version,
        }
    }
}

impl Primitive for Map {
    type Request = Request;

    const KIND: &'static str = "map";
    const METHODS: &'static [Method] = &[
        Method::read("Size"),
        Method::write("Put"),
        Method::write("Insert"),
        Method::write("Update"),
        Method::read("Get"),
        Method::write("Remove"),
        Method::write("Clear"),
        Method::write("Lock").owned().waiting(locks::asked_wait),
        Method::write("Unlock").owned(),
        Method::read("Page"),
        Method::write("Commit"),
    ];
    const OWNS: bool = true;

    fn parse(method: &str, request: &Bytes) -> Result<Request, OperationError> {
        Request::parse(method, request)
    }

    fn execute(
        &mut self,
        request: Request,
        context: &mut Context<'_>,
    ) -> Result<Progress, OperationError> {
        match request {
            Request::Change(change) => self.change(change, context),
            Request::Commit(changes) => self.commit(changes, context),
            Request::Clear => match context.first_intent() {
                Some(key) => Ok(Progress::WaitsForKey(key.clone())),
                None => self.clear(context),
            },
            Request::Lock { keys, timeout } => self.locks.lock(keys, timeout, context),
            Request::Unlock { keys } => self.locks.unlock(&keys, context),
            Request::Size | Request::Get(_) | Request::Page(_) => Err(no_write()),
        }
    }

    fn query(&self, request: Request, view: &View<'_>) -> Result<Answer, OperationError> {
        match request {
            Request::Size => match view.first_intent_between(Bound::Unbounded, Bound::Unbounded) {
                Some(key) => Ok(Answer::WaitsForKey(key.clone())),
                None => answer(&SizeResponse {
                    size: size(self.entries.len()),
                }),
            },
            Request::Get(key) if view.intent(&key).is_some() => Ok(Answer::WaitsForKey(key)),
            Request::Get(key) => {
                let stored = self.entries.get(&key).ok_or_else(|| no_key(&key))?;
                answer(&GetResponse {
                    value: Some(stored.message()),
                })
            }
            Request::Page(request) => {
                page::of_keys(self.entries.entries(), &request, view, |key, stored| {
                    Entry {
                        key: text(key),
                        value: Some(stored.message()),
                    }
                })
            }
            Request::Change(_)
            | Request::Commit(_)
            | Request::Clear
            | Request::Lock { .. }
            | Request::Unlock { .. } => Err(no_read()),
        }
    }

    fn timer(&mut self, timer: TimerId, tag: &Bytes, context: &mut Context<'_>) {
        match Due::from_tag(tag) {
            Some(Due::Expiry(key)) => self.expire(timer, key, context),
            Some(Due::Lock(number)) => self.locks.time_out(number, context),
            None => {}
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

impl Map {
    fn change(
        &mut self,
        change: Change,
        context: &mut Context<'_>,
    ) -> Result<Progress, OperationError> {
        if context.intent(change.key()).is_some() {
            return Ok(Progress::WaitsForKey(change.key().clone()));
        }
        Precondition::of(&change).check(self.version(change.key()))?;
        let version = context.operation();
        match self.apply(change, version, context) {
            Changed::Put(version, previous) => done(&PutResponse {
                version,
                prev_value: previous.as_ref().map(Stored::message),
            }),
            Changed::Inserted(version) => done(&InsertResponse { version }),
            Changed::Updated(version, previous) => done(&UpdateResponse {
                version,
                prev_value: previous.as_ref().map(Stored::message),
            }),
            Changed::Removed(removed) => done(&RemoveResponse {
                value: removed.as_ref().map(Stored::message),
            }),
        }
    }

    /// All changes or none: each sees what those before it do.
    fn commit(
        &mut self,
        changes: Vec<Change>,
        context: &mut Context<'_>,
    ) -> Result<Progress, OperationError> {
        let keys: OrdSet<Bytes> = changes.iter().map(|change| change.key().clone()).collect();
        let busy = keys.iter().find(|key| context.intent(key).is_some());
        if let Some(key) = busy {
            return Ok(Progress::WaitsForKey(key.clone()));
        }
        change::check_all(&changes, |key| self.version(key))?;
        let mut version = context.operation();
        let mut results = Vec::new();
        for change in changes {
            let changed = self.apply(change, version, context);
            let result = Some(changed.result());
            results.push(commit_response::Result { result });
            // A key that changes twice has two versions.
            version = context.draw();
        }
        done(&CommitResponse { results })
    }

    fn clear(&mut self, context: &mut Context<'_>) -> Result<Progress, OperationError> {
        for (key, stored) in self.entries.clear() {
            self.removed(key, &stored, false, context);
        }
        done(&ClearResponse {})
    }

    fn version(&self, key: &[u8]) -> Option<u64> {
        self.entries.get(key).map(|stored| stored.version)
    }
}
