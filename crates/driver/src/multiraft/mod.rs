//! The `multi-raft` driver: stores of replicated storage nodes.

mod client;
mod config;
mod connection;
mod keep_alive;
mod link;
mod nodes;
mod partition;
mod routing;
mod session;

use std::sync::Arc;

use async_trait::async_trait;
use atomix_primitives::Kinds;

pub use self::config::{Config, DEFAULT_NODE_PORT, Timeouts};
use self::connection::MultiRaftConnection;
pub use self::routing::{PartitionId, partition_of};
use crate::driver::{Connection, Description, Driver, StoreId};
use crate::error::DriverError;
use crate::resolver::Resolver;

/// Connects to stores of `atomix-node` processes.
pub struct MultiRaftDriver {
    kinds: Arc<Kinds>,
    resolver: Arc<dyn Resolver>,
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
        }
    }
}

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
        )))
    }
}
