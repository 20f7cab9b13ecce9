//! Each kind: where its operations go, and what its streams consist of.
//!
//! Keys of `map`, `countermap`, `multimap` and `set` are spread over all partitions; the other kinds
//! live in one. Methods that are not named here go to one partition as they are.

mod countermap;
mod election;
mod indexedmap;
mod list;
mod map;
mod multimap;
mod set;
mod topic;
mod value;

use atomix_proto::multiraft::v1::{Event, Operation};
use bytes::Bytes;
use prost::DecodeError;

use super::PartitionId;
use super::plan::{Place, Plan};
use super::stream::{Streaming, wrapped};
use crate::error::DriverError;

/// Where a valid operation goes.
pub(super) fn plan(operation: &Operation, place: &Place<'_>) -> Result<Plan, DriverError> {
    if place.is_one_partition() {
        return Ok(Plan::One(place.primitive()));
    }
    let (method, request) = (operation.method.as_str(), &operation.request);
    match operation.kind.as_str() {
        "countermap" => countermap::plan(method, request, place),
        "map" => map::plan(method, request, place),
        "multimap" => multimap::plan(method, request, place),
        "set" => set::plan(method, request, place),
        _ => Ok(Plan::One(place.primitive())),
    }
}

/// What a streaming method consists of; `None` = the kind has no such method.
pub(super) fn streaming(operation: &Operation) -> Result<Option<Streaming>, DriverError> {
    let (method, request) = (operation.method.as_str(), &operation.request);
    match operation.kind.as_str() {
        "countermap" => countermap::streaming(method, request),
        "election" => election::streaming(method, request),
        "indexedmap" => indexedmap::streaming(method, request),
        "list" => list::streaming(method, request),
        "map" => map::streaming(method, request),
        "multimap" => multimap::streaming(method, request),
        "set" => set::streaming(method, request),
        "topic" => topic::streaming(method, request),
        "value" => value::streaming(method, request),
        _ => Ok(None),
    }
}

/// Which partitions have something of a primitive, or of one key of it.
pub(super) fn partitions_of(kind: &str, key: Option<&[u8]>, place: &Place<'_>) -> Vec<PartitionId> {
    match (kind, key) {
        ("countermap" | "map" | "multimap" | "set", Some(key)) => vec![place.key(key)],
        ("countermap" | "map" | "multimap" | "set", None) => place.all(),
        _ => vec![place.primitive()],
    }
}

/// The stream `Events`: first a message without an event, which existing clients wait for; then the
/// kind's own events in field `tag`.
fn events(
    key: String,
    greeting: Bytes,
    change: fn(&Event) -> Result<Bytes, DecodeError>,
) -> Streaming {
    Streaming {
        key: (!key.is_empty()).then(|| key.into()),
        greeting: Some(greeting),
        listing: None,
        follows: true,
        change,
    }
}

/// The event as field 1.
fn event_in_1(event: &Event) -> Result<Bytes, DecodeError> {
    Ok(wrapped(1, &event.payload))
}

/// The event as field 2.
fn event_in_2(event: &Event) -> Result<Bytes, DecodeError> {
    Ok(wrapped(2, &event.payload))
}

/// The entry, element or item as field 1.
fn entry_in_1(entry: Bytes) -> Result<Bytes, DecodeError> {
    Ok(wrapped(1, &entry))
}

/// Pages are in the order of keys.
fn key_of(event: &Event) -> Result<Bytes, DecodeError> {
    Ok(event.key.clone())
}

/// There is one page, or all pages are of one state.
fn anywhere(_event: &Event) -> Result<Bytes, DecodeError> {
    Ok(Bytes::new())
}
