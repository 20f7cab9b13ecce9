//! The kind `value`: one value of bytes with a version, and a time to live if it was given one.
//!
//! Each write has a new version, also one of an equal value, and replaces the time to live: a write
//! without one makes the value stay. A `prev_version` of 0 compares nothing. A value that is gone
//! does not exist; an empty one does.
//!
//! The payload of an event is the encoded `Event`.
//!
//! `Create`, `Close`, `Watch` and `Events` are the sidecar's business and no methods here; a page has
//! the value, if there is one, as a `VersionedValue`.

mod section;
mod spread;

use std::io;
use std::time::Duration;

use atomix_proto::multiraft::v1::PageRequest;
use atomix_proto::runtime::value::v1::{
    DeleteRequest, DeleteResponse, Event, GetRequest, GetResponse, InsertRequest, InsertResponse,
    SetRequest, SetResponse, UpdateRequest, UpdateResponse, VersionedValue, event,
};
use bytes::Bytes;
use prost::Message;

use crate::context::{Context, View};
use crate::error::{ErrorCode, OperationError, SnapshotError};
use crate::ids::TimerId;
use crate::kind::{Answer, Method, Primitive, Progress};
use crate::section::{SectionReader, SectionWriter};

use super::keyed::page::Filling;
use super::wire::{answer, decode, done, no_method, no_read, no_write, time_to_live};

#[cfg(test)]
mod tests;

/// The state of one value.
#[derive(Clone, Debug, Default)]
pub struct Value {
    stored: Option<Stored>,
}

#[derive(Clone, Debug)]
struct Stored {
    value: Bytes,
    version: u64,
    /// Set while it has a time to live.
    timer: Option<TimerId>,
}

/// What is to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The bytes.
    pub value: Bytes,
    /// How long they live; `None` = for ever.
    pub ttl: Option<Duration>,
}

/// A decoded request.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// Stores it, whatever is there.
    Set(Write),
    /// Stores it if there is nothing.
    Insert(Write),
    /// Replaces what is there.
    Update {
        /// What to store.
        write: Write,
        /// The version that it must replace; 0 = any.
        prev_version: u64,
    },
    /// Asks for the value.
    Get,
    /// Takes away what is there.
    Delete {
        /// The version that it must have; 0 = any.
        prev_version: u64,
    },
    /// Asks for the value, if there is one, and of which point it is.
    Page(PageRequest),
}

impl Primitive for Value {
    type Request = Request;

    const KIND: &'static str = "value";
    const METHODS: &'static [Method] = &[
        Method::write("Set"),
        Method::write("Insert"),
        Method::write("Update"),
        Method::read("Get"),
        Method::write("Delete"),
        Method::read("Page"),
    ];
    const OWNS: bool = false;

    fn parse(method: &str, request: &Bytes) -> Result<Request, OperationError> {
        match method {
            "Set" => {
                let set: SetRequest = decode(request)?;
                let ttl = time_to_live(set.ttl.as_ref())?;
                let value = set.value;
                Ok(Request::Set(Write { value, ttl }))
            }
            "Insert" => {
                let insert: InsertRequest = decode(request)?;
                let ttl = time_to_live(insert.ttl.as_ref())?;
                let value = insert.value;
                Ok(Request::Insert(Write { value, ttl }))
            }
            "Update" => {
                let update: UpdateRequest = decode(request)?;
                let ttl = time_to_live(update.ttl.as_ref())?;
                let value = update.value;
                Ok(Request::Update {
                    write: Write { value, ttl },
                    prev_version: update.prev_version,
                })
            }
            "Get" => decode(request).map(|_: GetRequest| Request::Get),
            "Delete" => decode(request).map(|delete: DeleteRequest| Request::Delete {
                prev_version: delete.prev_version,
            }),
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
            Request::Set(write) => {
                let prev_value = self.store(&write, context);
                done(&SetResponse {
                    version: context.operation(),
                    prev_value,
                })
            }
            Request::Insert(write) => {
                if self.stored.is_some() {
                    return Err(OperationError::new(
                        ErrorCode::AlreadyExists,
                        "the value exists already; update it",
                    ));
                }
                self.store(&write, context);
                done(&InsertResponse {
                    version: context.operation(),
                })
            }
            Request::Update {
                write,
                prev_version,
            } => {
                self.check(prev_version)?;
                let prev_value = self.store(&write, context);
                done(&UpdateResponse {
                    version: context.operation(),
                    prev_value,
                })
            }
            Request::Delete { prev_version } => {
                self.check(prev_version)?;
                let value = self.remove(false, context);
                done(&DeleteResponse { value })
            }
            Request::Get | Request::Page(_) => Err(no_write()),
        }
    }

    fn query(&self, request: Request, view: &View<'_>) -> Result<Answer, OperationError> {
        match request {
            Request::Get => {
                let value = self.present().ok_or_else(missing)?;
                answer(&GetResponse { value: Some(value) })
            }
            Request::Page(request) => {
                let mut page = Filling::new(&request, view);
                if let Some(value) = self.present() {
                    page.push(&value);
                }
                page.end(None)
            }
            Request::Set(_)
            | Request::Insert(_)
            | Request::Update { .. }
            | Request::Delete { .. } => Err(no_read()),
        }
    }

    fn timer(&mut self, timer: TimerId, _tag: &Bytes, context: &mut Context<'_>) {
        let stored = self.stored.as_ref();
        if stored.is_some_and(|stored| stored.timer == Some(timer)) {
            self.remove(true, context);
        }
    }

    fn is_empty(&self) -> bool {
        self.stored.is_none()
    }

    fn bytes(&self) -> u64 {
        let stored = self.stored.as_ref();
        stored.map_or(0, |stored| stored.value.len() as u64)
    }

    fn write(&self, _version: u32, section: &mut SectionWriter<'_>) -> io::Result<()> {
        section::write(self, section)
    }

    fn read(_version: u32, section: &mut SectionReader<'_>) -> Result<Self, SnapshotError> {
        section::read(section)
    }
}

impl Value {
    /// Whether there is a value, and the one that the caller has seen.
    fn check(&self, prev_version: u64) -> Result<(), OperationError> {
        let stored = self.stored.as_ref().ok_or_else(missing)?;
        if prev_version != 0 && prev_version != stored.version {
            return Err(OperationError::conflict(format!(
                "conflict: the value has version {}, not {prev_version}; read it and try again",
                stored.version
            )));
        }
        Ok(())
    }

    fn present(&self) -> Option<VersionedValue> {
        let stored = self.stored.as_ref()?;
        Some(VersionedValue {
            value: stored.value.clone(),
            version: stored.version,
        })
    }

    /// Stores it under the version of this operation; hands out what was there.
    fn store(&mut self, write: &Write, context: &mut Context<'_>) -> Option<VersionedValue> {
        let prev_value = self.take(context);
        let timer = write.ttl.map(|ttl| context.set_timer(ttl, Bytes::new()));
        self.stored = Some(Stored {
            // A part of the request would keep the whole log entry in memory.
            value: Bytes::copy_from_slice(&write.value),
            version: context.operation(),
            timer,
        });
        let value = self.present();
        emit(
            match &prev_value {
                None => event::Event::Created(event::Created { value }),
                Some(previous) => event::Event::Updated(event::Updated {
                    value,
                    prev_value: Some(previous.clone()),
                }),
            },
            context,
        );
        prev_value
    }

    fn remove(&mut self, expired: bool, context: &mut Context<'_>) -> Option<VersionedValue> {
        let value = self.take(context)?;
        let deleted = event::Deleted {
            value: Some(value.clone()),
            expired,
        };
        emit(event::Event::Deleted(deleted), context);
        Some(value)
    }

    /// Takes the value out, with its timer.
    fn take(&mut self, context: &mut Context<'_>) -> Option<VersionedValue> {
        let stored = self.stored.take()?;
        if let Some(timer) = stored.timer {
            context.clear_timer(timer);
        }
        Some(VersionedValue {
            value: stored.value,
            version: stored.version,
        })
    }
}

fn emit(event: event::Event, context: &mut Context<'_>) {
    let event = Event { event: Some(event) };
    context.emit(Bytes::new(), event.encode_to_vec().into());
}

fn missing() -> OperationError {
    OperationError::new(ErrorCode::NotFound, "there is no value; set or insert one")
}
