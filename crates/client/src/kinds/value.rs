//! Values.

use std::marker::PhantomData;

use atomix_proto::runtime::value::v1::{
    DeleteRequest, DeleteResponse, EventsRequest, EventsResponse, GetRequest, GetResponse,
    InsertRequest, InsertResponse, SetRequest, SetResponse, UpdateRequest, UpdateResponse,
    VersionedValue, WatchRequest, WatchResponse, event,
};
use bytes::Bytes;

use crate::codec::{Codec, Json};
use crate::entry::{
    Change, Versioned, WireVersioned, WriteOptions, encode, maybe_versioned, versioned,
    wire_version,
};
use crate::error::{Result, found, required};
use crate::method::Method;
use crate::primitive::Primitive;
use crate::subscription::{End, Subscription};

const SET: Method<SetRequest, SetResponse> = Method::write("/atomix.runtime.value.v1.Value/Set");
const INSERT: Method<InsertRequest, InsertResponse> =
    Method::write("/atomix.runtime.value.v1.Value/Insert");
const UPDATE: Method<UpdateRequest, UpdateResponse> =
    Method::write("/atomix.runtime.value.v1.Value/Update");
const GET: Method<GetRequest, GetResponse> = Method::read("/atomix.runtime.value.v1.Value/Get");
const DELETE: Method<DeleteRequest, DeleteResponse> =
    Method::write("/atomix.runtime.value.v1.Value/Delete");
const WATCH: Method<WatchRequest, WatchResponse> =
    Method::read("/atomix.runtime.value.v1.Value/Watch");
const EVENTS: Method<EventsRequest, EventsResponse> =
    Method::read("/atomix.runtime.value.v1.Value/Events");

#[cfg(test)]
pub(super) const PATHS: [&str; 7] = [
    SET.path,
    INSERT.path,
    UPDATE.path,
    GET.path,
    DELETE.path,
    WATCH.path,
    EVENTS.path,
];

impl WireVersioned for VersionedValue {
    fn into_parts(self) -> (Bytes, u64) {
        (self.value, self.version)
    }
}

/// One value with a version, perhaps with a time to live.
///
/// ```no_run
/// # use atomix_client::{Error, WriteOptions};
/// # async fn example() -> atomix_client::Result<()> {
/// let client = atomix_client::Client::connect().await?;
/// let limit = client.value::<u32>("limit");
/// limit.set(&10).await?;
/// if let Some(seen) = limit.get().await? {
///     // Only if nobody has changed it since.
///     match limit.update_with(&(seen.value + 1), WriteOptions::default().if_version(seen.version)).await {
///         Err(Error::Conflict(_)) => println!("somebody was faster"),
///         outcome => println!("version {}", outcome?),
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Value<T, C = Json> {
    primitive: Primitive,
    codec: C,
    value: PhantomData<fn() -> T>,
}

impl<T, C: Clone> Clone for Value<T, C> {
    fn clone(&self) -> Self {
        Self {
            primitive: self.primitive.clone(),
            codec: self.codec.clone(),
            value: PhantomData,
        }
    }
}

impl<T, C> Value<T, C> {
    pub(crate) fn new(primitive: Primitive, codec: C) -> Self {
        Self {
            primitive,
            codec,
            value: PhantomData,
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.primitive.name()
    }

    /// The same primitive with its value in another encoding.
    #[must_use]
    pub fn with_codec<D>(self, codec: D) -> Value<T, D> {
        Value::new(self.primitive, codec)
    }
}

impl<T: Send + 'static, C: Codec<T>> Value<T, C> {
    /// The value; `None` when there is none.
    ///
    /// # Errors
    /// When the store cannot be asked, or the value is of another type.
    pub async fn get(&self) -> Result<Option<Versioned<T>>> {
        let id = self.primitive.id();
        let reply = found(self.primitive.call(&GET, GetRequest { id }).await)?;
        let value = reply.map(|reply| versioned(&self.codec, reply.value));
        value.transpose()
    }

    /// Stores a value, whatever is there; answers with its version.
    ///
    /// # Errors
    /// When it is not known to be done.
    pub async fn set(&self, value: &T) -> Result<u64> {
        self.set_with(value, WriteOptions::default()).await
    }

    /// As [`set`](Self::set), with a time to live. With a condition on the version it is an
    /// [`update_with`](Self::update_with).
    ///
    /// # Errors
    /// As of the two.
    pub async fn set_with(&self, value: &T, options: WriteOptions) -> Result<u64> {
        if options.wire_version()? != 0 {
            return self.update_with(value, options).await;
        }
        let request = SetRequest {
            id: self.primitive.id(),
            value: encode(&self.codec, value)?,
            ttl: options.wire_ttl()?,
        };
        Ok(self.primitive.call(&SET, request).await?.version)
    }

    /// Stores a value if there is none; answers with its version.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`](crate::Error::AlreadyExists) if there is one.
    pub async fn insert(&self, value: &T) -> Result<u64> {
        self.insert_with(value, WriteOptions::default()).await
    }

    /// As [`insert`](Self::insert), with a time to live. There is no version to expect.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    pub async fn insert_with(&self, value: &T, options: WriteOptions) -> Result<u64> {
        options.check_no_version()?;
        let request = InsertRequest {
            id: self.primitive.id(),
            value: encode(&self.codec, value)?,
            ttl: options.wire_ttl()?,
        };
        Ok(self.primitive.call(&INSERT, request).await?.version)
    }

    /// Replaces the value; answers with the new version.
    ///
    /// # Errors
    /// [`Error::NotFound`](crate::Error::NotFound) if there is none.
    pub async fn update(&self, value: &T) -> Result<u64> {
        self.update_with(value, WriteOptions::default()).await
    }

    /// As [`update`](Self::update), with a time to live or only if the value has a version.
    ///
    /// # Errors
    /// As [`update`](Self::update); [`Error::Conflict`](crate::Error::Conflict) if the version is
    /// another.
    pub async fn update_with(&self, value: &T, options: WriteOptions) -> Result<u64> {
        let request = UpdateRequest {
            id: self.primitive.id(),
            value: encode(&self.codec, value)?,
            prev_version: options.wire_version()?,
            ttl: options.wire_ttl()?,
        };
        Ok(self.primitive.call(&UPDATE, request).await?.version)
    }

    /// Takes the value away; answers with what it was.
    ///
    /// # Errors
    /// [`Error::NotFound`](crate::Error::NotFound) if there is none.
    pub async fn delete(&self) -> Result<Versioned<T>> {
        self.delete_if(None).await
    }

    /// Takes the value away if it has this version.
    ///
    /// # Errors
    /// As [`delete`](Self::delete); [`Error::Conflict`](crate::Error::Conflict) if the version is
    /// another.
    pub async fn delete_version(&self, version: u64) -> Result<Versioned<T>> {
        self.delete_if(Some(version)).await
    }

    async fn delete_if(&self, version: Option<u64>) -> Result<Versioned<T>> {
        let request = DeleteRequest {
            id: self.primitive.id(),
            prev_version: wire_version(version)?,
        };
        let reply = self.primitive.call(&DELETE, request).await?;
        versioned(&self.codec, reply.value)
    }

    /// The present value, then each change; `None` while there is none.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub async fn watch(&self) -> Result<Subscription<Option<Versioned<T>>>> {
        let id = self.primitive.id();
        let codec = self.codec.clone();
        let read = move |message: WatchResponse| {
            let value = required(message.value, "a value")?;
            // No value is told as version 0, which nothing has.
            let present = Some(value).filter(|value| value.version != 0);
            maybe_versioned(&codec, present).map(Some)
        };
        self.primitive
            .subscribe(&WATCH, WatchRequest { id }, End::Never, read)
            .await
    }

    /// What happens to the value from now on.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub async fn events(&self) -> Result<Subscription<Change<Versioned<T>>>> {
        let id = self.primitive.id();
        let codec = self.codec.clone();
        let read = move |message: EventsResponse| {
            let event = message.event.and_then(|event| event.event);
            event.map(|event| change(&codec, event)).transpose()
        };
        self.primitive
            .subscribe(&EVENTS, EventsRequest { id }, End::Never, read)
            .await
    }
}

fn change<T, C: Codec<T>>(codec: &C, event: event::Event) -> Result<Change<Versioned<T>>> {
    Ok(match event {
        event::Event::Created(created) => Change::Inserted(versioned(codec, created.value)?),
        event::Event::Updated(updated) => Change::Updated {
            value: versioned(codec, updated.value)?,
            previous: versioned(codec, updated.prev_value)?,
        },
        event::Event::Deleted(deleted) => Change::Removed {
            value: versioned(codec, deleted.value)?,
            expired: deleted.expired,
        },
    })
}
