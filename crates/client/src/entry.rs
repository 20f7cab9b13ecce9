//! What several kinds share: versions, options of writes, entries and their changes.

use std::time::Duration;

use crate::codec::Codec;
use crate::error::{Error, Result, required};

/// A value and its version, which grows with each change of it and never comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Versioned<T> {
    /// The value.
    pub value: T,
    /// Its version; never 0.
    pub version: u64,
}

/// Conditions and time to live of a write. By default there is none of either.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WriteOptions {
    ttl: Option<Duration>,
    version: Option<u64>,
}

impl WriteOptions {
    /// The value goes after so long, unless it is written again before. A zero is for ever.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Only if the present version is this; otherwise [`Error::Conflict`], and nothing changes.
    #[must_use]
    pub fn if_version(mut self, version: u64) -> Self {
        self.version = Some(version);
        self
    }

    pub(crate) fn wire_ttl(&self) -> Result<Option<prost_types::Duration>> {
        self.ttl.map(|ttl| wire_duration("ttl", ttl)).transpose()
    }

    pub(crate) fn wire_version(&self) -> Result<u64> {
        wire_version(self.version)
    }

    /// What is new has no version to expect.
    pub(crate) fn check_no_version(&self) -> Result<()> {
        match self.version {
            None => Ok(()),
            Some(_) => Err(Error::InvalidArgument(
                "version: what is inserted or added has none before".to_owned(),
            )),
        }
    }
}

/// A duration as the API writes it.
pub(crate) fn wire_duration(field: &str, duration: Duration) -> Result<prost_types::Duration> {
    duration
        .try_into()
        .map_err(|_| Error::InvalidArgument(format!("{field}: it is too long")))
}

/// 0 compares nothing: a caller that expects a version must not say it unawares.
pub(crate) fn wire_version(version: Option<u64>) -> Result<u64> {
    match version {
        Some(0) => Err(Error::InvalidArgument(
            "version: nothing has version 0; leave the condition out, or insert".to_owned(),
        )),
        Some(version) => Ok(version),
        None => Ok(0),
    }
}

/// A key and its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Entry<K, V> {
    /// The key.
    pub key: K,
    /// The value.
    pub value: V,
}

/// What a watcher of a collection is told: first what is there, then every change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Update<T> {
    /// It is there, or has this value now.
    Present(T),
    /// It is gone; this is what it was.
    Removed(T),
}

impl<T> Update<T> {
    pub(crate) fn new(told: T, removed: bool) -> Self {
        if removed {
            Self::Removed(told)
        } else {
            Self::Present(told)
        }
    }
}

/// What happened to a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Change<T> {
    /// There was none before.
    Inserted(T),
    /// It replaces another.
    Updated {
        /// The new value.
        value: T,
        /// The one before.
        previous: T,
    },
    /// It is gone.
    Removed {
        /// What it was.
        value: T,
        /// Its time to live has ended; otherwise somebody removed it.
        expired: bool,
    },
}

/// What happened to the value of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Event<K, T> {
    /// The key.
    pub key: K,
    /// What happened.
    pub change: Change<T>,
}

/// Encodes a value.
pub(crate) fn encode<T, C: Codec<T>>(codec: &C, value: &T) -> Result<bytes::Bytes> {
    codec.encode(value).map_err(Error::Encode)
}

/// Decodes a value.
pub(crate) fn decode<T, C: Codec<T>>(codec: &C, bytes: bytes::Bytes) -> Result<T> {
    codec.decode(bytes).map_err(Error::Decode)
}

/// The `VersionedValue` of each kind that has one.
pub(crate) trait WireVersioned {
    fn into_parts(self) -> (bytes::Bytes, u64);
}

/// Reads a field that the API always sets.
pub(crate) fn versioned<T, C, W>(codec: &C, field: Option<W>) -> Result<Versioned<T>>
where
    C: Codec<T>,
    W: WireVersioned,
{
    let (bytes, version) = required(field, "a value")?.into_parts();
    let value = decode(codec, bytes)?;
    Ok(Versioned { value, version })
}

/// Reads a field that is set if there was a value.
pub(crate) fn maybe_versioned<T, C, W>(codec: &C, field: Option<W>) -> Result<Option<Versioned<T>>>
where
    C: Codec<T>,
    W: WireVersioned,
{
    match field {
        Some(field) => versioned(codec, Some(field)).map(Some),
        None => Ok(None),
    }
}
