//! Snapshots: a clone of the state, written as a header and one section each for the sessions, the
//! primitives, the timers and the events. All in the order of their keys, so that replicas at the
//! same index write the same bytes.

pub(crate) mod frame;
mod read;
mod records;
mod write;

use std::io::{self, Write};

use crate::state::State;

pub(crate) use read::read;

/// The state as of one entry. It shares everything with the running state machine that has not
/// changed since.
#[derive(Clone)]
pub struct Snapshot {
    state: State,
}

impl Snapshot {
    pub(crate) fn new(state: State) -> Self {
        Self { state }
    }

    /// The index of the last entry in it.
    pub fn applied_index(&self) -> u64 {
        self.state.applied_index
    }

    /// About how many bytes it will be written as, at least.
    pub fn approximate_bytes(&self) -> u64 {
        self.state.primitive_bytes + self.state.events.bytes()
    }

    /// Writes it. The writer should be buffered and is not flushed.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write(&self, writer: &mut dyn Write) -> io::Result<()> {
        write::write(&self.state, writer)
    }
}
