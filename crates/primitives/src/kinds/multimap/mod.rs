//! The kind `multimap`: under each key a set of strings.
//!
//! Keys and the values of a key are kept, told and removed in their order. A key without values is
//! gone: `Size` counts the keys that have one. Putting one value that is there is ALREADY_EXISTS and
//! removing one that is missing is NOT_FOUND; the methods for several values say in `updated`
//! whether anything changed. No owners, no times to live, no transactions.

use std::io;

use atomix_proto::runtime::multimap::v1::{
    ClearResponse, ContainsResponse, Entry, Event, GetResponse, PutAllResponse, PutEntriesResponse,
    PutResponse, RemoveAllResponse, RemoveEntriesResponse, RemoveResponse, ReplaceResponse,
    SizeResponse, event,
};
use bytes::Bytes;
use imbl::{OrdMap, OrdSet};
use prost::Message;

use crate::context::{Context, View};
use crate::error::{ErrorCode, OperationError, SnapshotError};
use crate::kind::{Answer, Method, Primitive, Progress};
use crate::section::{SectionReader, SectionWriter};

use super::keyed::{no_key, page, size, text};
use super::wire::{answer, done, no_read, no_write};

mod request;
mod spread;
#[cfg(test)]
mod tests;

pub use request::Request;

/// What a key costs beside its name, in bytes; part of active version 1.
const KEY_OVERHEAD: u64 = 64;
/// What a value costs beside itself, in bytes; part of active version 1.
const VALUE_OVERHEAD: u64 = 48;

/// The state of one multimap.
#[derive(Clone, Debug, Default)]
pub struct MultiMap {
    /// No set is empty.
    entries: OrdMap<Bytes, OrdSet<Bytes>>,
    bytes: u64,
}

/// One record of a snapshot section, version 1: a value. Those of a key follow each other.
#[derive(Clone, PartialEq, Message)]
struct Record {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

impl Primitive for MultiMap {
    type Request = Request;

    const KIND: &'static str = "multimap";
    const METHODS: &'static [Method] = &[
        Method::read("Size"),
        Method::write("Put"),
        Method::write("PutAll"),
        Method::write("PutEntries"),
        Method::write("Replace"),
        Method::read("Contains"),
        Method::read("Get"),
        Method::write("Remove"),
        Method::write("RemoveAll"),
        Method::write("RemoveEntries"),
        Method::write("Clear"),
        Method::read("Page"),
    ];
    const OWNS: bool = false;

    fn parse(method: &str, request: &Bytes) -> Result<Request, OperationError> {
        Request::parse(method, request)
    }

    fn execute(
        &mut self,
        request: Request,
        context: &mut Context<'_>,
    ) -> Result<Progress, OperationError> {
        match request {
            Request::Put(key, value) => {
                if !self.put(&key, &value, context) {
                    return Err(value_exists(&key, &value));
                }
                done(&PutResponse {})
            }
            Request::PutAll(key, values) => {
                let updated = self.put_all(&key, &values, context);
                done(&PutAllResponse { updated })
            }
            Request::PutEntries(entries) => {
                let mut updated = false;
                for (key, values) in &entries {
                    updated |= self.put_all(key, values, context);
                }
                done(&PutEntriesResponse { updated })
            }
            Request::Replace(key, values) => {
                let prev_values = self.replace(&key, &values, context);
                done(&ReplaceResponse { prev_values })
            }
            Request::Remove(key, value) => {
                if !self.remove(&key, &value, context) {
                    return Err(no_value(&key, &value));
                }
                let values = vec![text(&value)];
                done(&RemoveResponse { values })
            }
            Request::RemoveAll(key, _) if !self.entries.contains_key(&key) => Err(no_key(&key)),
            Request::RemoveAll(key, values) => {
                let updated = self.remove_all(&key, &values, context);
                done(&RemoveAllResponse { updated })
            }
            Request::RemoveEntries(entries) => {
                let mut updated = false;
                for (key, values) in &entries {
                    updated |= self.remove_all(key, values, context);
                }
                done(&RemoveEntriesResponse { updated })
            }
            Request::Clear => {
                for (key, values) in std::mem::take(self).entries {
                    for value in &values {
                        removed(&key, value, context);
                    }
                }
                done(&ClearResponse {})
            }
            Request::Size | Request::Contains(..) | Request::Get(_) | Request::Page(_) => {
                Err(no_write())
            }
        }
    }

    fn query(&self, request: Request, view: &View<'_>) -> Result<Answer, OperationError> {
        match request {
            Request::Size => answer(&SizeResponse {
                size: size(self.entries.len()),
            }),
            Request::Contains(key, value) => {
                let values = self.entries.get(&key);
                let result = values.is_some_and(|values| values.contains(&value));
                answer(&ContainsResponse { result })
            }
            Request::Get(key) => {
                let values = self.entries.get(&key).map(texts).unwrap_or_default();
                answer(&GetResponse { values })
            }
            Request::Page(request) => {
                page::of_keys(&self.entries, &request, view, |key, values| Entry {
                    key: text(key),
                    values: texts(values),
                })
            }
            Request::Put(..)
            | Request::PutAll(..)
            | Request::PutEntries(_)
            | Request::Replace(..)
            | Request::Remove(..)
            | Request::RemoveAll(..)
            | Request::RemoveEntries(_)
            | Request::Clear => Err(no_read()),
        }
    }

    fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn write(&self, _version: u32, section: &mut SectionWriter<'_>) -> io::Result<()> {
        for (key, values) in &self.entries {
            for value in values {
                section.record(&Record {
                    key: key.clone(),
                    value: value.clone(),
                })?;
            }
        }
        Ok(())
    }

    fn read(_version: u32, section: &mut SectionReader<'_>) -> Result<Self, SnapshotError> {
        let mut map = Self::default();
        while let Some(Record { key, value }) = section.record()? {
            if !map.insert(&key, &value) {
                return Err(SnapshotError::damaged("a multimap has a value twice"));
            }
        }
        Ok(map)
    }
}

impl MultiMap {
    /// Whether the value is new.
    fn put(&mut self, key: &Bytes, value: &Bytes, context: &mut Context<'_>) -> bool {
        let is_new = self.insert(key, value);
        if is_new {
            let value = text(value);
            emit(key, event::Event::Added(event::Added { value }), context);
        }
        is_new
    }

    fn put_all(&mut self, key: &Bytes, values: &OrdSet<Bytes>, context: &mut Context<'_>) -> bool {
        let mut updated = false;
        for value in values {
            updated |= self.put(key, value, context);
        }
        updated
    }

    /// Whether the value was there.
    fn remove(&mut self, key: &Bytes, value: &Bytes, context: &mut Context<'_>) -> bool {
        let was_there = self.take(key, value);
        if was_there {
            removed(key, value, context);
        }
        was_there
    }

    fn remove_all(
        &mut self,
        key: &Bytes,
        values: &OrdSet<Bytes>,
        context: &mut Context<'_>,
    ) -> bool {
        let mut updated = false;
        for value in values {
            updated |= self.remove(key, value, context);
        }
        updated
    }

    /// Makes these the values of the key and hands out what it had. First the others go, then the
    /// new ones come; with none the key is gone.
    fn replace(
        &mut self,
        key: &Bytes,
        values: &OrdSet<Bytes>,
        context: &mut Context<'_>,
    ) -> Vec<String> {
        let previous = self.entries.get(key).cloned().unwrap_or_default();
        for value in &previous {
            if !values.contains(value) {
                self.remove(key, value, context);
            }
        }
        self.put_all(key, values, context);
        texts(&previous)
    }

    fn insert(&mut self, key: &Bytes, value: &Bytes) -> bool {
        let values = match self.entries.get_mut(key) {
            Some(values) => values,
            None => {
                self.bytes += KEY_OVERHEAD + key.len() as u64;
                self.entries.entry(key.clone()).or_default()
            }
        };
        let is_new = values.insert(value.clone()).is_none();
        if is_new {
            self.bytes += VALUE_OVERHEAD + value.len() as u64;
        }
        is_new
    }

    fn take(&mut self, key: &Bytes, value: &Bytes) -> bool {
        let Some(values) = self.entries.get_mut(key) else {
            return false;
        };
        if values.remove(value).is_none() {
            return false;
        }
        let mut freed = VALUE_OVERHEAD + value.len() as u64;
        if values.is_empty() {
            self.entries.remove(key);
            freed += KEY_OVERHEAD + key.len() as u64;
        }
        self.bytes = self.bytes.saturating_sub(freed);
        true
    }
}

fn removed(key: &Bytes, value: &Bytes, context: &mut Context<'_>) {
    let value = text(value);
    emit(
        key,
        event::Event::Removed(event::Removed { value }),
        context,
    );
}

fn emit(key: &Bytes, event: event::Event, context: &mut Context<'_>) {
    let event = Event {
        key: text(key),
        event: Some(event),
    };
    context.emit(key.clone(), event.encode_to_vec().into());
}

fn texts(values: &OrdSet<Bytes>) -> Vec<String> {
    values.iter().map(|value| text(value)).collect()
}

fn value_exists(key: &[u8], value: &[u8]) -> OperationError {
    let message = format!(
        "the key {:?} has the value {:?} already",
        text(key),
        text(value)
    );
    OperationError::new(ErrorCode::AlreadyExists, message)
}

fn no_value(key: &[u8], value: &[u8]) -> OperationError {
    let message = format!(
        "the key {:?} does not have the value {:?}",
        text(key),
        text(value)
    );
    OperationError::new(ErrorCode::NotFound, message)
}
