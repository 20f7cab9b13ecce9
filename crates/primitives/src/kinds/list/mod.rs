//! The kind `list`: values in an order that the callers make.
//!
//! An index beyond the end is OUT_OF_RANGE; `Insert` may name the end itself. Events carry the index
//! at which a change happened, so that applying them one after the other keeps a copy: `Clear` tells
//! its removals from the end. No owners, no times to live, no transactions.
//!
//! Indexes shift when items come and go, so the pages of one reading are of one state of the list: a
//! page after a change is refused, and whoever reads a long list that changes asks a
//! [`StateMachine::frozen`](crate::StateMachine::frozen) copy.

use std::io;

use atomix_proto::multiraft::v1::PageRequest;
use atomix_proto::runtime::list::v1::{
    AppendRequest, AppendResponse, ClearRequest, ClearResponse, Event, GetRequest, GetResponse,
    InsertRequest, InsertResponse, Item, RemoveRequest, RemoveResponse, SetRequest, SetResponse,
    SizeRequest, SizeResponse, Value, event,
};
use bytes::Bytes;
use imbl::Vector;
use prost::Message;

use crate::context::{Context, View};
use crate::error::{ErrorCode, OperationError, SnapshotError};
use crate::kind::{Answer, Method, Primitive, Progress};
use crate::section::{SectionReader, SectionWriter};

use super::keyed::page::Filling;
use super::keyed::size;
use super::wire::{answer, decode, done, no_method, no_read, no_write};

mod spread;
#[cfg(test)]
mod tests;

/// What an item costs beside its value, in bytes; part of active version 1.
const ITEM_OVERHEAD: u64 = 40;

/// The state of one list.
#[derive(Clone, Debug, Default)]
pub struct List {
    /// At most `u32::MAX` items.
    items: Vector<Bytes>,
    /// Where the operation counter stood at the last change.
    changed: u64,
    bytes: u64,
}

/// A decoded and checked request.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// Asks for the number of items.
    Size,
    /// Adds an item at the end.
    Append(Bytes),
    /// Adds an item before the one at the index, or at the end.
    Insert(u32, Bytes),
    /// Asks for the item at the index.
    Get(u32),
    /// Replaces the item at the index.
    Set(u32, Bytes),
    /// Takes the item at the index out.
    Remove(u32),
    /// Takes all items out.
    Clear,
    /// Asks for a page of items.
    Page(PageRequest),
}

/// The first record of a snapshot section, version 1; the items follow.
#[derive(Clone, PartialEq, Message)]
struct Header {
    #[prost(uint64, tag = "1")]
    changed: u64,
}

#[derive(Clone, PartialEq, Message)]
struct Record {
    #[prost(bytes = "bytes", tag = "1")]
    value: Bytes,
}

impl Primitive for List {
    type Request = Request;

    const KIND: &'static str = "list";
    const METHODS: &'static [Method] = &[
        Method::read("Size"),
        Method::write("Append"),
        Method::write("Insert"),
        Method::read("Get"),
        Method::write("Set"),
        Method::write("Remove"),
        Method::write("Clear"),
        Method::read("Page"),
    ];
    const OWNS: bool = false;

    fn parse(method: &str, request: &Bytes) -> Result<Request, OperationError> {
        match method {
            "Size" => decode(request).map(|_: SizeRequest| Request::Size),
            "Append" => {
                let append: AppendRequest = decode(request)?;
                value_of(append.value).map(Request::Append)
            }
            "Insert" => {
                let insert: InsertRequest = decode(request)?;
                value_of(insert.value).map(|value| Request::Insert(insert.index, value))
            }
            "Get" => decode(request).map(|get: GetRequest| Request::Get(get.index)),
            "Set" => {
                let set: SetRequest = decode(request)?;
                value_of(set.value).map(|value| Request::Set(set.index, value))
            }
            "Remove" => decode(request).map(|remove: RemoveRequest| Request::Remove(remove.index)),
            "Clear" => decode(request).map(|_: ClearRequest| Request::Clear),
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
            Request::Append(value) => {
                let index = self.len();
                self.insert(index, value.clone())?;
                let value = Some(message(value));
                self.changed(
                    index,
                    event::Event::Appended(event::Appended { value }),
                    context,
                );
                done(&AppendResponse {})
            }
            Request::Insert(index, _) if index > self.len() => Err(self.out_of_range(index)),
            Request::Insert(index, value) => {
                self.insert(index, value.clone())?;
                let inserted = event::Inserted {
                    value: Some(message(value.clone())),
                };
                self.changed(index, event::Event::Inserted(inserted), context);
                done(&InsertResponse {
                    item: Some(item(index, value)),
                })
            }
            Request::Set(index, value) => {
                let previous = self.set(index, value.clone())?;
                let updated = event::Updated {
                    value: Some(message(value.clone())),
                    prev_value: Some(message(previous)),
                };
                self.changed(index, event::Event::Updated(updated), context);
                done(&SetResponse {
                    item: Some(item(index, value)),
                })
            }
            Request::Remove(index) => {
                let value = self.get(index)?.clone();
                self.remove(index, context);
                done(&RemoveResponse {
                    item: Some(item(index, value)),
                })
            }
            Request::Clear => {
                for index in (0..self.len()).rev() {
                    self.remove(index, context);
                }
                done(&ClearResponse {})
            }
            Request::Size | Request::Get(_) | Request::Page(_) => Err(no_write()),
        }
    }

    fn query(&self, request: Request, view: &View<'_>) -> Result<Answer, OperationError> {
        match request {
            Request::Size => answer(&SizeResponse { size: self.len() }),
            Request::Get(index) => {
                let value = self.get(index)?.clone();
                answer(&GetResponse {
                    item: Some(item(index, value)),
                })
            }
            Request::Page(request) => self.page(&request, view),
            Request::Append(_)
            | Request::Insert(..)
            | Request::Set(..)
            | Request::Remove(_)
            | Request::Clear => Err(no_read()),
        }
    }

    fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn write(&self, _version: u32, section: &mut SectionWriter<'_>) -> io::Result<()> {
        let changed = self.changed;
        section.record(&Header { changed })?;
        for value in &self.items {
            let value = value.clone();
            section.record(&Record { value })?;
        }
        Ok(())
    }

    fn read(_version: u32, section: &mut SectionReader<'_>) -> Result<Self, SnapshotError> {
        let Header { changed } = section.required()?;
        let mut list = Self {
            changed,
            ..Self::default()
        };
        while let Some(Record { value }) = section.record()? {
            list.bytes += cost(&value);
            list.items.push_back(value);
        }
        Ok(list)
    }
}

impl List {
    fn len(&self) -> u32 {
        size(self.items.len())
    }

    fn get(&self, index: u32) -> Result<&Bytes, OperationError> {
        let found = self.items.get(place(index));
        found.ok_or_else(|| self.out_of_range(index))
    }

    /// The index is at most the length.
    fn insert(&mut self, index: u32, value: Bytes) -> Result<(), OperationError> {
        if self.len() == u32::MAX {
            let message = "the list is full: an index has 32 bits; remove items first";
            return Err(OperationError::new(ErrorCode::ResourceExhausted, message));
        }
        self.bytes += cost(&value);
        self.items.insert(place(index), value);
        Ok(())
    }

    fn set(&mut self, index: u32, value: Bytes) -> Result<Bytes, OperationError> {
        let previous = self.get(index)?.clone();
        self.bytes += cost(&value);
        self.bytes = self.bytes.saturating_sub(cost(&previous));
        self.items.set(place(index), value);
        Ok(previous)
    }

    /// Nothing happens beyond the end.
    fn remove(&mut self, index: u32, context: &mut Context<'_>) {
        if place(index) >= self.items.len() {
            return;
        }
        let value = self.items.remove(place(index));
        self.bytes = self.bytes.saturating_sub(cost(&value));
        let value = Some(message(value));
        self.changed(
            index,
            event::Event::Removed(event::Removed { value }),
            context,
        );
    }

    fn changed(&mut self, index: u32, event: event::Event, context: &mut Context<'_>) {
        self.changed = context.operation();
        let event = Event {
            index,
            event: Some(event),
        };
        context.emit(Bytes::new(), event.encode_to_vec().into());
    }

    fn page(&self, request: &PageRequest, view: &View<'_>) -> Result<Answer, OperationError> {
        let mut index = match &request.after {
            Some(after) => self.resume(after)?,
            None => 0,
        };
        let mut filling = Filling::new(request, view);
        while !filling.is_full()
            && let Some(value) = self.items.get(place(index))
        {
            filling.push(&item(index, value.clone()));
            index += 1;
        }
        filling.end((index < self.len()).then(|| self.cursor(index)))
    }

    /// Where a page ended, and in which state of the list.
    fn cursor(&self, next: u32) -> Bytes {
        let mut cursor = self.changed.to_be_bytes().to_vec();
        cursor.extend_from_slice(&next.to_be_bytes());
        cursor.into()
    }

    fn resume(&self, after: &Bytes) -> Result<u32, OperationError> {
        let (changed, next) = after
            .split_first_chunk::<8>()
            .and_then(|(changed, next)| Some((changed, next.try_into().ok()?)))
            .ok_or_else(|| OperationError::invalid("after: it is not what a page has as next"))?;
        if u64::from_be_bytes(*changed) != self.changed {
            let message = "conflict: the list has changed since the last page; begin again";
            return Err(OperationError::conflict(message));
        }
        Ok(u32::from_be_bytes(next))
    }

    fn out_of_range(&self, index: u32) -> OperationError {
        let message = format!("index: {index} is beyond the {} items", self.len());
        OperationError::new(ErrorCode::OutOfRange, message)
    }
}

/// An index that does not fit is beyond every list.
fn place(index: u32) -> usize {
    usize::try_from(index).unwrap_or(usize::MAX)
}

fn cost(value: &Bytes) -> u64 {
    ITEM_OVERHEAD + value.len() as u64
}

fn message(value: Bytes) -> Value {
    Value { value }
}

fn item(index: u32, value: Bytes) -> Item {
    Item {
        index,
        value: Some(message(value)),
    }
}

fn value_of(field: Option<Value>) -> Result<Bytes, OperationError> {
    field
        .map(|value| value.value)
        .ok_or_else(|| OperationError::invalid("value: it is missing"))
}
