//! `map`.

use std::collections::BTreeSet;

use atomix_proto::multiraft::v1::Event;
use atomix_proto::runtime::map::v1::commit_request::operation::Operation;
use atomix_proto::runtime::map::v1::{
    self as map, CommitRequest, EntriesRequest, EntriesResponse, Entry, EventsRequest,
    EventsResponse, event,
};
use bytes::Bytes;
use prost::{DecodeError, Message as _};

use super::super::plan::{self, Place, Plan, decode};
use super::super::stream::{Listing, Streaming};
use crate::error::{DriverError, ErrorKind};

pub(super) fn plan(method: &str, request: &Bytes, place: &Place<'_>) -> Result<Plan, DriverError> {
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
fn commit(request: &Bytes, place: &Place<'_>) -> Result<Plan, DriverError> {
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
        (Some(_), Some(_)) => Err(DriverError::new(
            ErrorKind::Unsupported,
            "operations: their keys lie in several partitions of the store, and a Commit over \
             several is not offered yet; nothing was changed. Commit keys of one partition, or use \
             a store with one partition",
        )),
    }
}

pub(super) fn streaming(method: &str, request: &Bytes) -> Result<Option<Streaming>, DriverError> {
    match method {
        "Events" => {
            let EventsRequest { id: _, key } = decode(request)?;
            let greeting = EventsResponse {
                event: Some(map::Event::default()),
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
