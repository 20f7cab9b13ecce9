//! A connection to one multi-raft store: all of its partitions.
//!
//! Not for what goes to which partition (module `spread`), nor for sessions and what is sent again
//! (modules `client` and `partition`).

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use atomix_primitives::Kinds;
use atomix_proto::multiraft::v1::{FollowEvents, Operation};
use bytes::Bytes;
use futures::future::join_all;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::client::{Granted, PartitionClient};
use super::config::Config;
use super::keep_alive;
use super::nodes::Nodes;
use super::{NO_CREDENTIALS, Security};
use crate::driver::{
    Connection, ConnectionState, Holdings, Invocation, Owner, ReplyStream, StoreId,
};
use crate::error::{DriverError, ErrorKind};
use crate::resolver::Resolver;
use crate::spread::{Happened, PartitionId, Partitions, Spread};

/// How long `disconnect` spends on closing sessions; what it cannot close expires by itself.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

/// A connection to a multi-raft store.
pub(crate) struct MultiRaftConnection {
    nodes: Arc<Nodes>,
    partitions: Arc<AllPartitions>,
    spread: Spread<AllPartitions>,
    closed: CancellationToken,
    /// Ends the background tasks also when the connection is dropped without a disconnect.
    _close_on_drop: DropGuard,
}

/// The clients of the partitions, in their order: partition 1 is the first.
struct AllPartitions(Vec<Arc<PartitionClient>>);

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
                    &kinds,
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
        let partitions = Arc::new(AllPartitions(partitions));
        Ok(Self {
            nodes,
            spread: Spread::new(kinds, Arc::clone(&partitions)),
            partitions,
            closed: closed.clone(),
            _close_on_drop: closed.drop_guard(),
        })
    }
}

impl Partitions for AllPartitions {
    type Grant = Granted;

    fn count(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap_or(u32::MAX)
    }

    async fn read(
        &self,
        partition: PartitionId,
        operation: Operation,
        deadline: Instant,
    ) -> Result<Bytes, DriverError> {
        self.get(partition)?.read(operation, deadline).await
    }

    async fn write(
        &self,
        partition: PartitionId,
        operation: Operation,
        deadline: Instant,
    ) -> Result<Granted, DriverError> {
        self.get(partition)?.write(operation, deadline).await
    }

    async fn events(
        &self,
        partition: PartitionId,
        asked: FollowEvents,
        incarnation: u64,
        deadline: Instant,
    ) -> Result<Happened, DriverError> {
        let partition = self.get(partition)?;
        partition.events(asked, incarnation, deadline).await
    }
}

impl AllPartitions {
    fn get(&self, PartitionId(id): PartitionId) -> Result<&Arc<PartitionClient>, DriverError> {
        let index = (id as usize).checked_sub(1);
        index
            .and_then(|index| self.0.get(index))
            .ok_or_else(|| DriverError::new(ErrorKind::Internal, "the store has no such partition"))
    }
}

#[async_trait]
impl Connection for MultiRaftConnection {
    async fn configure(&self, config: &[u8]) -> Result<(), DriverError> {
        let config = Config::parse(config)?;
        if config.partitions as usize != self.partitions.0.len() {
            return Err(DriverError::invalid(format!(
                "config field partitions cannot change: it is {}",
                self.partitions.0.len()
            )));
        }
        self.nodes.configure(&config)?;
        for client in &self.partitions.0 {
            client.partition.forget_any_leader();
        }
        Ok(())
    }

    async fn invoke(&self, invocation: Invocation) -> Result<Bytes, DriverError> {
        self.spread.invoke(invocation).await
    }

    async fn subscribe(&self, invocation: Invocation) -> Result<ReplyStream, DriverError> {
        self.spread.subscribe(invocation).await
    }

    async fn release_owner(&self, owner: Owner, holdings: Holdings<'_>) -> Result<(), DriverError> {
        let concerned = self.spread.partitions_with(holdings);
        let clients = self.partitions.0.iter();
        let released = clients
            .filter(|client| concerned.contains(&client.partition.id()))
            .map(|client| client.release_owner(owner, holdings));
        join_all(released).await.into_iter().collect()
    }

    fn state(&self) -> watch::Receiver<ConnectionState> {
        self.nodes.state()
    }

    async fn disconnect(&self) {
        let deadline = Instant::now() + CLOSE_PATIENCE;
        let reached = *self.nodes.state().borrow() == ConnectionState::Connected;
        if reached && !self.closed.is_cancelled() {
            join_all(
                self.partitions
                    .0
                    .iter()
                    .map(|client| client.close(deadline)),
            )
            .await;
        }
        self.closed.cancel();
        self.nodes.close();
    }
}
