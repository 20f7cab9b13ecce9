//! A connection to one multi-raft store: sends each operation to its partition.
//!
//! Not for sessions and what is sent again (modules `client` and `partition`).

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use atomix_primitives::{Access, Kinds};
use atomix_proto::multiraft::v1::Operation;
use bytes::Bytes;
use futures::future::join_all;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::client::PartitionClient;
use super::config::Config;
use super::keep_alive;
use super::nodes::Nodes;
use super::routing::{PartitionId, partition_of_operation};
use super::{NO_CREDENTIALS, Security};
use crate::driver::{Connection, ConnectionState, Invocation, Owner, StoreId};
use crate::error::{DriverError, ErrorKind};
use crate::resolver::Resolver;

/// How long `disconnect` spends on closing sessions; what it cannot close expires by itself.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

/// A connection to a multi-raft store.
pub(crate) struct MultiRaftConnection {
    kinds: Arc<Kinds>,
    nodes: Arc<Nodes>,
    partitions: Vec<Arc<PartitionClient>>,
    closed: CancellationToken,
    /// Ends the background tasks also when the connection is dropped without a disconnect.
    _close_on_drop: DropGuard,
}

impl MultiRaftConnection {
    pub(crate) fn start(
        store: &StoreId,
        config: &Config,
        kinds: Arc<Kinds>,
        resolver: Arc<dyn Resolver>,
        security: Option<Security>,
    ) -> Result<Self, DriverError> {
        if config.tls && security.is_none() {
            return Err(DriverError::invalid(NO_CREDENTIALS));
        }
        let closed = CancellationToken::new();
        let nodes = Nodes::new(config, resolver, security);
        let client_name = format!("{store} driver {}", env!("CARGO_PKG_VERSION"));
        let partitions: Vec<_> = (1..=config.partitions)
            .map(|id| {
                let id = PartitionId(id);
                Arc::new(PartitionClient::new(
                    id,
                    &nodes,
                    &client_name,
                    closed.clone(),
                ))
            })
            .collect();
        let background = {
            let nodes = Arc::clone(&nodes);
            let partitions = partitions.clone();
            async move {
                tokio::join!(nodes.follow(), keep_alive::run(&nodes, &partitions));
            }
        };
        let stopped = closed.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = stopped.cancelled() => {}
                () = background => {}
            }
        });
        Ok(Self {
            kinds,
            nodes,
            partitions,
            closed: closed.clone(),
            _close_on_drop: closed.drop_guard(),
        })
    }

    fn partition_of(&self, operation: &Operation) -> Result<&Arc<PartitionClient>, DriverError> {
        let count = u32::try_from(self.partitions.len()).unwrap_or(u32::MAX);
        let PartitionId(id) = partition_of_operation(operation, count);
        self.partitions
            .get(id as usize - 1)
            .ok_or_else(|| DriverError::new(ErrorKind::Internal, "the store has no partitions"))
    }
}

#[async_trait]
impl Connection for MultiRaftConnection {
    async fn configure(&self, config: &[u8]) -> Result<(), DriverError> {
        let config = Config::parse(config)?;
        if config.partitions as usize != self.partitions.len() {
            return Err(DriverError::invalid(format!(
                "config field partitions cannot change: it is {}",
                self.partitions.len()
            )));
        }
        self.nodes.configure(&config)?;
        for client in &self.partitions {
            client.partition.forget_any_leader();
        }
        Ok(())
    }

    async fn invoke(&self, invocation: Invocation) -> Result<Bytes, DriverError> {
        let Invocation {
            kind,
            primitive,
            method,
            request,
            owner,
            deadline,
        } = invocation;
        let operation = Operation {
            kind,
            primitive,
            method,
            request,
            owner: owner.0,
        };
        self.kinds.validate(&operation).map_err(operation_error)?;
        let client = self.partition_of(&operation)?;
        match self.kinds.access(&operation).map_err(operation_error)? {
            Access::Read => client.read(operation, deadline).await,
            Access::Write => client.write(operation, deadline).await,
        }
    }

    async fn release_owner(&self, owner: Owner, deadline: Instant) -> Result<(), DriverError> {
        let clients = self.partitions.iter();
        let released = clients.map(|client| client.release_owner(owner, deadline));
        join_all(released).await.into_iter().collect()
    }

    fn state(&self) -> watch::Receiver<ConnectionState> {
        self.nodes.state()
    }

    async fn disconnect(&self) {
        let deadline = Instant::now() + CLOSE_PATIENCE;
        let reached = *self.nodes.state().borrow() == ConnectionState::Connected;
        if reached && !self.closed.is_cancelled() {
            join_all(self.partitions.iter().map(|client| client.close(deadline))).await;
        }
        self.closed.cancel();
        self.nodes.close();
    }
}

fn operation_error(error: atomix_primitives::OperationError) -> DriverError {
    DriverError::new(ErrorKind::from_code(error.code.to_i32()), error.message)
}
