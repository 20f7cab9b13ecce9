//! Maps.

mod commit;
mod streams;

use std::borrow::Borrow;
use std::marker::PhantomData;
use std::time::Duration;

use atomix_proto::runtime::map::v1::{
    ClearRequest, ClearResponse, CommitRequest, CommitResponse, GetRequest, GetResponse,
    InsertRequest, InsertResponse, LockRequest, LockResponse, PutRequest, PutResponse,
    RemoveRequest, RemoveResponse, SizeRequest, SizeResponse, UnlockRequest, UnlockResponse,
    UpdateRequest, UpdateResponse, VersionedValue,
};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::key_locks::{self, KeysGuard};
use crate::codec::{Codec, Json};
use crate::entry::{
    Versioned, WireVersioned, WriteOptions, encode, maybe_versioned, versioned, wire_version,
};
use crate::error::{Result, found};
use crate::hold::granted;
use crate::key;
use crate::method::Method;
use crate::primitive::Primitive;

pub use commit::{Commit, Committed};

const SIZE: Method<SizeRequest, SizeResponse> = Method::read("/atomix.runtime.map.v1.Map/Size");
const PUT: Method<PutRequest, PutResponse> = Method::write("/atomix.runtime.map.v1.Map/Put");
const INSERT: Method<InsertRequest, InsertResponse> =
    Method::write("/atomix.runtime.map.v1.Map/Insert");
const UPDATE: Method<UpdateRequest, UpdateResponse> =
    Method::write("/atomix.runtime.map.v1.Map/Update");
const GET: Method<GetRequest, GetResponse> = Method::read("/atomix.runtime.map.v1.Map/Get");
const REMOVE: Method<RemoveRequest, RemoveResponse> =
    Method::write("/atomix.runtime.map.v1.Map/Remove");
const CLEAR: Method<ClearRequest, ClearResponse> =
    Method::write_many("/atomix.runtime.map.v1.Map/Clear");
const LOCK: Method<LockRequest, LockResponse> = Method::own("/atomix.runtime.map.v1.Map/Lock");
const UNLOCK: Method<UnlockRequest, UnlockResponse> =
    Method::write_many("/atomix.runtime.map.v1.Map/Unlock");
const COMMIT: Method<CommitRequest, CommitResponse> =
    Method::write("/atomix.runtime.map.v1.Map/Commit");

#[cfg(test)]
pub(super) const PATHS: [&str; 12] = [
    SIZE.path,
    PUT.path,
    INSERT.path,
    UPDATE.path,
    GET.path,
    REMOVE.path,
    CLEAR.path,
    LOCK.path,
    UNLOCK.path,
    streams::EVENTS.path,
    streams::ENTRIES.path,
    COMMIT.path,
];

impl WireVersioned for VersionedValue {
    fn into_parts(self) -> (Bytes, u64) {
        (self.value, self.version)
    }
}

/// Values by key, each with a version, perhaps with a time to live.
///
/// ```no_run
/// # use atomix_client::{Error, WriteOptions};
/// # use std::time::Duration;
/// # async fn example() -> atomix_client::Result<()> {
/// let client = atomix_client::Client::connect().await?;
/// let sessions = client.map::<String, u64>("sessions");
/// let an_hour = WriteOptions::default().ttl(Duration::from_secs(3_600));
/// sessions.put_with("ann", &17, an_hour).await?;
/// if let Some(seen) = sessions.get("ann").await? {
///     // Only if nobody has changed it since.
///     let unchanged = an_hour.if_version(seen.version);
///     match sessions.update_with("ann", &(seen.value + 1), unchanged).await {
///         Err(Error::Conflict(_)) => println!("somebody was faster"),
///         outcome => println!("version {}", outcome?.version),
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Map<K, V, C = Json> {
    primitive: Primitive,
    codec: C,
    types: PhantomData<fn() -> (K, V)>,
}

/// What a write made of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Written<V> {
    /// The version of what was written.
    pub version: u64,
    /// What was there before.
    pub previous: Option<Versioned<V>>,
}

impl<K, V, C: Clone> Clone for Map<K, V, C> {
    fn clone(&self) -> Self {
        Self::new(self.primitive.clone(), self.codec.clone())
    }
}

impl<K, V, C> Map<K, V, C> {
    pub(crate) fn new(primitive: Primitive, codec: C) -> Self {
        Self {
            primitive,
            codec,
            types: PhantomData,
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.primitive.name()
    }

    /// The same map with values in another encoding.
    #[must_use]
    pub fn with_codec<D>(self, codec: D) -> Map<K, V, D> {
        Map::new(self.primitive, codec)
    }

    /// How many entries it has. Over several partitions not of one moment.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub async fn size(&self) -> Result<u32> {
        let id = self.primitive.id();
        Ok(self.primitive.call(&SIZE, SizeRequest { id }).await?.size)
    }

    /// Removes all entries. Over several partitions not at one moment, and after an error perhaps in
    /// part.
    ///
    /// # Errors
    /// When it is not known to be done.
    pub async fn clear(&self) -> Result<()> {
        let id = self.primitive.id();
        self.primitive.call(&CLEAR, ClearRequest { id }).await?;
        Ok(())
    }
}

impl<K, V, C> Map<K, V, C>
where
    K: Serialize + DeserializeOwned + Send + 'static,
    V: Send + 'static,
    C: Codec<V>,
{
    /// The value of a key; `None` when it does not exist.
    ///
    /// # Errors
    /// When the store cannot be asked, or the value is of another type.
    pub async fn get<Q>(&self, key: &Q) -> Result<Option<Versioned<V>>>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        let request = GetRequest {
            id: self.primitive.id(),
            key: key::encode(key)?,
        };
        let reply = found(self.primitive.call(&GET, request).await)?;
        let value = reply.map(|reply| versioned(&self.codec, reply.value));
        value.transpose()
    }

    /// Stores a value, whether the key exists or not.
    ///
    /// # Errors
    /// When it is not known to be done.
    pub async fn put<Q>(&self, key: &Q, value: &V) -> Result<Written<V>>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        self.put_with(key, value, WriteOptions::default()).await
    }

    /// As [`put`](Self::put), with a time to live or only if the key has a version. An equal value
    /// renews both.
    ///
    /// # Errors
    /// As [`put`](Self::put); [`Error::Conflict`](crate::Error::Conflict) if the version is another or
    /// the key does not exist.
    pub async fn put_with<Q>(&self, key: &Q, value: &V, options: WriteOptions) -> Result<Written<V>>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        let request = PutRequest {
            id: self.primitive.id(),
            key: key::encode(key)?,
            value: encode(&self.codec, value)?,
            ttl: options.wire_ttl()?,
            prev_version: options.wire_version()?,
        };
        let reply = self.primitive.call(&PUT, request).await?;
        self.written(reply.version, reply.prev_value)
    }

    /// Stores the value of a key that does not exist; answers with its version.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`](crate::Error::AlreadyExists) if it exists.
    pub async fn insert<Q>(&self, key: &Q, value: &V) -> Result<u64>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        self.insert_with(key, value, WriteOptions::default()).await
    }

    /// As [`insert`](Self::insert), with a time to live. There is no version to expect.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    pub async fn insert_with<Q>(&self, key: &Q, value: &V, options: WriteOptions) -> Result<u64>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        options.check_no_version()?;
        let request = InsertRequest {
            id: self.primitive.id(),
            key: key::encode(key)?,
            value: encode(&self.codec, value)?,
            ttl: options.wire_ttl()?,
        };
        Ok(self.primitive.call(&INSERT, request).await?.version)
    }

    /// Replaces the value of a key.
    ///
    /// # Errors
    /// [`Error::NotFound`](crate::Error::NotFound) if it does not exist.
    pub async fn update<Q>(&self, key: &Q, value: &V) -> Result<Written<V>>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        self.update_with(key, value, WriteOptions::default()).await
    }

    /// As [`update`](Self::update), with a time to live or only if the key has a version.
    ///
    /// # Errors
    /// As [`update`](Self::update); [`Error::Conflict`](crate::Error::Conflict) if the version is
    /// another.
    pub async fn update_with<Q>(
        &self,
        key: &Q,
        value: &V,
        options: WriteOptions,
    ) -> Result<Written<V>>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        let request = UpdateRequest {
            id: self.primitive.id(),
            key: key::encode(key)?,
            value: encode(&self.codec, value)?,
            ttl: options.wire_ttl()?,
            prev_version: options.wire_version()?,
        };
        let reply = self.primitive.call(&UPDATE, request).await?;
        self.written(reply.version, reply.prev_value)
    }

    /// Removes a key; answers with its value.
    ///
    /// # Errors
    /// [`Error::NotFound`](crate::Error::NotFound) if it does not exist.
    pub async fn remove<Q>(&self, key: &Q) -> Result<Versioned<V>>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        self.remove_if(key, None).await
    }

    /// Removes a key if it has this version.
    ///
    /// # Errors
    /// As [`remove`](Self::remove); [`Error::Conflict`](crate::Error::Conflict) if the version is
    /// another.
    pub async fn remove_version<Q>(&self, key: &Q, version: u64) -> Result<Versioned<V>>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        self.remove_if(key, Some(version)).await
    }

    async fn remove_if<Q>(&self, key: &Q, version: Option<u64>) -> Result<Versioned<V>>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        let request = RemoveRequest {
            id: self.primitive.id(),
            key: key::encode(key)?,
            prev_version: wire_version(version)?,
        };
        let reply = self.primitive.call(&REMOVE, request).await?;
        versioned(&self.codec, reply.value)
    }

    /// An empty commit: several changes that happen together or not at all.
    pub fn commit(&self) -> Commit<K, V, C> {
        Commit::new(self.primitive.clone(), self.codec.clone())
    }

    /// Waits until it has the locks of all these keys, however long others hold one of them. They
    /// keep out other locks of these keys, not reads and writes.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) without a key.
    pub async fn lock<'a, Q>(&self, keys: impl IntoIterator<Item = &'a Q>) -> Result<KeysGuard>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized + 'a,
    {
        key_locks::lock(&self.primitive, &LOCK, &UNLOCK, keys, None).await
    }

    /// As [`lock`](Self::lock), but waits so long at most; `None` if others held one all the time. A
    /// zero does not wait.
    ///
    /// # Errors
    /// As [`lock`](Self::lock).
    pub async fn lock_within<'a, Q>(
        &self,
        keys: impl IntoIterator<Item = &'a Q>,
        wait: Duration,
    ) -> Result<Option<KeysGuard>>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized + 'a,
    {
        granted(key_locks::lock(&self.primitive, &LOCK, &UNLOCK, keys, Some(wait)).await)
    }

    fn written(&self, version: u64, previous: Option<VersionedValue>) -> Result<Written<V>> {
        let previous = maybe_versioned(&self.codec, previous)?;
        Ok(Written { version, previous })
    }
}
