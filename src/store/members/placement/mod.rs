//! Where the members of partitions lie, and the next changes towards where they should. Pure:
//! observation in, actions out; nothing is remembered between two plans.
//!
//! Not for the first members (`bootstrap`), nor for carrying changes out (`change`).
//!
//! The rules:
//! - Of each group at most one change is under way. What was begun is finished first, or undone
//!   when it is no longer wanted: a member without a role, a joint configuration, a Join whose reply
//!   was lost. The node keeps the id of a begun Join, so a repetition goes on with it.
//! - A member whose disk is gone is replaced. One that merely does not answer never is.
//! - A change by choice (a node that is to go, uneven spread) needs every voter of its group to
//!   answer, and there is one at a time; groups below their strength are repaired up to
//!   [`MAX_REPAIRS`] at a time.
//! - A voter goes only together with the coming of its successor, which has caught up, or when there
//!   are more voters than wanted.
//! - Every change lowers the [`Potential`], so no sequence undoes itself.
//! - A change names the membership that it was planned on; if that is another one by now, the group
//!   refuses it and the next plan looks again. So two operators cannot do two things at once.

mod action;
mod group;
mod judge;
mod observe;
mod observed;
mod replicas;
mod spread;

use std::collections::BTreeSet;

pub use action::{Action, Join, Leave, Purpose, Wait};
pub use observe::{Seen, newest_membership};
pub use observed::{Desired, Group, Held, HeldState, Node, Observed, Place, Position};
pub use spread::Potential;

use group::{GroupPlanner, Step};
use judge::Judge;
use spread::Loads;

/// Groups below their strength that are changed at a time.
pub const MAX_REPAIRS: usize = 8;

/// What to do now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decision {
    /// Changes, at most one of each group; independent of each other.
    pub actions: Vec<Action>,
    /// Why something that is wanted is not begun.
    pub waiting: BTreeSet<Wait>,
    /// How many pods the StatefulSet keeps.
    pub replicas: u32,
    /// How far the placement is from what is wanted.
    pub potential: Potential,
    /// Voters whose disk is lost: partition and pod.
    pub lost: BTreeSet<(u32, Option<u32>)>,
    /// Pods that hold members, or should.
    pub holding: BTreeSet<u32>,
}

impl Decision {
    /// Whether nothing is under way and nothing is wanted.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.actions.is_empty() && self.waiting.is_empty()
    }

    /// Whether something may be possible that no event tells of.
    #[must_use]
    pub fn asks_for_a_look(&self) -> bool {
        let is_told = |wait: &Wait| match wait {
            // A leader tells of itself; a disk changes with its pod.
            Wait::NoLeader { .. } | Wait::ForeignDisk { .. } => true,
            Wait::Unreachable { .. }
            | Wait::NoTarget { .. }
            | Wait::Joint { .. }
            | Wait::NoMajority { .. } => false,
        };
        !self.actions.is_empty() || !self.waiting.iter().all(is_told)
    }
}

/// Plans the next changes. `mint` returns a fresh id of 63 random bits at each call.
#[must_use]
pub fn plan(desired: &Desired, observed: &Observed, mint: &mut dyn FnMut() -> u64) -> Decision {
    let judge = Judge { desired, observed };
    let mut planner = Planner {
        judge,
        loads: Loads::of(observed),
        decision: Decision {
            replicas: replicas::replicas(&judge),
            potential: spread::potential(&judge),
            lost: lost_voters(&judge),
            holding: holding(observed),
            ..Decision::default()
        },
        busy: 0,
    };
    planner.note_obstacles();
    let settled = planner.finish_what_was_begun();
    let strong = planner.repair(settled);
    if planner.busy == 0 {
        planner.change_by_choice(&strong);
    }
    let mut decision = planner.decision;
    for action in &mut decision.actions {
        if let Action::Join(join) = action
            && join.member_id == 0
        {
            join.member_id = mint();
        }
    }
    decision
}

fn lost_voters(judge: &Judge<'_>) -> BTreeSet<(u32, Option<u32>)> {
    let groups = judge.observed.groups.iter();
    let known = groups.filter_map(|(partition, group)| Some((*partition, group.as_ref()?)));
    let lost = known.flat_map(|(partition, group)| {
        let voters = group.voters.iter();
        let lost = voters.filter(move |voter| judge.is_lost(partition, group, **voter));
        lost.map(move |voter| (partition, group.ordinal_of(*voter)))
    });
    lost.collect()
}

fn holding(observed: &Observed) -> BTreeSet<u32> {
    let groups = observed.groups.iter();
    let ordinals = groups.flat_map(|(partition, group)| {
        spread::ordinals_with_a_member(observed, *partition, group.as_ref())
    });
    ordinals.chain(observed.hearsay.iter().copied()).collect()
}

struct Planner<'a> {
    judge: Judge<'a>,
    loads: Loads,
    decision: Decision,
    /// Groups with a change under way.
    busy: usize,
}

impl<'a> Planner<'a> {
    fn group(&self, partition: u32, group: &'a Group) -> GroupPlanner<'_> {
        GroupPlanner {
            judge: self.judge,
            loads: &self.loads,
            partition,
            group,
        }
    }

    fn note_obstacles(&mut self) {
        let observed = self.judge.observed;
        for (partition, group) in &observed.groups {
            if group.is_none() {
                let partition = *partition;
                self.decision.waiting.insert(Wait::NoLeader { partition });
            }
        }
        for (ordinal, node) in &observed.nodes {
            if node.is_foreign && *ordinal < self.judge.desired.replicas {
                let ordinal = *ordinal;
                self.decision.waiting.insert(Wait::ForeignDisk { ordinal });
            }
        }
    }

    /// Returns the groups of which nothing is under way.
    fn finish_what_was_begun(&mut self) -> Vec<(u32, &'a Group)> {
        let mut settled = Vec::new();
        for (partition, group) in &self.judge.observed.groups {
            let Some(group) = group else {
                continue;
            };
            match self.group(*partition, group).unfinished() {
                Some(step) => {
                    self.busy += 1;
                    self.take(step);
                }
                None => settled.push((*partition, group)),
            }
        }
        settled
    }

    /// Returns the groups at full number.
    fn repair(&mut self, settled: Vec<(u32, &'a Group)>) -> Vec<(u32, &'a Group)> {
        let (mut weak, mut strong) = (Vec::new(), Vec::new());
        let factor = self.judge.desired.replication_factor as usize;
        for (partition, group) in settled {
            let strength = self.group(partition, group).strength();
            if strength < factor || strength < group.voters.len() {
                weak.push((strength, partition, group));
            } else {
                strong.push((partition, group));
            }
        }
        weak.sort_by_key(|(strength, partition, _)| (*strength, *partition));
        for (_, partition, group) in weak {
            if self.busy >= MAX_REPAIRS {
                break;
            }
            let step = self.group(partition, group).repair();
            if let Some(step) = step {
                self.busy += usize::from(matches!(step, Step::Act(_)));
                self.take(step);
            }
        }
        strong
    }

    /// At most one change.
    fn change_by_choice(&mut self, strong: &[(u32, &'a Group)]) {
        for (partition, group) in strong {
            let step = self.group(*partition, group).wanted();
            let is_act = matches!(step, Some(Step::Act(_)));
            if let Some(step) = step {
                self.take(step);
            }
            if is_act {
                return;
            }
        }
        // Numbers of members that are not known in full would be balanced in vain.
        let observed = self.judge.observed;
        if !self.decision.waiting.is_empty() || strong.len() < observed.groups.len() {
            return;
        }
        let betterments = strong.iter().filter_map(|(partition, group)| {
            let best = self.group(*partition, group).best_betterment()?;
            Some((best, *partition, *group))
        });
        let best = betterments.min_by_key(|(best, partition, _)| (*best, *partition));
        if let Some((best, partition, group)) = best {
            let step = self.group(partition, group).spread(&best);
            self.take(step);
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Wait(wait) => {
                self.decision.waiting.insert(wait);
            }
            Step::Act(action) => {
                if let Action::Join(join) = &action
                    && join.member_id == 0
                {
                    self.loads.add(join.ordinal);
                    // A lost member is counted nowhere.
                    if let Some(from) = join.from.filter(|_| join.purpose != Purpose::Repair) {
                        self.loads.remove(from);
                    }
                }
                self.decision.actions.push(action);
            }
        }
    }
}

#[cfg(test)]
mod tests;
