//! How a member is doing, judged from its node's answer and its leader's. Pure.

use super::observed::{Desired, Group, Node, Observed};

/// How a member is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Condition {
    /// Its node answers and holds it, and its leader hears it.
    Fit,
    /// Somebody does not hear it; its disk may be whole. Never replaced.
    Unreachable,
    /// Its disk is gone: another one is in its place, or a person said so.
    Lost,
}

/// Judges members.
#[derive(Debug, Clone, Copy)]
pub(super) struct Judge<'a> {
    pub(super) desired: &'a Desired,
    pub(super) observed: &'a Observed,
}

impl<'a> Judge<'a> {
    pub(super) fn condition(&self, partition: u32, group: &Group, member: u64) -> Condition {
        let Some(place) = group.places.get(&member) else {
            return Condition::Unreachable;
        };
        if self.observed.lost_disks.contains(&place.node_id) {
            return Condition::Lost;
        }
        match self.node(place.ordinal) {
            None => Condition::Unreachable,
            Some(node) if node.node_id != place.node_id => Condition::Lost,
            Some(node) => {
                let held = node.held.get(&partition);
                let is_held = held.is_some_and(|held| held.member_id == member);
                if is_held && !group.silent.contains(&member) {
                    Condition::Fit
                } else {
                    Condition::Unreachable
                }
            }
        }
    }

    /// The node at an ordinal, if it answered.
    pub(super) fn node(&self, ordinal: Option<u32>) -> Option<&'a Node> {
        self.observed.nodes.get(&ordinal?)
    }

    pub(super) fn is_lost(&self, partition: u32, group: &Group, member: u64) -> bool {
        self.condition(partition, group, member) == Condition::Lost
    }

    /// The ordinal of the member is to go.
    pub(super) fn is_leaving(&self, group: &Group, member: u64) -> bool {
        let ordinal = group.ordinal_of(member);
        ordinal.is_some_and(|ordinal| ordinal >= self.desired.replicas)
    }

    pub(super) fn is_fit(&self, partition: u32, group: &Group, member: u64) -> bool {
        self.condition(partition, group, member) == Condition::Fit
    }
}
