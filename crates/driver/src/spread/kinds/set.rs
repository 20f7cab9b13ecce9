//! `set`: the elements are its keys.

use atomix_proto::multiraft::v1::Event;
use atomix_proto::runtime::set::v1::{
    self as set, ContainsRequest, ElementsRequest, ElementsResponse, EventsRequest, EventsResponse,
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
        _ => {
            // All requests about one element begin like this one.
            let ContainsRequest { id: _, element } = decode(request)?;
            let element = element.unwrap_or_default().value;
            Ok(Plan::One(place.key(element.as_bytes())))
        }
    }
}

pub(super) fn streaming(method: &str, request: &Bytes) -> Result<Option<Streaming>, DriverError> {
    match method {
        "Events" => {
            let EventsRequest { id: _ } = decode(request)?;
            let greeting = EventsResponse {
                event: Some(set::Event::default()),
            };
            let greeting = greeting.encode_to_vec().into();
            let events = super::events(String::new(), greeting, super::event_in_1);
            Ok(Some(events))
        }
        "Elements" => {
            let ElementsRequest { id: _, watch } = decode(request)?;
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
    let set::Event { event } = set::Event::decode(event.payload.clone())?;
    let (element, removed) = match event {
        Some(event::Event::Added(added)) => (added.element, false),
        Some(event::Event::Removed(removed)) => (removed.element, true),
        None => (None, false),
    };
    Ok(ElementsResponse { element, removed }.encode_to_vec().into())
}
