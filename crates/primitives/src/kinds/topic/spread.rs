//! What the streams of the kind `topic` consist of: an event is the message itself.

use atomix_proto::multiraft::v1::Event;
use atomix_proto::runtime::topic::v1::SubscribeRequest;
use bytes::Bytes;
use prost::DecodeError;

use crate::error::OperationError;
use crate::spread::{Spread, Streaming, decode};

use super::Topic;

impl Spread for Topic {
    fn streaming(method: &str, request: &Bytes) -> Result<Option<Streaming>, OperationError> {
        match method {
            "Subscribe" => {
                let SubscribeRequest { id: _ } = decode(request)?;
                Ok(Some(Streaming {
                    key: None,
                    greeting: None,
                    listing: None,
                    follows: true,
                    change: message,
                }))
            }
            _ => Ok(None),
        }
    }
}

fn message(event: &Event) -> Result<Bytes, DecodeError> {
    Ok(event.payload.clone())
}
