//! Several changes of a map that happen together.

use std::borrow::Borrow;
use std::marker::PhantomData;

use atomix_proto::runtime::map::v1::commit_request::operation::Operation;
use atomix_proto::runtime::map::v1::commit_request::{self, Insert, Put, Remove, Update};
use atomix_proto::runtime::map::v1::commit_response::result::Result as WireResult;
use atomix_proto::runtime::map::v1::{CommitRequest, VersionedValue, commit_response};
use serde::Serialize;

use super::{COMMIT, Written};
use crate::codec::Codec;
use crate::entry::{Versioned, WriteOptions, encode, maybe_versioned, versioned, wire_version};
use crate::error::{Error, Result, required};
use crate::key;
use crate::primitive::Primitive;

/// Changes of a map that happen together or not at all, each on what those before it have made.
///
/// Their keys must lie in one partition: a store with several answers
/// [`Error::Unimplemented`] for others.
///
/// ```no_run
/// # use atomix_client::WriteOptions;
/// # async fn example() -> atomix_client::Result<()> {
/// let client = atomix_client::Client::connect().await?;
/// let stock = client.map::<String, u32>("stock");
/// if let Some(apples) = stock.get("apples").await? {
///     let unchanged = WriteOptions::default().if_version(apples.version);
///     let moved = stock
///         .commit()
///         .update_with("apples", &(apples.value - 1), unchanged)?
///         .put("pears", &1)?;
///     moved.send().await?;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing happens before it is sent"]
pub struct Commit<K, V, C> {
    primitive: Primitive,
    codec: C,
    operations: Vec<commit_request::Operation>,
    types: PhantomData<fn() -> (K, V)>,
}

/// What one change of a commit did, in the order of the changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Committed<V> {
    /// Of `put`.
    Put(Written<V>),
    /// Of `insert`: the version.
    Inserted(u64),
    /// Of `update`.
    Updated(Written<V>),
    /// Of `remove`: what it was.
    Removed(Versioned<V>),
}

impl<K, V, C: Codec<V>> Commit<K, V, C> {
    pub(super) fn new(primitive: Primitive, codec: C) -> Self {
        Self {
            primitive,
            codec,
            operations: Vec::new(),
            types: PhantomData,
        }
    }

    /// Stores a value, whether the key exists or not.
    ///
    /// # Errors
    /// [`Error::Encode`], here and below.
    pub fn put<Q>(self, key: &Q, value: &V) -> Result<Self>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        self.put_with(key, value, WriteOptions::default())
    }

    /// As [`put`](Self::put), with a time to live or only if the key has a version.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn put_with<Q>(self, key: &Q, value: &V, options: WriteOptions) -> Result<Self>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        let put = Put {
            key: key::encode(key)?,
            value: encode(&self.codec, value)?,
            ttl: options.wire_ttl()?,
            prev_version: options.wire_version()?,
        };
        Ok(self.then(Operation::Put(put)))
    }

    /// Stores the value of a key that does not exist.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn insert<Q>(self, key: &Q, value: &V) -> Result<Self>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        self.insert_with(key, value, WriteOptions::default())
    }

    /// As [`insert`](Self::insert), with a time to live. There is no version to expect.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn insert_with<Q>(self, key: &Q, value: &V, options: WriteOptions) -> Result<Self>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        options.check_no_version()?;
        let insert = Insert {
            key: key::encode(key)?,
            value: encode(&self.codec, value)?,
            ttl: options.wire_ttl()?,
        };
        Ok(self.then(Operation::Insert(insert)))
    }

    /// Replaces the value of a key that exists.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn update<Q>(self, key: &Q, value: &V) -> Result<Self>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        self.update_with(key, value, WriteOptions::default())
    }

    /// As [`update`](Self::update), with a time to live or only if the key has a version.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn update_with<Q>(self, key: &Q, value: &V, options: WriteOptions) -> Result<Self>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        let update = Update {
            key: key::encode(key)?,
            value: encode(&self.codec, value)?,
            ttl: options.wire_ttl()?,
            prev_version: options.wire_version()?,
        };
        Ok(self.then(Operation::Update(update)))
    }

    /// Removes a key that exists.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn remove<Q>(self, key: &Q) -> Result<Self>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        self.remove_if(key, None)
    }

    /// Removes a key that has this version.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn remove_version<Q>(self, key: &Q, version: u64) -> Result<Self>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        self.remove_if(key, Some(version))
    }

    fn remove_if<Q>(self, key: &Q, version: Option<u64>) -> Result<Self>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        let remove = Remove {
            key: key::encode(key)?,
            prev_version: wire_version(version)?,
        };
        Ok(self.then(Operation::Remove(remove)))
    }

    fn then(mut self, operation: Operation) -> Self {
        let operation = Some(operation);
        self.operations
            .push(commit_request::Operation { operation });
        self
    }

    /// Makes all the changes, or none.
    ///
    /// # Errors
    /// What the first change that may not happen would fail with by itself; the text names its place.
    pub async fn send(self) -> Result<Vec<Committed<V>>> {
        let Self {
            primitive,
            codec,
            operations,
            types: _,
        } = self;
        let id = primitive.id();
        let request = CommitRequest { id, operations };
        let reply = primitive.call(&COMMIT, request).await?;
        let results = reply.results.into_iter();
        results.map(|result| committed(&codec, result)).collect()
    }
}

fn committed<V, C: Codec<V>>(
    codec: &C,
    result: commit_response::Result,
) -> Result<Committed<V>, Error> {
    let written = |version, previous: Option<VersionedValue>| {
        let previous = maybe_versioned(codec, previous)?;
        Ok::<_, Error>(Written { version, previous })
    };
    Ok(match required(result.result, "a result")? {
        WireResult::Put(put) => Committed::Put(written(put.version, put.prev_value)?),
        WireResult::Insert(insert) => Committed::Inserted(insert.version),
        WireResult::Update(update) => {
            Committed::Updated(written(update.version, update.prev_value)?)
        }
        WireResult::Remove(remove) => Committed::Removed(versioned(codec, remove.value)?),
    })
}
