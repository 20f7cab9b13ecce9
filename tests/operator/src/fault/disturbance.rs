//! What an operator has to live through in one run of a workload.

use std::fmt;

use super::points::{CrashPoint, EventPoint};
use super::trouble::{Faults, Trouble};

/// What happens to an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Disturbance {
    /// It is killed.
    Crash(CrashPoint),
    /// All of it stands still before a call, until another operator has taken over: then it goes on
    /// where it was, as after a pause of its machine.
    Pause(CrashPoint),
    /// It does not hear of an event: the watch's place in history is gone just before it.
    Loss(EventPoint),
    /// Its calls fail, or what it sees is not what is.
    Trouble(Faults),
}

impl Disturbance {
    /// Only an operator that starts with it meets it: the watches of one that runs are open, and go on
    /// as they were begun.
    pub(crate) fn concerns_the_start(&self) -> bool {
        match self {
            Self::Crash(_) | Self::Pause(_) | Self::Loss(_) => false,
            Self::Trouble(faults) => match faults.trouble {
                Trouble::CutWatches { .. } | Trouble::Past { .. } => true,
                Trouble::Refusal(_)
                | Trouble::Overload
                | Trouble::Lease(_)
                | Trouble::Reset
                | Trouble::ReplyLost
                | Trouble::Unanswered
                | Trouble::PeerRefusal(_)
                | Trouble::PeerReplyLost
                | Trouble::PeerUnanswered => false,
            },
        }
    }

    /// Only calls of storage nodes and runtimes can meet it.
    pub(crate) fn is_of_peers(&self) -> bool {
        matches!(self, Self::Trouble(faults) if faults.trouble.is_of_peers())
    }

    /// Only watches can meet it.
    pub(crate) fn is_of_watches(&self) -> bool {
        matches!(self, Self::Trouble(faults) if matches!(faults.trouble, Trouble::CutWatches { .. }))
    }

    /// Calls end by their time limits, so that everything takes longer.
    pub(crate) fn is_silence(&self) -> bool {
        match self {
            Self::Crash(_) | Self::Pause(_) | Self::Loss(_) => false,
            Self::Trouble(faults) => faults.trouble.is_silence(),
        }
    }
}

impl From<Faults> for Disturbance {
    fn from(faults: Faults) -> Self {
        Self::Trouble(faults)
    }
}

impl fmt::Display for Disturbance {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Crash(point) => write!(formatter, "crash {point}"),
            Self::Pause(point) => write!(formatter, "pause {point}"),
            Self::Loss(point) => write!(formatter, "lose {point}"),
            Self::Trouble(faults) => faults.fmt(formatter),
        }
    }
}
