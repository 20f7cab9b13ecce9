//! What the planner looks at: nodes by ordinal, groups as their leaders see them. Values only.

use std::collections::{BTreeMap, BTreeSet};

/// What the Store asks for, as far as placement is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Desired {
    /// Ordinals below this one may hold members.
    pub replicas: u32,
    /// Voters of each group.
    pub replication_factor: u32,
}

/// Everything that is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// The nodes that answered, by ordinal. One that is missing may hold anything.
    pub nodes: BTreeMap<u32, Node>,
    /// Every partition of the Store; `None` = no leader answered.
    pub groups: BTreeMap<u32, Option<Group>>,
    /// Ordinals that hold a member, as any member of a group without a known leader says.
    pub hearsay: BTreeSet<u32>,
    /// Disks (node ids) that a person has declared lost.
    pub lost_disks: BTreeSet<u64>,
    /// The zone of each ordinal, where it is known.
    pub zones: BTreeMap<u32, String>,
    /// How many pods there are meant to be now; 0 = there is no StatefulSet.
    pub live_replicas: u32,
}

/// A node that answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Node {
    /// The id of its disk.
    pub node_id: u64,
    /// What it holds of each partition.
    pub held: BTreeMap<u32, Held>,
    /// It holds groups of another Store, or of a newer incarnation, so it takes no member.
    pub is_foreign: bool,
}

/// A member on a node's disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Its id.
    pub member_id: u64,
    /// What its own log says.
    pub state: HeldState,
}

/// What a member's own log says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeldState {
    /// No membership has reached it: it was never a member, unless the leader says so.
    Joining,
    /// It has seen a membership: when the leader does not know it, it was removed.
    Admitted,
    /// It does not run, so nothing is known.
    Stopped,
}

/// A place in a group's log: term and index.
pub type Position = (u64, u64);

/// A group as its leader sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Group {
    /// The leader's member id.
    pub leader: u64,
    /// The log entry that the membership is from.
    pub membership: Position,
    /// The voters; the coming ones while a joint change goes on.
    pub voters: BTreeSet<u64>,
    /// The voters that a joint change is leaving.
    pub outgoing: BTreeSet<u64>,
    /// Members without a vote.
    pub learners: BTreeSet<u64>,
    /// Where the members are.
    pub places: BTreeMap<u64, Place>,
    /// Members that the leader has not heard of lately.
    pub silent: BTreeSet<u64>,
}

/// Where a member is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// The disk.
    pub node_id: u64,
    /// The pod; `None` = the address is none of this Store's.
    pub ordinal: Option<u32>,
    /// host:port, as it stands in the membership.
    pub address: String,
}

impl Group {
    /// Whether this is a member of any kind.
    #[must_use]
    pub fn has(&self, member: u64) -> bool {
        self.voters.contains(&member)
            || self.outgoing.contains(&member)
            || self.learners.contains(&member)
    }

    /// All members.
    pub fn members(&self) -> impl Iterator<Item = u64> {
        let all = self.voters.iter().chain(&self.outgoing);
        let all: BTreeSet<u64> = all.chain(&self.learners).copied().collect();
        all.into_iter()
    }

    /// The pod that a member is on.
    #[must_use]
    pub fn ordinal_of(&self, member: u64) -> Option<u32> {
        self.places.get(&member)?.ordinal
    }
}
