//! The replicated state machine, as a group sees it.

use std::io::{self, Read, Write};

use bytes::Bytes;

/// One partition's replicated state.
pub trait Machine: Send + Sync + 'static {
    /// What applying a payload answers to whoever proposed it.
    type Output: Send + 'static;
    /// A view of the state that later applies do not change; cheap to take.
    type Snapshot: Send + 'static;

    /// Applies the payload of the log entry at `index`, which a leader of `term` proposed.
    ///
    /// Total and deterministic. Called once per payload, in the order of the log, with indices
    /// that grow but are not consecutive. After a restart everything since the last snapshot is
    /// applied anew. Must not block: reads of this group wait meanwhile.
    fn apply(&mut self, index: u64, term: u64, payload: &Bytes) -> Self::Output;

    /// Takes a view of the present state.
    fn snapshot(&self) -> Self::Snapshot;

    /// Writes a view, byte for byte the same on every replica. Runs beside `apply`.
    ///
    /// # Errors
    /// Only what `writer` answers.
    fn write_snapshot(snapshot: &Self::Snapshot, writer: &mut dyn Write) -> io::Result<()>;

    /// Replaces the state by what `write_snapshot` wrote.
    ///
    /// # Errors
    /// When the bytes are no snapshot of a version that this program knows. The process ends then.
    fn install(&mut self, reader: &mut dyn Read) -> io::Result<()>;
}
