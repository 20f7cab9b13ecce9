//! Where the keys of the kind `countermap` are, and what its streams consist of.

use atomix_proto::multiraft::v1::Event;
use atomix_proto::runtime::countermap::v1::{
    self as countermap, EntriesRequest, EntriesResponse, Entry, EventsRequest, EventsResponse,
    event,
};
use bytes::Bytes;
use prost::{DecodeError, Message as _};

use crate::error::OperationError;
use crate::spread::streaming::{Streaming, event_in_2, key_of};
use crate::spread::{Place, Plan, PlanKeys, Spread, decode, plan};

use super::CounterMap;

impl Spread for CounterMap {
    const KEYS: Option<PlanKeys> = Some(plan);

    fn streaming(method: &str, request: &Bytes) -> Result<Option<Streaming>, OperationError> {
        match method {
            "Events" => {
                let EventsRequest { id: _, key } = decode(request)?;
                let greeting = EventsResponse {
                    event: Some(countermap::Event::default()),
                };
                let greeting = greeting.encode_to_vec().into();
                Ok(Some(Streaming::events(key, greeting, event_in_2)))
            }
            "Entries" => {
                let EntriesRequest { id: _, watch } = decode(request)?;
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
        "Lock" => plan::lock(request, place),
        "Unlock" => plan::unlock(request, place),
        _ => plan::by_key(request, place),
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
