//! The PodDisruptionBudget of a Store: how many nodes may be away by somebody's choice. Pure.
//!
//! A pod counts as healthy only while its gate `atomix.io/replicated` is open (`replicated`), so the
//! budget also holds while a node that came back has not caught up, and while the operator is down.
//!
//! A Store of one copy has none: it would forbid every drain. Any other always has one, also while a
//! partition has a single copy of those that it is to have: then it allows nothing.

use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::store::names;
use crate::store::objects::build::Owner;

/// What is known of the groups that a budget guards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Groups {
    /// There are none yet.
    NotMade,
    /// All of them: how many voters the smallest has now.
    All(usize),
    /// Not all of them: how many voters the smallest has of those that are known.
    Part(Option<usize>),
}

impl Groups {
    /// The groups of a Store by how many voters their leaders tell of; `None` = no leader did.
    pub fn of(voters: impl Iterator<Item = Option<usize>>) -> Self {
        let (mut smallest, mut are_known) = (None, true);
        for voters in voters {
            match (voters, smallest) {
                (None, _) => are_known = false,
                (Some(voters), None) => smallest = Some(voters),
                (Some(voters), Some(least)) => smallest = Some(voters.min(least)),
            }
        }
        match smallest {
            Some(smallest) if are_known => Self::All(smallest),
            smallest => Self::Part(smallest),
        }
    }
}

/// How many voters of a group may be away so that the others are a majority. The number that the
/// smallest group has now counts: while copies are added, the wanted number would promise too much.
#[must_use]
pub fn bearable(replication_factor: u32, groups: Groups) -> u32 {
    let smallest = match groups {
        Groups::NotMade => None,
        Groups::All(voters) => Some(voters),
        Groups::Part(voters) => voters,
    };
    let smallest = smallest.and_then(|voters| u32::try_from(voters).ok());
    let voters = smallest.map_or(replication_factor, |voters| voters.min(replication_factor));
    voters.saturating_sub(1) / 2
}

/// What becomes of a budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// It becomes what was built, or goes when nothing was.
    AsBuilt,
    /// It is made so that it allows nothing.
    Forbid,
    /// It stays: more must not be allowed while a group that is not known may bear less.
    Keep,
    /// It becomes what was built unless that allows more, see [`allows_more`].
    UnlessMore,
}

/// What becomes of the budget when `built` is to take its place; whether one is there, a cache says.
pub(super) fn change(
    is_there: bool,
    built: Option<&PodDisruptionBudget>,
    groups: Groups,
) -> Change {
    match (groups, built) {
        (Groups::NotMade | Groups::All(_), _) => Change::AsBuilt,
        (Groups::Part(_), Some(_)) if !is_there => Change::Forbid,
        // Without a budget any number may be away.
        (Groups::Part(_), None) | (Groups::Part(None), Some(_)) => Change::Keep,
        (Groups::Part(Some(_)), Some(_)) => Change::UnlessMore,
    }
}

/// Whether what was built allows more than the budget that is there.
pub(super) fn allows_more(built: &PodDisruptionBudget, live: &PodDisruptionBudget) -> bool {
    match (allowed(built), allowed(live)) {
        (Some(built), Some(live)) => built > live,
        _ => false,
    }
}

/// Whether a budget allows nothing, however well all pods are.
#[must_use]
pub fn forbids_all(budget: &PodDisruptionBudget) -> bool {
    allowed(budget) == Some(0)
}

/// The same budget, allowing nothing.
pub(super) fn forbidding(mut budget: PodDisruptionBudget) -> PodDisruptionBudget {
    if let Some(spec) = &mut budget.spec {
        spec.max_unavailable = Some(IntOrString::Int(0));
    }
    budget
}

/// How many pods may be away; `None` = it says so otherwise, so it is not by us, and is set right.
fn allowed(budget: &PodDisruptionBudget) -> Option<i32> {
    match budget.spec.as_ref()?.max_unavailable {
        Some(IntOrString::Int(number)) => Some(number),
        Some(IntOrString::String(_)) | None => None,
    }
}

/// The budget of a Store that asks for so many copies, of whose nodes so many may be away now;
/// `None` for one copy.
pub(super) fn budget(
    owner: &Owner,
    replication_factor: u32,
    bearable: u32,
) -> Option<PodDisruptionBudget> {
    if replication_factor < 2 {
        return None;
    }
    Some(PodDisruptionBudget {
        metadata: owner.child_meta(&owner.name),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: i32::try_from(bearable).ok().map(IntOrString::Int),
            selector: Some(LabelSelector {
                match_labels: Some(names::selector(&owner.name)),
                ..LabelSelector::default()
            }),
            ..PodDisruptionBudgetSpec::default()
        }),
        ..PodDisruptionBudget::default()
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

    use super::*;

    #[test]
    fn as_many_may_be_away_as_leave_a_majority() {
        for (factor, groups, expected) in [
            (1, Groups::NotMade, 0),
            (3, Groups::NotMade, 1),
            (5, Groups::Part(None), 2),
            (7, Groups::All(7), 3),
            // Copies are being added, or taken away.
            (3, Groups::All(1), 0),
            (5, Groups::All(3), 1),
            (5, Groups::Part(Some(4)), 1),
            (3, Groups::All(5), 1),
            (1, Groups::All(3), 0),
            (3, Groups::All(0), 0),
        ] {
            assert_eq!(bearable(factor, groups), expected, "{factor} {groups:?}");
        }
    }

    #[test]
    fn one_group_without_a_known_leader_leaves_the_smallest_unknown() {
        for (voters, expected) in [
            ([Some(5), Some(3)].as_slice(), Groups::All(3)),
            (&[Some(5), None, Some(4)], Groups::Part(Some(4))),
            (&[None, None], Groups::Part(None)),
            (&[], Groups::Part(None)),
        ] {
            assert_eq!(Groups::of(voters.iter().copied()), expected, "{voters:?}");
        }
    }

    fn built(replication_factor: u32, bearable: u32) -> Option<PodDisruptionBudget> {
        let owner = Owner {
            name: "tulip".to_owned(),
            namespace: "meadow".to_owned(),
            reference: OwnerReference::default(),
        };
        budget(&owner, replication_factor, bearable)
    }

    /// Whether a budget that is there changes, by what is known.
    fn changes(live: u32, factor: u32, groups: Groups) -> bool {
        let live = built(3, live).unwrap();
        let built = built(factor, bearable(factor, groups));
        match (change(true, built.as_ref(), groups), &built) {
            (Change::AsBuilt, _) => built.as_ref() != Some(&live),
            (Change::Keep, _) => false,
            (Change::Forbid, _) => panic!("there is one"),
            (Change::UnlessMore, None) => panic!("nothing to compare"),
            (Change::UnlessMore, Some(built)) => *built != live && !allows_more(built, &live),
        }
    }

    #[test]
    fn a_budget_is_never_widened_while_a_group_is_unknown() {
        for (live, factor, groups, expected) in [
            // From 3 copies to 5, and the operator has just started.
            (1, 5, Groups::Part(None), false),
            (1, 5, Groups::Part(Some(5)), false),
            (1, 5, Groups::All(3), false),
            (1, 5, Groups::All(5), true),
            // From 1 copy to 3.
            (0, 3, Groups::Part(None), false),
            (0, 3, Groups::Part(Some(3)), false),
            (0, 3, Groups::All(1), false),
            (0, 3, Groups::All(3), true),
            // Recovered to one copy.
            (1, 3, Groups::Part(Some(1)), true),
            // Fewer copies: narrowed at once where a group is known to be small.
            (2, 3, Groups::Part(Some(5)), true),
            (2, 5, Groups::Part(Some(3)), true),
            (2, 3, Groups::Part(None), false),
            // To one copy: without a budget all may go at once.
            (1, 1, Groups::Part(Some(3)), false),
            (1, 1, Groups::Part(None), false),
            (1, 1, Groups::All(1), true),
        ] {
            let changes = changes(live, factor, groups);
            assert_eq!(changes, expected, "{live} {factor} {groups:?}");
        }
    }

    #[test]
    fn more_than_one_copy_is_always_guarded() {
        for (factor, groups, expected) in [
            (1, Groups::NotMade, None),
            (1, Groups::All(3), None),
            (3, Groups::NotMade, Some(1)),
            (3, Groups::All(1), Some(0)),
            (3, Groups::Part(Some(1)), Some(0)),
            (5, Groups::All(5), Some(2)),
        ] {
            let built = built(factor, bearable(factor, groups));
            let allowed = built.as_ref().and_then(allowed);
            assert_eq!(allowed, expected, "{factor} {groups:?}");
            assert_eq!(built.is_none(), expected.is_none(), "{factor} {groups:?}");
            assert_eq!(
                built.is_some_and(|built| forbids_all(&built)),
                expected == Some(0)
            );
        }
    }

    #[test]
    fn a_budget_that_is_made_while_a_group_is_unknown_allows_nothing() {
        // An operator begins after the copies were set from 1 to 3, and no leader has answered yet.
        for groups in [Groups::Part(None), Groups::Part(Some(3))] {
            let built = built(3, bearable(3, groups));
            assert_eq!(change(false, built.as_ref(), groups), Change::Forbid);
            assert_eq!(change(false, None, groups), Change::Keep);
        }
        let built = built(3, 1);
        assert_eq!(
            change(false, built.as_ref(), Groups::NotMade),
            Change::AsBuilt
        );
    }

    #[test]
    fn a_budget_that_somebody_else_wrote_is_set_right() {
        let mut live = built(3, 1);
        if let Some(spec) = live.as_mut().and_then(|live| live.spec.as_mut()) {
            spec.max_unavailable = Some(IntOrString::String("50%".to_owned()));
        }
        let more = live
            .zip(built(5, 2))
            .map(|(live, built)| allows_more(&built, &live));
        assert_eq!(more, Some(false));
    }
}
