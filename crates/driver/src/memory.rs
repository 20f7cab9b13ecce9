//! The `memory` driver: the state machine of one partition inside the sidecar's own process.
//!
//! For development and tests. Each sidecar has its own data, one instance for each store; it is gone
//! when the store is disconnected or the sidecar ends. Nothing is replicated, nothing is written.
//! The configuration is an empty JSON object, or nothing.

mod events;
mod partition;

use std::sync::Arc;

use async_trait::async_trait;
use atomix_primitives::Kinds;
use bytes::Bytes;
use tokio::sync::watch;

use self::partition::MemoryPartition;
use crate::driver::{
    Connection, ConnectionState, Description, Driver, Holdings, Invocation, Owner, ReplyStream,
    StoreId,
};
use crate::error::DriverError;
use crate::spread::Spread;

/// Serves stores from this process's memory.
pub struct MemoryDriver {
    kinds: Arc<Kinds>,
}

impl MemoryDriver {
    /// The driver's name.
    pub const NAME: &str = "memory";
    /// The version of the configuration format.
    pub const VERSION: &str = "v1";
}

impl Default for MemoryDriver {
    fn default() -> Self {
        Self {
            kinds: Arc::new(Kinds::standard()),
        }
    }
}

#[async_trait]
impl Driver for MemoryDriver {
    fn describe(&self) -> Description {
        Description {
            name: Self::NAME.to_owned(),
            version: Self::VERSION.to_owned(),
            kinds: self.kinds.names().map(ToString::to_string).collect(),
        }
    }

    async fn connect(
        &self,
        _store: &StoreId,
        config: &[u8],
    ) -> Result<Arc<dyn Connection>, DriverError> {
        check_config(config)?;
        let partition = MemoryPartition::start(Arc::clone(&self.kinds))?;
        let (state, _) = watch::channel(ConnectionState::Connected);
        Ok(Arc::new(MemoryConnection {
            spread: Spread::new(Arc::clone(&self.kinds), Arc::clone(&partition)),
            partition,
            state,
        }))
    }
}

fn check_config(config: &[u8]) -> Result<(), DriverError> {
    if config.is_empty() {
        return Ok(());
    }
    let fields: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(config)
        .map_err(|error| DriverError::invalid(format!("config is not a JSON object: {error}")))?;
    match fields.keys().next() {
        None => Ok(()),
        Some(field) => Err(DriverError::invalid(format!(
            "config field {field} is unknown: the memory driver has none"
        ))),
    }
}

struct MemoryConnection {
    partition: Arc<MemoryPartition>,
    spread: Spread<MemoryPartition>,
    state: watch::Sender<ConnectionState>,
}

#[async_trait]
impl Connection for MemoryConnection {
    async fn configure(&self, config: &[u8]) -> Result<(), DriverError> {
        check_config(config)
    }

    async fn invoke(&self, invocation: Invocation) -> Result<Bytes, DriverError> {
        self.spread.invoke(invocation).await
    }

    async fn subscribe(&self, invocation: Invocation) -> Result<ReplyStream, DriverError> {
        self.spread.subscribe(invocation).await
    }

    async fn release_owner(&self, owner: Owner, holdings: Holdings<'_>) -> Result<(), DriverError> {
        self.partition.release_owner(owner, holdings);
        Ok(())
    }

    fn state(&self) -> watch::Receiver<ConnectionState> {
        self.state.subscribe()
    }

    async fn disconnect(&self) {
        self.partition.close();
        self.state.send_replace(ConnectionState::Connecting {
            reason: "disconnected".to_owned(),
        });
    }
}

impl Drop for MemoryConnection {
    fn drop(&mut self) {
        self.partition.close();
    }
}

#[cfg(test)]
mod tests;
