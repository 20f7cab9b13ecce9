//! The one thread that writes to the log, for all groups.
//!
//! It takes what all groups have asked for meanwhile into one batch, writes and syncs it once, and
//! completes the requests in order. Votes and entries of a group never overtake each other.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

use parking_lot::Mutex;
use raft_engine::{Command, LogBatch};
use tokio::sync::oneshot;

use super::disk::{self, StoredEntry};
use super::{LogEngine, Span};
use crate::device::is_no_room;
use crate::error::StorageError;
use crate::fatal::FatalReporter;
use crate::options::WriteFailure;
use crate::types::{Entry, IoFlushed};

/// Stop collecting requests when a batch holds this many bytes of entries.
const BATCH_BYTES: usize = 4 << 20;
/// How long to wait for room on a full disk before the batch is built and written again.
const FULL_DISK_PAUSE: Duration = Duration::from_millis(200);

pub(crate) enum Operation {
    /// Consecutive entries; overwrites what has their index or a higher one.
    Append(Vec<Entry>),
    Put(Vec<u8>, Vec<u8>),
    /// A key of the node, in the same batch as what happens to the group's region.
    PutNode(Vec<u8>, Vec<u8>),
    /// Removes the entries below the index.
    Compact(u64),
    /// Removes all entries and keys; entries continue at the index.
    Clean(u64),
}

pub(crate) enum Completion {
    Nothing,
    /// Entries of an append: its number, where the last one on disk is kept, and openraft's own.
    Flushed(u64, Arc<AtomicU64>, IoFlushed),
    Reply(oneshot::Sender<Result<(), StorageError>>),
    /// For whoever waits outside of tasks.
    Blocking(mpsc::Sender<Result<(), StorageError>>),
}

pub(crate) struct Request {
    pub(crate) region: u64,
    pub(crate) operations: Vec<Operation>,
    pub(crate) completion: Completion,
}

impl Request {
    fn bytes(&self) -> usize {
        self.operations.iter().map(Operation::bytes).sum()
    }
}

impl Operation {
    /// Whether it takes the place of entries that the engine has: whoever moves those must not be at
    /// it.
    pub(super) fn replaces(&self, span: &Span) -> bool {
        match self {
            Self::Append(entries) => entries
                .first()
                .is_some_and(|first| first.log_id.index < span.end),
            Self::Clean(_) => true,
            Self::Put(..) | Self::PutNode(..) | Self::Compact(_) => false,
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Append(entries) => entries.iter().map(super::entry_bytes).sum(),
            Self::Put(key, value) | Self::PutNode(key, value) => key.len() + value.len(),
            Self::Compact(_) | Self::Clean(_) => 0,
        }
    }
}

impl Completion {
    fn complete(self, result: Result<(), StorageError>) {
        match self {
            Self::Nothing => {}
            Self::Flushed(number, flushed, callback) => {
                if result.is_ok() {
                    flushed.store(number, Ordering::Release);
                }
                callback.io_completed(result.map_err(std::io::Error::other));
            }
            Self::Reply(sender) => {
                // Whoever asked may have given up.
                let _ = sender.send(result);
            }
            Self::Blocking(sender) => {
                let _ = sender.send(result);
            }
        }
    }
}

pub(crate) struct Writer {
    pub(crate) engine: Arc<LogEngine>,
    /// Which entries of each region exist, to refuse what raft-engine would panic on.
    pub(crate) spans: HashMap<u64, Span>,
    pub(crate) requests: Receiver<Request>,
    pub(crate) fatal: FatalReporter,
    pub(crate) on_failure: WriteFailure,
    /// Held while live entries are moved out of old files. raft-engine looks up the entries, writes
    /// them anew and then notes the new places; it panics when others took their place meanwhile.
    pub(crate) moving: Arc<Mutex<()>>,
    /// Set when nobody waits for the writes any more.
    pub(crate) closing: Arc<AtomicBool>,
}

/// Why a batch is not on disk.
enum Unwritten {
    /// What the disk holds now, nobody knows.
    Failed(StorageError),
    /// The disk is full, and nobody waits for room any more.
    Closed,
}

impl From<StorageError> for Unwritten {
    fn from(error: StorageError) -> Self {
        Self::Failed(error)
    }
}

/// One batch for raft-engine.
struct Built {
    batch: LogBatch,
    /// It takes the place of entries that exist.
    replaces: bool,
}

impl Writer {
    /// Ends when every sender is gone.
    pub(crate) fn run(mut self) {
        let mut result = Ok(());
        while let Ok(first) = self.requests.recv() {
            let batch = self.collect(first);
            if result.is_ok() {
                result = self.write(&batch).map_err(|unwritten| match unwritten {
                    Unwritten::Failed(error) => {
                        fail(&self.fatal, self.on_failure, error.to_string());
                        error
                    }
                    Unwritten::Closed => StorageError("closed while the disk was full".to_owned()),
                });
            }
            for request in batch {
                request.completion.complete(result.clone());
            }
        }
        if result.is_err() {
            // Closing would sync what must not be taken for durable, and panic if that fails.
            std::mem::forget(self.engine);
        }
    }

    fn collect(&self, first: Request) -> Vec<Request> {
        let mut bytes = first.bytes();
        let mut batch = vec![first];
        while bytes < BATCH_BYTES {
            let Ok(next) = self.requests.try_recv() else {
                break;
            };
            bytes += next.bytes();
            batch.push(next);
        }
        batch
    }

    fn write(&mut self, requests: &[Request]) -> Result<(), Unwritten> {
        loop {
            let mut spans = HashMap::new();
            // Built anew for every attempt: raft-engine marks a batch while it writes it.
            let Built {
                mut batch,
                replaces,
            } = self.build(requests, &mut spans)?;
            let engine = &self.engine;
            let alone = replaces.then(|| self.moving.lock());
            let written = catch_unwind(AssertUnwindSafe(|| engine.write(&mut batch, true)));
            // Before any pause: moving entries may be what makes room.
            drop(alone);
            match written {
                Ok(Ok(_)) => {
                    self.spans.extend(spans);
                    return Ok(());
                }
                Ok(Err(error)) if is_full_disk(&error) => {
                    tracing::warn!(%error, "the disk is full; writes wait");
                    if self.closing.load(Ordering::Relaxed) {
                        return Err(Unwritten::Closed);
                    }
                    std::thread::park_timeout(FULL_DISK_PAUSE);
                }
                Ok(Err(error)) => return Err(StorageError(error.to_string()).into()),
                Err(_) => {
                    return Err(StorageError("the disk did not sync a write".into()).into());
                }
            }
        }
    }

    fn build(
        &self,
        requests: &[Request],
        spans: &mut HashMap<u64, Span>,
    ) -> Result<Built, StorageError> {
        let mut batch = LogBatch::default();
        let mut replaces = false;
        for request in requests {
            let region = request.region;
            let span = spans
                .entry(region)
                .or_insert_with(|| self.spans.get(&region).copied().unwrap_or_default());
            for operation in &request.operations {
                replaces |= operation.replaces(span);
                add(&mut batch, region, span, operation)
                    .map_err(|reason| StorageError(format!("partition {region}: {reason}")))?;
            }
        }
        Ok(Built { batch, replaces })
    }
}

/// What the disk holds now, nobody knows: nothing may be acknowledged any more.
fn fail(fatal: &FatalReporter, on_failure: WriteFailure, reason: String) {
    fatal.report(None, reason);
    match on_failure {
        WriteFailure::Report => {}
        WriteFailure::Abort => std::process::abort(),
    }
}

fn add(
    batch: &mut LogBatch,
    region: u64,
    span: &mut Span,
    operation: &Operation,
) -> Result<(), String> {
    match operation {
        Operation::Append(entries) => {
            let next = span.append(entries)?;
            let stored: Vec<_> = entries.iter().map(disk::encode_entry).collect();
            batch
                .add_entries::<StoredEntry>(region, &stored)
                .map_err(|error| error.to_string())?;
            if !entries.is_empty() {
                span.next = next;
                span.end = next;
            }
        }
        Operation::Put(key, value) => {
            batch
                .put(region, key.clone(), value.clone())
                .map_err(|error| error.to_string())?;
        }
        Operation::PutNode(key, value) => {
            batch
                .put(disk::NODE_REGION, key.clone(), value.clone())
                .map_err(|error| error.to_string())?;
        }
        Operation::Compact(first) => {
            batch.add_command(region, Command::Compact { index: *first });
            span.first = span.first.max(*first);
            span.next = span.next.max(*first);
            span.end = span.end.max(*first);
        }
        Operation::Clean(next) => {
            batch.add_command(region, Command::Clean);
            *span = Span {
                first: *next,
                next: *next,
                end: *next,
            };
        }
    }
    Ok(())
}

fn is_full_disk(error: &raft_engine::Error) -> bool {
    match error {
        raft_engine::Error::Io(error) => is_no_room(error),
        // What raft-engine answers after a second file had no room, either.
        raft_engine::Error::TryAgain(_) => true,
        _ => false,
    }
}

/// Deletes log files that hold nothing any more, after live entries were moved out of them, until
/// `stop` is dropped.
pub(crate) fn purge_loop(
    engine: &LogEngine,
    stop: &Receiver<()>,
    interval: Duration,
    moving: &Mutex<()>,
    fatal: &FatalReporter,
    on_failure: WriteFailure,
) {
    while stop.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
        let alone = moving.lock();
        let purged = catch_unwind(AssertUnwindSafe(|| engine.purge_expired_files()));
        drop(alone);
        match purged {
            Ok(Ok(_)) => {}
            Ok(Err(error)) if is_full_disk(&error) => {
                tracing::warn!(%error, "no room to purge old log files");
            }
            // Perhaps a sync failed: what the disk holds, nobody knows.
            Ok(Err(error)) => {
                let reason = format!("cannot purge old log files: {error}");
                return fail(fatal, on_failure, reason);
            }
            Err(_) => {
                let reason = "purging old log files panicked".to_owned();
                return fail(fatal, on_failure, reason);
            }
        }
    }
}
