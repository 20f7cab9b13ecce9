//! The drivers that are part of the runtime, and which driver a Store means. Pure.

use atomix_proto::runtime::v1::DriverId;
use thiserror::Error;

use atomix_resources::DriverReference;

/// Name of the driver for storage nodes that this operator runs.
pub const MULTI_RAFT: &str = "multi-raft";
/// Name of the driver that keeps data in each runtime alone.
pub const MEMORY: &str = "memory";

/// A driver that is part of the runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuiltinDriver {
    /// Name by which Stores choose it.
    pub name: &'static str,
    /// Version of its configuration format.
    pub version: &'static str,
}

/// All of them.
pub const BUILTIN_DRIVERS: [BuiltinDriver; 2] = [
    BuiltinDriver {
        name: MULTI_RAFT,
        version: "v1",
    },
    BuiltinDriver {
        name: MEMORY,
        version: "v1",
    },
];

/// The built-in driver with this name.
pub fn builtin(name: &str) -> Option<BuiltinDriver> {
    BUILTIN_DRIVERS
        .into_iter()
        .find(|driver| driver.name == name)
}

/// A Store's driver that no runtime has.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum UnknownDriver {
    /// There is no driver of this name.
    #[error(
        "there is no driver {name}: delete the Store and create one with the driver multi-raft \
         or memory, since the name cannot be changed"
    )]
    Name {
        /// The name that was asked for.
        name: String,
    },
    /// The driver exists in another version.
    #[error(
        "driver {name} has no version {version}: set spec.driver.version of the Store to {known}, \
         or remove it"
    )]
    Version {
        /// The driver.
        name: String,
        /// The version that was asked for.
        version: String,
        /// The version that there is.
        known: &'static str,
    },
}

/// The driver that a Store means: without a version, the built-in one.
///
/// # Errors
/// When no runtime has it. Every driver of this version is built in, so Driver objects have no say.
pub fn resolve(reference: &DriverReference) -> Result<DriverId, UnknownDriver> {
    let Some(driver) = builtin(&reference.name) else {
        return Err(UnknownDriver::Name {
            name: reference.name.clone(),
        });
    };
    if let Some(version) = &reference.version
        && version != driver.version
    {
        return Err(UnknownDriver::Version {
            name: reference.name.clone(),
            version: version.clone(),
            known: driver.version,
        });
    }
    Ok(DriverId {
        name: driver.name.to_owned(),
        version: driver.version.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_without_version_means_the_built_in_one() {
        let reference = |name: &str, version: Option<&str>| DriverReference {
            name: name.to_owned(),
            version: version.map(str::to_owned),
        };
        let multi_raft = DriverId {
            name: "multi-raft".to_owned(),
            version: "v1".to_owned(),
        };
        assert_eq!(
            resolve(&reference("multi-raft", None)),
            Ok(multi_raft.clone())
        );
        assert_eq!(
            resolve(&reference("multi-raft", Some("v1"))),
            Ok(multi_raft)
        );
        assert!(matches!(
            resolve(&reference("memory", Some("v2"))),
            Err(UnknownDriver::Version { known: "v1", .. })
        ));
        assert!(matches!(
            resolve(&reference("redis", None)),
            Err(UnknownDriver::Name { .. })
        ));
    }
}
