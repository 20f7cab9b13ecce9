//! Where the keys of the kind `map` are, and what its streams consist of.

use std::collections::BTreeSet;

use atomix_proto::multiraft::v1::Event;
use atomix_proto::runtime::map::v1::commit_request::operation::Operation;
use atomix_proto::runtime::map::v1::{
    self as map, CommitRequest, EntriesRequest, EntriesResponse, Entry, EventsRequest,
    EventsResponse, event,
};
use bytes::Bytes;
use prost::{DecodeError, Message as _};

use crate::error::OperationError;
use crate::spread::streaming::{Streaming, event_in_2, key_of};
use crate::spread::{Place, Plan, PlanKeys, Spread, decode, plan};

use super::Map;

impl Spread for Map {
    const KEYS: Option<PlanKeys> = Some(plan);

    fn streaming(method: &str, request: &Bytes) -> Result<Option<Streaming>, OperationError> {
        match method {
            "Events" => {
                let EventsRequest { id: _, key } = decode(request)?;
                let greeting = EventsResponse {
                    event: Some(map::Event::default()),
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
        "Commit" => commit(request, place),
        _ => plan::by_key(request, place),
    }
}

/// One partition makes all changes or none.
fn commit(request: &Bytes, place: &Place<'_>) -> Result<Plan, OperationError> {
    let CommitRequest { id: _, operations } = decode(request)?;
    let keys = operations.iter().filter_map(|operation| {
        Some(match operation.operation.as_ref()? {
            Operation::Put(put) => &put.key,
            Operation::Insert(insert) => &insert.key,
            Operation::Update(update) => &update.key,
            Operation::Remove(remove) => &remove.key,
        })
    });
    let partitions: BTreeSet<_> = keys.map(|key| place.key(key.as_bytes())).collect();
    let mut partitions = partitions.into_iter();
    match (partitions.next(), partitions.next()) {
        (Some(only), None) => Ok(Plan::One(only)),
        (None, _) => Ok(Plan::One(place.primitive())),
        (Some(_), Some(_)) => Err(OperationError::unimplemented(
            "operations: their keys lie in several partitions of the store, and a Commit over \
             several is not offered yet; nothing was changed. Commit keys of one partition, or use \
             a store with one partition",
        )),
    }
}

fn change(event: &Event) -> Result<Bytes, DecodeError> {
    let map::Event { key, event } = map::Event::decode(event.payload.clone())?;
    let removed = matches!(event, Some(event::Event::Removed(_)));
    let value = match event {
        Some(event::Event::Inserted(inserted)) => inserted.value,
        Some(event::Event::Updated(updated)) => updated.value,
        Some(event::Event::Removed(removed)) => removed.value,
        None => None,
    };
    let entry = Some(Entry { key, value });
    Ok(EntriesResponse { entry, removed }.encode_to_vec().into())
}
