//! The `multi-raft` driver: stores of replicated storage nodes.

mod client;
mod config;
mod connection;
mod keep_alive;
mod link;
mod nodes;
mod partition;
mod session;

use std::sync::Arc;

use async_trait::async_trait;
use atomix_primitives::Kinds;
use atomix_tls::{Credentials, Identity};

pub use self::config::{Config, DEFAULT_NODE_PORT, Timeouts};
use self::connection::MultiRaftConnection;
use crate::driver::{Connection, Description, Driver, StoreId};
use crate::error::DriverError;
use crate::resolver::Resolver;

/// Connects to stores of `atomix-node` processes.
pub struct MultiRaftDriver {
    kinds: Arc<Kinds>,
    resolver: Arc<dyn Resolver>,
    credentials: Option<Credentials>,
}

impl MultiRaftDriver {
    /// The driver's name.
    pub const NAME: &str = "multi-raft";
    /// The version of the configuration format.
    pub const VERSION: &str = "v1";

    /// A driver that finds nodes through this resolver.
    #[must_use]
    pub fn new(resolver: Arc<dyn Resolver>) -> Self {
        Self {
            kinds: Arc::new(Kinds::standard()),
            resolver,
            credentials: None,
        }
    }

    /// Proves to nodes that speak TLS who this process is.
    #[must_use]
    pub fn with_credentials(mut self, credentials: Option<Credentials>) -> Self {
        self.credentials = credentials;
        self
    }
}

impl MultiRaftDriver {
    fn security(&self, store: &StoreId) -> Option<Security> {
        let credentials = self.credentials.clone()?;
        let nodes = Identity::Node {
            namespace: store.namespace.clone(),
            store: store.name.clone(),
        };
        Some(Security { credentials, nodes })
    }
}

/// How nodes that speak TLS are connected to.
#[derive(Clone, Debug)]
pub(crate) struct Security {
    credentials: Credentials,
    /// The identity of all nodes of the store.
    nodes: Identity,
}

/// What is told when the nodes speak TLS and this process cannot.
const NO_CREDENTIALS: &str = "the Store's nodes speak TLS, but this runtime has no certificate: \
     mount the Secret atomix-runtime-tls and give --tls-directory, or let the pod be injected anew";

#[async_trait]
impl Driver for MultiRaftDriver {
    fn describe(&self) -> Description {
        Description {
            name: Self::NAME.to_owned(),
            version: Self::VERSION.to_owned(),
            kinds: self.kinds.names().map(ToString::to_string).collect(),
        }
    }

    async fn connect(
        &self,
        store: &StoreId,
        config: &[u8],
    ) -> Result<Arc<dyn Connection>, DriverError> {
        let config = Config::parse(config)?;
        Ok(Arc::new(MultiRaftConnection::start(
            store,
            &config,
            Arc::clone(&self.kinds),
            Arc::clone(&self.resolver),
            self.security(store),
        )?))
    }
}
