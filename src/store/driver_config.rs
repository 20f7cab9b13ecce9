//! The configuration that runtimes give to their driver for a Store. Pure.

use serde_json::{Value, json};

use super::names;
use super::validate::{InvalidStore, ValidStore, validate};
use crate::crd::{Store, StoreStatus};

/// What a runtime connects with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DriverConfig {
    /// The configuration as JSON with sorted keys.
    pub json: String,
    /// Lower-case hex SHA-256 of it; equal to `status.configDigest` once that is written.
    pub digest: String,
}

/// The driver configuration of a Store. It names the headless Service, never single nodes, so a
/// change of the nodes re-configures nobody.
///
/// # Errors
/// When the spec is invalid.
pub fn driver_config(store: &Store) -> Result<DriverConfig, InvalidStore> {
    let kept_factor = store
        .status
        .as_ref()
        .and_then(|status| status.replication_factor);
    let valid = validate(store, kept_factor)?;
    let metadata = &store.metadata;
    let name = metadata.name.as_deref().unwrap_or_default();
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    Ok(of(&valid, name, namespace))
}

/// [`driver_config`] of a Store that was validated.
#[must_use]
pub fn of(store: &ValidStore, name: &str, namespace: &str) -> DriverConfig {
    let value = match store {
        ValidStore::MultiRaft(cluster) => {
            let host = names::service_host(name, namespace);
            let mut value = json!({
                "service": format!("{host}:{}", names::PEER_PORT),
                "partitions": cluster.partitions,
            });
            if let (Some(timeouts), Value::Object(fields)) = (&cluster.driver_timeouts, &mut value)
            {
                fields.insert("timeouts".to_owned(), timeouts.clone());
            }
            value
        }
        ValidStore::DriverOnly { config } => config.clone(),
    };
    // serde_json's map is ordered by key.
    let json = value.to_string();
    let digest = atomix_proto::digest::config_digest(json.as_bytes());
    DriverConfig { json, digest }
}

/// Whether runtimes may be given the Store's configuration: for storage nodes only after the
/// bootstrap was marked as done, so that no client ever writes to a group that is replaced.
#[must_use]
pub fn may_connect(store: &Store) -> bool {
    let bootstrapped = |status: &StoreStatus| status.bootstrapped == Some(true);
    store.spec.multi_raft.is_none() || store.status.as_ref().is_some_and(bootstrapped)
}
