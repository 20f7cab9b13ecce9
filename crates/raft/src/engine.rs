//! One data directory: the node's identity, its groups, and the log of all of them.
//!
//! ```text
//! LOCK          held while the directory is open
//! node-id       the node id, to tell an empty directory from one that lost its log
//! log/          raft-engine
//! snapshots/N/  the snapshots of partition N
//! ```

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::sync::Arc;

use atomix_proto::multiraft::v1 as pb;
use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message as _;

use crate::boots::BootCounters;
use crate::device::{Device, is_no_room};
use crate::error::{OpenError, StartError, StorageError};
use crate::fatal::{FatalError, FatalReporter};
use crate::ids::{MemberId, NodeId, PartitionId};
use crate::log::{GroupLog, Loaded, LogCore, Operation, disk};
use crate::open::{self, Departures, Opened};
use crate::options::EngineOptions;
use crate::record::GroupRecord;
use crate::recover::{self, FormerMembers, Outlook, RecoverError};
use crate::snapshot::SnapshotStore;

/// One open data directory. Clones are handles to the same one; it closes with the last, and after
/// all groups were shut down.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

/// The operator that a node listens to, as it is kept on its disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredOperator {
    /// How it names itself.
    pub id: String,
    /// Its highest term.
    pub term: u64,
}

struct Inner {
    options: EngineOptions,
    device: Device,
    node_id: NodeId,
    boot_counter: u64,
    core: Arc<LogCore>,
    boots: Arc<BootCounters>,
    groups: Mutex<BTreeMap<PartitionId, Slot>>,
    departures: Mutex<Departures>,
    former: Mutex<BTreeMap<PartitionId, FormerMembers>>,
    /// The operator that was stored when the directory was opened.
    operator: Option<StoredOperator>,
    fatal: FatalReporter,
}

struct Slot {
    record: GroupRecord,
    log: GroupLog,
    started: bool,
}

impl Engine {
    /// Opens a data directory. Blocks while all of the log is read.
    ///
    /// # Errors
    /// When another process has it open, or anything acknowledged may have been lost.
    pub fn open(options: EngineOptions) -> Result<Self, OpenError> {
        let device = Device::new(options.faults.clone());
        let Opened {
            node_id,
            boot_counter,
            engine,
            records,
            boots,
            departures,
            operator,
            former,
            lock,
        } = open::open(&options, &device)?;

        let mut loaded = Vec::new();
        let mut spans = HashMap::new();
        for record in records {
            let region = region(record.partition_id);
            let log = Loaded::read(&engine, region).map_err(|reason| OpenError::Damaged {
                path: options.directory.clone(),
                reason: format!("partition {}: {reason}", record.partition_id),
            })?;
            spans.insert(region, log.span);
            loaded.push((record, log));
        }

        let fatal = FatalReporter::new();
        let core = LogCore::start(
            engine,
            spans,
            lock,
            fatal.clone(),
            options.on_write_failure,
            options.purge_interval,
        )
        .map_err(|source| OpenError::Io {
            action: "start the threads of the log in",
            path: options.directory.clone(),
            source,
        })?;
        let core = Arc::new(core);
        let boots = BootCounters::stored(Arc::downgrade(&core), boots);
        let groups = loaded
            .into_iter()
            .map(|(record, loaded)| {
                let region = region(record.partition_id);
                let log = GroupLog::new(core.clone(), region, loaded);
                let slot = Slot {
                    record,
                    log,
                    started: false,
                };
                (slot.record.partition_id, slot)
            })
            .collect();
        Ok(Self {
            inner: Arc::new(Inner {
                options,
                device,
                node_id,
                boot_counter,
                core,
                boots: Arc::new(boots),
                groups: Mutex::new(groups),
                departures: Mutex::new(departures),
                former: Mutex::new(former),
                operator: operator.map(|operator| StoredOperator {
                    id: operator.id,
                    term: operator.term,
                }),
                fatal,
            }),
        })
    }

    /// Who this data directory is.
    pub fn node_id(&self) -> NodeId {
        self.inner.node_id
    }

    /// Counts the opens of this data directory, this one included.
    pub fn boot_counter(&self) -> u64 {
        self.inner.boot_counter
    }

    /// The highest boot counters seen of other nodes, kept on this disk.
    pub fn boot_counters(&self) -> Arc<BootCounters> {
        self.inner.boots.clone()
    }

    /// The operator that was stored when the directory was opened.
    pub fn operator_at_open(&self) -> Option<StoredOperator> {
        self.inner.operator.clone()
    }

    /// Stores the operator that this node listens to; it is on disk when this returns.
    ///
    /// # Errors
    /// When the log cannot be written.
    pub async fn store_operator(&self, operator: &StoredOperator) -> Result<(), StorageError> {
        let stored = pb::StoredOperator {
            id: operator.id.clone(),
            term: operator.term,
        };
        let put = Operation::Put(disk::KEY_OPERATOR.to_vec(), stored.encode_to_vec());
        self.inner.core.write(disk::NODE_REGION, vec![put]).await
    }

    /// The groups that this node has a member of.
    pub fn groups(&self) -> Vec<GroupRecord> {
        let groups = self.inner.groups.lock();
        groups.values().map(|slot| slot.record.clone()).collect()
    }

    /// Stores a group; it is on disk when this returns. The same record again is no error.
    ///
    /// # Errors
    /// When the partition has another record, or the log cannot be written.
    pub async fn create_group(&self, record: &GroupRecord) -> Result<(), StorageError> {
        let partition = record.partition_id;
        let region = region(partition);
        if region == disk::NODE_REGION {
            return Err(StorageError("partition 0 does not exist".to_owned()));
        }
        if let Some(slot) = self.inner.groups.lock().get(&partition) {
            if slot.record == *record {
                return Ok(());
            }
            return Err(StorageError(format!(
                "partition {partition} has another record already"
            )));
        }
        self.remove_snapshots(partition)?;
        let value = record.to_stored().encode_to_vec();
        self.inner
            .core
            .write(region, vec![Operation::Clean(0)])
            .await?;
        self.inner
            .core
            .write(
                disk::NODE_REGION,
                vec![Operation::Put(disk::group_key(partition.0), value)],
            )
            .await?;
        let log = GroupLog::new(self.inner.core.clone(), region, Loaded::default());
        let slot = Slot {
            record: record.clone(),
            log,
            started: false,
        };
        self.inner.groups.lock().insert(partition, slot);
        Ok(())
    }

    /// Changes what a joining member's record says about its Join: whom to ask, in which role, in
    /// whose place, and how far it is. The group may run. On disk when this returns.
    ///
    /// # Errors
    /// When the partition has no record, or one of another member, or the log cannot be written.
    pub async fn update_group(&self, record: &GroupRecord) -> Result<(), StorageError> {
        let partition = record.partition_id;
        let value = record.to_stored().encode_to_vec();
        let put = Operation::Put(disk::group_key(partition.0), value);
        let written = {
            let mut groups = self.inner.groups.lock();
            match groups.get_mut(&partition) {
                Some(slot) if slot.record.is_same_stay(record) => slot.record = record.clone(),
                Some(_) | None => {
                    return Err(StorageError(format!(
                        "partition {partition} has another record, or none"
                    )));
                }
            }
            // Queued while the groups are locked: disk and memory agree on the order.
            self.inner.core.write(disk::NODE_REGION, vec![put])
        };
        written.await
    }

    /// Deletes a group that is not started, or was shut down: record, log and snapshots.
    /// A group that does not exist is no error.
    ///
    /// # Errors
    /// When it runs, or the log cannot be written.
    pub async fn delete_group(&self, partition: PartitionId) -> Result<(), StorageError> {
        self.remove_group(partition, false).await
    }

    /// Deletes a group whose member left it, and remembers the member: see [`Engine::departed`].
    ///
    /// # Errors
    /// When it runs, or the log cannot be written.
    pub async fn delete_departed(&self, partition: PartitionId) -> Result<(), StorageError> {
        self.remove_group(partition, true).await
    }

    /// The members that this node held of a partition and that left; their ids stay used.
    pub fn departed(&self, partition: PartitionId) -> BTreeSet<MemberId> {
        let departures = self.inner.departures.lock();
        departures.get(&partition).cloned().unwrap_or_default()
    }

    /// What a group could be recovered with; it must not run.
    ///
    /// # Errors
    /// When it runs, or there is nothing to go on with.
    pub async fn look_at_lost(&self, partition: PartitionId) -> Result<Outlook, RecoverError> {
        let (record, log, snapshots) = self.stopped(partition)?;
        recover::look(&record, &log, &snapshots).await
    }

    /// Makes this node's member the only voter of its group, with a fresh id, and gives all others
    /// up; it must not run. The machine applies `notice` after everything that the log holds. On disk
    /// when this returns.
    ///
    /// # Errors
    /// When it is not `member`, it runs, there is nothing to go on with, or the log cannot be
    /// written.
    pub async fn recover_group(
        &self,
        partition: PartitionId,
        member: MemberId,
        new_member: MemberId,
        notice: Bytes,
    ) -> Result<GroupRecord, RecoverError> {
        let (record, log, snapshots) = self.stopped(partition)?;
        if record.member_id != member {
            return Err(RecoverError::OtherMember {
                partition,
                wanted: member,
                found: record.member_id,
            });
        }
        let outlook = recover::look(&record, &log, &snapshots).await?;
        let vote = log.inspect(|state| state.vote);
        let planned = recover::plan(&record, &outlook, vote, new_member, notice)?;
        let given_up = {
            let former = self.inner.former.lock();
            let former = former.get(&partition).cloned().unwrap_or_default();
            former.and(outlook.others())
        };
        let mut left = self.departed(partition);
        left.insert(member);
        let departures = pb::StoredDepartures {
            members: left.iter().map(|member| member.0).collect(),
        };
        let stored = planned.record.to_stored().encode_to_vec();
        let operations = vec![
            Operation::PutNode(disk::group_key(partition.0), stored),
            Operation::PutNode(
                disk::departures_key(partition.0),
                departures.encode_to_vec(),
            ),
            given_up.put(partition),
        ];
        log.force(planned.entries, planned.vote, operations).await?;
        self.inner.former.lock().insert(partition, given_up);
        self.inner.departures.lock().insert(partition, left);
        if let Some(slot) = self.inner.groups.lock().get_mut(&partition) {
            slot.record = planned.record.clone();
        }
        Ok(planned.record)
    }

    /// The members that were given up when the group was recovered from this node's member.
    pub fn former_members(&self, partition: PartitionId) -> FormerMembers {
        let former = self.inner.former.lock();
        former.get(&partition).cloned().unwrap_or_default()
    }

    fn stopped(
        &self,
        partition: PartitionId,
    ) -> Result<(GroupRecord, GroupLog, SnapshotStore), RecoverError> {
        let (record, log) = match self.inner.groups.lock().get(&partition) {
            None => return Err(RecoverError::NotHere(partition)),
            Some(slot) if slot.started => return Err(RecoverError::Running(partition)),
            Some(slot) => (slot.record.clone(), slot.log.clone()),
        };
        let directory = open::snapshots(&self.inner.options.directory, partition);
        let snapshots = SnapshotStore::open(directory, self.inner.device.clone());
        let snapshots = snapshots.map_err(|error| StorageError(error.to_string()))?;
        Ok((record, log, snapshots))
    }

    async fn remove_group(
        &self,
        partition: PartitionId,
        departs: bool,
    ) -> Result<(), StorageError> {
        let member = {
            let mut groups = self.inner.groups.lock();
            match groups.get(&partition) {
                None => return Ok(()),
                Some(slot) if slot.started => {
                    return Err(StorageError(format!("partition {partition} is running")));
                }
                Some(_) => {}
            }
            groups.remove(&partition).map(|slot| slot.record.member_id)
        };
        // An empty value says that the record is gone: see the rules of `log`.
        let mut operations = vec![
            Operation::PutNode(disk::group_key(partition.0), Vec::new()),
            Operation::Clean(0),
        ];
        if departs && let Some(member) = member {
            let mut departures = self.inner.departures.lock();
            let left = departures.entry(partition).or_default();
            left.insert(member);
            let stored = pb::StoredDepartures {
                members: left.iter().map(|member| member.0).collect(),
            };
            let value = stored.encode_to_vec();
            operations.push(Operation::PutNode(disk::departures_key(partition.0), value));
        }
        // One batch: after a crash all of it is gone, or nothing.
        self.inner.core.write(region(partition), operations).await?;
        self.remove_snapshots(partition)
    }

    /// Completes when the log or a group broke: end the process then.
    pub async fn failed(&self) -> FatalError {
        self.inner.fatal.wait().await
    }

    /// What [`Engine::failed`] would answer now.
    pub fn failure(&self) -> Option<FatalError> {
        self.inner.fatal.first()
    }

    fn remove_snapshots(&self, partition: PartitionId) -> Result<(), StorageError> {
        let directory = open::snapshots(&self.inner.options.directory, partition);
        let device = &self.inner.device;
        let removed = match device.remove_directory(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => Err(error),
            Ok(()) => directory
                .parent()
                .map_or(Ok(()), |parent| device.sync_directory(parent)),
        };
        removed.map_err(|error| {
            let reason = format!("the snapshots of partition {partition} stay: {error}");
            self.end_unless_full(partition, &error, &reason);
            StorageError(reason)
        })
    }

    /// What the disk failed to do is not tried again, but for want of room: after a failed sync a
    /// later one may say that all is well though it is not.
    fn end_unless_full(&self, partition: PartitionId, error: &io::Error, reason: &str) {
        if !is_no_room(error) {
            self.inner.fatal.report(Some(partition), reason);
        }
    }

    pub(crate) fn fatal(&self) -> &FatalReporter {
        &self.inner.fatal
    }

    pub(crate) fn options(&self) -> &EngineOptions {
        &self.inner.options
    }

    /// Gives the log of a group to whoever starts it; only one may have it.
    pub(crate) fn claim(&self, record: &GroupRecord) -> Result<Claim, StartError> {
        let partition = record.partition_id;
        let mut groups = self.inner.groups.lock();
        let slot = groups
            .get_mut(&partition)
            .filter(|slot| slot.record.is_for(record))
            .ok_or(StartError::RecordMismatch(partition))?;
        if slot.started {
            return Err(StartError::AlreadyStarted(partition));
        }
        let directory = open::snapshots(&self.inner.options.directory, partition);
        let snapshots = SnapshotStore::open(directory, self.inner.device.clone());
        let snapshots = snapshots.map_err(|error| {
            let reason = format!("cannot open the directory of snapshots: {error}");
            self.end_unless_full(partition, &error, &reason);
            StartError::Storage { partition, reason }
        })?;
        slot.started = true;
        Ok(Claim {
            log: slot.log.clone(),
            snapshots,
            released: Released {
                engine: self.clone(),
                partition,
            },
        })
    }
}

/// What a running group holds of the engine.
pub(crate) struct Claim {
    pub(crate) log: GroupLog,
    pub(crate) snapshots: SnapshotStore,
    pub(crate) released: Released,
}

/// Lets the group be started again, or deleted, once it is dropped.
pub(crate) struct Released {
    engine: Engine,
    partition: PartitionId,
}

impl Drop for Released {
    fn drop(&mut self) {
        if let Some(slot) = self.engine.inner.groups.lock().get_mut(&self.partition) {
            slot.started = false;
        }
    }
}

fn region(partition: PartitionId) -> u64 {
    u64::from(partition.0)
}
