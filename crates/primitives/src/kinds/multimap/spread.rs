//! Where the keys of the kind `multimap` are, and what its streams consist of.

use atomix_proto::multiraft::v1::Event;
use atomix_proto::runtime::multimap::v1::{
    self as multimap, EntriesRequest, EntriesResponse, Entry, EventsRequest, EventsResponse,
    PutEntriesRequest, PutEntriesResponse, event,
};
use bytes::Bytes;
use prost::{DecodeError, Message as _};

use crate::error::{OperationError, Reply};
use crate::spread::streaming::{Streaming, event_in_2, key_of};
use crate::spread::{Place, Plan, PlanKeys, Spread, decode, decode_reply, plan};

use super::MultiMap;

impl Spread for MultiMap {
    const KEYS: Option<PlanKeys> = Some(plan);

    fn streaming(method: &str, request: &Bytes) -> Result<Option<Streaming>, OperationError> {
        match method {
            "Events" => {
                let EventsRequest { id: _, key } = decode(request)?;
                let greeting = EventsResponse {
                    event: Some(multimap::Event::default()),
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
        "PutEntries" | "RemoveEntries" => entries(request, place),
        _ => plan::by_key(request, place),
    }
}

/// The two have the same messages: each partition gets the entries of its keys.
fn entries(request: &Bytes, place: &Place<'_>) -> Result<Plan, OperationError> {
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

fn any_updated(replies: Vec<Bytes>) -> Reply {
    let mut updated = false;
    for reply in replies {
        updated |= decode_reply::<PutEntriesResponse>(reply)?.updated;
    }
    Ok(PutEntriesResponse { updated }.encode_to_vec().into())
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
