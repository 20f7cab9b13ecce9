//! Opens a data directory: lock, check, recovery, identity.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use atomix_proto::multiraft::v1 as pb;
use prost::Message as _;
use raft_engine::{Config, LogBatch, ReadableSize, RecoveryMode};
use rand::Rng as _;

use crate::device::Device;
use crate::error::OpenError;
use crate::ids::{MemberId, NodeId, PartitionId};
use crate::log::{Files, LogEngine, VerifyError, disk, verify};
use crate::options::EngineOptions;
use crate::record::GroupRecord;
use crate::recover::FormerMembers;

/// The version of everything on disk.
const FORMAT: u32 = 1;
const LOCK_FILE: &str = "LOCK";
const NODE_ID_FILE: &str = "node-id";
const LOG_DIRECTORY: &str = "log";
const SNAPSHOT_DIRECTORY: &str = "snapshots";

/// The members that this node held of each partition and that left.
pub(crate) type Departures = BTreeMap<PartitionId, BTreeSet<MemberId>>;

pub(crate) struct Opened {
    pub(crate) node_id: NodeId,
    pub(crate) boot_counter: u64,
    pub(crate) engine: Arc<LogEngine>,
    pub(crate) records: Vec<GroupRecord>,
    /// The highest boot counter seen of each other node.
    pub(crate) boots: Vec<(NodeId, u64)>,
    /// The members that left, by partition.
    pub(crate) departures: Departures,
    /// The operator that the node listens to.
    pub(crate) operator: Option<pb::StoredOperator>,
    /// The members that recovered groups had before, by partition.
    pub(crate) former: BTreeMap<PartitionId, FormerMembers>,
    pub(crate) lock: File,
}

/// Where the snapshots of a partition are.
pub(crate) fn snapshots(directory: &Path, partition: PartitionId) -> PathBuf {
    directory
        .join(SNAPSHOT_DIRECTORY)
        .join(partition.to_string())
}

pub(crate) fn open(options: &EngineOptions, device: &Device) -> Result<Opened, OpenError> {
    let directory = &options.directory;
    let log_directory = directory.join(LOG_DIRECTORY);
    for needed in [&log_directory, &directory.join(SNAPSHOT_DIRECTORY)] {
        device
            .create_directory(needed)
            .map_err(io_error("create", needed))?;
    }
    let lock = lock(directory)?;

    let known = read_node_id(directory)?;
    let cuts = verify(&log_directory).map_err(|error| match error {
        VerifyError::Io { path, source } => io_error("read", &path)(source),
        VerifyError::Damaged { .. } => damaged(directory, &error),
    })?;
    let files = Arc::new(Files::new(cuts, device.clone()));
    let engine = LogEngine::open_with_file_system(config(options, &log_directory), files)
        .map_err(|error| damaged(directory, &error))?;
    let identity = identify(directory, &log_directory, &engine, known, device)?;

    let NodeRegion {
        records,
        boots,
        departures,
        operator,
        former,
    } = read_node(&engine).map_err(|reason| damaged(directory, &reason))?;
    remove_orphans(directory, &records, device)?;
    Ok(Opened {
        node_id: NodeId(identity.node_id),
        boot_counter: identity.boot_counter,
        engine: Arc::new(engine),
        records,
        boots,
        departures,
        operator,
        former,
        lock,
    })
}

/// Gives the directory this open's identity; it is on disk when this returns.
fn identify(
    directory: &Path,
    log_directory: &Path,
    engine: &LogEngine,
    known: Option<u64>,
    device: &Device,
) -> Result<pb::StoredIdentity, OpenError> {
    let identity = next_identity(directory, engine, known)?;
    let mut batch = LogBatch::default();
    batch
        .put(
            disk::NODE_REGION,
            disk::KEY_IDENTITY.to_vec(),
            identity.encode_to_vec(),
        )
        .and_then(|()| engine.write(&mut batch, true))
        .map_err(|error| io_error("write", log_directory)(io::Error::other(error)))?;
    for changed in [log_directory, directory] {
        device
            .sync_directory(changed)
            .map_err(io_error("sync", changed))?;
    }
    // Last: a directory with a node id and without a log is refused.
    if known.is_none() {
        write_node_id(directory, identity.node_id, device)?;
    }
    Ok(identity)
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.to_owned();
    move |source| OpenError::Io {
        action,
        path,
        source,
    }
}

fn damaged(directory: &Path, reason: &dyn std::fmt::Display) -> OpenError {
    OpenError::Damaged {
        path: directory.to_owned(),
        reason: reason.to_string(),
    }
}

fn incomplete(directory: &Path, reason: String) -> OpenError {
    OpenError::Incomplete {
        path: directory.to_owned(),
        reason,
    }
}

fn lock(directory: &Path) -> Result<File, OpenError> {
    let path = directory.join(LOCK_FILE);
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(io_error("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked(directory.to_owned())),
        Err(TryLockError::Error(source)) => Err(io_error("lock", &path)(source)),
    }
}

fn config(options: &EngineOptions, log_directory: &Path) -> Config {
    Config {
        dir: log_directory.to_string_lossy().into_owned(),
        // What may be cut was decided before; `Files` refuses anything else.
        recovery_mode: RecoveryMode::TolerateTailCorruption,
        batch_compression_threshold: ReadableSize(0),
        enable_log_recycle: false,
        target_file_size: ReadableSize(options.log_file_size),
        purge_threshold: ReadableSize(options.purge_threshold.max(options.log_file_size)),
        ..Config::default()
    }
}

fn read_node_id(directory: &Path) -> Result<Option<u64>, OpenError> {
    let path = directory.join(NODE_ID_FILE);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error("read", &path)(error)),
    };
    let node_id = text.trim().parse();
    node_id
        .map(Some)
        .map_err(|_| incomplete(directory, format!("{NODE_ID_FILE} holds no node id")))
}

fn write_node_id(directory: &Path, node_id: u64, device: &Device) -> Result<(), OpenError> {
    let path = directory.join(NODE_ID_FILE);
    let text = format!("{node_id}\n");
    let written = device.replace(&path, text.as_bytes());
    written.map_err(io_error("write", &path))
}

/// The identity of this open: the stored one counted up, or a new one for an empty directory.
fn next_identity(
    directory: &Path,
    engine: &LogEngine,
    known: Option<u64>,
) -> Result<pb::StoredIdentity, OpenError> {
    let stored = engine.get(disk::NODE_REGION, disk::KEY_IDENTITY);
    let Some(stored) = stored else {
        if known.is_some() {
            return Err(incomplete(
                directory,
                "the log of this node is gone".to_owned(),
            ));
        }
        if !engine.is_empty() {
            return Err(incomplete(directory, "the log has no node id".to_owned()));
        }
        return Ok(pb::StoredIdentity {
            format: FORMAT,
            node_id: rand::rng().random_range(1..=u64::MAX >> 1),
            boot_counter: 1,
        });
    };
    let identity = pb::StoredIdentity::decode(stored.as_slice())
        .map_err(|error| damaged(directory, &error))?;
    if identity.format != FORMAT {
        return Err(OpenError::UnknownFormat {
            path: directory.to_owned(),
            format: identity.format,
        });
    }
    if let Some(known) = known
        && known != identity.node_id
    {
        let reason = format!(
            "the log is node {}'s, the directory {known}'s",
            identity.node_id
        );
        return Err(incomplete(directory, reason));
    }
    Ok(pb::StoredIdentity {
        boot_counter: identity.boot_counter + 1,
        ..identity
    })
}

#[derive(Default)]
struct NodeRegion {
    records: Vec<GroupRecord>,
    boots: Vec<(NodeId, u64)>,
    departures: Departures,
    operator: Option<pb::StoredOperator>,
    former: BTreeMap<PartitionId, FormerMembers>,
}

fn read_node(engine: &LogEngine) -> Result<NodeRegion, String> {
    let mut region = NodeRegion::default();
    let mut broken = None;
    engine
        .scan_raw_messages(disk::NODE_REGION, None, None, false, |key, value| {
            // An empty value is a group that was deleted.
            if disk::is_group_key(key) && !value.is_empty() {
                match pb::StoredGroup::decode(value) {
                    Ok(stored) => region.records.push(GroupRecord::from_stored(stored)),
                    Err(error) => broken = Some(format!("a group record does not decode: {error}")),
                }
            }
            if key == disk::KEY_OPERATOR {
                match pb::StoredOperator::decode(value) {
                    Ok(operator) => region.operator = Some(operator),
                    Err(error) => broken = Some(format!("the operator does not decode: {error}")),
                }
            }
            if let Some(partition) = disk::former_key_partition(key) {
                match pb::StoredFormerMembers::decode(value) {
                    Ok(stored) => {
                        let former = FormerMembers::from_stored(stored);
                        region.former.insert(PartitionId(partition), former);
                    }
                    Err(error) => broken = Some(format!("former members do not decode: {error}")),
                }
            }
            if let Some(node_id) = disk::boot_key_node(key) {
                match disk::decode_boot(value) {
                    Ok(counter) => region.boots.push((NodeId(node_id), counter)),
                    Err(error) => broken = Some(error),
                }
            }
            if let Some(partition) = disk::departures_key_partition(key) {
                match pb::StoredDepartures::decode(value) {
                    Ok(stored) => {
                        let members = stored.members.into_iter().map(MemberId).collect();
                        region.departures.insert(PartitionId(partition), members);
                    }
                    Err(error) => broken = Some(format!("departures do not decode: {error}")),
                }
            }
            true
        })
        .map_err(|error| error.to_string())?;
    broken.map_or(Ok(region), Err)
}

/// Removes snapshots of groups that were deleted.
fn remove_orphans(
    directory: &Path,
    records: &[GroupRecord],
    device: &Device,
) -> Result<(), OpenError> {
    let parent = directory.join(SNAPSHOT_DIRECTORY);
    for entry in fs::read_dir(&parent).map_err(io_error("read", &parent))? {
        let path = entry.map_err(io_error("read", &parent))?.path();
        let is_known = records
            .iter()
            .any(|record| path == snapshots(directory, record.partition_id));
        if !is_known {
            device
                .remove_directory(&path)
                .map_err(io_error("remove", &path))?;
        }
    }
    Ok(())
}
