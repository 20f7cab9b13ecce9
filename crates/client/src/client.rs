//! The client and how it is made.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tonic::transport::Endpoint;

use crate::address;
use crate::call::Caller;
use crate::codec::Json;
use crate::connection::CONNECT_PATIENCE;
use crate::error::{Error, Result};
use crate::failure::{Failure, reason_of};
use crate::kinds::{
    Counter, CounterMap, Election, IndexedMap, List, Lock, Map, MultiMap, Set, Topic, Value,
};
use crate::method::Repeat;
use crate::primitive::{Config, Kind, Opened, Primitive};
use crate::retry::{Attempts, RetryPolicy};

/// As long as the sidecar gives calls that set no deadline.
const DEFAULT_DEADLINE: Duration = Duration::from_secs(30);
/// A sidecar that does not answer this for as long again is taken for gone.
const PING_INTERVAL: Duration = Duration::from_secs(10);

/// A connection to the runtime sidecar of this pod. Clones share it.
///
/// Handles of primitives are made without asking the sidecar, are cheap, and keep the connection
/// open. The connection ends when the client, its clones and all handles, guards and subscriptions
/// are dropped; nothing that is stored goes with it.
#[derive(Clone)]
pub struct Client {
    caller: Arc<Caller>,
    opened: Arc<Opened>,
}

impl Client {
    /// Connects as the environment says, with a deadline of 30 s and the default retries:
    /// `ATOMIX_RUNTIME_HOST` and `ATOMIX_RUNTIME_PORT`, or else 127.0.0.1:5678. Must be called in a
    /// Tokio runtime.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when no sidecar is there within the deadline; [`Error::InvalidArgument`]
    /// for an address that is none.
    pub async fn connect() -> Result<Self> {
        Self::builder().connect().await
    }

    /// A client with settings of its own.
    #[must_use]
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    /// Opens a primitive with tags, which help to find its store, and answers with how its route
    /// configures it. Where only one store can have the primitive this is not needed. The client tells
    /// a sidecar that was restarted the tags again, as far as they matter.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when no route matches; [`Error::FailedPrecondition`] when another
    /// connection has it open in another store.
    pub async fn create<S: Into<String>>(
        &self,
        kind: Kind,
        name: &str,
        tags: impl IntoIterator<Item = S>,
    ) -> Result<Config> {
        let tags = tags.into_iter().map(Into::into).collect();
        self.opened.create(&self.caller, kind, name, tags).await
    }

    /// Ends this client's use of a primitive. What is stored stays, and so do guards and candidacies:
    /// they are used by connections of their own.
    ///
    /// # Errors
    /// When the sidecar cannot be asked.
    pub async fn close(&self, kind: Kind, name: &str) -> Result<()> {
        self.opened.close(&self.caller, kind, name).await
    }

    /// The counter of this name.
    #[must_use]
    pub fn counter(&self, name: &str) -> Counter {
        Counter::new(self.primitive(Kind::Counter, name))
    }

    /// The counter map of this name.
    #[must_use]
    pub fn counter_map<K>(&self, name: &str) -> CounterMap<K> {
        CounterMap::new(self.primitive(Kind::CounterMap, name))
    }

    /// The leader election of this name.
    #[must_use]
    pub fn election(&self, name: &str) -> Election {
        Election::new(self.primitive(Kind::Election, name))
    }

    /// The indexed map of this name, with values in JSON.
    #[must_use]
    pub fn indexed_map<K, V>(&self, name: &str) -> IndexedMap<K, V> {
        IndexedMap::new(self.primitive(Kind::IndexedMap, name), Json)
    }

    /// The list of this name, with values in JSON.
    #[must_use]
    pub fn list<T>(&self, name: &str) -> List<T> {
        List::new(self.primitive(Kind::List, name), Json)
    }

    /// The lock of this name.
    #[must_use]
    pub fn lock(&self, name: &str) -> Lock {
        Lock::new(self.primitive(Kind::Lock, name))
    }

    /// The map of this name, with values in JSON.
    #[must_use]
    pub fn map<K, V>(&self, name: &str) -> Map<K, V> {
        Map::new(self.primitive(Kind::Map, name), Json)
    }

    /// The multimap of this name.
    #[must_use]
    pub fn multi_map<K, V>(&self, name: &str) -> MultiMap<K, V> {
        MultiMap::new(self.primitive(Kind::MultiMap, name))
    }

    /// The set of this name.
    #[must_use]
    pub fn set<T>(&self, name: &str) -> Set<T> {
        Set::new(self.primitive(Kind::Set, name))
    }

    /// The topic of this name, with payloads in JSON.
    #[must_use]
    pub fn topic<T>(&self, name: &str) -> Topic<T> {
        Topic::new(self.primitive(Kind::Topic, name), Json)
    }

    /// The value of this name, in JSON.
    #[must_use]
    pub fn value<T>(&self, name: &str) -> Value<T> {
        Value::new(self.primitive(Kind::Value, name), Json)
    }

    fn primitive(&self, kind: Kind, name: &str) -> Primitive {
        let (caller, opened) = (Arc::clone(&self.caller), Arc::clone(&self.opened));
        Primitive::new(caller, opened, kind, name)
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Client").finish_non_exhaustive()
    }
}

/// The settings of a client.
#[derive(Debug, Clone, Default)]
pub struct ClientBuilder {
    address: Option<String>,
    deadline: Option<Duration>,
    retry: RetryPolicy,
}

impl ClientBuilder {
    /// Where the sidecar serves applications: `host:port`, with or without `http://`. It must be the
    /// sidecar itself: what a proxy between says of a call would be taken for the sidecar's word.
    #[must_use]
    pub fn address(mut self, address: impl Into<String>) -> Self {
        self.address = Some(address.into());
        self
    }

    /// How long a call may take with all its attempts; 30 s if not set. Waiting for a lock comes on
    /// top, and streams have no end.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// How calls are tried again that failed without an effect.
    #[must_use]
    pub fn retry(mut self, retry: RetryPolicy) -> Self {
        self.retry = retry;
        self
    }

    /// Connects; tries again until the deadline, as the sidecar may start later than the
    /// application.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub async fn connect(self) -> Result<Client> {
        let Self {
            address,
            deadline,
            retry,
        } = self;
        let address = address.unwrap_or_else(address::from_environment);
        let address = address.trim_start_matches("http://").trim_end_matches('/');
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|error| Error::InvalidArgument(format!("address {address:?}: {error}")))?
            .connect_timeout(CONNECT_PATIENCE)
            .http2_keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_INTERVAL)
            .keep_alive_while_idle(true);
        let deadline = deadline.unwrap_or(DEFAULT_DEADLINE);
        let mut attempts = Attempts::new(&retry, deadline);
        let channel = loop {
            let connecting = tokio::time::timeout(attempts.remaining(), endpoint.connect());
            let reason = match connecting.await {
                Ok(Ok(channel)) => break channel,
                Ok(Err(error)) => reason_of(&error),
                Err(_) => "it does not answer".to_owned(),
            };
            let failure = Failure::not_sent(format!("no sidecar at {address}: {reason}"));
            attempts.again(failure, Repeat::IfNotSent).await?;
        };
        let caller = Caller::new(channel, endpoint, address.to_owned(), deadline, retry);
        Ok(Client {
            caller: Arc::new(caller),
            opened: Arc::default(),
        })
    }
}
