//! The kind `set`: strings, each once, perhaps with a time to live.
//!
//! Adding what is there is ALREADY_EXISTS and leaves its time to live as it is; removing what is not
//! there is NOT_FOUND: existing clients tell from the code, not from the reply. A set has no owners
//! and no transactions.

use std::io;
use std::time::Duration;

use atomix_proto::multiraft::v1::PageRequest;
use atomix_proto::runtime::set::v1::{
    AddRequest, AddResponse, ClearRequest, ClearResponse, ContainsRequest, ContainsResponse,
    Element, Event, RemoveRequest, RemoveResponse, SizeRequest, SizeResponse, event,
};
use bytes::Bytes;
use prost::Message;

use crate::context::{Context, View};
use crate::error::{ErrorCode, OperationError, SnapshotError};
use crate::ids::TimerId;
use crate::kind::{Answer, Method, Primitive, Progress};
use crate::section::{SectionReader, SectionWriter};

use super::keyed::table::{Table, Value};
use super::keyed::{Due, page, size, text};
use super::wire::{TimerRecord, answer, decode, done, no_method, no_read, no_write, time_to_live};

mod spread;
#[cfg(test)]
mod tests;

/// The state of one set.
#[derive(Clone, Debug, Default)]
pub struct Set {
    elements: Table<Member>,
}

/// What is known of an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Member {
    /// Set when it expires.
    timer: Option<TimerId>,
}

impl Value for Member {
    fn bytes(&self) -> u64 {
        0
    }
}

/// A decoded and checked request.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// Asks for the number of elements.
    Size,
    /// Asks whether an element is there.
    Contains(Bytes),
    /// Adds an element that is not there.
    Add(Bytes, Option<Duration>),
    /// Takes an element out.
    Remove(Bytes),
    /// Takes all elements out.
    Clear,
    /// Asks for a page of elements.
    Page(PageRequest),
}

/// One record of a snapshot section, version 1.
#[derive(Clone, PartialEq, Message)]
struct Record {
    #[prost(bytes = "bytes", tag = "1")]
    element: Bytes,
    #[prost(message, optional, tag = "2")]
    timer: Option<TimerRecord>,
}

impl Primitive for Set {
    type Request = Request;

    const KIND: &'static str = "set";
    const METHODS: &'static [Method] = &[
        Method::read("Size"),
        Method::read("Contains"),
        Method::write("Add"),
        Method::write("Remove"),
        Method::write("Clear"),
        Method::read("Page"),
    ];
    const OWNS: bool = false;

    fn parse(method: &str, request: &Bytes) -> Result<Request, OperationError> {
        match method {
            "Size" => decode(request).map(|_: SizeRequest| Request::Size),
            "Contains" => {
                let contains: ContainsRequest = decode(request)?;
                element(contains.element).map(Request::Contains)
            }
            "Add" => {
                let add: AddRequest = decode(request)?;
                let ttl = time_to_live(add.ttl.as_ref())?;
                element(add.element).map(|element| Request::Add(element, ttl))
            }
            "Remove" => {
                let remove: RemoveRequest = decode(request)?;
                element(remove.element).map(Request::Remove)
            }
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
            Request::Add(element, _) if self.elements.get(&element).is_some() => {
                let message = format!("the element {:?} is in the set already", text(&element));
                Err(OperationError::new(ErrorCode::AlreadyExists, message))
            }
            Request::Add(element, ttl) => {
                self.add(element, ttl, context);
                done(&AddResponse { added: true })
            }
            Request::Remove(element) => match self.elements.remove(&element) {
                Some(member) => {
                    removed(&element, member, false, context);
                    done(&RemoveResponse { removed: true })
                }
                None => {
                    let message = format!("the element {:?} is not in the set", text(&element));
                    Err(OperationError::new(ErrorCode::NotFound, message))
                }
            },
            Request::Clear => {
                for (element, member) in self.elements.clear() {
                    removed(&element, member, false, context);
                }
                done(&ClearResponse {})
            }
            Request::Size | Request::Contains(_) | Request::Page(_) => Err(no_write()),
        }
    }

    fn query(&self, request: Request, view: &View<'_>) -> Result<Answer, OperationError> {
        match request {
            Request::Size => answer(&SizeResponse {
                size: size(self.elements.len()),
            }),
            Request::Contains(element) => answer(&ContainsResponse {
                contains: self.elements.get(&element).is_some(),
            }),
            Request::Page(request) => {
                page::of_keys(self.elements.entries(), &request, view, |element, _| {
                    message(element)
                })
            }
            Request::Add(..) | Request::Remove(_) | Request::Clear => Err(no_read()),
        }
    }

    fn timer(&mut self, timer: TimerId, tag: &Bytes, context: &mut Context<'_>) {
        let Some(Due::Expiry(element)) = Due::from_tag(tag) else {
            return;
        };
        let is_due = |member: &Member| member.timer == Some(timer);
        if self.elements.get(&element).is_some_and(is_due)
            && let Some(member) = self.elements.remove(&element)
        {
            removed(&element, member, true, context);
        }
    }

    fn is_empty(&self) -> bool {
        self.elements.is_empty()
    }

    fn bytes(&self) -> u64 {
        self.elements.bytes()
    }

    fn write(&self, _version: u32, section: &mut SectionWriter<'_>) -> io::Result<()> {
        for (element, member) in self.elements.iter() {
            section.record(&Record {
                element: element.clone(),
                timer: member.timer.map(TimerRecord::from),
            })?;
        }
        Ok(())
    }

    fn read(_version: u32, section: &mut SectionReader<'_>) -> Result<Self, SnapshotError> {
        let mut set = Self::default();
        while let Some(Record { element, timer }) = section.record()? {
            let timer = timer.map(Into::into);
            if set.elements.insert(element, Member { timer }).is_some() {
                return Err(SnapshotError::damaged("a set has an element twice"));
            }
        }
        Ok(set)
    }
}

impl Set {
    fn add(&mut self, element: Bytes, ttl: Option<Duration>, context: &mut Context<'_>) {
        let timer = ttl.map(|ttl| context.set_timer(ttl, Due::Expiry(element.clone()).tag()));
        let added = event::Added {
            element: Some(message(&element)),
        };
        emit(&element, event::Event::Added(added), context);
        self.elements.insert(element, Member { timer });
    }
}

/// Takes the timer of an element that has just been taken out, and tells subscribers.
fn removed(element: &Bytes, member: Member, expired: bool, context: &mut Context<'_>) {
    if let Some(timer) = member.timer {
        context.clear_timer(timer);
    }
    let removed = event::Removed {
        element: Some(message(element)),
        expired,
    };
    emit(element, event::Event::Removed(removed), context);
}

fn emit(element: &Bytes, event: event::Event, context: &mut Context<'_>) {
    let event = Event { event: Some(event) };
    context.emit(element.clone(), event.encode_to_vec().into());
}

fn message(element: &Bytes) -> Element {
    Element {
        value: text(element),
    }
}

fn element(field: Option<Element>) -> Result<Bytes, OperationError> {
    field
        .map(|element| element.value.into())
        .ok_or_else(|| OperationError::invalid("element: it is missing"))
}
