//! Topics.

use std::marker::PhantomData;
use std::time::SystemTime;

use atomix_proto::runtime::topic::v1::{
    PublishRequest, PublishResponse, SubscribeRequest, SubscribeResponse,
};

use crate::codec::{Codec, Json};
use crate::entry::{decode, encode};
use crate::error::{Error, Result, required};
use crate::method::Method;
use crate::primitive::Primitive;
use crate::subscription::{End, Subscription};

const PUBLISH: Method<PublishRequest, PublishResponse> =
    Method::write("/atomix.runtime.topic.v1.Topic/Publish");
const SUBSCRIBE: Method<SubscribeRequest, SubscribeResponse> =
    Method::read("/atomix.runtime.topic.v1.Topic/Subscribe");

#[cfg(test)]
pub(super) const PATHS: [&str; 2] = [PUBLISH.path, SUBSCRIBE.path];

/// Messages to all who listen at the time. Nothing is stored but the count.
///
/// ```no_run
/// # use serde::{Deserialize, Serialize};
/// #[derive(Debug, Serialize, Deserialize)]
/// struct Moved {
///     player: String,
///     to: (i32, i32),
/// }
/// # async fn example() -> atomix_client::Result<()> {
/// let client = atomix_client::Client::connect().await?;
/// let moves = client.topic::<Moved>("moves");
/// let mut messages = moves.subscribe().await?;
/// let message = Moved { player: "ann".to_owned(), to: (1, 2) };
/// moves.publish(&message).await?;
/// if let Some(message) = messages.next().await? {
///     println!("{}: {:?}", message.offset, message.payload);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Topic<T, C = Json> {
    primitive: Primitive,
    codec: C,
    payload: PhantomData<fn() -> T>,
}

/// A message of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message<T> {
    /// Its place in the topic: 1, 2 … without a gap.
    pub offset: u64,
    /// When it was published, by the clock of the store's leader; it may go back between leaders.
    pub time: SystemTime,
    /// What was published.
    pub payload: T,
}

impl<T, C: Clone> Clone for Topic<T, C> {
    fn clone(&self) -> Self {
        Self {
            primitive: self.primitive.clone(),
            codec: self.codec.clone(),
            payload: PhantomData,
        }
    }
}

impl<T, C> Topic<T, C> {
    pub(crate) fn new(primitive: Primitive, codec: C) -> Self {
        Self {
            primitive,
            codec,
            payload: PhantomData,
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.primitive.name()
    }

    /// The same topic with payloads in another encoding.
    #[must_use]
    pub fn with_codec<D>(self, codec: D) -> Topic<T, D> {
        Topic::new(self.primitive, codec)
    }
}

impl<T: Send + 'static, C: Codec<T>> Topic<T, C> {
    /// Sends a message to all subscribers.
    ///
    /// # Errors
    /// When it is not known to be sent.
    pub async fn publish(&self, payload: &T) -> Result<()> {
        let request = PublishRequest {
            id: self.primitive.id(),
            payload: encode(&self.codec, payload)?,
        };
        self.primitive.call(&PUBLISH, request).await?;
        Ok(())
    }

    /// Every message that is published from now on, in the order that all subscribers see.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub async fn subscribe(&self) -> Result<Subscription<Message<T>>> {
        let id = self.primitive.id();
        let codec = self.codec.clone();
        let read = move |message: SubscribeResponse| {
            let timestamp = required(message.timestamp, "a timestamp")?;
            let time = SystemTime::try_from(timestamp)
                .map_err(|error| Error::Internal(format!("the time of a message: {error}")))?;
            Ok(Some(Message {
                offset: message.offset,
                time,
                payload: decode(&codec, message.payload)?,
            }))
        };
        self.primitive
            .subscribe(&SUBSCRIBE, SubscribeRequest { id }, End::Never, read)
            .await
    }
}
