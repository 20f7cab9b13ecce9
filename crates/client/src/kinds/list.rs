//! Lists.

use std::marker::PhantomData;

use atomix_proto::runtime::list::v1::{
    self as wire, AppendRequest, AppendResponse, ClearRequest, ClearResponse, EventsRequest,
    EventsResponse, GetRequest, GetResponse, InsertRequest, InsertResponse, ItemsRequest,
    ItemsResponse, RemoveRequest, RemoveResponse, SetRequest, SetResponse, SizeRequest,
    SizeResponse, event,
};

use crate::codec::{Codec, Json};
use crate::entry::{Update, decode, encode};
use crate::error::{Result, required};
use crate::method::Method;
use crate::primitive::Primitive;
use crate::subscription::{End, Subscription};

const SIZE: Method<SizeRequest, SizeResponse> = Method::read("/atomix.runtime.list.v1.List/Size");
const APPEND: Method<AppendRequest, AppendResponse> =
    Method::write("/atomix.runtime.list.v1.List/Append");
const INSERT: Method<InsertRequest, InsertResponse> =
    Method::write("/atomix.runtime.list.v1.List/Insert");
const GET: Method<GetRequest, GetResponse> = Method::read("/atomix.runtime.list.v1.List/Get");
const SET: Method<SetRequest, SetResponse> = Method::write("/atomix.runtime.list.v1.List/Set");
const REMOVE: Method<RemoveRequest, RemoveResponse> =
    Method::write("/atomix.runtime.list.v1.List/Remove");
const CLEAR: Method<ClearRequest, ClearResponse> =
    Method::write("/atomix.runtime.list.v1.List/Clear");
const EVENTS: Method<EventsRequest, EventsResponse> =
    Method::read("/atomix.runtime.list.v1.List/Events");
const ITEMS: Method<ItemsRequest, ItemsResponse> =
    Method::read("/atomix.runtime.list.v1.List/Items");

#[cfg(test)]
pub(super) const PATHS: [&str; 9] = [
    SIZE.path,
    APPEND.path,
    INSERT.path,
    GET.path,
    SET.path,
    REMOVE.path,
    CLEAR.path,
    EVENTS.path,
    ITEMS.path,
];

/// Values in an order that the callers make. Indexes begin at 0 and shift as items come and go.
///
/// It has no conditional writes: by the time of a `set` or `remove` another may have shifted the item
/// that was meant.
#[derive(Debug)]
pub struct List<T, C = Json> {
    primitive: Primitive,
    codec: C,
    item: PhantomData<fn() -> T>,
}

/// An item and where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Item<T> {
    /// Its index.
    pub index: u32,
    /// The item.
    pub value: T,
}

/// What happened to an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ListChange<T> {
    /// It is the last one now.
    Appended(T),
    /// It is at the index now, and what was there and behind has moved back.
    Inserted(T),
    /// It replaces another.
    Updated {
        /// The new item.
        value: T,
        /// The one before.
        previous: T,
    },
    /// It is gone, and what was behind has moved forward.
    Removed(T),
}

/// What happened at an index. Applied one after the other, events keep a copy of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ListEvent<T> {
    /// Where, at that moment.
    pub index: u32,
    /// What.
    pub change: ListChange<T>,
}

impl<T, C: Clone> Clone for List<T, C> {
    fn clone(&self) -> Self {
        Self::new(self.primitive.clone(), self.codec.clone())
    }
}

impl<T, C> List<T, C> {
    pub(crate) fn new(primitive: Primitive, codec: C) -> Self {
        Self {
            primitive,
            codec,
            item: PhantomData,
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.primitive.name()
    }

    /// The same list with items in another encoding.
    #[must_use]
    pub fn with_codec<D>(self, codec: D) -> List<T, D> {
        List::new(self.primitive, codec)
    }

    /// How many items it has.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub async fn size(&self) -> Result<u32> {
        let id = self.primitive.id();
        Ok(self.primitive.call(&SIZE, SizeRequest { id }).await?.size)
    }

    /// Removes all items.
    ///
    /// # Errors
    /// When it is not known to be done.
    pub async fn clear(&self) -> Result<()> {
        let id = self.primitive.id();
        self.primitive.call(&CLEAR, ClearRequest { id }).await?;
        Ok(())
    }
}

impl<T: Send + 'static, C: Codec<T>> List<T, C> {
    /// The item at an index.
    ///
    /// # Errors
    /// [`Error::OutOfRange`](crate::Error::OutOfRange) beyond the end.
    pub async fn get(&self, index: u32) -> Result<T> {
        let id = self.primitive.id();
        let reply = self.primitive.call(&GET, GetRequest { id, index }).await?;
        Ok(item(&self.codec, reply.item)?.value)
    }

    /// Adds an item at the end.
    ///
    /// # Errors
    /// When it is not known to be done.
    pub async fn append(&self, value: &T) -> Result<()> {
        let request = AppendRequest {
            id: self.primitive.id(),
            value: self.wire(value)?,
        };
        self.primitive.call(&APPEND, request).await?;
        Ok(())
    }

    /// Adds an item before the one at the index; the list's length is the end.
    ///
    /// # Errors
    /// [`Error::OutOfRange`](crate::Error::OutOfRange) beyond the end.
    pub async fn insert(&self, index: u32, value: &T) -> Result<()> {
        let request = InsertRequest {
            id: self.primitive.id(),
            index,
            value: self.wire(value)?,
        };
        self.primitive.call(&INSERT, request).await?;
        Ok(())
    }

    /// Replaces the item at an index.
    ///
    /// # Errors
    /// [`Error::OutOfRange`](crate::Error::OutOfRange) beyond the end.
    pub async fn set(&self, index: u32, value: &T) -> Result<()> {
        let request = SetRequest {
            id: self.primitive.id(),
            index,
            value: self.wire(value)?,
        };
        self.primitive.call(&SET, request).await?;
        Ok(())
    }

    /// Removes the item at an index; answers with it.
    ///
    /// # Errors
    /// [`Error::OutOfRange`](crate::Error::OutOfRange) beyond the end.
    pub async fn remove(&self, index: u32) -> Result<T> {
        let id = self.primitive.id();
        let request = RemoveRequest { id, index };
        let reply = self.primitive.call(&REMOVE, request).await?;
        Ok(item(&self.codec, reply.item)?.value)
    }

    /// All items in their order, of one moment. A long list that changes while it is read ends the
    /// stream with [`Error::Conflict`](crate::Error::Conflict): read again.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub async fn items(&self) -> Result<Subscription<Item<T>>> {
        let id = self.primitive.id();
        let request = ItemsRequest { id, watch: false };
        let codec = self.codec.clone();
        let read = move |message: ItemsResponse| item(&codec, message.item).map(Some);
        self.primitive
            .subscribe(&ITEMS, request, End::AfterAll, read)
            .await
    }

    /// All items, then every item that comes, changes or goes. It does not tell whether one that is
    /// present was inserted or replaces another: use [`replay`](Self::replay) to keep a copy.
    ///
    /// # Errors
    /// As [`items`](Self::items).
    pub async fn watch(&self) -> Result<Subscription<Update<Item<T>>>> {
        let id = self.primitive.id();
        let request = ItemsRequest { id, watch: true };
        let codec = self.codec.clone();
        let read = move |message: ItemsResponse| {
            let item = item(&codec, message.item)?;
            Ok(Some(Update::new(item, message.removed)))
        };
        self.primitive
            .subscribe(&ITEMS, request, End::Never, read)
            .await
    }

    /// What happens to items from now on.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub async fn events(&self) -> Result<Subscription<ListEvent<T>>> {
        self.events_from(false).await
    }

    /// All items as if they had just been appended, then what happens.
    ///
    /// # Errors
    /// As [`items`](Self::items).
    pub async fn replay(&self) -> Result<Subscription<ListEvent<T>>> {
        self.events_from(true).await
    }

    async fn events_from(&self, replay: bool) -> Result<Subscription<ListEvent<T>>> {
        let id = self.primitive.id();
        let codec = self.codec.clone();
        let read = move |message: EventsResponse| {
            let Some(wire::Event { index, event }) = message.event else {
                return Ok(None);
            };
            let Some(event) = event else {
                return Ok(None);
            };
            let change = change(&codec, event)?;
            Ok(Some(ListEvent { index, change }))
        };
        self.primitive
            .subscribe(&EVENTS, EventsRequest { id, replay }, End::Never, read)
            .await
    }

    fn wire(&self, value: &T) -> Result<Option<wire::Value>> {
        let value = encode(&self.codec, value)?;
        Ok(Some(wire::Value { value }))
    }
}

fn item<T, C: Codec<T>>(codec: &C, field: Option<wire::Item>) -> Result<Item<T>> {
    let wire::Item { index, value } = required(field, "an item")?;
    let value = value_of(codec, value)?;
    Ok(Item { index, value })
}

fn value_of<T, C: Codec<T>>(codec: &C, field: Option<wire::Value>) -> Result<T> {
    decode(codec, required(field, "a value")?.value)
}

fn change<T, C: Codec<T>>(codec: &C, event: event::Event) -> Result<ListChange<T>> {
    Ok(match event {
        event::Event::Appended(appended) => ListChange::Appended(value_of(codec, appended.value)?),
        event::Event::Inserted(inserted) => ListChange::Inserted(value_of(codec, inserted.value)?),
        event::Event::Updated(updated) => ListChange::Updated {
            value: value_of(codec, updated.value)?,
            previous: value_of(codec, updated.prev_value)?,
        },
        event::Event::Removed(removed) => ListChange::Removed(value_of(codec, removed.value)?),
    })
}
