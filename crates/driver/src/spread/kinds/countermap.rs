//! `countermap`.

use atomix_proto::multiraft::v1::Event;
use atomix_proto::runtime::countermap::v1::{
    self as countermap, EntriesRequest, EntriesResponse, Entry, EventsRequest, EventsResponse,
    event,
};
use bytes::Bytes;
use prost::{DecodeError, Message as _};

use super::super::plan::{self, Place, Plan, decode};
use super::super::stream::{Listing, Streaming};
use crate::error::DriverError;

pub(super) fn plan(method: &str, request: &Bytes, place: &Place<'_>) -> Result<Plan, DriverError> {
    match method {
        "Size" => Ok(plan::size(request, place)),
        "Clear" => Ok(plan::clear(request, place)),
        "Lock" => plan::lock(request, place),
        "Unlock" => plan::unlock(request, place),
        _ => plan::by_key(request, place),
    }
}

pub(super) fn streaming(method: &str, request: &Bytes) -> Result<Option<Streaming>, DriverError> {
    match method {
        "Events" => {
            let EventsRequest { id: _, key } = decode(request)?;
            let greeting = EventsResponse {
                event: Some(countermap::Event::default()),
            };
            let greeting = greeting.encode_to_vec().into();
            Ok(Some(super::events(key, greeting, super::event_in_2)))
        }
        "Entries" => {
            let EntriesRequest { id: _, watch } = decode(request)?;
            Ok(Some(Streaming {
                key: None,
                greeting: None,
                listing: Some(Listing {
                    entry: super::entry_in_1,
                    nothing: None,
                    place: super::key_of,
                }),
                follows: watch,
                change,
            }))
        }
        _ => Ok(None),
    }
}

fn change(event: &Event) -> Result<Bytes, DecodeError> {
    let countermap::Event { key, event } = countermap::Event::decode(event.payload.clone())?;
    let removed = matches!(event, Some(event::Event::Removed(_)));
    let value = match event {
        Some(event::Event::Inserted(inserted)) => inserted.value,
        Some(event::Event::Updated(updated)) => updated.value,
        Some(event::Event::Removed(removed)) => removed.value,
        None => 0,
    };
    let entry = Some(Entry { key, value });
    Ok(EntriesResponse { entry, removed }.encode_to_vec().into())
}
