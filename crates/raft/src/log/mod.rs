//! The durable log: one raft-engine for all groups of the process, behind openraft's log traits.
//!
//! Rules that the modules below keep:
//! - every batch is synced before the next one is written to the same queue, moved entries and
//!   headers of files included, so at most the last can be torn;
//! - entries are readable when `append` returns, from memory until they are on disk;
//! - keys are never deleted, only overwritten: raft-engine can bring a deleted key back when the
//!   file with the deletion is purged before the one with the value;
//! - nothing is handed to raft-engine that it would panic on after writing it.

mod core;
pub(crate) mod disk;
mod files;
mod group;
mod loaded;
mod mark;
#[cfg(test)]
mod model_tests;
mod store;
#[cfg(test)]
mod tests;
mod verify;
mod writer;

use openraft::EntryPayload;

pub(crate) use self::core::LogCore;
pub(crate) use files::Files;
pub(crate) use group::GroupLog;
pub(crate) use loaded::Loaded;
pub(crate) use verify::{VerifyError, verify};
pub(crate) use writer::{Completion, Operation, Request, Writer, purge_loop};

use crate::types::{Entry, Payload};

pub(crate) type LogEngine = raft_engine::Engine<Files, raft_engine::internals::FilePipeLog<Files>>;

/// The entries of a region: from `first` on, below `next`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) first: u64,
    pub(crate) next: u64,
    /// Behind the last entry that the engine has. Those from `next` on were cut off before it was
    /// opened; the next append takes their place.
    pub(crate) end: u64,
}

impl Span {
    /// Checks that `entries` are consecutive and leave no hole; answers the index after them.
    fn append(&self, entries: &[Entry]) -> Result<u64, String> {
        let Some(start) = entries.first().map(|entry| entry.log_id.index) else {
            return Ok(self.next);
        };
        if start < self.first || start > self.next {
            return Err(format!(
                "refusing to append entry {start} to a log that holds {} to {}, exclusive",
                self.first, self.next
            ));
        }
        let mut next = start;
        for entry in entries {
            if entry.log_id.index != next {
                return Err(format!(
                    "refusing to append entry {} where {next} belongs",
                    entry.log_id.index
                ));
            }
            next += 1;
        }
        Ok(next)
    }
}

/// About how much room an entry takes.
pub(crate) fn entry_bytes(entry: &Entry) -> usize {
    const FIXED: usize = 64;
    match &entry.payload {
        EntryPayload::Normal(Payload(bytes)) => bytes.len() + FIXED,
        EntryPayload::Blank | EntryPayload::Membership(_) => FIXED,
    }
}
