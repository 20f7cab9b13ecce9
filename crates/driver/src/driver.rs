//! The interface that every driver implements, built-in or not.
//!
//! One generic [`Connection::invoke`] and one [`Connection::subscribe`] serve all kinds of
//! primitives: requests and replies are the encoded messages of the primitive's own RPC. So a new
//! kind changes no driver interface.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use atomix_proto::multiraft::v1::ReleaseOwner;
use bytes::Bytes;
use futures::stream::BoxStream;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::error::DriverError;

/// Names a store: the namespace and name of its Store resource.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StoreId {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl fmt::Display for StoreId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.namespace, self.name)
    }
}

/// What a driver is and can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// The driver's name: `multi-raft`.
    pub name: String,
    /// The version of its configuration format.
    pub version: String,
    /// The kinds of primitives that it serves: `counter` …
    pub kinds: Vec<String>,
}

/// Which application connection an operation belongs to. What it creates and owns (locks,
/// candidacies) goes when the owner goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Owner(pub u64);

impl Owner {
    /// For operations that own nothing.
    pub const NONE: Self = Self(0);
}

/// One operation on one primitive.
#[derive(Debug, Clone)]
pub struct Invocation {
    /// The primitive's kind: `counter`.
    pub kind: String,
    /// The primitive's name.
    pub primitive: String,
    /// The RPC's name: `Increment`.
    pub method: String,
    /// The RPC's encoded request message.
    pub request: Bytes,
    /// Who owns what the operation creates.
    pub owner: Owner,
    /// When the answer is of no use any more.
    pub deadline: Instant,
}

/// The encoded reply messages of a streaming RPC. It is read as fast as it is polled. After an error
/// it ends; once it is there it never fails with [`ErrorKind::Unavailable`](crate::ErrorKind), which
/// existing clients take for leave to begin again unseen: what cannot go on without a loss is
/// [`ErrorKind::DataLoss`](crate::ErrorKind).
pub type ReplyStream = BoxStream<'static, Result<Bytes, DriverError>>;

/// Whether operations on a connection can succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConnectionState {
    /// Not connected yet or no longer; the driver keeps trying.
    Connecting {
        /// Why, for people.
        reason: String,
    },
    /// The store is reached.
    Connected,
    /// The store is reached, but its configuration does not fit it; operations are refused until it
    /// is configured anew.
    Misconfigured {
        /// What does not fit.
        reason: String,
    },
}

/// Which of the things that an owner holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holdings<'a> {
    /// All of them.
    All,
    /// Those of one primitive.
    Of {
        /// The primitive's kind.
        kind: &'a str,
        /// Its name.
        primitive: &'a str,
    },
}

impl Holdings<'_> {
    /// The command by which a session gives them up; of a primitive that goes on being used only
    /// what operations up to `through` took.
    pub(crate) fn release(self, session: u64, owner: Owner, through: u64) -> ReleaseOwner {
        let (kind, primitive, through) = match self {
            Holdings::All => ("", "", 0),
            Holdings::Of { kind, primitive } => (kind, primitive, through),
        };
        ReleaseOwner {
            session,
            owner: owner.0,
            kind: kind.to_owned(),
            primitive: primitive.to_owned(),
            through,
        }
    }
}

/// A kind of store.
#[async_trait]
pub trait Driver: Send + Sync + 'static {
    /// What this driver is.
    fn describe(&self) -> Description;

    /// Checks the configuration (JSON) and starts to connect. Returns without waiting for the store;
    /// [`Connection::state`] tells when it is reached.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) for a configuration that is refused; the
    /// message names the field.
    async fn connect(
        &self,
        store: &StoreId,
        config: &[u8],
    ) -> Result<Arc<dyn Connection>, DriverError>;
}

/// A connection to one store. It re-connects by itself until it is disconnected.
#[async_trait]
pub trait Connection: Send + Sync + 'static {
    /// Changes the configuration. When it fails, the old one keeps working.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) for a configuration that is refused,
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) when the driver cannot be
    /// re-configured.
    async fn configure(&self, config: &[u8]) -> Result<(), DriverError>;

    /// Carries out an operation and returns its encoded reply message. A mutation that is accepted
    /// is done at most once, whatever is retried inside. Dropping the future withdraws the operation.
    ///
    /// # Errors
    /// The operation's own error, or why it could not be carried out.
    async fn invoke(&self, invocation: Invocation) -> Result<Bytes, DriverError>;

    /// Begins a streaming operation: `Events`, `Entries`, `Watch` … It returns when the stream's
    /// position is taken: everything that happens afterwards is in the stream. The invocation's
    /// deadline is for that alone. Dropping the stream ends it.
    ///
    /// # Errors
    /// Why the stream could not be begun.
    async fn subscribe(&self, invocation: Invocation) -> Result<ReplyStream, DriverError>;

    /// Releases what an owner holds. When it is everything, the owner's number is not used again. It
    /// goes on until the store knows, or what was owned has gone otherwise: with the session or the
    /// connection.
    ///
    /// # Errors
    /// The store refuses; what is owned then goes when the session ends.
    async fn release_owner(&self, owner: Owner, holdings: Holdings<'_>) -> Result<(), DriverError>;

    /// Follows whether the store is reached.
    fn state(&self) -> watch::Receiver<ConnectionState>;

    /// Ends the connection; operations in flight fail. Safe to repeat.
    async fn disconnect(&self);
}
