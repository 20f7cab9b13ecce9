//! What multimaps tell as streams.

use std::borrow::Borrow;

use atomix_proto::runtime::multimap::v1::{
    EntriesRequest, EntriesResponse, Entry as WireEntry, EventsRequest, EventsResponse, event,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{MultiMap, MultiMapEvent, ValueChange};
use crate::entry::{Entry, Update};
use crate::error::{Result, required};
use crate::key;
use crate::method::Method;
use crate::subscription::{End, Subscription};

pub(super) const EVENTS: Method<EventsRequest, EventsResponse> =
    Method::read("/atomix.runtime.multimap.v1.MultiMap/Events");
pub(super) const ENTRIES: Method<EntriesRequest, EntriesResponse> =
    Method::read("/atomix.runtime.multimap.v1.MultiMap/Entries");

impl<K, V> MultiMap<K, V>
where
    K: Serialize + DeserializeOwned + Send + 'static,
    V: Serialize + DeserializeOwned + Send + 'static,
{
    /// All keys with all their values. Over several partitions not of one moment.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub async fn entries(&self) -> Result<Subscription<Entry<K, Vec<V>>>> {
        let id = self.primitive.id();
        let request = EntriesRequest { id, watch: false };
        let read = |message: EntriesResponse| entry(message.entry).map(Some);
        self.primitive
            .subscribe(&ENTRIES, request, End::AfterAll, read)
            .await
    }

    /// All keys with all their values, then every change: the key with the values that came or went,
    /// not with all that it has.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub async fn watch(&self) -> Result<Subscription<Update<Entry<K, Vec<V>>>>> {
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

    /// What happens under all keys from now on.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub async fn events(&self) -> Result<Subscription<MultiMapEvent<K, V>>> {
        self.events_at(String::new()).await
    }

    /// What happens under one key from now on.
    ///
    /// # Errors
    /// As [`events`](Self::events); [`Error::InvalidArgument`](crate::Error::InvalidArgument) for an empty key.
    pub async fn events_of<Q>(&self, key: &Q) -> Result<Subscription<MultiMapEvent<K, V>>>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        self.events_at(key::encode_named(key)?).await
    }

    async fn events_at(&self, key: String) -> Result<Subscription<MultiMapEvent<K, V>>> {
        let id = self.primitive.id();
        let read = |message: EventsResponse| {
            let Some(told) = message.event else {
                return Ok(None);
            };
            let change = match told.event {
                Some(event::Event::Added(added)) => ValueChange::Added(key::decode(added.value)?),
                Some(event::Event::Removed(removed)) => {
                    ValueChange::Removed(key::decode(removed.value)?)
                }
                None => return Ok(None),
            };
            let key = key::decode(told.key)?;
            Ok(Some(MultiMapEvent { key, change }))
        };
        self.primitive
            .subscribe(&EVENTS, EventsRequest { id, key }, End::Never, read)
            .await
    }
}

fn entry<K, V>(field: Option<WireEntry>) -> Result<Entry<K, Vec<V>>>
where
    K: DeserializeOwned,
    V: DeserializeOwned,
{
    let WireEntry { key, values } = required(field, "an entry")?;
    Ok(Entry {
        key: key::decode(key)?,
        value: key::decode_all(values)?,
    })
}
