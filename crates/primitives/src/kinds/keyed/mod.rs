//! What the kinds that hold many entries have in common: a table of entries that counts its bytes,
//! pages of what they hold, key locks, and timers that say which of the two they are for.
//!
//! Not for the meaning of any operation: each kind says that itself.

pub(crate) mod locks;
pub(crate) mod page;
pub(crate) mod table;
#[cfg(test)]
pub(crate) mod testing;

use bytes::Bytes;

use crate::error::{ErrorCode, OperationError};

/// The first byte of a timer's tag: the rest is the key of an entry that expires, or the number of
/// an operation whose wait for locks ends.
const TAG_EXPIRY: u8 = 0;
const TAG_LOCK: u8 = 1;

/// What a timer of these kinds is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// The entry with this key expires.
    Expiry(Bytes),
    /// The wait with this number ends.
    Lock(u64),
}

impl Due {
    pub(crate) fn tag(&self) -> Bytes {
        let mut tag = Vec::new();
        match self {
            Due::Expiry(key) => {
                tag.push(TAG_EXPIRY);
                tag.extend_from_slice(key);
            }
            Due::Lock(number) => {
                tag.push(TAG_LOCK);
                tag.extend_from_slice(&number.to_be_bytes());
            }
        }
        tag.into()
    }

    /// `None` for a tag that none of these kinds sets.
    pub(crate) fn from_tag(tag: &Bytes) -> Option<Self> {
        match tag.split_first() {
            Some((&TAG_EXPIRY, _)) => Some(Due::Expiry(tag.slice(1..))),
            Some((&TAG_LOCK, number)) => {
                let number = <[u8; 8]>::try_from(number).ok()?;
                Some(Due::Lock(u64::from_be_bytes(number)))
            }
            Some(_) | None => None,
        }
    }
}

/// A key as a message holds it. Keys come from `string` fields, so nothing is lost.
pub(crate) fn text(key: &[u8]) -> String {
    String::from_utf8_lossy(key).into_owned()
}

/// How `Size` tells a number of entries.
pub(crate) fn size(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

pub(crate) fn no_key(key: &[u8]) -> OperationError {
    let message = format!("the key {:?} does not exist", text(key));
    OperationError::new(ErrorCode::NotFound, message)
}

pub(crate) fn key_exists(key: &[u8]) -> OperationError {
    let message = format!("the key {:?} exists already", text(key));
    OperationError::new(ErrorCode::AlreadyExists, message)
}

/// The entry is not the one that the caller has read.
pub(crate) fn changed(key: &[u8], present: u64, expected: u64) -> OperationError {
    OperationError::conflict(format!(
        "conflict: the key {:?} has version {present}, not {expected}; read it and try again",
        text(key)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kinds;

    #[test]
    fn a_timer_s_tag_says_what_it_is_for_and_a_foreign_one_nothing() {
        for due in [
            Due::Expiry(Bytes::new()),
            Due::Expiry("k".into()),
            Due::Lock(0),
            Due::Lock(u64::MAX),
        ] {
            assert_eq!(Due::from_tag(&due.tag()), Some(due));
        }
        for foreign in [&b""[..], &[TAG_LOCK, 1, 2], &[9, 9]] {
            assert_eq!(Due::from_tag(&foreign.into()), None);
        }
    }

    /// A runtime reads them with pages and events; an RPC that came here as it is would be answered
    /// with something else.
    #[test]
    fn the_streams_of_the_application_api_are_no_operations() {
        let kinds = Kinds::standard();
        for kind in atomix_proto::kinds::KINDS {
            for stream in kind.streams {
                let operation = testing::operation(kind.name, stream, 0, &());
                let refused = kinds.validate(&operation).err().map(|error| error.code);
                let expected = Some(ErrorCode::Unimplemented);
                assert_eq!(refused, expected, "{} {stream}", kind.name);
            }
        }
    }
}
