//! What every handle has: the client's connection, and which primitive it is about. Opening and
//! closing primitives.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use atomix_proto::runtime::v1::PrimitiveId;
use parking_lot::Mutex;
use prost::Message;

use crate::call::Caller;
use crate::error::{Error, Result};
use crate::method::Method;
use crate::subscription::{End, Subscription};

/// The kinds of primitives. The same name with another kind is another primitive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// See [`Counter`](crate::Counter).
    Counter,
    /// See [`CounterMap`](crate::CounterMap).
    CounterMap,
    /// See [`Election`](crate::Election).
    Election,
    /// See [`IndexedMap`](crate::IndexedMap).
    IndexedMap,
    /// See [`List`](crate::List).
    List,
    /// See [`Lock`](crate::Lock).
    Lock,
    /// See [`Map`](crate::Map).
    Map,
    /// See [`MultiMap`](crate::MultiMap).
    MultiMap,
    /// See [`Set`](crate::Set).
    Set,
    /// See [`Topic`](crate::Topic).
    Topic,
    /// See [`Value`](crate::Value).
    Value,
}

impl Kind {
    #[cfg(test)]
    pub(crate) const ALL: [Self; 11] = [
        Self::Counter,
        Self::CounterMap,
        Self::Election,
        Self::IndexedMap,
        Self::List,
        Self::Lock,
        Self::Map,
        Self::MultiMap,
        Self::Set,
        Self::Topic,
        Self::Value,
    ];

    /// Opening again changes nothing.
    pub(crate) const fn create(self) -> Method<CreateRequest, CreateResponse> {
        Method::read(match self {
            Self::Counter => "/atomix.runtime.counter.v1.Counters/Create",
            Self::CounterMap => "/atomix.runtime.countermap.v1.CounterMaps/Create",
            Self::Election => "/atomix.runtime.election.v1.LeaderElections/Create",
            Self::IndexedMap => "/atomix.runtime.indexedmap.v1.IndexedMaps/Create",
            Self::List => "/atomix.runtime.list.v1.Lists/Create",
            Self::Lock => "/atomix.runtime.lock.v1.Locks/Create",
            Self::Map => "/atomix.runtime.map.v1.Maps/Create",
            Self::MultiMap => "/atomix.runtime.multimap.v1.MultiMaps/Create",
            Self::Set => "/atomix.runtime.set.v1.Sets/Create",
            Self::Topic => "/atomix.runtime.topic.v1.Topics/Create",
            Self::Value => "/atomix.runtime.value.v1.Values/Create",
        })
    }

    /// Closing again changes nothing.
    pub(crate) const fn close(self) -> Method<CloseRequest, CloseResponse> {
        Method::read(match self {
            Self::Counter => "/atomix.runtime.counter.v1.Counters/Close",
            Self::CounterMap => "/atomix.runtime.countermap.v1.CounterMaps/Close",
            Self::Election => "/atomix.runtime.election.v1.LeaderElections/Close",
            Self::IndexedMap => "/atomix.runtime.indexedmap.v1.IndexedMaps/Close",
            Self::List => "/atomix.runtime.list.v1.Lists/Close",
            Self::Lock => "/atomix.runtime.lock.v1.Locks/Close",
            Self::Map => "/atomix.runtime.map.v1.Maps/Close",
            Self::MultiMap => "/atomix.runtime.multimap.v1.MultiMaps/Close",
            Self::Set => "/atomix.runtime.set.v1.Sets/Close",
            Self::Topic => "/atomix.runtime.topic.v1.Topics/Close",
            Self::Value => "/atomix.runtime.value.v1.Values/Close",
        })
    }
}

/// How a primitive's route configures its clients. This one keeps no cache and does not look at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Of kinds that have one.
    pub cache: Option<CacheConfig>,
}

/// What may be kept of a primitive by its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheConfig {
    /// Whether anything may.
    pub enabled: bool,
    /// How many entries; 0 when the route does not say or the kind has none.
    pub size: u64,
}

/// Every kind has the same messages for this.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct CreateRequest {
    #[prost(message, optional, tag = "1")]
    id: Option<PrimitiveId>,
    #[prost(string, repeated, tag = "2")]
    tags: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct CreateResponse {
    #[prost(message, optional, tag = "1")]
    config: Option<WireConfig>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct WireConfig {
    #[prost(message, optional, tag = "1")]
    cache: Option<WireCacheConfig>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct WireCacheConfig {
    #[prost(bool, tag = "1")]
    enabled: bool,
    #[prost(uint64, tag = "2")]
    size: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct CloseRequest {
    #[prost(message, optional, tag = "1")]
    id: Option<PrimitiveId>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct CloseResponse {}

/// What was opened with tags, which a sidecar forgets when it is restarted.
#[derive(Debug, Default)]
pub(crate) struct Opened {
    tags: Mutex<HashMap<(Kind, String), Vec<String>>>,
}

impl Opened {
    pub(crate) async fn create(
        &self,
        caller: &Caller,
        kind: Kind,
        name: &str,
        tags: Vec<String>,
    ) -> Result<Config> {
        let request = CreateRequest {
            id: id(name),
            tags: tags.clone(),
        };
        let reply = caller.call(&kind.create(), request).await?;
        self.remember(kind, name, tags);
        let cache = reply.config.and_then(|config| config.cache);
        Ok(Config {
            cache: cache.map(|cache| CacheConfig {
                enabled: cache.enabled,
                size: cache.size,
            }),
        })
    }

    pub(crate) async fn close(&self, caller: &Caller, kind: Kind, name: &str) -> Result<()> {
        self.tags.lock().remove(&(kind, name.to_owned()));
        // They use it, too.
        caller.owners.end_idle();
        let request = CloseRequest { id: id(name) };
        caller.call(&kind.close(), request).await?;
        Ok(())
    }

    fn remember(&self, kind: Kind, name: &str, tags: Vec<String>) {
        let key = (kind, name.to_owned());
        let mut opened = self.tags.lock();
        if tags.is_empty() {
            opened.remove(&key);
        } else {
            opened.insert(key, tags);
        }
    }

    fn tags_of(&self, kind: Kind, name: &str) -> Option<Vec<String>> {
        self.tags.lock().get(&(kind, name.to_owned())).cloned()
    }
}

fn id(name: &str) -> Option<PrimitiveId> {
    Some(PrimitiveId {
        id: name.to_owned(),
    })
}

/// One primitive, as this client reaches it.
#[derive(Clone)]
pub(crate) struct Primitive {
    pub(crate) caller: Arc<Caller>,
    opened: Arc<Opened>,
    kind: Kind,
    name: Arc<str>,
}

impl Primitive {
    pub(crate) fn new(caller: Arc<Caller>, opened: Arc<Opened>, kind: Kind, name: &str) -> Self {
        Self {
            caller,
            opened,
            kind,
            name: name.into(),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// As requests name it.
    pub(crate) fn id(&self) -> Option<PrimitiveId> {
        id(&self.name)
    }

    pub(crate) async fn call<Q, R>(&self, method: &Method<Q, R>, request: Q) -> Result<R>
    where
        Q: Message + Clone + 'static,
        R: Message + Default + 'static,
    {
        match self.caller.call(method, request.clone()).await {
            Err(error) if self.open_again(&error).await? => self.caller.call(method, request).await,
            answer => answer,
        }
    }

    pub(crate) async fn subscribe<Q, R, T>(
        &self,
        method: &Method<Q, R>,
        request: Q,
        end: End,
        read: impl FnMut(R) -> Result<Option<T>> + Send + 'static,
    ) -> Result<Subscription<T>>
    where
        Q: Message + Clone + 'static,
        R: Message + Default + 'static,
        T: Send + 'static,
    {
        let messages = match self.caller.open(method, request.clone()).await {
            Err(error) if self.open_again(&error).await? => {
                self.caller.open(method, request).await?
            }
            opened => opened?,
        };
        Ok(Subscription::new(messages, end, read))
    }

    /// The sidecar does not know in which of several stores it is, as it did before it was restarted:
    /// tells it again. False when that is not the matter.
    pub(crate) async fn open_again(&self, error: &Error) -> Result<bool> {
        if !matches!(error, Error::FailedPrecondition(_)) {
            return Ok(false);
        }
        let Some(tags) = self.opened.tags_of(self.kind, &self.name) else {
            return Ok(false);
        };
        self.opened
            .create(&self.caller, self.kind, &self.name, tags)
            .await?;
        Ok(true)
    }
}

impl fmt::Debug for Primitive {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?} {:?}", self.kind, self.name)
    }
}
