//! The requests of the kind `indexedmap`, decoded and checked.

use std::time::Duration;

use atomix_proto::multiraft::v1::PageRequest;
use atomix_proto::runtime::indexedmap::v1::{
    AppendRequest, ClearRequest, FirstEntryRequest, GetRequest, LastEntryRequest, NextEntryRequest,
    PrevEntryRequest, RemoveRequest, SizeRequest, UpdateRequest,
};
use bytes::Bytes;

use crate::error::OperationError;
use crate::kinds::wire::{decode, no_method, time_to_live};

/// Which entry is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The one with this key.
    Key(Bytes),
    /// The one at this index.
    Index(u64),
    /// The one at this index, if it has this key.
    Both(u64, Bytes),
}

/// A decoded and checked request. A `prev_version` of 0 is unconditional; a `ttl` of `None` is for
/// ever.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the API's methods and fields")]
pub enum Request {
    Size,
    Append {
        key: Bytes,
        value: Bytes,
        ttl: Option<Duration>,
    },
    Update {
        place: Place,
        value: Bytes,
        ttl: Option<Duration>,
        prev_version: u64,
    },
    Get(Place),
    First,
    Last,
    /// Asks for the last entry before an index.
    Before(u64),
    /// Asks for the first entry after an index.
    After(u64),
    Remove {
        place: Place,
        prev_version: u64,
    },
    Clear,
    /// Asks for a page of entries.
    Page(PageRequest),
}

impl Request {
    pub(super) fn parse(method: &str, request: &Bytes) -> Result<Self, OperationError> {
        match method {
            "Size" => decode(request).map(|_: SizeRequest| Request::Size),
            "Append" => {
                let append: AppendRequest = decode(request)?;
                if append.key.is_empty() {
                    return Err(OperationError::invalid("key: it is empty"));
                }
                Ok(Request::Append {
                    key: append.key.into(),
                    value: append.value,
                    ttl: time_to_live(append.ttl.as_ref())?,
                })
            }
            "Update" => {
                let update: UpdateRequest = decode(request)?;
                Ok(Request::Update {
                    place: place(update.key, update.index)?,
                    value: update.value,
                    ttl: time_to_live(update.ttl.as_ref())?,
                    prev_version: update.prev_version,
                })
            }
            "Get" => {
                let get: GetRequest = decode(request)?;
                place(get.key, get.index).map(Request::Get)
            }
            "FirstEntry" => decode(request).map(|_: FirstEntryRequest| Request::First),
            "LastEntry" => decode(request).map(|_: LastEntryRequest| Request::Last),
            "PrevEntry" => {
                decode(request).map(|before: PrevEntryRequest| Request::Before(before.index))
            }
            "NextEntry" => {
                decode(request).map(|after: NextEntryRequest| Request::After(after.index))
            }
            "Remove" => {
                let remove: RemoveRequest = decode(request)?;
                Ok(Request::Remove {
                    place: place(remove.key, remove.index)?,
                    prev_version: remove.prev_version,
                })
            }
            "Clear" => decode(request).map(|_: ClearRequest| Request::Clear),
            "Page" => decode(request).map(Request::Page),
            _ => Err(no_method("indexedmap", method)),
        }
    }
}

fn place(key: String, index: u64) -> Result<Place, OperationError> {
    match (key.is_empty(), index) {
        (true, 0) => Err(OperationError::invalid(
            "key: neither a key nor an index is given; name the entry by one of them",
        )),
        (true, index) => Ok(Place::Index(index)),
        (false, 0) => Ok(Place::Key(key.into())),
        (false, index) => Ok(Place::Both(index, key.into())),
    }
}
