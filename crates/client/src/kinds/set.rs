//! Sets.

use std::borrow::Borrow;
use std::marker::PhantomData;

use atomix_proto::runtime::set::v1::{
    AddRequest, AddResponse, ClearRequest, ClearResponse, ContainsRequest, ContainsResponse,
    Element, ElementsRequest, ElementsResponse, EventsRequest, EventsResponse, RemoveRequest,
    RemoveResponse, SizeRequest, SizeResponse, event,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::entry::{Update, WriteOptions};
use crate::error::{Error, Result, required};
use crate::key;
use crate::method::Method;
use crate::primitive::Primitive;
use crate::subscription::{End, Subscription};

const SIZE: Method<SizeRequest, SizeResponse> = Method::read("/atomix.runtime.set.v1.Set/Size");
const CONTAINS: Method<ContainsRequest, ContainsResponse> =
    Method::read("/atomix.runtime.set.v1.Set/Contains");
const ADD: Method<AddRequest, AddResponse> = Method::write("/atomix.runtime.set.v1.Set/Add");
const REMOVE: Method<RemoveRequest, RemoveResponse> =
    Method::write("/atomix.runtime.set.v1.Set/Remove");
const CLEAR: Method<ClearRequest, ClearResponse> =
    Method::write_many("/atomix.runtime.set.v1.Set/Clear");
const EVENTS: Method<EventsRequest, EventsResponse> =
    Method::read("/atomix.runtime.set.v1.Set/Events");
const ELEMENTS: Method<ElementsRequest, ElementsResponse> =
    Method::read("/atomix.runtime.set.v1.Set/Elements");

#[cfg(test)]
pub(super) const PATHS: [&str; 7] = [
    SIZE.path,
    CONTAINS.path,
    ADD.path,
    REMOVE.path,
    CLEAR.path,
    EVENTS.path,
    ELEMENTS.path,
];

/// Elements, each once, perhaps with a time to live. They are kept as the text that a key of a JSON
/// object has, so a string is itself.
#[derive(Debug)]
pub struct Set<T> {
    primitive: Primitive,
    element: PhantomData<fn() -> T>,
}

/// What happened to an element.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SetEvent<T> {
    /// It was added.
    Added(T),
    /// It is gone.
    Removed {
        /// The element.
        element: T,
        /// Its time to live has ended; otherwise somebody removed it.
        expired: bool,
    },
}

impl<T> Clone for Set<T> {
    fn clone(&self) -> Self {
        Self::new(self.primitive.clone())
    }
}

impl<T> Set<T> {
    pub(crate) fn new(primitive: Primitive) -> Self {
        Self {
            primitive,
            element: PhantomData,
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.primitive.name()
    }

    /// How many elements it has. Over several partitions not of one moment.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub async fn size(&self) -> Result<u32> {
        let id = self.primitive.id();
        Ok(self.primitive.call(&SIZE, SizeRequest { id }).await?.size)
    }

    /// Removes all elements. Over several partitions not at one moment, and after an error perhaps in
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

impl<T: Serialize + DeserializeOwned + Send + 'static> Set<T> {
    /// Whether it has the element.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub async fn contains<Q>(&self, wanted: &Q) -> Result<bool>
    where
        T: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        let request = ContainsRequest {
            id: self.primitive.id(),
            element: element(wanted)?,
        };
        Ok(self.primitive.call(&CONTAINS, request).await?.contains)
    }

    /// Adds an element; false if it was there. Then its time to live stays as it is.
    ///
    /// # Errors
    /// When it is not known to be done.
    pub async fn add<Q>(&self, new: &Q) -> Result<bool>
    where
        T: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        self.add_with(new, WriteOptions::default()).await
    }

    /// As [`add`](Self::add), with a time to live. Elements have no versions.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub async fn add_with<Q>(&self, new: &Q, options: WriteOptions) -> Result<bool>
    where
        T: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        options.check_no_version()?;
        let request = AddRequest {
            id: self.primitive.id(),
            element: element(new)?,
            ttl: options.wire_ttl()?,
        };
        match self.primitive.call(&ADD, request).await {
            Ok(reply) => Ok(reply.added),
            Err(Error::AlreadyExists(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Removes an element; false if it was not there.
    ///
    /// # Errors
    /// When it is not known to be done.
    pub async fn remove<Q>(&self, old: &Q) -> Result<bool>
    where
        T: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        let request = RemoveRequest {
            id: self.primitive.id(),
            element: element(old)?,
        };
        match self.primitive.call(&REMOVE, request).await {
            Ok(reply) => Ok(reply.removed),
            Err(Error::NotFound(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// All elements. Over several partitions not of one moment.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub async fn elements(&self) -> Result<Subscription<T>> {
        let request = self.listing(false);
        let read = |message: ElementsResponse| element_of(message.element).map(Some);
        self.primitive
            .subscribe(&ELEMENTS, request, End::AfterAll, read)
            .await
    }

    /// All elements, then every change.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub async fn watch(&self) -> Result<Subscription<Update<T>>> {
        let request = self.listing(true);
        let read = |message: ElementsResponse| {
            let element = element_of(message.element)?;
            Ok(Some(Update::new(element, message.removed)))
        };
        self.primitive
            .subscribe(&ELEMENTS, request, End::Never, read)
            .await
    }

    /// What happens to elements from now on.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub async fn events(&self) -> Result<Subscription<SetEvent<T>>> {
        let id = self.primitive.id();
        let read = |message: EventsResponse| {
            let event = message.event.and_then(|event| event.event);
            event.map(told).transpose()
        };
        self.primitive
            .subscribe(&EVENTS, EventsRequest { id }, End::Never, read)
            .await
    }

    fn listing(&self, watch: bool) -> ElementsRequest {
        let id = self.primitive.id();
        ElementsRequest { id, watch }
    }
}

fn element<Q: Serialize + ?Sized>(element: &Q) -> Result<Option<Element>> {
    let value = key::encode(element)?;
    Ok(Some(Element { value }))
}

fn element_of<T: DeserializeOwned>(field: Option<Element>) -> Result<T> {
    key::decode(required(field, "an element")?.value)
}

fn told<T: DeserializeOwned>(event: event::Event) -> Result<SetEvent<T>> {
    Ok(match event {
        event::Event::Added(added) => SetEvent::Added(element_of(added.element)?),
        event::Event::Removed(removed) => SetEvent::Removed {
            element: element_of(removed.element)?,
            expired: removed.expired,
        },
    })
}
