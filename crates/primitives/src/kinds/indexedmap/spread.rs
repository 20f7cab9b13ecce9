//! What the streams of the kind `indexedmap` consist of: pages are in the order of indexes.

use atomix_proto::multiraft::v1::Event;
use atomix_proto::runtime::indexedmap::v1::{
    self as indexedmap, EntriesRequest, EntriesResponse, Entry, EventsRequest, EventsResponse,
    event,
};
use bytes::Bytes;
use prost::{DecodeError, Message as _};

use crate::error::OperationError;
use crate::spread::streaming::{Streaming, event_in_1};
use crate::spread::{Spread, decode};

use super::IndexedMap;

impl Spread for IndexedMap {
    fn streaming(method: &str, request: &Bytes) -> Result<Option<Streaming>, OperationError> {
        match method {
            "Events" => {
                let EventsRequest { id: _, key } = decode(request)?;
                let greeting = EventsResponse {
                    event: Some(indexedmap::Event::default()),
                };
                let greeting = greeting.encode_to_vec().into();
                Ok(Some(Streaming::events(key, greeting, event_in_1)))
            }
            "Entries" => {
                let EntriesRequest { id: _, watch } = decode(request)?;
                Ok(Some(Streaming::entries(watch, place, change)))
            }
            _ => Ok(None),
        }
    }
}

fn place(event: &Event) -> Result<Bytes, DecodeError> {
    let event = indexedmap::Event::decode(event.payload.clone())?;
    Ok(event.index.to_be_bytes().to_vec().into())
}

fn change(event: &Event) -> Result<Bytes, DecodeError> {
    let indexedmap::Event { key, index, event } = indexedmap::Event::decode(event.payload.clone())?;
    let removed = matches!(event, Some(event::Event::Removed(_)));
    let value = match event {
        Some(event::Event::Inserted(inserted)) => inserted.value,
        Some(event::Event::Updated(updated)) => updated.value,
        Some(event::Event::Removed(removed)) => removed.value,
        None => None,
    };
    let entry = Some(Entry { key, index, value });
    Ok(EntriesResponse { entry, removed }.encode_to_vec().into())
}
