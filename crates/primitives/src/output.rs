//! What applying an entry produces.

use crate::error::{Reply, Stop};
use crate::events::Event;
use crate::ids::{PrimitiveKey, Sequence, SessionId};

/// What one entry did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// One per command, in the same order; empty when `stop` is set.
    pub outcomes: Vec<Outcome>,
    /// Operations of this or earlier entries that had been answered [`Outcome::Pending`] and now
    /// have their reply.
    pub completed: Vec<Completed>,
    /// What happened to primitives, in order.
    pub events: Vec<Event>,
    /// Sessions that this entry ended. Whatever of theirs still waits outside is lost with them.
    pub ended_sessions: Vec<SessionId>,
    /// Keys whose intent this entry ended: reads that wait for them can be asked again.
    pub freed_keys: Vec<(PrimitiveKey, bytes::Bytes)>,
    /// Set when the entry was not applied, and this replica must stop: it and every later entry are
    /// refused.
    pub stop: Option<Stop>,
}

/// What came out of one command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The session that was opened.
    Session(SessionId),
    /// The operation's final answer, new or remembered.
    Reply(Reply),
    /// The operation waits; [`Applied::completed`] of a later entry (or of this one) has its reply.
    Pending,
    /// The session does not exist (any more); nothing was applied.
    SessionLost,
    /// Done; the command has nothing else to say.
    Done,
}

/// The reply of an operation that had to wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completed {
    /// The session that asked.
    pub session: SessionId,
    /// The operation.
    pub sequence: Sequence,
    /// Its final answer.
    pub result: Reply,
}
