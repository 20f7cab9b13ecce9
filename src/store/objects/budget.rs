//! The PodDisruptionBudget of a Store: how many nodes may be away by somebody's choice. Pure.
//!
//! A pod counts as healthy only while its gate `atomix.io/replicated` is open (`replicated`), so the
//! budget also holds while a node that came back has not caught up, and while the operator is down.

use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::store::names;
use crate::store::objects::build::Owner;

/// How many voters of a group may be away so that the others are a majority. `smallest` is the
/// number of voters that the smallest group has now, where it is known: while copies are added, the
/// wanted number would promise too much.
#[must_use]
pub fn bearable(replication_factor: u32, smallest: Option<usize>) -> u32 {
    let smallest = smallest.and_then(|voters| u32::try_from(voters).ok());
    let voters = smallest.map_or(replication_factor, |voters| voters.min(replication_factor));
    voters.saturating_sub(1) / 2
}

/// The budget; `None` when a partition bears no loss at all, since it would forbid every drain.
pub(super) fn budget(owner: &Owner, bearable: u32) -> Option<PodDisruptionBudget> {
    if bearable == 0 {
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
    use super::*;

    #[test]
    fn as_many_may_be_away_as_leave_a_majority() {
        for (factor, smallest, expected) in [
            (1, None, 0),
            (3, None, 1),
            (5, None, 2),
            (7, Some(7), 3),
            // Copies are being added, or taken away.
            (3, Some(1), 0),
            (5, Some(3), 1),
            (5, Some(4), 1),
            (3, Some(5), 1),
            (1, Some(3), 0),
            (3, Some(0), 0),
        ] {
            assert_eq!(
                bearable(factor, smallest),
                expected,
                "{factor} {smallest:?}"
            );
        }
    }
}
