//! The next step of one group. Pure.
//!
//! A step that was begun comes first: it is finished when it is still wanted, else undone. Only a
//! group without one is changed further.

use std::cmp::Reverse;

use super::action::{Action, Join, Leave, Purpose, Wait};
use super::judge::{Condition, Judge};
use super::observed::{Group, HeldState};
use super::spread::{Loads, collisions, ordinals_with_a_member};

/// What to do about a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Act(Action),
    Wait(Wait),
}

/// One group, its surroundings, and the numbers of members by node.
#[derive(Debug, Clone, Copy)]
pub(super) struct GroupPlanner<'a> {
    pub(super) judge: Judge<'a>,
    pub(super) loads: &'a Loads,
    pub(super) partition: u32,
    pub(super) group: &'a Group,
}

/// A voter's change of place and how much it betters: fewer is better, term by term.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Betterment {
    collisions: i64,
    imbalance: i64,
    /// A leader that goes costs an election.
    leads: bool,
    /// In doubt the highest ordinal gives.
    from: Reverse<u32>,
    pub(super) to: u32,
    pub(super) voter: u64,
}

impl GroupPlanner<'_> {
    /// The rest of a step that was begun.
    pub(super) fn unfinished(&self) -> Option<Step> {
        if !self.group.outgoing.is_empty() {
            return Some(self.complete_joint());
        }
        if let Some(learner) = self.group.learners.first() {
            return Some(self.finish_learner(*learner));
        }
        self.orphan()
    }

    /// The leader completes a joint configuration by itself; asking the newcomer's node again
    /// only tells when.
    fn complete_joint(&self) -> Step {
        let group = self.group;
        let wait = Step::Wait(Wait::Joint {
            partition: self.partition,
        });
        let Some(joiner) = group.voters.difference(&group.outgoing).next() else {
            return wait;
        };
        let replaced = group.outgoing.difference(&group.voters).next();
        match self.held_at(*joiner) {
            Some(ordinal) => {
                self.join_again(ordinal, *joiner, replaced.copied(), Purpose::Spread, wait)
            }
            None => wait,
        }
    }

    fn finish_learner(&self, learner: u64) -> Step {
        let ordinal = self.group.ordinal_of(learner);
        if let Some(ordinal) = self.held_at(learner) {
            return self.finish_or_undo(ordinal, learner, None);
        }
        let is_lost = self.judge.is_lost(self.partition, self.group, learner);
        if is_lost || self.group.silent.contains(&learner) {
            return self.leave(learner, None, Purpose::Undo);
        }
        // The leader hears it: it goes on by itself.
        Step::Wait(Wait::Unreachable {
            partition: self.partition,
            ordinal,
        })
    }

    /// What a node holds although its leader does not know it: a Join that did not get far, or a
    /// member that was removed while its node was away.
    fn orphan(&self) -> Option<Step> {
        let nodes = self.judge.observed.nodes.iter();
        let mut held = nodes.filter_map(|(ordinal, node)| {
            let held = node.held.get(&self.partition)?;
            (!self.group.has(held.member_id)).then_some((*ordinal, *held))
        });
        let (ordinal, held) = held.next()?;
        Some(match held.state {
            HeldState::Joining => self.finish_or_undo(ordinal, held.member_id, Some(ordinal)),
            HeldState::Admitted | HeldState::Stopped => {
                self.leave(held.member_id, Some(ordinal), Purpose::Undo)
            }
        })
    }

    fn finish_or_undo(&self, ordinal: u32, member: u64, via: Option<u32>) -> Step {
        let Some((replaces, purpose)) = self.reason_to_join(ordinal, true) else {
            return self.leave(member, via, Purpose::Undo);
        };
        let is_by_choice = matches!(purpose, Purpose::Drain | Purpose::Spread);
        if let Some(unfit) = self.unfit_voter().filter(|_| is_by_choice) {
            return Step::Wait(Wait::Unreachable {
                partition: self.partition,
                ordinal: self.group.ordinal_of(unfit),
            });
        }
        let wait = Step::Wait(Wait::NoTarget {
            partition: self.partition,
        });
        self.join_again(ordinal, member, replaces, purpose, wait)
    }

    /// Why a member at this ordinal is wanted, and which voter it takes the place of.
    fn reason_to_join(&self, ordinal: u32, is_counted: bool) -> Option<(Option<u64>, Purpose)> {
        let (judge, group) = (&self.judge, self.group);
        let node = judge.node(Some(ordinal))?;
        if ordinal >= judge.desired.replicas || node.is_foreign {
            return None;
        }
        let factor = judge.desired.replication_factor as usize;
        let lost = self.lost_voters();
        if let Some(first) = lost.first() {
            let is_needed = group.voters.len() - lost.len() < factor;
            return is_needed.then_some((Some(*first), Purpose::Repair));
        }
        if group.voters.len() != factor {
            return (group.voters.len() < factor).then_some((None, Purpose::Copies));
        }
        if let Some(leaving) = self.fit_leaving_voter() {
            return Some((Some(leaving), Purpose::Drain));
        }
        let best = self.betterment(ordinal, is_counted)?;
        Some((Some(best.voter), Purpose::Spread))
    }

    /// What a group below its strength needs.
    pub(super) fn repair(&self) -> Option<Step> {
        let factor = self.judge.desired.replication_factor as usize;
        let lost = self.lost_voters();
        let kept = self.group.voters.len() - lost.len();
        if kept >= factor {
            let first = lost.first()?;
            return Some(self.leave(*first, None, Purpose::Copies));
        }
        let purpose = if lost.is_empty() {
            Purpose::Copies
        } else {
            Purpose::Repair
        };
        Some(self.join_somewhere(lost.first().copied(), purpose))
    }

    /// How many voters there are that count: the weakest group is repaired first.
    pub(super) fn strength(&self) -> usize {
        self.group.voters.len() - self.lost_voters().len()
    }

    /// A change by choice that needs no comparison with other groups.
    pub(super) fn wanted(&self) -> Option<Step> {
        let factor = self.judge.desired.replication_factor as usize;
        let has_too_many = self.group.voters.len() > factor;
        let mut voters = self.group.voters.iter();
        let is_leaving = |voter: &u64| self.judge.is_leaving(self.group, *voter);
        if !has_too_many && !voters.any(is_leaving) {
            return None;
        }
        if let Some(unfit) = self.unfit_voter() {
            return Some(Step::Wait(Wait::Unreachable {
                partition: self.partition,
                ordinal: self.group.ordinal_of(unfit),
            }));
        }
        if has_too_many {
            let surplus = self.surplus()?;
            return Some(self.leave(surplus, None, Purpose::Copies));
        }
        Some(self.join_somewhere(self.fit_leaving_voter(), Purpose::Drain))
    }

    /// The best change of place of a group at full strength, if any betters something.
    pub(super) fn best_betterment(&self) -> Option<Betterment> {
        if self.unfit_voter().is_some() {
            return None;
        }
        let targets = self.targets();
        let bettered = targets.filter_map(|target| self.betterment(target, false));
        bettered.min()
    }

    /// Carries a betterment out.
    pub(super) fn spread(&self, betterment: &Betterment) -> Step {
        self.join_fresh(betterment.to, Some(betterment.voter), Purpose::Spread)
    }

    fn lost_voters(&self) -> Vec<u64> {
        let voters = self.group.voters.iter().copied();
        let lost = voters.filter(|voter| self.judge.is_lost(self.partition, self.group, *voter));
        lost.collect()
    }

    fn unfit_voter(&self) -> Option<u64> {
        let mut voters = self.group.voters.iter().copied();
        voters.find(|voter| !self.judge.is_fit(self.partition, self.group, *voter))
    }

    /// Prefers a voter that does not lead.
    fn fit_leaving_voter(&self) -> Option<u64> {
        let voters = self.group.voters.iter().copied();
        let leaving = voters.filter(|voter| {
            self.judge.is_leaving(self.group, *voter)
                && self.judge.is_fit(self.partition, self.group, *voter)
        });
        leaving.min_by_key(|voter| (*voter == self.group.leader, *voter))
    }

    /// The voter that a group with too many misses least.
    fn surplus(&self) -> Option<u64> {
        let voters = self.group.voters.iter().copied();
        voters.min_by_key(|voter| {
            let ordinal = self.group.ordinal_of(*voter);
            let others = self.group.voters.iter().filter(|other| *other != voter);
            let others = others.filter_map(|other| self.group.ordinal_of(*other));
            (
                !self.judge.is_leaving(self.group, *voter),
                collisions(self.judge.observed, others),
                Reverse(ordinal.map_or(0, |ordinal| self.loads.get(ordinal))),
                *voter == self.group.leader,
                *voter,
            )
        })
    }

    /// The pods that may take a member of this group.
    fn targets(&self) -> impl Iterator<Item = u32> {
        let observed = self.judge.observed;
        let taken = ordinals_with_a_member(observed, self.partition, Some(self.group));
        let replicas = self.judge.desired.replicas;
        let nodes = observed.nodes.range(..replicas);
        nodes
            .filter(move |(ordinal, node)| !node.is_foreign && !taken.contains(ordinal))
            .map(|(ordinal, _)| *ordinal)
    }

    /// What changes when a voter moves to `target`, at best; only what betters. `is_counted` says
    /// that the numbers of members have the newcomer in them.
    fn betterment(&self, target: u32, is_counted: bool) -> Option<Betterment> {
        let observed = self.judge.observed;
        let at = |voter: &u64| self.group.ordinal_of(*voter);
        let all = self.group.voters.iter().filter_map(at);
        let before = collisions(observed, all);
        let load_of_target = self.loads.get(target);
        let load_of_target = load_of_target.saturating_sub(u64::from(is_counted));
        let changes = self.group.voters.iter().filter_map(|voter| {
            let from = at(voter)?;
            let others = self.group.voters.iter().filter(|other| *other != voter);
            let places = others.filter_map(at).chain([target]);
            let after = collisions(observed, places);
            let imbalance = 2 * (signed(load_of_target) - signed(self.loads.get(from)) + 1);
            Some(Betterment {
                collisions: i64::from(after) - i64::from(before),
                imbalance,
                leads: *voter == self.group.leader,
                from: Reverse(from),
                to: target,
                voter: *voter,
            })
        });
        let best = changes.min()?;
        ((best.collisions, best.imbalance) < (0, 0)).then_some(best)
    }

    /// The ordinal of a member whose node answers and holds it.
    fn held_at(&self, member: u64) -> Option<u32> {
        let place = self.group.places.get(&member)?;
        let ordinal = place.ordinal?;
        let node = self.judge.node(Some(ordinal))?;
        let held = node.held.get(&self.partition)?;
        let is_held = node.node_id == place.node_id && held.member_id == member;
        is_held.then_some(ordinal)
    }

    fn join_somewhere(&self, replaces: Option<u64>, purpose: Purpose) -> Step {
        let observed = self.judge.observed;
        let staying = self.group.voters.iter().filter(|voter| {
            Some(**voter) != replaces
                && self.judge.condition(self.partition, self.group, **voter) != Condition::Lost
        });
        let staying: Vec<u32> = staying
            .filter_map(|voter| self.group.ordinal_of(*voter))
            .collect();
        let target = self.targets().min_by_key(|target| {
            let places = staying.iter().copied().chain([*target]);
            (
                collisions(observed, places),
                self.loads.get(*target),
                *target,
            )
        });
        match target {
            Some(target) => self.join_fresh(target, replaces, purpose),
            None => Step::Wait(Wait::NoTarget {
                partition: self.partition,
            }),
        }
    }

    /// `member_id` 0 stands for one that is yet to be minted.
    fn join_fresh(&self, ordinal: u32, replaces: Option<u64>, purpose: Purpose) -> Step {
        let wait = Step::Wait(Wait::NoTarget {
            partition: self.partition,
        });
        self.join_again(ordinal, 0, replaces, purpose, wait)
    }

    fn join_again(
        &self,
        ordinal: u32,
        member_id: u64,
        replaces: Option<u64>,
        purpose: Purpose,
        otherwise: Step,
    ) -> Step {
        let Some(node) = self.judge.node(Some(ordinal)) else {
            return otherwise;
        };
        Step::Act(Action::Join(Join {
            partition: self.partition,
            ordinal,
            node_id: node.node_id,
            member_id,
            replaces,
            from: replaces.and_then(|replaced| self.group.ordinal_of(replaced)),
            expected: self.group.membership,
            purpose,
        }))
    }

    /// Asks the pod `via`, or the leader's. A voter goes only when those that stay have a majority
    /// that the leader hears.
    fn leave(&self, member: u64, via: Option<u32>, purpose: Purpose) -> Step {
        let group = self.group;
        let Some(via) = via.or_else(|| group.ordinal_of(group.leader)) else {
            return Step::Wait(Wait::NoLeader {
                partition: self.partition,
            });
        };
        if group.voters.contains(&member) {
            let staying = group.voters.iter().filter(|voter| **voter != member);
            let heard = staying.clone().filter(|voter| {
                !group.silent.contains(voter) && !self.judge.is_lost(self.partition, group, **voter)
            });
            if heard.count() * 2 <= staying.count() {
                return Step::Wait(Wait::NoMajority {
                    partition: self.partition,
                });
            }
        }
        Step::Act(Action::Leave(Leave {
            partition: self.partition,
            member_id: member,
            from: group.ordinal_of(member).or(Some(via)),
            via,
            expected: group.membership,
            purpose,
        }))
    }
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
