//! The kind `topic`: messages in one order for all subscribers.
//!
//! It stores nothing but the offset of its last message: the first has offset 1, each further one
//! the next number, so that a subscriber sees a gap. Messages live in the ring of events only. The
//! timestamp is the wall clock of the leader that proposed the message and can go back.
//!
//! The payload of an event is the encoded `SubscribeResponse`.
//!
//! `Create`, `Close` and `Subscribe` are the sidecar's business and no methods here.

use std::io;

use atomix_proto::runtime::topic::v1::{PublishRequest, PublishResponse, SubscribeResponse};
use bytes::Bytes;
use prost::Message;
use prost_types::Timestamp;

use crate::context::{Context, View};
use crate::error::{ErrorCode, OperationError, SnapshotError};
use crate::kind::{Answer, Method, Primitive, Progress};
use crate::section::{SectionReader, SectionWriter};

use super::wire::{decode, done, no_method, no_read};

mod spread;
#[cfg(test)]
mod tests;

/// The last second that a protobuf timestamp may have: the end of the year 9999.
const LAST_SECOND: i64 = 253_402_300_799;

/// The state of one topic.
#[derive(Clone, Debug, Default)]
pub struct Topic {
    /// Of the last message; 0 = there was none.
    offset: u64,
}

/// A decoded request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Sends a message to all subscribers.
    Publish(Bytes),
}

/// The record of a snapshot section, version 1.
#[derive(Clone, PartialEq, Message)]
struct Record {
    #[prost(uint64, tag = "1")]
    offset: u64,
}

impl Primitive for Topic {
    type Request = Request;

    const KIND: &'static str = "topic";
    const METHODS: &'static [Method] = &[Method::write("Publish")];
    const OWNS: bool = false;

    fn parse(method: &str, request: &Bytes) -> Result<Request, OperationError> {
        match method {
            "Publish" => {
                decode(request).map(|publish: PublishRequest| Request::Publish(publish.payload))
            }
            _ => Err(no_method(Self::KIND, method)),
        }
    }

    fn execute(
        &mut self,
        request: Request,
        context: &mut Context<'_>,
    ) -> Result<Progress, OperationError> {
        let Request::Publish(payload) = request;
        let offset = self.next_offset()?;
        self.offset = offset;
        let message = SubscribeResponse {
            offset,
            timestamp: Some(timestamp(context.wall_time_millis())),
            payload,
        };
        context.emit(Bytes::new(), message.encode_to_vec().into());
        done(&PublishResponse {})
    }

    fn query(&self, request: Request, _view: &View<'_>) -> Result<Answer, OperationError> {
        match request {
            Request::Publish(_) => Err(no_read()),
        }
    }

    fn is_empty(&self) -> bool {
        self.offset == 0
    }

    fn bytes(&self) -> u64 {
        8
    }

    fn write(&self, _version: u32, section: &mut SectionWriter<'_>) -> io::Result<()> {
        section.record(&Record {
            offset: self.offset,
        })
    }

    fn read(_version: u32, section: &mut SectionReader<'_>) -> Result<Self, SnapshotError> {
        let Record { offset } = section.required()?;
        Ok(Self { offset })
    }
}

impl Topic {
    fn next_offset(&self) -> Result<u64, OperationError> {
        self.offset.checked_add(1).ok_or_else(|| {
            OperationError::new(
                ErrorCode::OutOfRange,
                "the topic has no offset left; use another topic",
            )
        })
    }
}

/// A clock beyond what protobuf allows is shown as the last moment that it does.
fn timestamp(wall_time_millis: u64) -> Timestamp {
    let second = i64::try_from(wall_time_millis / 1_000);
    match second {
        Ok(seconds) if seconds <= LAST_SECOND => Timestamp {
            seconds,
            nanos: i32::try_from(wall_time_millis % 1_000).unwrap_or(0) * 1_000_000,
        },
        Ok(_) | Err(_) => Timestamp {
            seconds: LAST_SECOND,
            nanos: 999_999_999,
        },
    }
}
