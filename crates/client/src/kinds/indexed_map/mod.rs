//! Indexed maps.

mod streams;

use std::borrow::Borrow;
use std::marker::PhantomData;

use atomix_proto::runtime::indexedmap::v1::{
    self as wire, AppendRequest, AppendResponse, ClearRequest, ClearResponse, FirstEntryRequest,
    FirstEntryResponse, GetRequest, GetResponse, LastEntryRequest, LastEntryResponse,
    NextEntryRequest, NextEntryResponse, PrevEntryRequest, PrevEntryResponse, RemoveRequest,
    RemoveResponse, SizeRequest, SizeResponse, UpdateRequest, UpdateResponse, VersionedValue,
};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec::{Codec, Json};
use crate::entry::{
    Change, Versioned, WireVersioned, WriteOptions, encode, versioned, wire_version,
};
use crate::error::{Error, Result, found, required};
use crate::key;
use crate::method::Method;
use crate::primitive::Primitive;

const SIZE: Method<SizeRequest, SizeResponse> =
    Method::read("/atomix.runtime.indexedmap.v1.IndexedMap/Size");
const APPEND: Method<AppendRequest, AppendResponse> =
    Method::write("/atomix.runtime.indexedmap.v1.IndexedMap/Append");
const UPDATE: Method<UpdateRequest, UpdateResponse> =
    Method::write("/atomix.runtime.indexedmap.v1.IndexedMap/Update");
const GET: Method<GetRequest, GetResponse> =
    Method::read("/atomix.runtime.indexedmap.v1.IndexedMap/Get");
const FIRST_ENTRY: Method<FirstEntryRequest, FirstEntryResponse> =
    Method::read("/atomix.runtime.indexedmap.v1.IndexedMap/FirstEntry");
const LAST_ENTRY: Method<LastEntryRequest, LastEntryResponse> =
    Method::read("/atomix.runtime.indexedmap.v1.IndexedMap/LastEntry");
const PREV_ENTRY: Method<PrevEntryRequest, PrevEntryResponse> =
    Method::read("/atomix.runtime.indexedmap.v1.IndexedMap/PrevEntry");
const NEXT_ENTRY: Method<NextEntryRequest, NextEntryResponse> =
    Method::read("/atomix.runtime.indexedmap.v1.IndexedMap/NextEntry");
const REMOVE: Method<RemoveRequest, RemoveResponse> =
    Method::write("/atomix.runtime.indexedmap.v1.IndexedMap/Remove");
const CLEAR: Method<ClearRequest, ClearResponse> =
    Method::write("/atomix.runtime.indexedmap.v1.IndexedMap/Clear");

#[cfg(test)]
pub(super) const PATHS: [&str; 12] = [
    SIZE.path,
    APPEND.path,
    UPDATE.path,
    GET.path,
    FIRST_ENTRY.path,
    LAST_ENTRY.path,
    PREV_ENTRY.path,
    NEXT_ENTRY.path,
    REMOVE.path,
    CLEAR.path,
    streams::EVENTS.path,
    streams::ENTRIES.path,
];

impl WireVersioned for VersionedValue {
    fn into_parts(self) -> (Bytes, u64) {
        (self.value, self.version)
    }
}

/// Values by key, in the order in which the keys were appended. Each key has an index, which only
/// grows and is never given twice.
#[derive(Debug)]
pub struct IndexedMap<K, V, C = Json> {
    primitive: Primitive,
    codec: C,
    types: PhantomData<fn() -> (K, V)>,
}

/// Which entry is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place<'a, K: ?Sized> {
    /// The one with this key, which is not empty.
    Key(&'a K),
    /// The one at this index: 1, 2 …
    Index(u64),
    /// The one at this index, if it has this key.
    Both(u64, &'a K),
}

/// An entry and where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IndexedEntry<K, V> {
    /// Its index.
    pub index: u64,
    /// Its key.
    pub key: K,
    /// Its value.
    pub value: Versioned<V>,
}

/// What happened to the value of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IndexedEvent<K, V> {
    /// The index.
    pub index: u64,
    /// The key.
    pub key: K,
    /// What happened.
    pub change: Change<Versioned<V>>,
}

impl<K, V, C: Clone> Clone for IndexedMap<K, V, C> {
    fn clone(&self) -> Self {
        Self::new(self.primitive.clone(), self.codec.clone())
    }
}

impl<K, V, C> IndexedMap<K, V, C> {
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
    pub fn with_codec<D>(self, codec: D) -> IndexedMap<K, V, D> {
        IndexedMap::new(self.primitive, codec)
    }

    /// How many entries it has.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub async fn size(&self) -> Result<u32> {
        let id = self.primitive.id();
        Ok(self.primitive.call(&SIZE, SizeRequest { id }).await?.size)
    }

    /// Removes all entries. The indexes go on from where they were.
    ///
    /// # Errors
    /// When it is not known to be done.
    pub async fn clear(&self) -> Result<()> {
        let id = self.primitive.id();
        self.primitive.call(&CLEAR, ClearRequest { id }).await?;
        Ok(())
    }
}

impl<K, V, C> IndexedMap<K, V, C>
where
    K: Serialize + DeserializeOwned + Send + 'static,
    V: Send + 'static,
    C: Codec<V>,
{
    /// Adds a key at the end.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`] if the key exists, [`Error::InvalidArgument`] if it is empty.
    pub async fn append<Q>(&self, key: &Q, value: &V) -> Result<IndexedEntry<K, V>>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        self.append_with(key, value, WriteOptions::default()).await
    }

    /// As [`append`](Self::append), with a time to live. There is no version to expect.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub async fn append_with<Q>(
        &self,
        key: &Q,
        value: &V,
        options: WriteOptions,
    ) -> Result<IndexedEntry<K, V>>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        options.check_no_version()?;
        let request = AppendRequest {
            id: self.primitive.id(),
            key: key::encode(key)?,
            value: encode(&self.codec, value)?,
            ttl: options.wire_ttl()?,
        };
        let reply = self.primitive.call(&APPEND, request).await?;
        entry(&self.codec, reply.entry)
    }

    /// Replaces the value of an entry, which keeps its index.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none.
    pub async fn update<Q>(&self, place: Place<'_, Q>, value: &V) -> Result<IndexedEntry<K, V>>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        self.update_with(place, value, WriteOptions::default())
            .await
    }

    /// As [`update`](Self::update), with a time to live or only if the entry has a version.
    ///
    /// # Errors
    /// As [`update`](Self::update); [`Error::Conflict`] if the version is another.
    pub async fn update_with<Q>(
        &self,
        place: Place<'_, Q>,
        value: &V,
        options: WriteOptions,
    ) -> Result<IndexedEntry<K, V>>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        let (key, index) = wire_place(place)?;
        let request = UpdateRequest {
            id: self.primitive.id(),
            key,
            index,
            value: encode(&self.codec, value)?,
            ttl: options.wire_ttl()?,
            prev_version: options.wire_version()?,
        };
        let reply = self.primitive.call(&UPDATE, request).await?;
        entry(&self.codec, reply.entry)
    }

    /// An entry; `None` when there is none.
    ///
    /// # Errors
    /// When the store cannot be asked, or the value is of another type.
    pub async fn get<Q>(&self, place: Place<'_, Q>) -> Result<Option<IndexedEntry<K, V>>>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        let (key, index) = wire_place(place)?;
        let id = self.primitive.id();
        let request = GetRequest { id, key, index };
        let reply = found(self.primitive.call(&GET, request).await)?;
        self.found(reply.map(|reply| reply.entry))
    }

    /// The entry with the lowest index.
    ///
    /// # Errors
    /// As [`get`](Self::get), here and below.
    pub async fn first(&self) -> Result<Option<IndexedEntry<K, V>>> {
        let id = self.primitive.id();
        let asked = self.primitive.call(&FIRST_ENTRY, FirstEntryRequest { id });
        let reply = found(asked.await)?;
        self.found(reply.map(|reply| reply.entry))
    }

    /// The entry with the highest index.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn last(&self) -> Result<Option<IndexedEntry<K, V>>> {
        let id = self.primitive.id();
        let asked = self.primitive.call(&LAST_ENTRY, LastEntryRequest { id });
        let reply = found(asked.await)?;
        self.found(reply.map(|reply| reply.entry))
    }

    /// The last entry before an index, whether that has one or not.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn before(&self, index: u64) -> Result<Option<IndexedEntry<K, V>>> {
        let id = self.primitive.id();
        let request = PrevEntryRequest { id, index };
        let reply = found(self.primitive.call(&PREV_ENTRY, request).await)?;
        self.found(reply.map(|reply| reply.entry))
    }

    /// The first entry after an index, whether that has one or not.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn after(&self, index: u64) -> Result<Option<IndexedEntry<K, V>>> {
        let id = self.primitive.id();
        let request = NextEntryRequest { id, index };
        let reply = found(self.primitive.call(&NEXT_ENTRY, request).await)?;
        self.found(reply.map(|reply| reply.entry))
    }

    /// Removes an entry; answers with it.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none.
    pub async fn remove<Q>(&self, place: Place<'_, Q>) -> Result<IndexedEntry<K, V>>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        self.remove_if(place, None).await
    }

    /// Removes an entry if it has this version.
    ///
    /// # Errors
    /// As [`remove`](Self::remove); [`Error::Conflict`] if the version is another.
    pub async fn remove_version<Q>(
        &self,
        place: Place<'_, Q>,
        version: u64,
    ) -> Result<IndexedEntry<K, V>>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        self.remove_if(place, Some(version)).await
    }

    async fn remove_if<Q>(
        &self,
        place: Place<'_, Q>,
        version: Option<u64>,
    ) -> Result<IndexedEntry<K, V>>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        let (key, index) = wire_place(place)?;
        let request = RemoveRequest {
            id: self.primitive.id(),
            key,
            index,
            prev_version: wire_version(version)?,
        };
        let reply = self.primitive.call(&REMOVE, request).await?;
        entry(&self.codec, reply.entry)
    }

    fn found(&self, told: Option<Option<wire::Entry>>) -> Result<Option<IndexedEntry<K, V>>> {
        told.map(|told| entry(&self.codec, told)).transpose()
    }
}

/// An empty key and the index 0 name nothing in the API.
fn wire_place<Q: Serialize + ?Sized>(place: Place<'_, Q>) -> Result<(String, u64)> {
    let index_of = |index| match index {
        0 => Err(Error::InvalidArgument(
            "index: no entry has index 0".to_owned(),
        )),
        index => Ok(index),
    };
    match place {
        Place::Key(key) => Ok((key::encode_named(key)?, 0)),
        Place::Index(index) => Ok((String::new(), index_of(index)?)),
        Place::Both(index, key) => Ok((key::encode_named(key)?, index_of(index)?)),
    }
}

fn entry<K, V, C>(codec: &C, field: Option<wire::Entry>) -> Result<IndexedEntry<K, V>>
where
    K: DeserializeOwned,
    C: Codec<V>,
{
    let wire::Entry { key, index, value } = required(field, "an entry")?;
    Ok(IndexedEntry {
        index,
        key: key::decode(key)?,
        value: versioned(codec, value)?,
    })
}
