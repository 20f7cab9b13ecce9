//! The kind `indexedmap`: values by key, in the order in which the keys were appended.
//!
//! Each key has an index, which only grows and is never given twice: an empty map keeps its last one
//! and does not go away. An entry is named by its key, by its index, or by both, which then must
//! belong together. Versions are those of the operation counter. No owners, no transactions.

use std::io;

use atomix_proto::runtime::indexedmap::v1::{
    AppendResponse, ClearResponse, Entry, FirstEntryResponse, GetResponse, LastEntryResponse,
    NextEntryResponse, PrevEntryResponse, RemoveResponse, SizeResponse, UpdateResponse,
    VersionedValue,
};
use bytes::Bytes;
use imbl::OrdMap;

use crate::context::{Context, View};
use crate::error::{ErrorCode, OperationError, SnapshotError};
use crate::ids::TimerId;
use crate::kind::{Answer, Method, Primitive, Progress};
use crate::section::{SectionReader, SectionWriter};

use super::keyed::{changed, no_key, size, text};
use super::wire::{answer, done, no_read, no_write};

mod change;
mod pages;
mod request;
mod section;
mod spread;
#[cfg(test)]
mod tests;

pub use request::{Place, Request};

/// What an entry costs beside its key, twice, and value, in bytes; part of active version 1.
const ENTRY_OVERHEAD: u64 = 96;

/// The state of one indexed map.
#[derive(Clone, Debug, Default)]
pub struct IndexedMap {
    entries: OrdMap<u64, Stored>,
    indexes: OrdMap<Bytes, u64>,
    /// The last index that was given; 0 = none yet.
    last_index: u64,
    bytes: u64,
}

/// The entry at an index.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stored {
    key: Bytes,
    value: Bytes,
    version: u64,
    /// Set when it expires.
    timer: Option<TimerId>,
}

impl Stored {
    fn value(&self) -> VersionedValue {
        VersionedValue {
            value: self.value.clone(),
            version: self.version,
        }
    }

    fn entry(&self, index: u64) -> Entry {
        Entry {
            key: text(&self.key),
            index,
            value: Some(self.value()),
        }
    }

    fn bytes(&self) -> u64 {
        ENTRY_OVERHEAD + (2 * self.key.len() + self.value.len()) as u64
    }
}

impl Primitive for IndexedMap {
    type Request = Request;

    const KIND: &'static str = "indexedmap";
    const METHODS: &'static [Method] = &[
        Method::read("Size"),
        Method::write("Append"),
        Method::write("Update"),
        Method::read("Get"),
        Method::read("FirstEntry"),
        Method::read("LastEntry"),
        Method::read("PrevEntry"),
        Method::read("NextEntry"),
        Method::write("Remove"),
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
            Request::Append { key, value, ttl } => {
                let entry = Some(self.append(key, value, ttl, context)?);
                done(&AppendResponse { entry })
            }
            Request::Update {
                place,
                value,
                ttl,
                prev_version,
            } => {
                let index = self.find_at(&place, prev_version)?;
                let entry = self.update(index, value, ttl, context);
                done(&UpdateResponse { entry })
            }
            Request::Remove {
                place,
                prev_version,
            } => {
                let index = self.find_at(&place, prev_version)?;
                let removed = self.remove(index, false, context);
                done(&RemoveResponse {
                    entry: removed.map(|stored| stored.entry(index)),
                })
            }
            Request::Clear => {
                let indexes: Vec<u64> = self.entries.keys().copied().collect();
                for index in indexes {
                    self.remove(index, false, context);
                }
                done(&ClearResponse {})
            }
            Request::Size
            | Request::Get(_)
            | Request::First
            | Request::Last
            | Request::Before(_)
            | Request::After(_)
            | Request::Page(_) => Err(no_write()),
        }
    }

    fn query(&self, request: Request, view: &View<'_>) -> Result<Answer, OperationError> {
        match request {
            Request::Size => answer(&SizeResponse {
                size: size(self.entries.len()),
            }),
            Request::Get(place) => {
                let (index, stored) = self.find(&place)?;
                answer(&GetResponse {
                    entry: Some(stored.entry(index)),
                })
            }
            Request::First => {
                let entry = told(self.entries.iter().next(), "the map is empty")?;
                answer(&FirstEntryResponse { entry })
            }
            Request::Last => {
                let entry = told(self.entries.iter().next_back(), "the map is empty")?;
                answer(&LastEntryResponse { entry })
            }
            Request::Before(index) => {
                let found = self.entries.range(..index).next_back();
                let entry = told(found, "no entry is before the index")?;
                answer(&PrevEntryResponse { entry })
            }
            Request::After(index) => {
                let after = (std::ops::Bound::Excluded(index), std::ops::Bound::Unbounded);
                let found = self.entries.range(after).next();
                let entry = told(found, "no entry is after the index")?;
                answer(&NextEntryResponse { entry })
            }
            Request::Page(request) => self.page(&request, view),
            Request::Append { .. }
            | Request::Update { .. }
            | Request::Remove { .. }
            | Request::Clear => Err(no_read()),
        }
    }

    fn timer(&mut self, timer: TimerId, tag: &Bytes, context: &mut Context<'_>) {
        self.expire(timer, tag, context);
    }

    fn is_empty(&self) -> bool {
        self.last_index == 0
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn write(&self, _version: u32, section: &mut SectionWriter<'_>) -> io::Result<()> {
        section::write(self, section)
    }

    fn read(_version: u32, section: &mut SectionReader<'_>) -> Result<Self, SnapshotError> {
        section::read(section)
    }
}

impl IndexedMap {
    fn find(&self, place: &Place) -> Result<(u64, &Stored), OperationError> {
        let (index, key) = match place {
            Place::Key(key) => {
                let index = self.indexes.get(key).ok_or_else(|| no_key(key))?;
                (*index, Some(key))
            }
            Place::Index(index) => (*index, None),
            Place::Both(index, key) => (*index, Some(key)),
        };
        let stored = self.entries.get(&index);
        let belongs = |stored: &&Stored| key.is_none_or(|key| stored.key == *key);
        let stored = stored.filter(belongs).ok_or_else(|| no_index(index, key))?;
        Ok((index, stored))
    }

    /// The index of an entry with this version; 0 = any.
    fn find_at(&self, place: &Place, prev_version: u64) -> Result<u64, OperationError> {
        let (index, stored) = self.find(place)?;
        if prev_version != 0 && stored.version != prev_version {
            return Err(changed(&stored.key, stored.version, prev_version));
        }
        Ok(index)
    }
}

fn told(found: Option<(&u64, &Stored)>, missing: &str) -> Result<Option<Entry>, OperationError> {
    match found {
        Some((index, stored)) => Ok(Some(stored.entry(*index))),
        None => Err(OperationError::new(ErrorCode::NotFound, missing)),
    }
}

fn no_index(index: u64, key: Option<&Bytes>) -> OperationError {
    let message = match key {
        None => format!("the index {index} has no entry"),
        Some(key) => format!(
            "the index {index} has no entry with the key {:?}",
            text(key)
        ),
    };
    OperationError::new(ErrorCode::NotFound, message)
}
