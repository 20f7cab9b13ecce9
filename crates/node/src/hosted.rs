//! The partitions that run on this node.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;

use atomix_proto::multiraft::v1::PartitionLeader;
use atomix_raft::{
    FormerMembers, GroupRecord, MemberId, NodeId, PartitionId, RecoverError, StartError,
    StorageError,
};
use parking_lot::RwLock;
use thiserror::Error;
use tokio::sync::{Mutex, MutexGuard};
use tokio::task::JoinHandle;

use crate::partition::{Environment, Partition, PartitionEvent};

/// Why a partition could not be created, started or deleted.
#[derive(Debug, Error)]
pub(crate) enum HostError {
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Recover(#[from] RecoverError),
}

/// The registry of running partitions.
pub(crate) struct Hosted {
    environment: Environment,
    running: RwLock<Running>,
    /// Held by whoever creates or deletes groups.
    one_at_a_time: Mutex<()>,
}

#[derive(Default)]
struct Running {
    store_uid: Arc<str>,
    partitions: BTreeMap<PartitionId, Arc<Partition>>,
    /// Where to ask for the partitions whose members left this node, as long as this process lives.
    moved: BTreeMap<PartitionId, PartitionLeader>,
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
            one_at_a_time: Mutex::default(),
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

    /// The newest incarnation of the store's data here; 0 = there is none.
    pub(crate) fn incarnation(&self) -> u64 {
        let groups = self.environment.engine.groups();
        let newest = groups.iter().map(|record| record.incarnation).max();
        newest.unwrap_or(0)
    }

    /// Who is to be asked for a partition whose member left this node.
    pub(crate) fn moved_to(&self, partition: PartitionId) -> Option<PartitionLeader> {
        self.running.read().moved.get(&partition).cloned()
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

    /// What is stored of a partition, whether it runs or not.
    pub(crate) fn record(&self, partition: PartitionId) -> Option<GroupRecord> {
        let mut records = self.records().into_iter();
        records.find(|record| record.partition_id == partition)
    }

    /// The members that this node held of a partition and that left.
    pub(crate) fn departed(&self, partition: PartitionId) -> BTreeSet<MemberId> {
        self.environment.engine.departed(partition)
    }

    /// To be held while groups are created or deleted.
    pub(crate) async fn one_at_a_time(&self) -> MutexGuard<'_, ()> {
        self.one_at_a_time.lock().await
    }

    /// Starts a task whose panic ends the process.
    pub(crate) fn spawn(
        &self,
        name: String,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> JoinHandle<()> {
        self.environment.faults.spawn(name, task)
    }

    /// Stores what a joining member's record says now.
    ///
    /// # Errors
    /// When it is not the record of that member, or the log cannot be written.
    pub(crate) async fn update(&self, record: &GroupRecord) -> Result<(), HostError> {
        Ok(self.environment.engine.update_group(record).await?)
    }

    /// Stops the partition of a member that left its group, deletes its data, and remembers that
    /// its id is used. Nothing happens when another member, or none, is here.
    ///
    /// # Errors
    /// When the log cannot be written.
    pub(crate) async fn depart(
        &self,
        partition: PartitionId,
        member: MemberId,
    ) -> Result<(), HostError> {
        let _one = self.one_at_a_time().await;
        let held = self.record(partition);
        if held.is_none_or(|record| record.member_id != member) {
            return Ok(());
        }
        tracing::info!(%partition, %member, "the member has left; deletes its data");
        let moved_to = self.get(partition).and_then(|held| held.another_member());
        if let Some(moved_to) = moved_to {
            self.running.write().moved.insert(partition, moved_to);
        }
        self.stop_one(partition).await;
        self.environment.engine.delete_departed(partition).await?;
        let removed = PartitionEvent::Removed { partition, member };
        // Nobody may watch.
        let _ = self.environment.events.send(removed);
        Ok(())
    }

    /// Makes this node's member the only voter of its group, as `new_member`.
    ///
    /// # Errors
    /// When another member is here, or there is nothing to go on with; the group runs as before.
    pub(crate) async fn recover(
        &self,
        partition: PartitionId,
        member: MemberId,
        new_member: MemberId,
    ) -> Result<GroupRecord, HostError> {
        let _one = self.one_at_a_time().await;
        self.stop_one(partition).await;
        let engine = &self.environment.engine;
        let recovered = engine
            .recover_group(partition, member, new_member, crate::recover::notice())
            .await;
        if let Some(record) = self.record(partition) {
            self.run(record).await?;
        }
        Ok(recovered?)
    }

    /// The members that were given up when the group was recovered from this node's member.
    pub(crate) fn former_members(&self, partition: PartitionId) -> FormerMembers {
        self.environment.engine.former_members(partition)
    }

    async fn stop_one(&self, partition: PartitionId) {
        let stopped = self.running.write().partitions.remove(&partition);
        if let Some(partition) = stopped {
            partition.stop().await;
        }
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
        running.moved.remove(&id);
        running.partitions.insert(id, Arc::new(partition));
        Ok(())
    }

    /// Stops a partition and deletes its data.
    ///
    /// # Errors
    /// When the log cannot be written.
    pub(crate) async fn delete(&self, id: PartitionId) -> Result<(), HostError> {
        self.stop_one(id).await;
        self.environment.engine.delete_group(id).await?;
        Ok(())
    }

    /// Stops everything; the data stays.
    pub(crate) async fn stop(&self) {
        let partitions = std::mem::take(&mut self.running.write().partitions);
        futures::future::join_all(partitions.values().map(|partition| partition.stop())).await;
    }
}
