//! What indexed maps tell as streams.

use std::borrow::Borrow;

use atomix_proto::runtime::indexedmap::v1::{
    self as wire, EntriesRequest, EntriesResponse, EventsRequest, EventsResponse, event,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{IndexedEntry, IndexedEvent, IndexedMap, entry};
use crate::codec::Codec;
use crate::entry::{Change, Update, Versioned, versioned};
use crate::error::Result;
use crate::key;
use crate::method::Method;
use crate::subscription::{End, Subscription};

pub(super) const EVENTS: Method<EventsRequest, EventsResponse> =
    Method::read("/atomix.runtime.indexedmap.v1.IndexedMap/Events");
pub(super) const ENTRIES: Method<EntriesRequest, EntriesResponse> =
    Method::read("/atomix.runtime.indexedmap.v1.IndexedMap/Entries");

impl<K, V, C> IndexedMap<K, V, C>
where
    K: Serialize + DeserializeOwned + Send + 'static,
    V: Send + 'static,
    C: Codec<V>,
{
    /// All entries in their order. A long map that changes meanwhile is not of one moment.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub async fn entries(&self) -> Result<Subscription<IndexedEntry<K, V>>> {
        let id = self.primitive.id();
        let request = EntriesRequest { id, watch: false };
        let codec = self.codec.clone();
        let read = move |message: EntriesResponse| entry(&codec, message.entry).map(Some);
        self.primitive
            .subscribe(&ENTRIES, request, End::AfterAll, read)
            .await
    }

    /// All entries in their order, then every change.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub async fn watch(&self) -> Result<Subscription<Update<IndexedEntry<K, V>>>> {
        let id = self.primitive.id();
        let request = EntriesRequest { id, watch: true };
        let codec = self.codec.clone();
        let read = move |message: EntriesResponse| {
            let entry = entry(&codec, message.entry)?;
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
    pub async fn events(&self) -> Result<Subscription<IndexedEvent<K, V>>> {
        self.events_at(String::new()).await
    }

    /// What happens to one key from now on.
    ///
    /// # Errors
    /// As [`events`](Self::events); [`Error::InvalidArgument`](crate::Error::InvalidArgument) for an empty key.
    pub async fn events_of<Q>(&self, key: &Q) -> Result<Subscription<IndexedEvent<K, V>>>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        self.events_at(key::encode_named(key)?).await
    }

    async fn events_at(&self, key: String) -> Result<Subscription<IndexedEvent<K, V>>> {
        let id = self.primitive.id();
        let codec = self.codec.clone();
        let read = move |message: EventsResponse| {
            let Some(wire::Event { key, index, event }) = message.event else {
                return Ok(None);
            };
            let Some(event) = event else {
                return Ok(None);
            };
            Ok(Some(IndexedEvent {
                index,
                key: key::decode(key)?,
                change: change(&codec, event)?,
            }))
        };
        self.primitive
            .subscribe(&EVENTS, EventsRequest { id, key }, End::Never, read)
            .await
    }
}

fn change<V, C: Codec<V>>(codec: &C, event: event::Event) -> Result<Change<Versioned<V>>> {
    Ok(match event {
        event::Event::Inserted(inserted) => Change::Inserted(versioned(codec, inserted.value)?),
        event::Event::Updated(updated) => Change::Updated {
            value: versioned(codec, updated.value)?,
            previous: versioned(codec, updated.prev_value)?,
        },
        event::Event::Removed(removed) => Change::Removed {
            value: versioned(codec, removed.value)?,
            expired: removed.expired,
        },
    })
}
