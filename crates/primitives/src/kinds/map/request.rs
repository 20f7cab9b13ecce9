//! The requests of the kind `map`, decoded and checked.

use std::time::Duration;

use atomix_proto::multiraft::v1::PageRequest;
use atomix_proto::runtime::map::v1::{
    ClearRequest, CommitRequest, GetRequest, InsertRequest, LockRequest, PutRequest, RemoveRequest,
    SizeRequest, UnlockRequest, UpdateRequest, commit_request,
};
use bytes::Bytes;
use imbl::OrdSet;

use crate::error::OperationError;
use crate::kinds::keyed::locks;
use crate::kinds::wire::{decode, length_of_time, no_method, time_to_live};

/// A decoded and checked request.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// Asks for the number of entries.
    Size,
    /// Changes one entry.
    Change(Change),
    /// Asks for the value of a key.
    Get(Bytes),
    /// Removes all entries.
    Clear,
    /// Takes the locks of keys.
    Lock {
        /// The keys.
        keys: OrdSet<Bytes>,
        /// How long it waits at most; `None` = until it is cancelled.
        timeout: Option<Duration>,
    },
    /// Gives the locks of keys back.
    Unlock {
        /// The keys.
        keys: OrdSet<Bytes>,
    },
    /// Asks for a page of entries.
    Page(PageRequest),
    /// Makes all of these changes or none.
    Commit(Vec<Change>),
}

/// A change of one entry. A `prev_version` of 0 is unconditional; a `ttl` of `None` is for ever.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the API's fields")]
pub enum Change {
    /// Whether the key exists or not.
    Put {
        key: Bytes,
        value: Bytes,
        ttl: Option<Duration>,
        prev_version: u64,
    },
    /// Only if the key does not exist.
    Insert {
        key: Bytes,
        value: Bytes,
        ttl: Option<Duration>,
    },
    /// Only if the key exists.
    Update {
        key: Bytes,
        value: Bytes,
        ttl: Option<Duration>,
        prev_version: u64,
    },
    /// Takes the entry out.
    Remove { key: Bytes, prev_version: u64 },
}

impl Change {
    /// Whose entry it is.
    pub fn key(&self) -> &Bytes {
        match self {
            Change::Put { key, .. }
            | Change::Insert { key, .. }
            | Change::Update { key, .. }
            | Change::Remove { key, .. } => key,
        }
    }
}

impl Request {
    pub(super) fn parse(method: &str, request: &Bytes) -> Result<Self, OperationError> {
        match method {
            "Size" => decode(request).map(|_: SizeRequest| Request::Size),
            "Put" => {
                let put: PutRequest = decode(request)?;
                Ok(Request::Change(Change::Put {
                    key: put.key.into(),
                    value: put.value,
                    ttl: time_to_live(put.ttl.as_ref())?,
                    prev_version: put.prev_version,
                }))
            }
            "Insert" => {
                let insert: InsertRequest = decode(request)?;
                Ok(Request::Change(Change::Insert {
                    key: insert.key.into(),
                    value: insert.value,
                    ttl: time_to_live(insert.ttl.as_ref())?,
                }))
            }
            "Update" => {
                let update: UpdateRequest = decode(request)?;
                Ok(Request::Change(Change::Update {
                    key: update.key.into(),
                    value: update.value,
                    ttl: time_to_live(update.ttl.as_ref())?,
                    prev_version: update.prev_version,
                }))
            }
            "Get" => decode(request).map(|get: GetRequest| Request::Get(get.key.into())),
            "Remove" => {
                let remove: RemoveRequest = decode(request)?;
                Ok(Request::Change(Change::Remove {
                    key: remove.key.into(),
                    prev_version: remove.prev_version,
                }))
            }
            "Clear" => decode(request).map(|_: ClearRequest| Request::Clear),
            "Lock" => {
                let lock: LockRequest = decode(request)?;
                Ok(Request::Lock {
                    keys: locks::keys(lock.keys)?,
                    timeout: length_of_time("timeout", lock.timeout.as_ref())?,
                })
            }
            "Unlock" => {
                let unlock: UnlockRequest = decode(request)?;
                let keys = locks::keys(unlock.keys)?;
                Ok(Request::Unlock { keys })
            }
            "Page" => decode(request).map(Request::Page),
            "Commit" => {
                let commit: CommitRequest = decode(request)?;
                let operations = commit.operations.into_iter().enumerate();
                let changes: Result<Vec<Change>, OperationError> = operations
                    .map(|(place, operation)| change(place, operation))
                    .collect();
                Ok(Request::Commit(changes?))
            }
            _ => Err(no_method("map", method)),
        }
    }
}

/// One operation of a commit.
fn change(place: usize, operation: commit_request::Operation) -> Result<Change, OperationError> {
    use commit_request::operation::Operation;
    let at = |error: OperationError| {
        OperationError::invalid(format!("operations[{place}]: {}", error.message))
    };
    match operation.operation {
        Some(Operation::Put(put)) => Ok(Change::Put {
            key: put.key.into(),
            value: put.value,
            ttl: time_to_live(put.ttl.as_ref()).map_err(at)?,
            prev_version: put.prev_version,
        }),
        Some(Operation::Insert(insert)) => Ok(Change::Insert {
            key: insert.key.into(),
            value: insert.value,
            ttl: time_to_live(insert.ttl.as_ref()).map_err(at)?,
        }),
        Some(Operation::Update(update)) => Ok(Change::Update {
            key: update.key.into(),
            value: update.value,
            ttl: time_to_live(update.ttl.as_ref()).map_err(at)?,
            prev_version: update.prev_version,
        }),
        Some(Operation::Remove(remove)) => Ok(Change::Remove {
            key: remove.key.into(),
            prev_version: remove.prev_version,
        }),
        None => Err(OperationError::invalid(format!(
            "operations[{place}]: it is empty"
        ))),
    }
}
