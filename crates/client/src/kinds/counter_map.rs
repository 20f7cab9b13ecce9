//! Counter maps.

use std::borrow::Borrow;
use std::marker::PhantomData;
use std::time::Duration;

use atomix_proto::runtime::countermap::v1::{
    ClearRequest, ClearResponse, DecrementRequest, DecrementResponse, EntriesRequest,
    EntriesResponse, Entry as WireEntry, EventsRequest, EventsResponse, GetRequest, GetResponse,
    IncrementRequest, IncrementResponse, InsertRequest, InsertResponse, RemoveRequest,
    RemoveResponse, SetRequest, SetResponse, SizeRequest, SizeResponse, UpdateRequest,
    UpdateResponse, event,
};
use atomix_proto::runtime::map::v1::{LockRequest, LockResponse, UnlockRequest, UnlockResponse};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::key_locks::{self, KeysGuard};
use crate::entry::{Change, Entry, Event, Update};
use crate::error::{Result, found, required};
use crate::hold::granted;
use crate::key;
use crate::method::Method;
use crate::primitive::Primitive;
use crate::subscription::{End, Subscription};

const SIZE: Method<SizeRequest, SizeResponse> =
    Method::read("/atomix.runtime.countermap.v1.CounterMap/Size");
const SET: Method<SetRequest, SetResponse> =
    Method::write("/atomix.runtime.countermap.v1.CounterMap/Set");
const INSERT: Method<InsertRequest, InsertResponse> =
    Method::write("/atomix.runtime.countermap.v1.CounterMap/Insert");
const UPDATE: Method<UpdateRequest, UpdateResponse> =
    Method::write("/atomix.runtime.countermap.v1.CounterMap/Update");
const INCREMENT: Method<IncrementRequest, IncrementResponse> =
    Method::write("/atomix.runtime.countermap.v1.CounterMap/Increment");
const DECREMENT: Method<DecrementRequest, DecrementResponse> =
    Method::write("/atomix.runtime.countermap.v1.CounterMap/Decrement");
const GET: Method<GetRequest, GetResponse> =
    Method::read("/atomix.runtime.countermap.v1.CounterMap/Get");
const REMOVE: Method<RemoveRequest, RemoveResponse> =
    Method::write("/atomix.runtime.countermap.v1.CounterMap/Remove");
const CLEAR: Method<ClearRequest, ClearResponse> =
    Method::write_many("/atomix.runtime.countermap.v1.CounterMap/Clear");
// A map's messages are the same on the wire.
const LOCK: Method<LockRequest, LockResponse> =
    Method::own("/atomix.runtime.countermap.v1.CounterMap/Lock");
const UNLOCK: Method<UnlockRequest, UnlockResponse> =
    Method::write_many("/atomix.runtime.countermap.v1.CounterMap/Unlock");
const EVENTS: Method<EventsRequest, EventsResponse> =
    Method::read("/atomix.runtime.countermap.v1.CounterMap/Events");
const ENTRIES: Method<EntriesRequest, EntriesResponse> =
    Method::read("/atomix.runtime.countermap.v1.CounterMap/Entries");

#[cfg(test)]
pub(super) const PATHS: [&str; 13] = [
    SIZE.path,
    SET.path,
    INSERT.path,
    UPDATE.path,
    INCREMENT.path,
    DECREMENT.path,
    GET.path,
    REMOVE.path,
    CLEAR.path,
    LOCK.path,
    UNLOCK.path,
    EVENTS.path,
    ENTRIES.path,
];

/// Numbers of 64 bits by key. A key with the number 0 exists; adding to one that does not begins at
/// 0. Increments are counted at most once, as those of a [`Counter`](crate::Counter).
#[derive(Debug)]
pub struct CounterMap<K> {
    primitive: Primitive,
    key: PhantomData<fn() -> K>,
}

impl<K> Clone for CounterMap<K> {
    fn clone(&self) -> Self {
        Self::new(self.primitive.clone())
    }
}

impl<K> CounterMap<K> {
    pub(crate) fn new(primitive: Primitive) -> Self {
        Self {
            primitive,
            key: PhantomData,
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

impl<K: Serialize + DeserializeOwned + Send + 'static> CounterMap<K> {
    /// The number of a key; `None` when it does not exist.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub async fn get<Q>(&self, key: &Q) -> Result<Option<i64>>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        let request = GetRequest {
            id: self.primitive.id(),
            key: key::encode(key)?,
        };
        let reply = found(self.primitive.call(&GET, request).await)?;
        Ok(reply.map(|reply| reply.value))
    }

    /// Makes it this number, whether the key exists or not; answers with the number before, 0 if there
    /// was none.
    ///
    /// # Errors
    /// When it is not known to be done.
    pub async fn set<Q>(&self, key: &Q, value: i64) -> Result<i64>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        let request = SetRequest {
            id: self.primitive.id(),
            key: key::encode(key)?,
            value,
        };
        Ok(self.primitive.call(&SET, request).await?.prev_value)
    }

    /// Adds a key.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`](crate::Error::AlreadyExists) if it exists.
    pub async fn insert<Q>(&self, key: &Q, value: i64) -> Result<()>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        let request = InsertRequest {
            id: self.primitive.id(),
            key: key::encode(key)?,
            value,
        };
        self.primitive.call(&INSERT, request).await?;
        Ok(())
    }

    /// Makes it `value` if it is `expected`.
    ///
    /// # Errors
    /// [`Error::NotFound`](crate::Error::NotFound) if the key does not exist,
    /// [`Error::Conflict`](crate::Error::Conflict) if it has another number.
    pub async fn compare_and_set<Q>(&self, key: &Q, expected: i64, value: i64) -> Result<()>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        let request = UpdateRequest {
            id: self.primitive.id(),
            key: key::encode(key)?,
            value,
            prev_value: expected,
        };
        self.primitive.call(&UPDATE, request).await?;
        Ok(())
    }

    /// Adds; answers with the number before, 0 if there was none.
    ///
    /// # Errors
    /// [`Error::OutOfRange`](crate::Error::OutOfRange) if the sum would not fit; the number stays.
    pub async fn increment<Q>(&self, key: &Q, delta: i64) -> Result<i64>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        let request = IncrementRequest {
            id: self.primitive.id(),
            key: key::encode(key)?,
            delta,
        };
        Ok(self.primitive.call(&INCREMENT, request).await?.prev_value)
    }

    /// Subtracts; answers with the number before, 0 if there was none.
    ///
    /// # Errors
    /// As [`increment`](Self::increment).
    pub async fn decrement<Q>(&self, key: &Q, delta: i64) -> Result<i64>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        let request = DecrementRequest {
            id: self.primitive.id(),
            key: key::encode(key)?,
            delta,
        };
        Ok(self.primitive.call(&DECREMENT, request).await?.prev_value)
    }

    /// Removes a key if it has this number: the API always compares.
    ///
    /// # Errors
    /// [`Error::NotFound`](crate::Error::NotFound) if the key does not exist,
    /// [`Error::Conflict`](crate::Error::Conflict) if it has another number.
    pub async fn remove<Q>(&self, key: &Q, expected: i64) -> Result<()>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        let request = RemoveRequest {
            id: self.primitive.id(),
            key: key::encode(key)?,
            prev_value: expected,
        };
        self.primitive.call(&REMOVE, request).await?;
        Ok(())
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

    /// All keys with their numbers. Over several partitions not of one moment.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub async fn entries(&self) -> Result<Subscription<Entry<K, i64>>> {
        let id = self.primitive.id();
        let request = EntriesRequest { id, watch: false };
        let read = |message: EntriesResponse| entry(message.entry).map(Some);
        self.primitive
            .subscribe(&ENTRIES, request, End::AfterAll, read)
            .await
    }

    /// All keys with their numbers, then every change.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub async fn watch(&self) -> Result<Subscription<Update<Entry<K, i64>>>> {
        let id = self.primitive.id();
        let request = EntriesRequest { id, watch: true };
        let read = |message: EntriesResponse| {
            let entry = entry(message.entry)?;
            Ok(Some(Update::new(entry, message.removed)))
        };
        self.primitive
            .subscribe(&ENTRIES, request, End::Never, read)
            .await
    }

    /// What happens to all keys from now on.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub async fn events(&self) -> Result<Subscription<Event<K, i64>>> {
        self.events_at(String::new()).await
    }

    /// What happens to one key from now on.
    ///
    /// # Errors
    /// As [`events`](Self::events); [`Error::InvalidArgument`](crate::Error::InvalidArgument) for an
    /// empty key.
    pub async fn events_of<Q>(&self, key: &Q) -> Result<Subscription<Event<K, i64>>>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        self.events_at(key::encode_named(key)?).await
    }

    async fn events_at(&self, key: String) -> Result<Subscription<Event<K, i64>>> {
        let id = self.primitive.id();
        let read = |message: EventsResponse| {
            let Some(told) = message.event else {
                return Ok(None);
            };
            let Some(event) = told.event else {
                return Ok(None);
            };
            let change = match event {
                event::Event::Inserted(inserted) => Change::Inserted(inserted.value),
                event::Event::Updated(updated) => Change::Updated {
                    value: updated.value,
                    previous: updated.prev_value,
                },
                event::Event::Removed(removed) => Change::Removed {
                    value: removed.value,
                    expired: false,
                },
            };
            let key = key::decode(told.key)?;
            Ok(Some(Event { key, change }))
        };
        self.primitive
            .subscribe(&EVENTS, EventsRequest { id, key }, End::Never, read)
            .await
    }
}

fn entry<K: DeserializeOwned>(field: Option<WireEntry>) -> Result<Entry<K, i64>> {
    let WireEntry { key, value } = required(field, "an entry")?;
    let key = key::decode(key)?;
    Ok(Entry { key, value })
}
