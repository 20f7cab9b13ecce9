//! On which nodes the first members of each partition lie. Pure.
//!
//! Each partition spreads over zones as evenly as they allow, so that no zone holds a majority when
//! that can be avoided; among equals the node with the fewest members, so that without zones two
//! nodes never differ by more than one member. Afterwards `placement` keeps it so.

use std::collections::{BTreeMap, BTreeSet};

/// The ordinals of each partition's members. `zones` may lack nodes: nothing is known of those.
pub(super) fn first_members(
    nodes: u32,
    partitions: u32,
    copies: u32,
    zones: &BTreeMap<u32, String>,
) -> Vec<BTreeSet<u32>> {
    let mut loads: BTreeMap<u32, u32> = BTreeMap::new();
    let mut all = Vec::new();
    for _ in 0..partitions {
        let mut chosen: BTreeSet<u32> = BTreeSet::new();
        for _ in 0..copies {
            let neighbours = |ordinal: &u32| {
                let zone = zones.get(ordinal);
                let in_zone = |other: &&u32| zone.is_some() && zones.get(*other) == zone;
                chosen.iter().filter(in_zone).count()
            };
            let load = |ordinal: &u32| loads.get(ordinal).copied().unwrap_or(0);
            let free = (0..nodes).filter(|ordinal| !chosen.contains(ordinal));
            let best = free.min_by_key(|ordinal| (neighbours(ordinal), load(ordinal), *ordinal));
            let Some(best) = best else {
                break;
            };
            *loads.entry(best).or_default() += 1;
            chosen.insert(best);
        }
        all.push(chosen);
    }
    all
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    fn zones(names: &[&str]) -> BTreeMap<u32, String> {
        let names = (0..).zip(names).filter(|(_, name)| !name.is_empty());
        names.map(|(at, name)| (at, (*name).to_owned())).collect()
    }

    fn sets(partitions: &[&[u32]]) -> Vec<BTreeSet<u32>> {
        let sets = partitions
            .iter()
            .map(|members| members.iter().copied().collect());
        sets.collect()
    }

    #[test]
    fn members_go_round_the_nodes_and_apart_over_zones() {
        let round = first_members(4, 3, 3, &zones(&[]));
        assert_eq!(round, sets(&[&[0, 1, 2], &[0, 1, 3], &[0, 2, 3]]));
        // Pods that come up in order may lie in one zone after the other.
        let apart = first_members(6, 2, 3, &zones(&["a", "a", "b", "b", "c", "c"]));
        assert_eq!(apart, sets(&[&[0, 2, 4], &[1, 3, 5]]));
        let two = first_members(4, 2, 3, &zones(&["a", "a", "a", "b"]));
        assert!(two.iter().all(|members| members.contains(&3)), "{two:?}");
    }

    proptest! {
        #[test]
        fn no_zone_holds_a_majority_where_it_can_be_avoided(
            places in prop::collection::vec(0_usize..4, 3..12),
            partitions in 1_u32..20,
            copies in prop::sample::select(vec![1_u32, 3, 5, 7]),
        ) {
            let nodes = u32::try_from(places.len()).unwrap();
            prop_assume!(copies <= nodes);
            let names = ["a", "b", "c", "d"];
            let zones: BTreeMap<u32, String> = (0..)
                .zip(&places)
                .map(|(at, place)| (at, names[*place].to_owned()))
                .collect();
            let most = copies.saturating_sub(1) / 2;
            let sizes = names.map(|name| zones.values().filter(|zone| *zone == name).count());
            let most = most as usize;
            let room: usize = sizes.iter().map(|size| (*size).min(most)).sum();
            for members in first_members(nodes, partitions, copies, &zones) {
                prop_assert_eq!(members.len(), copies as usize);
                let held = names.map(|name| {
                    members.iter().filter(|at| zones[*at] == name).count()
                });
                let is_avoided = held.iter().all(|count| *count <= most);
                prop_assert!(is_avoided || room < copies as usize, "{held:?} of {sizes:?}");
            }
        }

        #[test]
        fn without_zones_no_two_nodes_differ_by_more_than_one_member(
            nodes in 1_u32..20,
            partitions in 1_u32..40,
            copies in prop::sample::select(vec![1_u32, 3, 5]),
        ) {
            prop_assume!(copies <= nodes);
            let mut loads = vec![0_u32; nodes as usize];
            for members in first_members(nodes, partitions, copies, &BTreeMap::new()) {
                members.iter().for_each(|at| loads[*at as usize] += 1);
            }
            let (most, least) = (loads.iter().max().unwrap(), loads.iter().min().unwrap());
            prop_assert!(most - least <= 1, "{loads:?}");
        }
    }
}
