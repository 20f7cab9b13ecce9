//! Step 5 of the driver controller: what its status says. Pure.

use k8s_openapi::jiff::Timestamp;

use super::validate::Verdict;
use atomix_resources::conditions::{AVAILABLE, IN_USE, STALLED, WantedCondition, follow};
use atomix_resources::{DriverSpec, DriverStatus};

/// How many Stores a status names.
const NAMED_STORES: usize = 20;

pub(super) fn status(
    spec: &DriverSpec,
    generation: i64,
    previous: &DriverStatus,
    verdict: &Verdict,
    users: &[String],
    now: Timestamp,
) -> DriverStatus {
    let wanted = [
        available(spec, verdict),
        in_use(users),
        stalled(spec, verdict),
    ];
    DriverStatus {
        observed_generation: Some(generation),
        conditions: follow(&previous.conditions, &wanted, generation, now),
        store_count: Some(u32::try_from(users.len()).unwrap_or(u32::MAX)),
        stores: users.iter().take(NAMED_STORES).cloned().collect(),
    }
}

fn available(spec: &DriverSpec, verdict: &Verdict) -> WantedCondition {
    match verdict {
        Verdict::Available => {
            WantedCondition::is_true(AVAILABLE, "BuiltIn", "the driver is part of the runtime")
        }
        Verdict::NotBuiltIn => {
            WantedCondition::is_false(AVAILABLE, "NotBuiltIn", not_built_in(spec))
        }
        Verdict::Duplicate { of } => {
            WantedCondition::is_false(AVAILABLE, "Duplicate", duplicate(spec, of))
        }
    }
}

fn in_use(users: &[String]) -> WantedCondition {
    match users {
        [] => WantedCondition::is_false(IN_USE, "Unused", "no Store uses the driver"),
        [only] => WantedCondition::is_true(
            IN_USE,
            "UsedByStores",
            format!("Store {only} uses the driver; the Driver can be deleted after it"),
        ),
        [first, others @ ..] => WantedCondition::is_true(
            IN_USE,
            "UsedByStores",
            format!(
                "Store {first} and {} more use the driver; the Driver can be deleted after them",
                others.len()
            ),
        ),
    }
}

fn stalled(spec: &DriverSpec, verdict: &Verdict) -> WantedCondition {
    match verdict {
        Verdict::Available => WantedCondition::is_false(STALLED, "BuiltIn", ""),
        Verdict::NotBuiltIn => WantedCondition::is_true(STALLED, "NotBuiltIn", not_built_in(spec)),
        Verdict::Duplicate { of } => {
            WantedCondition::is_true(STALLED, "Duplicate", duplicate(spec, of))
        }
    }
}

fn not_built_in(spec: &DriverSpec) -> String {
    format!(
        "the runtime has no built-in driver {} {}: delete this Driver",
        spec.name, spec.version
    )
}

fn duplicate(spec: &DriverSpec, of: &str) -> String {
    format!(
        "Driver {of} already stands for {} {}: delete one of the two",
        spec.name, spec.version
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use atomix_resources::DriverSource;
    use atomix_resources::conditions::holds;
    use atomix_resources::driver::Builtin;

    #[test]
    fn a_status_names_what_a_person_must_do_and_does_not_grow_with_the_stores() {
        let spec = DriverSpec {
            name: "memory".to_owned(),
            version: "v1".to_owned(),
            source: DriverSource {
                builtin: Builtin {},
            },
        };
        let users: Vec<String> = (0..100).map(|number| format!("garden/s{number}")).collect();
        let at = |second| Timestamp::from_second(second).unwrap_or_default();
        let none = DriverStatus::default();
        let first = status(&spec, 1, &none, &Verdict::Available, &users, at(1));
        assert!(holds(&first.conditions, AVAILABLE) && holds(&first.conditions, IN_USE));
        assert_eq!((first.store_count, first.stores.len()), (Some(100), 20));
        // Nothing changed, so nothing is written, whatever the time.
        let second = status(&spec, 1, &first, &Verdict::Available, &users, at(2));
        assert_eq!(second, first);
        let stalled = status(&spec, 1, &first, &Verdict::NotBuiltIn, &[], at(3));
        assert!(holds(&stalled.conditions, STALLED) && !holds(&stalled.conditions, IN_USE));
    }
}
