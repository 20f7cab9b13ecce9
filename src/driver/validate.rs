//! Step 2 of the driver controller: what a Driver is, and whether it may carry the finalizer. Pure.

use super::builtin::BUILTIN_DRIVERS;
use atomix_resources::DriverSpec;

/// What a Driver turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Runtimes have it.
    Available,
    /// Runtimes have no built-in driver of this name and version.
    NotBuiltIn,
    /// An older Driver already stands for the same name and version.
    Duplicate {
        /// The older one.
        of: String,
    },
}

pub(super) fn validate(spec: &DriverSpec, older_twin: Option<&str>) -> Verdict {
    let is_built_in = BUILTIN_DRIVERS
        .iter()
        .any(|driver| driver.name == spec.name && driver.version == spec.version);
    match older_twin {
        _ if !is_built_in => Verdict::NotBuiltIn,
        Some(of) => Verdict::Duplicate { of: of.to_owned() },
        None => Verdict::Available,
    }
}

/// What to do with the finalizer that keeps a used Driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FinalizerAction {
    /// It is as it should be.
    Keep,
    /// A Store uses the driver now.
    Add,
    /// No Store uses the driver any more.
    Remove,
}

/// Only the Driver that stands for its name and version is kept for its Stores: the API server
/// accepts no new finalizer on an object under deletion.
pub(super) fn finalizer_action(
    verdict: &Verdict,
    is_used: bool,
    has_finalizer: bool,
    is_deleted: bool,
) -> FinalizerAction {
    let protects = is_used && *verdict == Verdict::Available;
    match (protects, has_finalizer) {
        (true, false) if !is_deleted => FinalizerAction::Add,
        (false, true) => FinalizerAction::Remove,
        (true, _) | (false, false) => FinalizerAction::Keep,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use atomix_resources::DriverSource;
    use atomix_resources::driver::Builtin;

    fn spec(name: &str, version: &str) -> DriverSpec {
        DriverSpec {
            name: name.to_owned(),
            version: version.to_owned(),
            source: DriverSource {
                builtin: Builtin {},
            },
        }
    }

    #[test]
    fn only_the_oldest_driver_of_a_built_in_is_available() {
        assert_eq!(validate(&spec("memory", "v1"), None), Verdict::Available);
        assert_eq!(
            validate(&spec("memory", "v1"), Some("memory")),
            Verdict::Duplicate {
                of: "memory".to_owned()
            }
        );
        assert_eq!(validate(&spec("memory", "v2"), None), Verdict::NotBuiltIn);
        assert_eq!(
            validate(&spec("redis", "v1"), Some("redis")),
            Verdict::NotBuiltIn
        );
    }

    #[test]
    fn the_finalizer_is_there_exactly_while_a_store_uses_the_driver() {
        use FinalizerAction::{Add, Keep, Remove};
        for (used, has, deleted, expected) in [
            (false, false, false, Keep),
            (true, false, false, Add),
            (true, true, false, Keep),
            (false, true, false, Remove),
            (true, true, true, Keep),
            (false, true, true, Remove),
            (true, false, true, Keep),
        ] {
            let found = finalizer_action(&Verdict::Available, used, has, deleted);
            assert_eq!(found, expected, "used {used}, has {has}, deleted {deleted}");
        }
        let duplicate = Verdict::Duplicate {
            of: "memory".to_owned(),
        };
        assert_eq!(finalizer_action(&duplicate, true, true, true), Remove);
    }
}
