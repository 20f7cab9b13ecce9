//! The kind `counter`: one signed 64-bit number.
//!
//! A counter that nobody has changed reads 0, and so does one that is back at 0: there is nothing
//! to keep, so a counter at 0 does not exist. `Create` and `Close` are the sidecar's business and no
//! methods here. A counter has no owners, no timers and no events.

use std::io;

use atomix_proto::runtime::counter::v1::{
    DecrementRequest, DecrementResponse, GetRequest, GetResponse, IncrementRequest,
    IncrementResponse, SetRequest, SetResponse, UpdateRequest, UpdateResponse,
};
use bytes::Bytes;
use prost::Message;

use crate::context::{Context, View};
use crate::error::{ErrorCode, OperationError, SnapshotError};
use crate::kind::{Answer, Method, Primitive, Progress};
use crate::section::{SectionReader, SectionWriter};

mod spread;
#[cfg(test)]
mod tests;

/// The state of one counter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    value: i64,
}

/// A decoded request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Makes it this value.
    Set(i64),
    /// Makes it `update` if it is `check`.
    Update {
        /// The value it must have; 0 for a counter that does not exist.
        check: i64,
        /// The value it gets.
        update: i64,
    },
    /// Asks for the value.
    Get,
    /// Adds; negative numbers subtract.
    Increment(i64),
    /// Subtracts; negative numbers add.
    Decrement(i64),
}

/// One record of a snapshot section, version 1.
#[derive(Clone, PartialEq, Message)]
struct Record {
    #[prost(sint64, tag = "1")]
    value: i64,
}

impl Primitive for Counter {
    type Request = Request;

    const KIND: &'static str = "counter";
    const METHODS: &'static [Method] = &[
        Method::write("Set"),
        Method::write("Update"),
        Method::read("Get"),
        Method::write("Increment"),
        Method::write("Decrement"),
    ];
    const OWNS: bool = false;

    fn parse(method: &str, request: &Bytes) -> Result<Request, OperationError> {
        match method {
            "Set" => decode(request).map(|set: SetRequest| Request::Set(set.value)),
            "Update" => decode(request).map(|update: UpdateRequest| Request::Update {
                check: update.check,
                update: update.update,
            }),
            "Get" => decode(request).map(|_: GetRequest| Request::Get),
            "Increment" => {
                decode(request).map(|add: IncrementRequest| Request::Increment(add.delta))
            }
            "Decrement" => {
                decode(request).map(|subtract: DecrementRequest| Request::Decrement(subtract.delta))
            }
            _ => Err(OperationError::unimplemented(format!(
                "counter has no method {method:?}"
            ))),
        }
    }

    fn execute(
        &mut self,
        request: Request,
        _context: &mut Context<'_>,
    ) -> Result<Progress, OperationError> {
        match request {
            Request::Set(value) => {
                self.value = value;
                done(&SetResponse { value })
            }
            Request::Update { check, update } => {
                if self.value != check {
                    return Err(OperationError::conflict(format!(
                        "conflict: the counter is {}, not {check}; read it and try again",
                        self.value
                    )));
                }
                self.value = update;
                done(&UpdateResponse { value: update })
            }
            Request::Get => done(&GetResponse { value: self.value }),
            Request::Increment(delta) => {
                let value = self.value.checked_add(delta);
                let value = value.ok_or_else(|| self.overflow("adding", delta))?;
                self.value = value;
                done(&IncrementResponse { value })
            }
            Request::Decrement(delta) => {
                let value = self.value.checked_sub(delta);
                let value = value.ok_or_else(|| self.overflow("subtracting", delta))?;
                self.value = value;
                done(&DecrementResponse { value })
            }
        }
    }

    fn query(&self, request: Request, _view: &View<'_>) -> Result<Answer, OperationError> {
        match request {
            Request::Get => {
                let reply = GetResponse { value: self.value };
                Ok(Answer::Reply(reply.encode_to_vec().into()))
            }
            Request::Set(_)
            | Request::Update { .. }
            | Request::Increment(_)
            | Request::Decrement(_) => Err(OperationError::new(
                ErrorCode::Internal,
                "a write was asked as a read; propose it",
            )),
        }
    }

    fn is_empty(&self) -> bool {
        self.value == 0
    }

    fn bytes(&self) -> u64 {
        8
    }

    fn write(&self, _version: u32, section: &mut SectionWriter<'_>) -> io::Result<()> {
        section.record(&Record { value: self.value })
    }

    fn read(_version: u32, section: &mut SectionReader<'_>) -> Result<Self, SnapshotError> {
        let Record { value } = section.required()?;
        Ok(Self { value })
    }
}

impl Counter {
    fn overflow(&self, doing: &str, delta: i64) -> OperationError {
        let message = format!(
            "{doing} {delta} takes the counter out of 64 bits, it stays at {}",
            self.value
        );
        OperationError::new(ErrorCode::OutOfRange, message)
    }
}

fn decode<M: Message + Default>(request: &Bytes) -> Result<M, OperationError> {
    M::decode(request.clone())
        .map_err(|error| OperationError::invalid(format!("request: it does not decode: {error}")))
}

fn done(reply: &impl Message) -> Result<Progress, OperationError> {
    Ok(Progress::Done(reply.encode_to_vec().into()))
}
