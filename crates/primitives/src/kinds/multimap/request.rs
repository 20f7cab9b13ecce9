//! The requests of the kind `multimap`, decoded: values that are named twice count once.

use atomix_proto::multiraft::v1::PageRequest;
use atomix_proto::runtime::multimap::v1::{
    ClearRequest, ContainsRequest, Entry, GetRequest, PutAllRequest, PutEntriesRequest, PutRequest,
    RemoveAllRequest, RemoveEntriesRequest, RemoveRequest, ReplaceRequest, SizeRequest,
};
use bytes::Bytes;
use imbl::OrdSet;

use crate::error::OperationError;
use crate::kinds::wire::{decode, no_method};

/// A decoded request.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// Asks for the number of keys.
    Size,
    /// Adds a value that the key does not have.
    Put(Bytes, Bytes),
    /// Adds values to a key.
    PutAll(Bytes, OrdSet<Bytes>),
    /// Adds values to keys, in this order.
    PutEntries(Vec<(Bytes, OrdSet<Bytes>)>),
    /// Makes these the values of a key; none removes it.
    Replace(Bytes, OrdSet<Bytes>),
    /// Asks whether a key has a value.
    Contains(Bytes, Bytes),
    /// Asks for the values of a key.
    Get(Bytes),
    /// Removes a value that the key has.
    Remove(Bytes, Bytes),
    /// Removes values of a key that exists.
    RemoveAll(Bytes, OrdSet<Bytes>),
    /// Removes values of keys, in this order.
    RemoveEntries(Vec<(Bytes, OrdSet<Bytes>)>),
    /// Removes all keys.
    Clear,
    /// Asks for a page of keys with their values.
    Page(PageRequest),
}

impl Request {
    pub(super) fn parse(method: &str, request: &Bytes) -> Result<Self, OperationError> {
        match method {
            "Size" => decode(request).map(|_: SizeRequest| Request::Size),
            "Put" => decode(request)
                .map(|put: PutRequest| Request::Put(put.key.into(), put.value.into())),
            "PutAll" => decode(request)
                .map(|put: PutAllRequest| Request::PutAll(put.key.into(), set(put.values))),
            "PutEntries" => decode(request)
                .map(|put: PutEntriesRequest| Request::PutEntries(entries(put.entries))),
            "Replace" => decode(request).map(|replace: ReplaceRequest| {
                Request::Replace(replace.key.into(), set(replace.values))
            }),
            "Contains" => decode(request).map(|contains: ContainsRequest| {
                Request::Contains(contains.key.into(), contains.value.into())
            }),
            "Get" => decode(request).map(|get: GetRequest| Request::Get(get.key.into())),
            "Remove" => decode(request).map(|remove: RemoveRequest| {
                Request::Remove(remove.key.into(), remove.value.into())
            }),
            "RemoveAll" => decode(request).map(|remove: RemoveAllRequest| {
                Request::RemoveAll(remove.key.into(), set(remove.values))
            }),
            "RemoveEntries" => decode(request).map(|remove: RemoveEntriesRequest| {
                Request::RemoveEntries(entries(remove.entries))
            }),
            "Clear" => decode(request).map(|_: ClearRequest| Request::Clear),
            "Page" => decode(request).map(Request::Page),
            _ => Err(no_method("multimap", method)),
        }
    }
}

fn set(values: Vec<String>) -> OrdSet<Bytes> {
    values.into_iter().map(Bytes::from).collect()
}

fn entries(entries: Vec<Entry>) -> Vec<(Bytes, OrdSet<Bytes>)> {
    let entries = entries.into_iter();
    entries
        .map(|entry| (entry.key.into(), set(entry.values)))
        .collect()
}
