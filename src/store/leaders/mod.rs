//! Which leaderships change hands so that all nodes lead about as many groups. Pure: observation in,
//! transfers out.
//!
//! Not for where members lie (`placement`): only voters that have caught up may lead. Every transfer
//! lowers the sum of the squares of the numbers of leaderships, so no sequence of them goes on for
//! ever, and where nothing can be bettered nothing is done.

mod transfer;

use std::collections::{BTreeMap, BTreeSet};

pub use transfer::{Pace, Transferrer};

use crate::store::members::placement;
use crate::store::nodes::strength::{Standing, Strength};

/// Transfers at a time: each costs its group an election, however short.
const AT_A_TIME: usize = 4;

/// A group that may change its leader.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Group {
    /// The pod that leads.
    pub leader: u32,
    /// The pods that may lead, with their members.
    pub candidates: BTreeMap<u32, u64>,
}

/// A leadership that changes hands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transfer {
    /// The partition.
    pub partition: u32,
    /// The pod that leads.
    pub from: u32,
    /// The pod that is to lead.
    pub to: u32,
    /// Its member.
    pub member: u64,
}

/// The transfers to make now, at most one of each group.
#[must_use]
pub fn plan(groups: &BTreeMap<u32, Group>) -> Vec<Transfer> {
    let mut counts: BTreeMap<u32, i64> = BTreeMap::new();
    for group in groups.values() {
        *counts.entry(group.leader).or_default() += 1;
    }
    let mut transfers: Vec<Transfer> = Vec::new();
    let mut moved: BTreeSet<u32> = BTreeSet::new();
    while transfers.len() < AT_A_TIME {
        let count = |ordinal: u32| counts.get(&ordinal).copied().unwrap_or(0);
        let still = groups
            .iter()
            .filter(|(partition, _)| !moved.contains(*partition));
        let possible = still.flat_map(|(partition, group)| {
            let candidates = group.candidates.iter();
            candidates.map(|(to, member)| Transfer {
                partition: *partition,
                from: group.leader,
                to: *to,
                member: *member,
            })
        });
        let gain = |transfer: &Transfer| count(transfer.from) - count(transfer.to);
        let best = possible
            .filter(|transfer| gain(transfer) >= 2)
            .max_by_key(|transfer| {
                (
                    gain(transfer),
                    std::cmp::Reverse((transfer.partition, transfer.to)),
                )
            });
        let Some(best) = best else {
            break;
        };
        *counts.entry(best.from).or_default() -= 1;
        *counts.entry(best.to).or_default() += 1;
        moved.insert(best.partition);
        transfers.push(best);
    }
    transfers
}

/// The groups as the placement sees them: whether there may be anything to do.
#[must_use]
pub fn as_placed(observed: &placement::Observed) -> BTreeMap<u32, Group> {
    let groups = observed.groups.iter();
    let known = groups.filter_map(|(partition, group)| {
        let group = group.as_ref()?;
        let leader = group.ordinal_of(group.leader)?;
        let voters = group.voters.iter();
        let candidates = voters.filter_map(|voter| {
            let ordinal = group.ordinal_of(*voter)?;
            observed
                .nodes
                .contains_key(&ordinal)
                .then_some((ordinal, *voter))
        });
        let candidates = candidates.collect();
        Some((*partition, Group { leader, candidates }))
    });
    known.collect()
}

/// The groups at full strength, as they were judged.
#[must_use]
pub fn as_judged(strength: &Strength) -> BTreeMap<u32, Group> {
    let groups = strength.groups.iter();
    let whole = groups.filter_map(|(partition, group)| {
        let group = group.as_ref()?;
        let leader = group.leader_ordinal()?;
        let fit = |standing: Standing| group.is_whole() && standing == Standing::CaughtUp;
        let voters = group.voters.iter().filter(|(_, voter)| fit(voter.standing));
        let candidates = voters.filter_map(|(member, voter)| Some((voter.ordinal?, *member)));
        let candidates = candidates.collect();
        Some((*partition, Group { leader, candidates }))
    });
    whole.collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    fn group(leader: u32, candidates: &[u32]) -> Group {
        let candidates = candidates.iter().map(|at| (*at, u64::from(*at) + 100));
        Group {
            leader,
            candidates: candidates.collect(),
        }
    }

    fn imbalance(groups: &BTreeMap<u32, Group>) -> u64 {
        let mut counts: BTreeMap<u32, u64> = BTreeMap::new();
        for group in groups.values() {
            *counts.entry(group.leader).or_default() += 1;
        }
        counts.values().map(|count| count * count).sum()
    }

    #[test]
    fn leaders_go_where_there_are_fewer_by_two() {
        let all = [0, 1, 2];
        let even = BTreeMap::from([(1, group(0, &all)), (2, group(1, &all))]);
        assert!(plan(&even).is_empty());
        let uneven = BTreeMap::from([
            (1, group(0, &all)),
            (2, group(0, &all)),
            (3, group(0, &all)),
        ]);
        let transfers = plan(&uneven);
        let told: Vec<(u32, u32, u32, u64)> = transfers
            .iter()
            .map(|transfer| {
                let Transfer {
                    partition,
                    from,
                    to,
                    member,
                } = transfer;
                (*partition, *from, *to, *member)
            })
            .collect();
        assert_eq!(told, [(1, 0, 1, 101), (2, 0, 2, 102)]);
        // Nobody else may lead.
        let bound = BTreeMap::from([(1, group(0, &[0])), (2, group(0, &[])), (3, group(0, &[0]))]);
        assert!(plan(&bound).is_empty());
    }

    proptest! {
        #[test]
        fn every_transfer_betters_it_and_it_comes_to_an_end(
            nodes in 1_u32..8,
            places in prop::collection::vec((0_u32..8, 0_u32..8), 0..40),
        ) {
            let mut groups: BTreeMap<u32, Group> = (1..)
                .zip(places)
                .map(|(partition, (first, leads))| {
                    let members: Vec<u32> = (0..3.min(nodes)).map(|at| (first + at) % nodes).collect();
                    let leader = members[leads as usize % members.len()];
                    (partition, group(leader, &members))
                })
                .collect();
            for _ in 0..100 {
                let transfers = plan(&groups);
                if transfers.is_empty() {
                    return Ok(());
                }
                let partitions: BTreeSet<u32> =
                    transfers.iter().map(|transfer| transfer.partition).collect();
                prop_assert_eq!(partitions.len(), transfers.len());
                for transfer in transfers {
                    let before = imbalance(&groups);
                    let group = groups.get_mut(&transfer.partition).unwrap();
                    prop_assert_eq!(group.leader, transfer.from);
                    prop_assert_eq!(group.candidates.get(&transfer.to), Some(&transfer.member));
                    group.leader = transfer.to;
                    prop_assert!(imbalance(&groups) < before);
                }
            }
            prop_assert!(false, "it does not end: {groups:?}");
        }
    }
}
