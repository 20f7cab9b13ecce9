//! The volumes of a Store: they grow with the specification, and are deleted where the
//! specification says so, once nothing is on them. Pure; carried out by `claims`.
//!
//! Not for the claim template of the StatefulSet: it cannot change, so it stays as it was made, and
//! claims made from it later are grown like all others.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::store::members::placement::Observed;
use crate::store::spec::quantity::bytes;

/// A claim of a Store.
#[derive(Debug, Clone, PartialEq)]
pub struct Claim {
    /// Its name.
    pub name: String,
    /// Which object it is.
    pub uid: String,
    /// What it asks for.
    pub requested: Option<Quantity>,
    /// It is being deleted.
    pub is_going: bool,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Ask for more.
    Grow {
        /// The claim.
        name: String,
        /// Which object it is.
        uid: String,
        /// How much.
        size: Quantity,
    },
    /// Delete it: its data with it.
    Delete {
        /// The ordinal whose pod used it.
        ordinal: u32,
        /// The claim.
        name: String,
        /// Which object it is.
        uid: String,
    },
}

/// What to do about the claims, by ordinal: those of `unused` ordinals may go.
#[must_use]
pub fn plan(
    claims: &BTreeMap<u32, Claim>,
    size: Option<&Quantity>,
    unused: &BTreeSet<u32>,
) -> Vec<Action> {
    let mut actions = Vec::new();
    for (ordinal, claim) in claims.iter().filter(|(_, claim)| !claim.is_going) {
        if unused.contains(ordinal) {
            actions.push(Action::Delete {
                ordinal: *ordinal,
                name: claim.name.clone(),
                uid: claim.uid.clone(),
            });
            continue;
        }
        let wanted = size.and_then(bytes);
        let requested = claim.requested.as_ref().and_then(bytes);
        if let (Some(size), Some(wanted), Some(requested)) = (size, wanted, requested)
            && wanted > requested
        {
            actions.push(Action::Grow {
                name: claim.name.clone(),
                uid: claim.uid.clone(),
                size: size.clone(),
            });
        }
    }
    actions
}

/// Ordinals without a pod whose disks hold no member of any group: every leader says so. Nothing is
/// unused while a group has no leader to ask.
#[must_use]
pub fn unused(
    claimed: impl Iterator<Item = u32>,
    replicas: u32,
    has_pod: impl Fn(u32) -> bool,
    observed: &Observed,
) -> BTreeSet<u32> {
    let kept = replicas.max(observed.live_replicas);
    if observed.live_replicas == 0 || observed.groups.values().any(Option::is_none) {
        return BTreeSet::new();
    }
    let holds = |ordinal: u32| {
        let mut groups = observed.groups.values().flatten();
        groups.any(|group| {
            let mut members = group.members();
            // A member at an address of nobody may be anywhere.
            members.any(|member| group.ordinal_of(member).is_none_or(|at| at == ordinal))
        })
    };
    claimed
        .filter(|ordinal| *ordinal >= kept && !has_pod(*ordinal) && !holds(*ordinal))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::members::placement::{Group, Place};

    const NONE: [u32; 0] = [];

    fn claim(name: &str, size: &str) -> Claim {
        Claim {
            name: name.to_owned(),
            uid: format!("uid-of-{name}"),
            requested: Some(Quantity(size.to_owned())),
            is_going: false,
        }
    }

    #[test]
    fn claims_grow_never_shrink_and_only_unused_ones_go() {
        let going = Claim {
            is_going: true,
            ..claim("data-tulip-4", "1Gi")
        };
        let claims = BTreeMap::from([
            (0, claim("data-tulip-0", "1Gi")),
            (1, claim("data-tulip-1", "2048Mi")),
            (2, claim("data-tulip-2", "3Gi")),
            (3, claim("data-tulip-3", "1Gi")),
            (4, going),
        ]);
        let size = Quantity("2Gi".to_owned());
        let actions = plan(&claims, Some(&size), &BTreeSet::from([3, 4]));
        let expected = [
            Action::Grow {
                name: "data-tulip-0".to_owned(),
                uid: "uid-of-data-tulip-0".to_owned(),
                size,
            },
            Action::Delete {
                ordinal: 3,
                name: "data-tulip-3".to_owned(),
                uid: "uid-of-data-tulip-3".to_owned(),
            },
        ];
        assert_eq!(actions, expected);
        assert_eq!(plan(&claims, None, &BTreeSet::new()), []);
    }

    fn group(ordinals: &[Option<u32>]) -> Group {
        let members = (1_u64..).zip(ordinals);
        let places = members.map(|(member, ordinal)| {
            let place = Place {
                ordinal: *ordinal,
                ..Place::default()
            };
            (member, place)
        });
        let places: BTreeMap<u64, Place> = places.collect();
        Group {
            voters: places.keys().copied().collect(),
            places,
            ..Group::default()
        }
    }

    #[test]
    fn a_disk_is_unused_only_when_every_leader_says_so() {
        let observed = |groups: Vec<Option<Group>>, live_replicas| Observed {
            groups: (1..).zip(groups).collect(),
            live_replicas,
            ..Observed::default()
        };
        let at = |ordinals: &[u32]| {
            let ordinals: Vec<Option<u32>> = ordinals.iter().copied().map(Some).collect();
            Some(group(&ordinals))
        };
        let unused = |observed: Observed, pods: &[u32]| {
            let found = unused(0..5, 3, |ordinal| pods.contains(&ordinal), &observed);
            found.into_iter().collect::<Vec<_>>()
        };
        let three = || vec![at(&[0, 1, 2]), at(&[0, 1, 2])];
        assert_eq!(unused(observed(three(), 3), &[]), [3, 4]);
        assert_eq!(unused(observed(three(), 3), &[3]), [4], "a pod uses it");
        assert_eq!(unused(observed(three(), 4), &[]), [4], "a pod will use it");
        assert_eq!(unused(observed(three(), 0), &[]), NONE, "nothing is known");
        let with_4 = vec![at(&[0, 1, 2]), at(&[0, 1, 4])];
        assert_eq!(unused(observed(with_4, 3), &[]), [3], "a member is there");
        let leaderless = vec![at(&[0, 1, 2]), None];
        assert_eq!(unused(observed(leaderless, 3), &[]), NONE);
        let elsewhere = vec![Some(group(&[Some(0), Some(1), None]))];
        assert_eq!(unused(observed(elsewhere, 3), &[]), NONE);
    }
}
