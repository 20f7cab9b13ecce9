//! What a plan says: changes of members, and what stands against further ones. Values only.

use super::observed::Position;

/// One change of one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Make a node a voter.
    Join(Join),
    /// Remove a member.
    Leave(Leave),
}

/// A node becomes a voter, perhaps in the place of another member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Join {
    /// The partition.
    pub partition: u32,
    /// The pod.
    pub ordinal: u32,
    /// Its disk; a node refuses another one.
    pub node_id: u64,
    /// The member's id: fresh, or the one that the node has when the change was begun before.
    pub member_id: u64,
    /// The voter that goes in the same step.
    pub replaces: Option<u64>,
    /// The pod of that voter.
    pub from: Option<u32>,
    /// The membership that this was planned on.
    pub expected: Position,
    /// Why.
    pub purpose: Purpose,
}

/// A member goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leave {
    /// The partition.
    pub partition: u32,
    /// The member.
    pub member_id: u64,
    /// The pod that it is on.
    pub from: Option<u32>,
    /// The pod that is asked.
    pub via: u32,
    /// The membership that this was planned on.
    pub expected: Position,
    /// Why.
    pub purpose: Purpose,
}

/// Why members change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// A copy is missing.
    Repair,
    /// The number of copies is another one.
    Copies,
    /// The pod is to go.
    Drain,
    /// Members lie unevenly.
    Spread,
    /// What an unfinished change left behind goes.
    Undo,
}

/// Why something that is wanted is not begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wait {
    /// No leader of the partition answered.
    NoLeader {
        /// The partition.
        partition: u32,
    },
    /// A member of the partition, on this pod, does not answer: nothing is changed by choice.
    Unreachable {
        /// The partition.
        partition: u32,
        /// The pod; `None` = its address is none of this Store's.
        ordinal: Option<u32>,
    },
    /// No pod without a member of the partition can take one.
    NoTarget {
        /// The partition.
        partition: u32,
    },
    /// Two configurations overlap until their leader has completed the change.
    Joint {
        /// The partition.
        partition: u32,
    },
    /// Removing a member would leave no majority that answers.
    NoMajority {
        /// The partition.
        partition: u32,
    },
    /// The pod's disk holds groups of another Store, or of a newer incarnation.
    ForeignDisk {
        /// The pod.
        ordinal: u32,
    },
}

impl Action {
    /// The partition.
    #[must_use]
    pub fn partition(&self) -> u32 {
        match self {
            Self::Join(join) => join.partition,
            Self::Leave(leave) => leave.partition,
        }
    }

    /// Why.
    #[must_use]
    pub fn purpose(&self) -> Purpose {
        match self {
            Self::Join(join) => join.purpose,
            Self::Leave(leave) => leave.purpose,
        }
    }

    /// The pod that is asked.
    #[must_use]
    pub fn asked(&self) -> u32 {
        match self {
            Self::Join(join) => join.ordinal,
            Self::Leave(leave) => leave.via,
        }
    }
}
