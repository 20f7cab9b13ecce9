//! What of a group's log is on disk: read at start, and later for members that lag behind.

use std::ops::Range;

use super::disk::{self, StoredEntry};
use super::group::State;
use super::{LogEngine, Span};
use crate::types::Entry;

/// Entries that are read from the disk at once.
const READ_ENTRIES: u64 = 1024;
/// What `KEY_TAIL` holds when all entries exist.
pub(super) const NO_TAIL: u64 = u64::MAX;

/// A group's log as it was found on disk.
#[derive(Default)]
pub(crate) struct Loaded {
    pub(super) state: State,
    pub(crate) span: Span,
    /// The engine holds entries that the next append would not fit behind.
    pub(super) stale: bool,
}

impl Loaded {
    /// Reads all of a group's log.
    pub(crate) fn read(engine: &LogEngine, region: u64) -> Result<Self, String> {
        let key = |key| engine.get(region, key);
        let vote = key(disk::KEY_VOTE).map(|value| disk::decode_vote(&value));
        let committed = key(disk::KEY_COMMITTED).map(|value| disk::decode_log_id(&value));
        let purged = key(disk::KEY_PURGED).map(|value| disk::decode_log_id(&value));
        let tail = key(disk::KEY_TAIL).map(|value| disk::decode_tail(&value));
        let tail = tail.transpose()?.unwrap_or(NO_TAIL);
        let mut state = State::found(
            vote.transpose()?,
            committed.transpose()?,
            purged.transpose()?,
            tail != NO_TAIL,
        );

        let first = state.first();
        let on_disk = engine.first_index(region).zip(engine.last_index(region));
        let end = on_disk
            .map_or(first, |(_, last)| (last + 1).min(tail))
            .max(first);
        if let Some((start, _)) = on_disk
            && end > first
            && start > first
        {
            return Err(format!(
                "entries {first} to {start}, exclusive, are missing"
            ));
        }
        let mut start = first;
        while start < end {
            let until = end.min(start + READ_ENTRIES);
            for entry in read(engine, region, start..until, None)? {
                if entry.log_id.leader_id.term < state.last.map_or(0, |last| last.leader_id.term) {
                    return Err(format!(
                        "entry {} is of an older term than the one before",
                        entry.log_id.index
                    ));
                }
                state.push(0, entry);
            }
            state.evict(0);
            start = until;
        }
        let next = state.next();
        let stale = on_disk.is_some_and(|(start, last)| start > next || next > last + 1);
        Ok(Self {
            state,
            span: Span {
                first,
                next,
                end: on_disk.map_or(next, |(_, last)| next.max(last + 1)),
            },
            stale,
        })
    }
}

/// Reads entries: all of the range, or with `max_bytes` at least one and about as many bytes.
pub(super) fn read(
    engine: &LogEngine,
    region: u64,
    range: Range<u64>,
    max_bytes: Option<usize>,
) -> Result<Vec<Entry>, String> {
    let mut stored = Vec::new();
    engine
        .fetch_entries_to::<StoredEntry>(region, range.start, range.end, max_bytes, &mut stored)
        .map_err(|error| format!("entries {range:?} cannot be read: {error}"))?;
    let mut entries = Vec::with_capacity(stored.len());
    for (expected, stored) in range.clone().zip(stored) {
        let entry = disk::decode_entry(stored)?;
        if entry.log_id.index != expected {
            return Err(format!(
                "entry {} is where {expected} belongs",
                entry.log_id.index
            ));
        }
        entries.push(entry);
    }
    let is_whole = entries.len() as u64 == range.end - range.start;
    if !is_whole && (max_bytes.is_none() || entries.is_empty()) {
        return Err(format!("some of the entries {range:?} are missing"));
    }
    Ok(entries)
}
