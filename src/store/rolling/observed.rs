//! What the planner of a rolling change looks at. Values only.

use std::collections::BTreeMap;

use crate::store::nodes::strength::Strength;

/// What the Store asks for, as far as a rolling change is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Desired {
    /// How many pods there are meant to be.
    pub pods: u32,
    /// Voters of each group.
    pub replication_factor: u32,
    /// A pod that goes takes its data along.
    pub is_ephemeral: bool,
    /// The user accepts that data is lost.
    pub allow_data_loss: bool,
}

/// What is known now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// It is known which template is the newest.
    pub knows_template: bool,
    /// The pods by ordinal, without those that are going.
    pub pods: BTreeMap<u32, Pod>,
    /// How well each partition is replicated.
    pub strength: Strength,
    /// Members change their place, or are about to.
    pub is_moving: bool,
}

/// A pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// It was made by an earlier template.
    pub is_old: bool,
    /// What it does.
    pub state: PodState,
    /// It holds members, as its node says.
    pub holds: bool,
}

/// What a pod does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PodState {
    /// Its node has never run in it.
    NeverStarted,
    /// Its node does not run, as both the kubelet and the lack of an answer say.
    Down,
    /// Its node may run, but does not answer.
    Silent,
    /// Its node answers.
    Serving,
}
