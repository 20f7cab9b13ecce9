//! Which pod is replaced next so that all get the newest template. Pure: observation in, one step
//! out; nothing is remembered between two plans, so a crash, a pause or a template that is changed
//! back half way needs no case of its own.
//!
//! Not for where members lie (`placement`), nor for deleting pods (`replace`).
//!
//! The rules:
//! - Pods of an old template that are not running go first: nothing more is lost with them, and they
//!   may be what holds all else up.
//! - Then one node at a time, those with the fewest leaderships first, and only while every pod
//!   serves, no member moves, and every voter of every group has caught up. So what was replaced
//!   last is back and counts before the next one goes; one that does not come back stops everything.
//! - Data is never lost by a change of the pods, unless the user allows it.

pub mod keep;
pub mod lasting;
mod observed;
mod replace;
pub mod replicated;
mod template;

use std::cmp::Reverse;

pub use observed::{Desired, Observed, Pod, PodState};
pub use replace::{Replaced, Replacer};
pub use template::AppliedSets;

use crate::store::nodes::strength::{GroupStrength, Standing};

/// How far a change of the pods is, and what comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roll {
    /// Pods with the newest template.
    pub updated: u32,
    /// All pods.
    pub total: u32,
    /// What comes next.
    pub step: Step,
}

/// What comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Every pod has the newest template.
    Done,
    /// These pods go now; in this order.
    Replace(Vec<u32>, Why),
    /// Something must come first.
    Wait(Wait),
    /// Data would be lost with this pod, and nobody has allowed it.
    Refused {
        /// The pod.
        ordinal: u32,
    },
}

/// Why pods may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Their nodes have never run, so nothing is in them.
    NeverStarted,
    /// They are not running, and their disks stay.
    NotRunning,
    /// They are not running, and the others have the data that goes with them.
    OthersSuffice,
    /// Every group has all its copies.
    FullStrength,
    /// The user allows that data is lost.
    LossAllowed,
}

/// What must come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wait {
    /// Which template is the newest is not known yet: its controller has not seen the last change.
    Template,
    /// Members are on their way.
    Moves,
    /// This pod does not serve.
    Pod {
        /// The pod.
        ordinal: u32,
    },
    /// No leader of this partition answers.
    NoLeader {
        /// The partition.
        partition: u32,
    },
    /// This partition is not at full strength.
    Copy {
        /// The partition.
        partition: u32,
        /// The pod of a voter that has not caught up; `None` = another one than this Store's, or
        /// there are too few or too many voters.
        ordinal: Option<u32>,
    },
}

impl Roll {
    /// Whether pods have an old template, or may have.
    #[must_use]
    pub fn is_under_way(&self) -> bool {
        self.step != Step::Done
    }

    /// How many pods have the newest template, where that is known.
    #[must_use]
    pub fn known_updated(&self) -> Option<u32> {
        (self.step != Step::Wait(Wait::Template)).then_some(self.updated)
    }
}

/// Plans the next step.
#[must_use]
pub fn plan(desired: &Desired, observed: &Observed) -> Roll {
    let old = observed.pods.values().filter(|pod| pod.is_old).count();
    let total = observed.pods.len();
    let count = |pods: usize| u32::try_from(pods).unwrap_or(u32::MAX);
    Roll {
        updated: count(total - old),
        total: count(total),
        step: step(desired, observed),
    }
}

fn step(desired: &Desired, observed: &Observed) -> Step {
    if !observed.knows_template {
        return Step::Wait(Wait::Template);
    }
    if !observed.pods.values().any(|pod| pod.is_old) {
        return Step::Done;
    }
    let idle = old_pods(observed, PodState::NeverStarted);
    if !idle.is_empty() {
        return Step::Replace(idle, Why::NeverStarted);
    }
    // A pod of this Store takes the only copy of something along.
    let loses_data = desired.is_ephemeral && desired.replication_factor == 1;
    if loses_data {
        return lose_data(desired, observed);
    }
    let down = old_pods(observed, PodState::Down);
    let spare = |ordinal: &u32| !desired.is_ephemeral || others_suffice(observed, *ordinal);
    if let Some(ordinal) = down.into_iter().find(spare) {
        let why = if desired.is_ephemeral {
            Why::OthersSuffice
        } else {
            Why::NotRunning
        };
        return Step::Replace(vec![ordinal], why);
    }
    if let Some(wait) = obstacle(desired, observed) {
        return Step::Wait(wait);
    }
    let serving = old_pods(observed, PodState::Serving).into_iter();
    let next = serving.min_by_key(|ordinal| {
        let leaderships = observed.strength.leaderships(*ordinal);
        (leaderships, Reverse(*ordinal))
    });
    match next {
        Some(ordinal) => Step::Replace(vec![ordinal], Why::FullStrength),
        None => Step::Done,
    }
}

fn old_pods(observed: &Observed, state: PodState) -> Vec<u32> {
    let pods = observed.pods.iter();
    let old = pods.filter(|(_, pod)| pod.is_old && pod.state == state);
    old.map(|(ordinal, _)| *ordinal).collect()
}

/// All pods go at once: with the first of them a partition is gone for good, and only when every
/// disk is empty the Store begins anew. Old pods go last, so that a crash in between is continued.
fn lose_data(desired: &Desired, observed: &Observed) -> Step {
    let holding = |is_old: bool| {
        let pods = observed.pods.iter();
        let pods = pods.filter(move |(_, pod)| pod.is_old == is_old && (is_old || pod.holds));
        pods.map(|(ordinal, _)| *ordinal)
    };
    if desired.allow_data_loss {
        let all = holding(false).chain(holding(true)).collect();
        return Step::Replace(all, Why::LossAllowed);
    }
    if observed.is_moving {
        return Step::Wait(Wait::Moves);
    }
    // A pod without members loses nothing.
    let serving = old_pods(observed, PodState::Serving).into_iter();
    let mut spare = serving.filter(|at| observed.pods.get(at).is_some_and(|pod| !pod.holds));
    if let Some(ordinal) = spare.next() {
        return match obstacle(desired, observed) {
            Some(wait) => Step::Wait(wait),
            None => Step::Replace(vec![ordinal], Why::FullStrength),
        };
    }
    match holding(true).next() {
        Some(ordinal) => Step::Refused { ordinal },
        None => Step::Done,
    }
}

/// Every group with a copy on this pod keeps a majority of voters without it.
fn others_suffice(observed: &Observed, ordinal: u32) -> bool {
    let mut groups = observed.strength.groups.values();
    groups.all(|group| {
        let Some(group) = group else {
            return false;
        };
        group.voter_at(ordinal).is_none() || majority_without(group, ordinal)
    })
}

fn majority_without(group: &GroupStrength, ordinal: u32) -> bool {
    let voters = group.voters.values();
    let kept = voters
        .filter(|voter| voter.ordinal != Some(ordinal) && voter.standing == Standing::CaughtUp);
    kept.count() * 2 > group.voters.len()
}

/// What stands against stopping a node that runs; that which is its own cause comes first.
fn obstacle(desired: &Desired, observed: &Observed) -> Option<Wait> {
    let serves = |ordinal: &u32| {
        let pod = observed.pods.get(ordinal);
        pod.is_some_and(|pod| pod.state == PodState::Serving)
    };
    if let Some(ordinal) = (0..desired.pods).find(|ordinal| !serves(ordinal)) {
        return Some(Wait::Pod { ordinal });
    }
    if observed.is_moving {
        return Some(Wait::Moves);
    }
    let mut groups = observed.strength.groups.iter();
    groups.find_map(|(partition, group)| {
        let partition = *partition;
        let Some(group) = group else {
            return Some(Wait::NoLeader { partition });
        };
        let has_all = group.voters.len() == desired.replication_factor as usize;
        if has_all && group.is_whole() {
            return None;
        }
        let mut voters = group.voters.values();
        let weak = voters.find(|voter| voter.standing != Standing::CaughtUp);
        let ordinal = weak.and_then(|voter| voter.ordinal);
        Some(Wait::Copy { partition, ordinal })
    })
}

#[cfg(test)]
mod tests;
