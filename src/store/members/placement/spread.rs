//! How evenly members lie over nodes and zones, and how far a placement is from what is wanted:
//! the potential that every completed change lowers. Pure.

use std::collections::BTreeMap;

use super::judge::Judge;
use super::observed::{Group, Observed};

/// How far a placement is from what is wanted, worst first: compared term by term. A change that is
/// carried out lowers it, so no sequence of changes undoes itself and each comes to an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Potential {
    /// Voters whose disk is lost or whose node is to go.
    pub displaced: u32,
    /// Voters that are missing or too many, over all groups.
    pub deviation: u32,
    /// Pairs of members of one group in one zone.
    pub collisions: u32,
    /// The sum of the squares of the numbers of members on each node.
    pub imbalance: u64,
}

/// Numbers of members by ordinal, as far as they are known; changed along with what is planned.
#[derive(Debug, Clone, Default)]
pub(super) struct Loads(BTreeMap<u32, u64>);

impl Loads {
    /// Counts what nodes hold and what groups say: each member once.
    pub(super) fn of(observed: &Observed) -> Self {
        let mut loads = Self::default();
        for (partition, group) in &observed.groups {
            for ordinal in ordinals_with_a_member(observed, *partition, group.as_ref()) {
                loads.add(ordinal);
            }
        }
        loads
    }

    pub(super) fn get(&self, ordinal: u32) -> u64 {
        self.0.get(&ordinal).copied().unwrap_or(0)
    }

    pub(super) fn add(&mut self, ordinal: u32) {
        *self.0.entry(ordinal).or_default() += 1;
    }

    pub(super) fn remove(&mut self, ordinal: u32) {
        if let Some(load) = self.0.get_mut(&ordinal) {
            *load = load.saturating_sub(1);
        }
    }
}

/// The ordinals whose present disk holds a member of the partition, or should.
pub(super) fn ordinals_with_a_member(
    observed: &Observed,
    partition: u32,
    group: Option<&Group>,
) -> std::collections::BTreeSet<u32> {
    let mut ordinals: std::collections::BTreeSet<u32> = observed
        .nodes
        .iter()
        .filter(|(_, node)| node.held.contains_key(&partition))
        .map(|(ordinal, _)| *ordinal)
        .collect();
    let Some(group) = group else {
        return ordinals;
    };
    for member in group.members() {
        let Some(place) = group.places.get(&member) else {
            continue;
        };
        let Some(ordinal) = place.ordinal else {
            continue;
        };
        let node = observed.nodes.get(&ordinal);
        let is_lost = observed.lost_disks.contains(&place.node_id)
            || node.is_some_and(|node| node.node_id != place.node_id);
        if !is_lost {
            ordinals.insert(ordinal);
        }
    }
    ordinals
}

/// Pairs of ordinals in one zone.
pub(super) fn collisions(observed: &Observed, ordinals: impl Iterator<Item = u32>) -> u32 {
    let mut by_zone: BTreeMap<&str, u32> = BTreeMap::new();
    let mut pairs = 0;
    for ordinal in ordinals {
        if let Some(zone) = observed.zones.get(&ordinal) {
            let count = by_zone.entry(zone).or_default();
            pairs += *count;
            *count += 1;
        }
    }
    pairs
}

/// How far the voters are from what is wanted, as if all unfinished changes did not exist.
pub(super) fn potential(judge: &Judge<'_>) -> Potential {
    let (desired, observed) = (judge.desired, judge.observed);
    let mut potential = Potential::default();
    let mut loads = Loads::default();
    for (partition, group) in &observed.groups {
        let Some(group) = group else {
            continue;
        };
        let voters = u32::try_from(group.voters.len()).unwrap_or(u32::MAX);
        potential.deviation += voters.abs_diff(desired.replication_factor);
        let mut placed = Vec::new();
        for voter in &group.voters {
            let is_lost = judge.is_lost(*partition, group, *voter);
            potential.displaced += u32::from(is_lost || judge.is_leaving(group, *voter));
            if let Some(ordinal) = group.ordinal_of(*voter).filter(|_| !is_lost) {
                placed.push(ordinal);
                loads.add(ordinal);
            }
        }
        potential.collisions += collisions(observed, placed.into_iter());
    }
    potential.imbalance = loads.0.values().map(|load| load * load).sum();
    potential
}
