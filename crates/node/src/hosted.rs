//! The partitions that run on this node.

use std::collections::BTreeMap;
use std::sync::Arc;

use atomix_raft::{GroupRecord, NodeId, PartitionId, StartError, StorageError};
use parking_lot::RwLock;
use thiserror::Error;

use crate::partition::{Environment, Partition};

/// Why a partition could not be created, started or deleted.
#[derive(Debug, Error)]
pub(crate) enum HostError {
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Start(#[from] StartError),
}

/// The registry of running partitions.
pub(crate) struct Hosted {
    environment: Environment,
    running: RwLock<Running>,
}

#[derive(Default)]
struct Running {
    store_uid: Arc<str>,
    partitions: BTreeMap<PartitionId, Arc<Partition>>,
}

impl Hosted {
    /// Starts every partition that the data directory holds.
    ///
    /// # Errors
    /// The first that cannot be started.
    pub(crate) async fn start(environment: Environment) -> Result<Self, StartError> {
        let hosted = Self {
            environment,
            running: RwLock::default(),
        };
        for record in hosted.environment.engine.groups() {
            hosted.run(record).await?;
        }
        Ok(hosted)
    }

    pub(crate) fn node_id(&self) -> NodeId {
        self.environment.engine.node_id()
    }

    /// Empty while there is no partition here.
    pub(crate) fn store_uid(&self) -> Arc<str> {
        Arc::clone(&self.running.read().store_uid)
    }

    pub(crate) fn get(&self, partition: PartitionId) -> Option<Arc<Partition>> {
        self.running.read().partitions.get(&partition).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Partition>> {
        self.running.read().partitions.values().cloned().collect()
    }

    /// The highest partition that is stored here, running or not; 0 = none. A store's partitions count
    /// from 1, so it has at least so many.
    pub(crate) fn highest_partition(&self) -> u32 {
        let groups = self.environment.engine.groups();
        let highest = groups.iter().map(|record| record.partition_id.0).max();
        highest.unwrap_or(0)
    }

    /// What is stored, running or not.
    pub(crate) fn records(&self) -> Vec<GroupRecord> {
        self.environment.engine.groups()
    }

    /// Stores a group durably; it does not run yet.
    ///
    /// # Errors
    /// When the log cannot be written.
    pub(crate) async fn store(&self, record: &GroupRecord) -> Result<(), HostError> {
        Ok(self.environment.engine.create_group(record).await?)
    }

    /// Starts a stored group, unless it runs.
    ///
    /// # Errors
    /// When its data cannot be read.
    pub(crate) async fn run(&self, record: GroupRecord) -> Result<(), StartError> {
        let id = record.partition_id;
        if self.get(id).is_some() {
            return Ok(());
        }
        let store_uid: Arc<str> = record.store_uid.as_str().into();
        let partition = Partition::start(&self.environment, record).await?;
        let mut running = self.running.write();
        running.store_uid = store_uid;
        running.partitions.insert(id, Arc::new(partition));
        Ok(())
    }

    /// Stops a partition and deletes its data.
    ///
    /// # Errors
    /// When the log cannot be written.
    pub(crate) async fn delete(&self, id: PartitionId) -> Result<(), HostError> {
        let stopped = self.running.write().partitions.remove(&id);
        if let Some(partition) = stopped {
            partition.stop().await;
        }
        self.environment.engine.delete_group(id).await?;
        Ok(())
    }

    /// Stops everything; the data stays.
    pub(crate) async fn stop(&self) {
        let partitions = std::mem::take(&mut self.running.write().partitions);
        futures::future::join_all(partitions.values().map(|partition| partition.stop())).await;
    }
}
