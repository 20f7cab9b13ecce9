//! One group's part of the log: what is in memory of it, and how it is read.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::disk;
use super::loaded::{Loaded, NO_TAIL, read};
use super::{Completion, LogCore, Operation, Request, entry_bytes};
use crate::error::StorageError;
use crate::types::{Entry, IoFlushed, LogId, Vote};

/// How much of the log's end is kept in memory besides what is not yet on disk.
const TAIL_BYTES: usize = 8 << 20;
/// How often entries are looked for again that are not where they were.
const READ_ATTEMPTS: u32 = 3;

/// Clones share one log.
#[derive(Clone)]
pub(crate) struct GroupLog {
    shared: Arc<Shared>,
}

struct Shared {
    region: u64,
    core: Arc<LogCore>,
    /// The number of the last append that is on disk.
    flushed: Arc<AtomicU64>,
    state: Mutex<State>,
}

/// What a group's log holds, as the next operation will find it.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) vote: Option<Vote>,
    pub(crate) committed: Option<LogId>,
    /// `committed` is to ride in the next batch.
    committed_is_new: bool,
    pub(crate) purged: Option<LogId>,
    pub(crate) last: Option<LogId>,
    /// The last entries, each with the number of its append.
    tail: VecDeque<(u64, Entry)>,
    tail_bytes: usize,
    /// The number of the last append.
    appends: u64,
    /// The disk holds entries beyond `last` that a truncation removed.
    truncated: bool,
}

impl State {
    /// A log without entries behind the purged ones.
    pub(super) fn found(
        vote: Option<Vote>,
        committed: Option<LogId>,
        purged: Option<LogId>,
        truncated: bool,
    ) -> Self {
        Self {
            vote,
            committed,
            purged,
            last: purged,
            truncated,
            ..Self::default()
        }
    }

    pub(super) fn next(&self) -> u64 {
        self.last.as_ref().map_or(0, |last| last.index + 1)
    }

    pub(crate) fn first(&self) -> u64 {
        self.purged.as_ref().map_or(0, |purged| purged.index + 1)
    }

    pub(super) fn push(&mut self, number: u64, entry: Entry) {
        self.tail_bytes += entry_bytes(&entry);
        self.last = Some(entry.log_id);
        self.tail.push_back((number, entry));
    }

    pub(super) fn evict(&mut self, flushed: u64) {
        while self.tail_bytes > TAIL_BYTES
            && let Some((number, entry)) = self.tail.front()
            && *number <= flushed
        {
            self.tail_bytes -= entry_bytes(entry);
            self.tail.pop_front();
        }
    }

    /// The operations of a batch, with the committed log id when that is new.
    fn with_committed(&mut self, mut operations: Vec<Operation>) -> Vec<Operation> {
        if std::mem::take(&mut self.committed_is_new)
            && let Some(committed) = &self.committed
        {
            operations.push(put(disk::KEY_COMMITTED, disk::encode_log_id(committed)));
        }
        operations
    }
}

fn put(key: &[u8], value: Vec<u8>) -> Operation {
    Operation::Put(key.to_vec(), value)
}

impl GroupLog {
    pub(crate) fn new(core: Arc<LogCore>, region: u64, loaded: Loaded) -> Self {
        let log = Self {
            shared: Arc::new(Shared {
                region,
                core,
                flushed: Arc::new(AtomicU64::new(0)),
                state: Mutex::new(loaded.state),
            }),
        };
        if loaded.stale {
            let mut state = log.shared.state.lock();
            let operations = clean(&state, state.next());
            state.truncated = false;
            log.submit(operations, Completion::Nothing);
        }
        log
    }

    pub(crate) fn inspect<R>(&self, look: impl FnOnce(&State) -> R) -> R {
        look(&self.shared.state.lock())
    }

    /// Queues operations. Call it while holding the state, so that disk and memory agree on order.
    fn submit(&self, operations: Vec<Operation>, completion: Completion) {
        self.shared.core.submit(Request {
            region: self.shared.region,
            operations,
            completion,
        });
    }

    pub(crate) async fn save_vote(&self, vote: Vote) -> Result<(), StorageError> {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        {
            let mut state = self.shared.state.lock();
            state.vote = Some(vote);
            let operations = vec![put(disk::KEY_VOTE, disk::encode_vote(&vote))];
            let operations = state.with_committed(operations);
            self.submit(operations, Completion::Reply(sender));
        }
        wait(receiver).await
    }

    /// Remembers the committed log id; the next batch takes it along.
    pub(crate) fn save_committed(&self, committed: Option<LogId>) {
        let mut state = self.shared.state.lock();
        state.committed = committed;
        state.committed_is_new = true;
    }

    pub(crate) fn append(&self, entries: Vec<Entry>, callback: IoFlushed) {
        let mut state = self.shared.state.lock();
        state.appends += 1;
        let number = state.appends;
        for entry in &entries {
            state.push(number, entry.clone());
        }
        state.evict(self.shared.flushed.load(Ordering::Acquire));
        let mut operations = vec![Operation::Append(entries)];
        if std::mem::take(&mut state.truncated) {
            operations.push(put(disk::KEY_TAIL, disk::encode_tail(NO_TAIL)));
        }
        let operations = state.with_committed(operations);
        let completion = Completion::Flushed(number, self.shared.flushed.clone(), callback);
        self.submit(operations, completion);
    }

    /// Appends entries and a vote together with operations of another kind, all in one batch, to
    /// the log of a group that does not run; on disk when this returns.
    pub(crate) async fn force(
        &self,
        entries: Vec<Entry>,
        vote: Vote,
        others: Vec<Operation>,
    ) -> Result<(), StorageError> {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        {
            let mut state = self.shared.state.lock();
            state.vote = Some(vote);
            // Nobody reads it before it is on disk.
            for entry in &entries {
                state.push(0, entry.clone());
            }
            let mut operations = vec![
                Operation::Append(entries),
                put(disk::KEY_VOTE, disk::encode_vote(&vote)),
            ];
            if std::mem::take(&mut state.truncated) {
                operations.push(put(disk::KEY_TAIL, disk::encode_tail(NO_TAIL)));
            }
            operations.extend(others);
            self.submit(operations, Completion::Reply(sender));
        }
        wait(receiver).await
    }

    /// Removes the entries after `last`.
    pub(crate) async fn truncate_after(&self, last: Option<LogId>) -> Result<(), StorageError> {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        {
            let mut state = self.shared.state.lock();
            let next = last.as_ref().map_or(0, |last| last.index + 1);
            if next >= state.next() {
                return Ok(());
            }
            while let Some((_, entry)) = state.tail.back()
                && entry.log_id.index >= next
            {
                state.tail_bytes -= entry_bytes(entry);
                state.tail.pop_back();
            }
            state.last = last;
            state.truncated = true;
            let operations = vec![put(disk::KEY_TAIL, disk::encode_tail(next))];
            let operations = state.with_committed(operations);
            self.submit(operations, Completion::Reply(sender));
        }
        wait(receiver).await
    }

    /// Removes the entries up to `upto`, inclusive, which may be beyond the last one.
    pub(crate) fn purge(&self, upto: LogId) {
        let mut state = self.shared.state.lock();
        if state
            .purged
            .is_some_and(|purged| purged.index >= upto.index)
        {
            return;
        }
        while let Some((_, entry)) = state.tail.front()
            && entry.log_id.index <= upto.index
        {
            state.tail_bytes -= entry_bytes(entry);
            state.tail.pop_front();
        }
        let beyond_the_end = upto.index >= state.next();
        state.purged = Some(upto);
        let operations = if beyond_the_end {
            state.last = Some(upto);
            state.truncated = false;
            clean(&state, upto.index + 1)
        } else {
            vec![
                Operation::Compact(upto.index + 1),
                put(disk::KEY_PURGED, disk::encode_log_id(&upto)),
            ]
        };
        let operations = state.with_committed(operations);
        self.submit(operations, Completion::Nothing);
    }

    /// The entries of a range that the log holds; what is outside is left out. With `max_bytes`
    /// only the first ones, of about as many bytes, but at least one.
    ///
    /// The end of the log is in memory and answered at once. What is older is read on another
    /// thread: a member that lags behind must not stop all groups for the time of a disk's seeks.
    pub(crate) async fn entries(
        &self,
        range: Range<u64>,
        max_bytes: Option<usize>,
    ) -> io::Result<Vec<Entry>> {
        let mut attempts = 0;
        loop {
            let (on_disk, in_memory) = self.split(range.clone(), max_bytes);
            if on_disk.is_empty() {
                return Ok(in_memory);
            }
            let (log, wanted) = (self.shared.clone(), on_disk.clone());
            let found = tokio::task::spawn_blocking(move || {
                read(&log.core.engine, log.region, wanted, max_bytes)
            });
            let found = found.await.map_err(io::Error::other)?;
            match found {
                Ok(mut entries) => {
                    if entries.len() as u64 == on_disk.end - on_disk.start {
                        entries.extend(in_memory);
                    }
                    return Ok(entries);
                }
                // Meanwhile they were compacted, or moved to another file.
                Err(reason) if attempts < READ_ATTEMPTS => {
                    tracing::debug!(region = self.shared.region, reason, "reading the log again");
                    attempts += 1;
                }
                Err(reason) => return Err(io::Error::other(reason)),
            }
        }
    }

    /// Whether a batch with this operation would be written alone, had the log just been opened.
    #[cfg(test)]
    pub(super) fn replaces_when_opened(&self, operation: &Operation) -> bool {
        let loaded = Loaded::read(&self.shared.core.engine, self.shared.region).unwrap();
        operation.replaces(&loaded.span)
    }

    /// What the disk has, also of entries that are in memory.
    #[cfg(test)]
    pub(super) fn read_from_disk(&self, range: Range<u64>) -> Result<Vec<Entry>, String> {
        let engine = &self.shared.core.engine;
        let read_once = || read(engine, self.shared.region, range.clone(), None);
        // As `entries` does it: meanwhile they may be moved to another file.
        let mut attempts = (0..READ_ATTEMPTS).map(|_| read_once());
        attempts.find(Result::is_ok).unwrap_or_else(read_once)
    }

    /// Which entries of a range are on disk alone, and those behind them, from memory.
    fn split(&self, range: Range<u64>, max_bytes: Option<usize>) -> (Range<u64>, Vec<Entry>) {
        let state = self.shared.state.lock();
        let start = range.start.max(state.first());
        let end = range.end.min(state.next()).max(start);
        let in_memory = state
            .tail
            .front()
            .map_or(state.next(), |(_, entry)| entry.log_id.index);
        let split = in_memory.clamp(start, end);
        if max_bytes.is_some() && start < split {
            return (start..split, Vec::new());
        }
        let mut bytes = 0;
        let entries = (split..end)
            .filter_map(|index| usize::try_from(index - in_memory).ok())
            .filter_map(|position| state.tail.get(position))
            .map(|(_, entry)| entry)
            .take_while(|entry| {
                let is_first = bytes == 0;
                bytes += entry_bytes(entry);
                is_first || max_bytes.is_none_or(|max_bytes| bytes <= max_bytes)
            })
            .cloned()
            .collect();
        (start..split, entries)
    }
}

/// Empties the region but for its keys, in one batch.
fn clean(state: &State, next: u64) -> Vec<Operation> {
    let mut operations = vec![Operation::Clean(next)];
    if let Some(vote) = &state.vote {
        operations.push(put(disk::KEY_VOTE, disk::encode_vote(vote)));
    }
    if let Some(committed) = &state.committed {
        operations.push(put(disk::KEY_COMMITTED, disk::encode_log_id(committed)));
    }
    if let Some(purged) = &state.purged {
        operations.push(put(disk::KEY_PURGED, disk::encode_log_id(purged)));
    }
    operations.push(put(disk::KEY_TAIL, disk::encode_tail(NO_TAIL)));
    operations
}

async fn wait(
    receiver: tokio::sync::oneshot::Receiver<Result<(), StorageError>>,
) -> Result<(), StorageError> {
    receiver
        .await
        .unwrap_or_else(|_| Err(StorageError("the log writer ended".to_owned())))
}
