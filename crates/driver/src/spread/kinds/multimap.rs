//! `multimap`.

use atomix_proto::multiraft::v1::Event;
use atomix_proto::runtime::multimap::v1::{
    self as multimap, EntriesRequest, EntriesResponse, Entry, EventsRequest, EventsResponse,
    PutEntriesRequest, PutEntriesResponse, event,
};
use bytes::Bytes;
use prost::{DecodeError, Message as _};

use super::super::plan::{self, Place, Plan, decode, decode_reply};
use super::super::stream::{Listing, Streaming};
use crate::error::DriverError;

pub(super) fn plan(method: &str, request: &Bytes, place: &Place<'_>) -> Result<Plan, DriverError> {
    match method {
        "Size" => Ok(plan::size(request, place)),
        "Clear" => Ok(plan::clear(request, place)),
        "PutEntries" | "RemoveEntries" => entries(request, place),
        _ => plan::by_key(request, place),
    }
}

/// The two have the same messages: each partition gets the entries of its keys.
fn entries(request: &Bytes, place: &Place<'_>) -> Result<Plan, DriverError> {
    let PutEntriesRequest { id, entries } = decode(request)?;
    let sorted = place.sorted(entries, |entry| &entry.key).into_iter();
    let requests = sorted.map(|(partition, entries)| {
        let id = id.clone();
        let part = PutEntriesRequest { id, entries };
        (partition, part.encode_to_vec().into())
    });
    Ok(Plan::Each {
        requests: requests.collect(),
        merge: any_updated,
    })
}

fn any_updated(replies: Vec<Bytes>) -> Result<Bytes, DriverError> {
    let mut updated = false;
    for reply in replies {
        updated |= decode_reply::<PutEntriesResponse>(reply)?.updated;
    }
    Ok(PutEntriesResponse { updated }.encode_to_vec().into())
}

pub(super) fn streaming(method: &str, request: &Bytes) -> Result<Option<Streaming>, DriverError> {
    match method {
        "Events" => {
            let EventsRequest { id: _, key } = decode(request)?;
            let greeting = EventsResponse {
                event: Some(multimap::Event::default()),
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

/// An entry of the one value that came or went.
fn change(event: &Event) -> Result<Bytes, DecodeError> {
    let multimap::Event { key, event } = multimap::Event::decode(event.payload.clone())?;
    let (values, removed) = match event {
        Some(event::Event::Added(added)) => (vec![added.value], false),
        Some(event::Event::Removed(removed)) => (vec![removed.value], true),
        None => (Vec::new(), false),
    };
    let entry = Some(Entry { key, values });
    Ok(EntriesResponse { entry, removed }.encode_to_vec().into())
}
