//! The custom resources Store, Session and Driver as Rust types, and the CRDs generated from them.
//!
//! What the API server can judge alone (shape, limits, immutability) is said here, as schema and
//! CEL; what needs other objects is judged by the controllers.

pub mod conditions;
#[allow(
    unreachable_pub,
    clippy::duplicated_attributes,
    reason = "KubeSchema derives a copy of each struct inside a function; columns are alike"
)]
pub mod config_source;
#[allow(
    unreachable_pub,
    clippy::duplicated_attributes,
    reason = "KubeSchema derives a copy of each struct inside a function; columns are alike"
)]
pub mod driver;
pub mod labels;
mod rules;
mod schema;
#[allow(
    unreachable_pub,
    clippy::duplicated_attributes,
    reason = "KubeSchema derives a copy of each struct inside a function; columns are alike"
)]
pub mod session;
#[allow(
    unreachable_pub,
    clippy::duplicated_attributes,
    reason = "KubeSchema derives a copy of each struct inside a function; columns are alike"
)]
pub mod storage_pod;
#[allow(
    unreachable_pub,
    clippy::duplicated_attributes,
    reason = "KubeSchema derives a copy of each struct inside a function; columns are alike"
)]
pub mod store;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;

pub use config_source::{ConfigObject, ConfigSource};
pub use driver::{Driver, DriverSource, DriverSpec, DriverStatus};
pub use session::{PrimitiveKind, Session, SessionSpec, SessionState, SessionStatus};
pub use store::{DriverReference, MultiRaft, Store, StoreSpec, StoreStatus};

/// The API group of all resources.
pub const GROUP: &str = "atomix.io";
/// The served and stored version.
pub const VERSION: &str = "v1beta1";

/// One CRD as a file of `crds/`.
#[derive(Clone, Debug)]
pub struct CrdFile {
    /// File name below `crds/`.
    pub name: String,
    /// YAML text, ending with a line feed.
    pub yaml: String,
}

/// The CRDs, finished for the API server.
pub fn all() -> Vec<CustomResourceDefinition> {
    [Driver::crd(), Session::crd(), Store::crd()]
        .into_iter()
        .map(schema::finish)
        .collect()
}

/// Each CRD as the file that `make generate` writes.
///
/// # Errors
/// When a CRD cannot be written as YAML; none of ours can.
pub fn files() -> Result<Vec<CrdFile>, serde_yaml::Error> {
    all()
        .into_iter()
        .map(|crd| {
            let name = format!(
                "{}.yaml",
                crd.metadata
                    .name
                    .as_deref()
                    .unwrap_or(&crd.spec.names.plural)
            );
            Ok(CrdFile {
                name,
                yaml: serde_yaml::to_string(&crd)?,
            })
        })
        .collect()
}

/// All CRDs as one YAML stream.
///
/// # Errors
/// As [`files`].
pub fn all_yaml() -> Result<String, serde_yaml::Error> {
    let mut text = String::new();
    for file in files()? {
        text.push_str("---\n");
        text.push_str(&file.yaml);
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
