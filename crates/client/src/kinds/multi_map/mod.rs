//! Multimaps.

mod streams;

use std::borrow::Borrow;
use std::marker::PhantomData;

use atomix_proto::runtime::multimap::v1::{
    ClearRequest, ClearResponse, ContainsRequest, ContainsResponse, Entry as WireEntry, GetRequest,
    GetResponse, PutAllRequest, PutAllResponse, PutEntriesRequest, PutEntriesResponse, PutRequest,
    PutResponse, RemoveAllRequest, RemoveAllResponse, RemoveEntriesRequest, RemoveEntriesResponse,
    RemoveRequest, RemoveResponse, ReplaceRequest, ReplaceResponse, SizeRequest, SizeResponse,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::entry::Entry;
use crate::error::{Error, Result};
use crate::key;
use crate::method::Method;
use crate::primitive::Primitive;

const SIZE: Method<SizeRequest, SizeResponse> =
    Method::read("/atomix.runtime.multimap.v1.MultiMap/Size");
const PUT: Method<PutRequest, PutResponse> =
    Method::write("/atomix.runtime.multimap.v1.MultiMap/Put");
const PUT_ALL: Method<PutAllRequest, PutAllResponse> =
    Method::write("/atomix.runtime.multimap.v1.MultiMap/PutAll");
const PUT_ENTRIES: Method<PutEntriesRequest, PutEntriesResponse> =
    Method::write_many("/atomix.runtime.multimap.v1.MultiMap/PutEntries");
const REPLACE: Method<ReplaceRequest, ReplaceResponse> =
    Method::write("/atomix.runtime.multimap.v1.MultiMap/Replace");
const CONTAINS: Method<ContainsRequest, ContainsResponse> =
    Method::read("/atomix.runtime.multimap.v1.MultiMap/Contains");
const GET: Method<GetRequest, GetResponse> =
    Method::read("/atomix.runtime.multimap.v1.MultiMap/Get");
const REMOVE: Method<RemoveRequest, RemoveResponse> =
    Method::write("/atomix.runtime.multimap.v1.MultiMap/Remove");
const REMOVE_ALL: Method<RemoveAllRequest, RemoveAllResponse> =
    Method::write("/atomix.runtime.multimap.v1.MultiMap/RemoveAll");
const REMOVE_ENTRIES: Method<RemoveEntriesRequest, RemoveEntriesResponse> =
    Method::write_many("/atomix.runtime.multimap.v1.MultiMap/RemoveEntries");
const CLEAR: Method<ClearRequest, ClearResponse> =
    Method::write_many("/atomix.runtime.multimap.v1.MultiMap/Clear");

#[cfg(test)]
pub(super) const PATHS: [&str; 13] = [
    SIZE.path,
    PUT.path,
    PUT_ALL.path,
    PUT_ENTRIES.path,
    REPLACE.path,
    CONTAINS.path,
    GET.path,
    REMOVE.path,
    REMOVE_ALL.path,
    REMOVE_ENTRIES.path,
    CLEAR.path,
    streams::EVENTS.path,
    streams::ENTRIES.path,
];

/// Under each key a set of values. A key without values is gone. Keys and values are kept as the text
/// that a key of a JSON object has, so a string is itself.
#[derive(Debug)]
pub struct MultiMap<K, V> {
    primitive: Primitive,
    types: PhantomData<fn() -> (K, V)>,
}

/// What happened to a value of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ValueChange<V> {
    /// The key has it now.
    Added(V),
    /// The key does not have it any more.
    Removed(V),
}

/// What happened under a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MultiMapEvent<K, V> {
    /// The key.
    pub key: K,
    /// What happened.
    pub change: ValueChange<V>,
}

impl<K, V> Clone for MultiMap<K, V> {
    fn clone(&self) -> Self {
        Self::new(self.primitive.clone())
    }
}

impl<K, V> MultiMap<K, V> {
    pub(crate) fn new(primitive: Primitive) -> Self {
        Self {
            primitive,
            types: PhantomData,
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.primitive.name()
    }

    /// How many keys it has. Over several partitions not of one moment.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub async fn size(&self) -> Result<u32> {
        let id = self.primitive.id();
        Ok(self.primitive.call(&SIZE, SizeRequest { id }).await?.size)
    }

    /// Removes all keys. Over several partitions not at one moment, and after an error perhaps in part.
    ///
    /// # Errors
    /// When it is not known to be done.
    pub async fn clear(&self) -> Result<()> {
        let id = self.primitive.id();
        self.primitive.call(&CLEAR, ClearRequest { id }).await?;
        Ok(())
    }
}

impl<K, V> MultiMap<K, V>
where
    K: Serialize + DeserializeOwned + Send + 'static,
    V: Serialize + DeserializeOwned + Send + 'static,
{
    /// The values of a key, in the order of their text; none if it does not exist.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub async fn get<Q>(&self, key: &Q) -> Result<Vec<V>>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        let request = GetRequest {
            id: self.primitive.id(),
            key: key::encode(key)?,
        };
        key::decode_all(self.primitive.call(&GET, request).await?.values)
    }

    /// Whether a key has a value.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub async fn contains<Q, W>(&self, key: &Q, value: &W) -> Result<bool>
    where
        K: Borrow<Q>,
        V: Borrow<W>,
        Q: Serialize + ?Sized,
        W: Serialize + ?Sized,
    {
        let request = ContainsRequest {
            id: self.primitive.id(),
            key: key::encode(key)?,
            value: key::encode(value)?,
        };
        Ok(self.primitive.call(&CONTAINS, request).await?.result)
    }

    /// Adds a value to a key; false if the key had it.
    ///
    /// # Errors
    /// When it is not known to be done.
    pub async fn put<Q, W>(&self, key: &Q, value: &W) -> Result<bool>
    where
        K: Borrow<Q>,
        V: Borrow<W>,
        Q: Serialize + ?Sized,
        W: Serialize + ?Sized,
    {
        let request = PutRequest {
            id: self.primitive.id(),
            key: key::encode(key)?,
            value: key::encode(value)?,
        };
        match self.primitive.call(&PUT, request).await {
            Ok(_) => Ok(true),
            Err(Error::AlreadyExists(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Adds values to a key; false if it had them all.
    ///
    /// # Errors
    /// When it is not known to be done.
    pub async fn put_all<'a, Q, W>(
        &self,
        key: &Q,
        values: impl IntoIterator<Item = &'a W>,
    ) -> Result<bool>
    where
        K: Borrow<Q>,
        V: Borrow<W>,
        Q: Serialize + ?Sized,
        W: Serialize + ?Sized + 'a,
    {
        let request = PutAllRequest {
            id: self.primitive.id(),
            key: key::encode(key)?,
            values: key::encode_all(values)?,
        };
        Ok(self.primitive.call(&PUT_ALL, request).await?.updated)
    }

    /// Adds values to keys; false if nothing changed. Over several partitions not at one moment, and
    /// after an error perhaps in part.
    ///
    /// # Errors
    /// When it is not known to be done.
    pub async fn put_entries<'a>(
        &self,
        entries: impl IntoIterator<Item = &'a Entry<K, Vec<V>>>,
    ) -> Result<bool>
    where
        K: 'a,
        V: 'a,
    {
        let request = PutEntriesRequest {
            id: self.primitive.id(),
            entries: wire_entries(entries)?,
        };
        Ok(self.primitive.call(&PUT_ENTRIES, request).await?.updated)
    }

    /// Makes these the values of a key, with none it is gone; answers with the values before.
    ///
    /// # Errors
    /// When it is not known to be done.
    pub async fn replace<'a, Q, W>(
        &self,
        key: &Q,
        values: impl IntoIterator<Item = &'a W>,
    ) -> Result<Vec<V>>
    where
        K: Borrow<Q>,
        V: Borrow<W>,
        Q: Serialize + ?Sized,
        W: Serialize + ?Sized + 'a,
    {
        let request = ReplaceRequest {
            id: self.primitive.id(),
            key: key::encode(key)?,
            values: key::encode_all(values)?,
        };
        key::decode_all(self.primitive.call(&REPLACE, request).await?.prev_values)
    }

    /// Removes a value from a key; false if the key did not have it.
    ///
    /// # Errors
    /// When it is not known to be done.
    pub async fn remove<Q, W>(&self, key: &Q, value: &W) -> Result<bool>
    where
        K: Borrow<Q>,
        V: Borrow<W>,
        Q: Serialize + ?Sized,
        W: Serialize + ?Sized,
    {
        let request = RemoveRequest {
            id: self.primitive.id(),
            key: key::encode(key)?,
            value: key::encode(value)?,
        };
        match self.primitive.call(&REMOVE, request).await {
            Ok(_) => Ok(true),
            Err(Error::NotFound(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Removes values from a key; false if it had none of them.
    ///
    /// # Errors
    /// When it is not known to be done.
    pub async fn remove_all<'a, Q, W>(
        &self,
        key: &Q,
        values: impl IntoIterator<Item = &'a W>,
    ) -> Result<bool>
    where
        K: Borrow<Q>,
        V: Borrow<W>,
        Q: Serialize + ?Sized,
        W: Serialize + ?Sized + 'a,
    {
        let request = RemoveAllRequest {
            id: self.primitive.id(),
            key: key::encode(key)?,
            values: key::encode_all(values)?,
        };
        match self.primitive.call(&REMOVE_ALL, request).await {
            Ok(reply) => Ok(reply.updated),
            Err(Error::NotFound(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Removes values from keys; false if nothing changed. Over several partitions not at one moment,
    /// and after an error perhaps in part.
    ///
    /// # Errors
    /// When it is not known to be done.
    pub async fn remove_entries<'a>(
        &self,
        entries: impl IntoIterator<Item = &'a Entry<K, Vec<V>>>,
    ) -> Result<bool>
    where
        K: 'a,
        V: 'a,
    {
        let request = RemoveEntriesRequest {
            id: self.primitive.id(),
            entries: wire_entries(entries)?,
        };
        Ok(self.primitive.call(&REMOVE_ENTRIES, request).await?.updated)
    }
}

fn wire_entries<'a, K: Serialize + 'a, V: Serialize + 'a>(
    entries: impl IntoIterator<Item = &'a Entry<K, Vec<V>>>,
) -> Result<Vec<WireEntry>> {
    let entries = entries.into_iter().map(|entry| {
        let key = key::encode(&entry.key)?;
        let values = key::encode_all(&entry.value)?;
        Ok(WireEntry { key, values })
    });
    entries.collect()
}
