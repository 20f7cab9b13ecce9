//! This node's member of a partition.

mod inbox;
mod members;
mod metrics;
mod reads;
mod snapshot_policy;
mod upkeep;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use openraft::errors::{
    ClientWriteError, ForwardReason, ForwardToLeader, InitializeError as RaftInitializeError,
    RaftError,
};
use openraft::{Raft, SnapshotPolicy};
use parking_lot::Mutex;
use tokio::sync::broadcast;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::engine::{Claim, Engine, Released};
use crate::error::{
    InitializeError, LeaderHint, ProposeError, ReadError, StartError, StorageError,
};
use crate::host::{Host, HostHandle};
use crate::ids::PartitionId;
use crate::machine::Machine;
use crate::network::{Factory, Sender};
use crate::record::{GroupRecord, Timings};
use crate::status::{GroupEvent, GroupStatus};
use crate::transport::Transport;
use crate::types::{Payload, Peer, TypeConfig, member};
use crate::{PeerMessage, PeerReply};
use inbox::Inbox;
use reads::Reads;
use upkeep::Upkeep;

pub use reads::ReadIndex;

/// Events that a slow subscriber may lag behind.
const EVENT_BUFFER: usize = 256;
/// How long a receiver may take to install a snapshot.
const INSTALL_TIMEOUT: Duration = Duration::from_secs(300);

pub(crate) type Node<M> = Raft<TypeConfig, HostHandle<M>>;

/// This node's member of a partition. Clones are handles to the same member; when the last one is
/// dropped the member stops, but only [`Group::shutdown`] says when it has.
pub struct Group<M: Machine> {
    inner: Arc<Inner<M>>,
}

impl<M: Machine> Clone for Group<M> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
        }
    }
}

struct Inner<M: Machine> {
    record: GroupRecord,
    raft: Node<M>,
    host: Arc<Host<M>>,
    events: broadcast::Sender<GroupEvent>,
    inbox: Inbox,
    reads: Arc<Reads<M>>,
    upkeep: Arc<Upkeep<M>>,
    sender: Arc<Sender>,
    /// Held while the leadership is handed over.
    transferring: tokio::sync::Mutex<()>,
    stopping: CancellationToken,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    released: Mutex<Option<Released>>,
}

impl<M: Machine> Drop for Inner<M> {
    fn drop(&mut self) {
        self.stopping.cancel();
    }
}

impl<M: Machine> Group<M> {
    /// Starts the member that [`Engine::create_group`] stored. `machine` is fresh; it is brought
    /// to the last snapshot and through the committed log before this returns.
    ///
    /// # Errors
    /// When the record is not the stored one, the group runs already, or its data cannot be read.
    pub async fn start(
        engine: &Engine,
        record: GroupRecord,
        machine: M,
        transport: Arc<dyn Transport>,
    ) -> Result<Self, StartError> {
        let partition = record.partition_id;
        let storage_error = |reason: String| StartError::Storage { partition, reason };
        let config = config(record.partition_id, &record.timings)?;
        let Claim {
            log,
            snapshots,
            released,
        } = engine.claim(&record)?;

        let (events, _) = broadcast::channel(EVENT_BUFFER);
        let fatal = engine.fatal().clone();
        let host = Host::new(partition, machine, snapshots, events.clone(), fatal.clone())
            .map_err(|error| storage_error(error.to_string()))?;
        let host = Arc::new(host);
        // openraft would go on with an empty state if it does not know what was committed.
        let compacted = log.inspect(|state| state.purged);
        if let Some(compacted) = host.compacted_beyond_snapshots(compacted) {
            return Err(StartError::NoSnapshot {
                partition,
                compacted,
            });
        }
        let sender = Arc::new(Sender::new(record.clone(), transport));
        let started = Box::pin(Raft::new(
            record.member_id.0,
            Arc::new(config),
            Factory(sender.clone()),
            log,
            HostHandle(host.clone()),
        ));
        let raft = started
            .await
            .map_err(|error| storage_error(error.to_string()))?;

        let stopping = CancellationToken::new();
        let reads = Arc::new(Reads::new(raft.clone(), host.clone()));
        let upkeep = Arc::new(Upkeep::new(
            raft.clone(),
            host.clone(),
            sender.clone(),
            snapshot_policy::SnapshotPolicy {
                bytes: engine.options().snapshot_bytes,
                entries: record.timings.snapshot_entry_threshold,
                pause: engine.options().snapshot_pause,
            },
            engine.options().log_retention,
        ));
        let (inbox, receiving) = Inbox::new(&record, raft.clone(), host.clone(), stopping.clone());
        let watching = metrics::watch(
            record.clone(),
            raft.clone(),
            events.clone(),
            stopping.clone(),
        );
        let keeping = upkeep.clone().run(stopping.clone());
        let spawn = |name, work| fatal.spawn(partition, name, stopping.clone(), work);
        let tasks = vec![
            spawn("the inbox", receiving.map(Ok).boxed()),
            spawn("the watch of the metrics", watching.boxed()),
            spawn("the upkeep", keeping.map(Ok).boxed()),
        ];
        Ok(Self {
            inner: Arc::new(Inner {
                record,
                raft,
                host,
                events,
                inbox,
                reads,
                upkeep,
                sender,
                transferring: tokio::sync::Mutex::new(()),
                stopping,
                tasks: Mutex::new(tasks),
                released: Mutex::new(Some(released)),
            }),
        })
    }

    /// The record that it was started with.
    pub fn record(&self) -> &GroupRecord {
        &self.inner.record
    }

    /// Makes the group begin, with the record's members as voters. Only the initializer does; a
    /// group that is initialized already stays as it is, and that is no error.
    ///
    /// # Errors
    /// When this member is not the initializer, or the group broke.
    pub async fn initialize(&self) -> Result<(), InitializeError> {
        let record = &self.inner.record;
        if record.initializer != Some(record.member_id) {
            return Err(InitializeError::NotInitializer(record.member_id));
        }
        let failed = |error: &dyn std::fmt::Display| InitializeError::Failed(error.to_string());
        let raft = &self.inner.raft;
        if raft
            .is_initialized()
            .await
            .map_err(|error| failed(&error))?
        {
            return Ok(());
        }
        let members: BTreeMap<u64, Peer> = record
            .members
            .iter()
            .map(|(id, address)| (id.0, Peer::new(address)))
            .collect();
        match raft.initialize(members).await {
            // Another call, or a leader, was quicker.
            Err(RaftError::APIError(RaftInitializeError::NotAllowed(_))) | Ok(()) => Ok(()),
            Err(error) => Err(failed(&error)),
        }
    }

    /// True once the group has a membership here: initialized, or learnt from a leader.
    pub async fn is_initialized(&self) -> bool {
        self.inner.raft.is_initialized().await.unwrap_or(false)
    }

    /// Replicates and applies `payload`, and answers what the machine answered.
    ///
    /// # Errors
    /// `Unknown` alone means that the payload may have been, or may yet be applied. Dropping the
    /// future leaves the outcome unknown, too.
    pub async fn propose(
        &self,
        payload: Bytes,
        deadline: Instant,
    ) -> Result<M::Output, ProposeError> {
        let write = Box::pin(self.inner.raft.client_write(Payload(payload)));
        let Ok(written) = tokio::time::timeout_at(deadline, write).await else {
            return Err(ProposeError::Unknown("no outcome in time".to_owned()));
        };
        let error = match written {
            Ok(response) => {
                return response.data.take::<M::Output>().ok_or_else(|| {
                    ProposeError::Unknown("applied, but the machine's answer was lost".to_owned())
                });
            }
            Err(error) => error,
        };
        match error {
            // openraft answers this before it appends anything.
            RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => {
                match forward.reason {
                    ForwardReason::NotLeader => Err(ProposeError::NotLeader(hint(&forward))),
                    ForwardReason::LeadershipTransfer | ForwardReason::LeaseExpired => Err(
                        ProposeError::Unavailable("the leadership is unsettled".to_owned()),
                    ),
                }
            }
            RaftError::APIError(error) => Err(ProposeError::Unknown(error.to_string())),
            RaftError::Fatal(error) => Err(ProposeError::Unknown(error.to_string())),
        }
    }

    /// Confirms with a quorum that this member leads, later than this call; returns when the local
    /// machine has applied everything that was committed then. Concurrent calls share rounds, of
    /// which at most one is under way.
    ///
    /// # Errors
    /// When it is not the leader, or there is no confirmation, or no state that new, in time.
    pub async fn linearizable_read(&self, deadline: Instant) -> Result<ReadIndex, ReadError> {
        let confirmed = tokio::time::timeout_at(deadline, self.inner.reads.confirm()).await;
        let index = confirmed
            .unwrap_or_else(|_| Err(ReadError::Unavailable("no quorum in time".to_owned())))?;
        if !self.wait_applied(index.index, deadline).await {
            return Err(ReadError::Unavailable(
                "the state did not catch up in time".to_owned(),
            ));
        }
        Ok(index)
    }

    /// Waits until the machine has applied `index`. False when the deadline passed first, or the
    /// group stopped.
    pub async fn wait_applied(&self, index: u64, deadline: Instant) -> bool {
        let mut progress = self.inner.host.progress();
        let reached = progress.wait_for(|applied| *applied >= index);
        tokio::select! {
            waited = tokio::time::timeout_at(deadline, reached) => matches!(waited, Ok(Ok(_))),
            () = self.inner.stopping.cancelled() => false,
        }
    }

    /// Reads the machine. Applying waits meanwhile: be quick.
    pub fn with_machine<R>(&self, read: impl FnOnce(&M) -> R) -> R {
        self.inner.host.with_machine(read)
    }

    /// How things are now.
    pub fn status(&self) -> GroupStatus {
        let mut status = metrics::status(&self.inner.record, &self.inner.raft);
        // Metrics lag a little; who waited for an index must see it.
        status.applied = status.applied.max(*self.inner.host.progress().borrow());
        status
    }

    /// What happens from now on. A receiver that lags too far behind gets `Lagged`: ask for the
    /// status then.
    pub fn subscribe(&self) -> broadcast::Receiver<GroupEvent> {
        self.inner.events.subscribe()
    }

    /// Takes a message from another member.
    ///
    /// It is queued DURING the call, so calls made in the order of arrival are handled in that
    /// order; the returned future only waits for the reply, and may be spawned or dropped. Never
    /// blocks: a full inbox answers `BUSY`, a message for another member `WRONG_MEMBER`.
    pub fn handle(
        &self,
        message: PeerMessage,
    ) -> impl Future<Output = PeerReply> + Send + 'static + use<M> {
        self.inner.inbox.accept(message)
    }

    /// Writes a snapshot of at least what is applied now, then compacts the log as far as allowed.
    /// Returns the last index that the snapshot holds.
    ///
    /// # Errors
    /// When the group stops meanwhile.
    pub async fn snapshot_now(&self) -> Result<u64, StorageError> {
        tokio::select! {
            written = self.inner.upkeep.snapshot_now() => written,
            () = self.inner.stopping.cancelled() => {
                Err(StorageError("the group stopped before the snapshot was written".to_owned()))
            }
        }
    }

    /// Stops the member; its data stays. Afterwards it can be started again, or deleted.
    pub async fn shutdown(&self) {
        self.inner.stopping.cancel();
        if let Err(error) = self.inner.raft.shutdown().await {
            tracing::error!(partition = %self.inner.record.partition_id, %error, "a group did not stop cleanly");
        }
        let tasks = std::mem::take(&mut *self.inner.tasks.lock());
        for task in tasks {
            if let Err(error) = task.await {
                tracing::error!(partition = %self.inner.record.partition_id, %error, "a task of a group ended badly");
            }
        }
        drop(self.inner.released.lock().take());
    }
}

fn hint(forward: &ForwardToLeader<TypeConfig>) -> Option<LeaderHint> {
    let peer = forward.leader_node.as_ref()?;
    Some(LeaderHint {
        member_id: member(forward.leader_id?),
        node_id: peer.node_id(),
        address: peer.address.clone(),
    })
}

/// The part of the election timeout that a leader's lease lasts.
fn lease(timings: &Timings) -> Duration {
    timings.election_timeout * 6 / 10
}

fn config(partition: PartitionId, timings: &Timings) -> Result<openraft::Config, StartError> {
    let election_timeout = timings.election_timeout;
    let refused = |reason: String| StartError::Timings {
        partition,
        election_timeout,
        reason,
    };
    let millis =
        u64::try_from(election_timeout.as_millis()).map_err(|error| refused(error.to_string()))?;
    let config = openraft::Config {
        cluster_name: format!("partition {partition}"),
        heartbeat_interval: millis / 10,
        election_timeout_min: millis * 4 / 10,
        election_timeout_max: millis * 6 / 10,
        install_snapshot_timeout: u64::try_from(INSTALL_TIMEOUT.as_millis()).unwrap_or(u64::MAX),
        // Batches end by bytes, in the log reader.
        max_payload_entries: 4096,
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        enable_pre_vote: Some(true),
        // With it, a leader that restarts quickly leads without an election and reads stale data.
        enable_leader_restore: Some(false),
        ..openraft::Config::default()
    };
    config
        .validate()
        .map_err(|error| refused(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_election_timeout_gives_the_heartbeats_and_the_range_of_elections() {
        // (election timeout, heartbeat, election from, election to), in milliseconds
        for (election_timeout, heartbeat, from, to) in [
            (100, 10, 40, 60),
            (500, 50, 200, 300),
            (1000, 100, 400, 600),
            (2500, 250, 1000, 1500),
            (60_000, 6000, 24_000, 36_000),
        ] {
            let timings = Timings {
                election_timeout: Duration::from_millis(election_timeout),
                ..Timings::default()
            };
            assert_eq!(lease(&timings), Duration::from_millis(to));
            let config = config(PartitionId(7), &timings).expect("timings that are possible");
            assert_eq!(
                (
                    config.heartbeat_interval,
                    config.election_timeout_min,
                    config.election_timeout_max
                ),
                (heartbeat, from, to),
                "of {election_timeout} ms"
            );
        }
    }

    #[test]
    fn what_openraft_must_do_and_must_leave_to_us_is_set() {
        let config = config(PartitionId(7), &Timings::default()).expect("the usual timings");
        assert_eq!(config.enable_pre_vote, Some(true));
        assert_eq!(config.enable_leader_restore, Some(false));
        // The upkeep takes snapshots and compacts the log.
        assert_eq!(config.snapshot_policy, SnapshotPolicy::Never);
        assert_eq!(config.max_in_snapshot_log_to_keep, u64::MAX);
        assert_eq!(config.max_payload_entries, 4096);
        assert_eq!(config.install_snapshot_timeout, 300_000);
    }
}
