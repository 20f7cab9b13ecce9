//! Where the elements of the kind `set` are, which are its keys, and what its streams consist of.

use atomix_proto::multiraft::v1::Event;
use atomix_proto::runtime::set::v1::{
    self as set, ContainsRequest, ElementsRequest, ElementsResponse, EventsRequest, EventsResponse,
    event,
};
use bytes::Bytes;
use prost::{DecodeError, Message as _};

use crate::error::OperationError;
use crate::spread::streaming::{Streaming, event_in_1, key_of};
use crate::spread::{Place, Plan, PlanKeys, Spread, decode, plan};

use super::Set;

impl Spread for Set {
    const KEYS: Option<PlanKeys> = Some(plan);

    fn streaming(method: &str, request: &Bytes) -> Result<Option<Streaming>, OperationError> {
        match method {
            "Events" => {
                let EventsRequest { id: _ } = decode(request)?;
                let greeting = EventsResponse {
                    event: Some(set::Event::default()),
                };
                let greeting = greeting.encode_to_vec().into();
                let events = Streaming::events(String::new(), greeting, event_in_1);
                Ok(Some(events))
            }
            "Elements" => {
                let ElementsRequest { id: _, watch } = decode(request)?;
                Ok(Some(Streaming::entries(watch, key_of, change)))
            }
            _ => Ok(None),
        }
    }
}

fn plan(method: &str, request: &Bytes, place: &Place<'_>) -> Result<Plan, OperationError> {
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

fn change(event: &Event) -> Result<Bytes, DecodeError> {
    let set::Event { event } = set::Event::decode(event.payload.clone())?;
    let (element, removed) = match event {
        Some(event::Event::Added(added)) => (added.element, false),
        Some(event::Event::Removed(removed)) => (removed.element, true),
        None => (None, false),
    };
    Ok(ElementsResponse { element, removed }.encode_to_vec().into())
}
