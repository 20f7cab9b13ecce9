//! What the streams of the kind `value` consist of. A watcher sees a value that does not exist, or
//! does not exist any more, as an empty one of version 0.

use atomix_proto::multiraft::v1::Event;
use atomix_proto::runtime::value::v1::{
    self as value, EventsRequest, EventsResponse, VersionedValue, WatchRequest, WatchResponse,
    event,
};
use bytes::Bytes;
use prost::{DecodeError, Message as _};

use crate::error::OperationError;
use crate::spread::streaming::{Listing, Streaming, anywhere, entry_in_1, event_in_1};
use crate::spread::{Spread, decode};

use super::Value;

impl Spread for Value {
    fn streaming(method: &str, request: &Bytes) -> Result<Option<Streaming>, OperationError> {
        match method {
            "Events" => {
                let EventsRequest { id: _ } = decode(request)?;
                let greeting = EventsResponse {
                    event: Some(value::Event::default()),
                };
                let greeting = greeting.encode_to_vec().into();
                let events = Streaming::events(String::new(), greeting, event_in_1);
                Ok(Some(events))
            }
            "Watch" => {
                let WatchRequest { id: _ } = decode(request)?;
                Ok(Some(Streaming {
                    key: None,
                    greeting: None,
                    listing: Some(Listing {
                        entry: entry_in_1,
                        nothing: Some(watched(VersionedValue::default())),
                        place: anywhere,
                    }),
                    follows: true,
                    change,
                }))
            }
            _ => Ok(None),
        }
    }
}

fn change(event: &Event) -> Result<Bytes, DecodeError> {
    let value::Event { event } = value::Event::decode(event.payload.clone())?;
    let present = match event {
        Some(event::Event::Created(created)) => created.value,
        Some(event::Event::Updated(updated)) => updated.value,
        Some(event::Event::Deleted(_)) | None => None,
    };
    Ok(watched(present.unwrap_or_default()))
}

fn watched(value: VersionedValue) -> Bytes {
    let value = Some(value);
    WatchResponse { value }.encode_to_vec().into()
}
