//! The configuration that runtimes give to their driver for a Store. Pure.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::driver_timeouts;
use super::names;
use super::validate::{Cluster, InvalidStore, ValidStore, validate};
use atomix_resources::{Store, StoreStatus};

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
            json!({
                "service": format!("{host}:{}", names::PEER_PORT),
                "partitions": cluster.partitions,
                "timeouts": timeouts(cluster),
            })
        }
        ValidStore::DriverOnly { config } => config.clone(),
    };
    // serde_json's map is ordered by key.
    let json = value.to_string();
    let digest = atomix_proto::digest::config_digest(json.as_bytes());
    DriverConfig { json, digest }
}

/// What the user says about timeouts, and the rest by the nodes' election timeout: a driver that
/// passed over silent nodes earlier or later than they elect would ask in vain, or wait in vain.
fn timeouts(cluster: &Cluster) -> Value {
    let election = cluster.timings.election_timeout;
    let session = driver_timeouts::default_session(election);
    let mut timeouts = Map::from_iter([
        ("election".to_owned(), duration_text(election)),
        ("session".to_owned(), duration_text(session)),
    ]);
    timeouts.extend(cluster.driver_timeouts.clone());
    Value::Object(timeouts)
}

fn duration_text(duration: Duration) -> Value {
    Value::String(format!("{}ms", duration.as_millis()))
}

/// Whether runtimes may be given the Store's configuration: for storage nodes only after the
/// bootstrap was marked as done, so that no client ever writes to a group that is replaced.
#[must_use]
pub fn may_connect(store: &Store) -> bool {
    let bootstrapped = |status: &StoreStatus| status.bootstrapped == Some(true);
    store.spec.multi_raft.is_none() || store.status.as_ref().is_some_and(bootstrapped)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use proptest::option;
    use proptest::prelude::*;

    use super::*;

    fn config_of(raft: &Value, config: &Value) -> Result<Value, InvalidStore> {
        let store: Store = serde_json::from_value(json!({
            "apiVersion": "atomix.io/v1beta1", "kind": "Store",
            "metadata": {"name": "tulip", "namespace": "meadow"},
            "spec": {
                "driver": {"name": "multi-raft"}, "config": config,
                "multiRaft": {"storage": {"ephemeral": {}}, "raft": raft},
            },
        }))
        .unwrap();
        let config = driver_config(&store)?;
        Ok(serde_json::from_str(&config.json).unwrap())
    }

    fn timeouts_of(raft: &Value, config: &Value) -> Value {
        config_of(raft, config).unwrap()["timeouts"].clone()
    }

    fn timeout() -> impl Strategy<Value = Option<String>> {
        option::of("[0-9]{0,4}(ms|s|m|h|)")
    }

    proptest! {
        #[test]
        fn a_store_refuses_the_timeouts_that_its_driver_refuses(
            nodes in prop::sample::select(vec!["500ms", "1s", "10s"]),
            given in (timeout(), timeout(), timeout(), option::weighted(0.1, Just("1s".to_owned()))),
        ) {
            let raft = json!({"electionTimeout": nodes});
            let (session, election, connect, unknown) = given;
            let given: Map<String, Value> = [
                ("session", session), ("election", election), ("connect", connect), ("x", unknown),
            ]
            .into_iter()
            .filter_map(|(name, text)| Some((name.to_owned(), Value::String(text?))))
            .collect();
            let mut drivers = config_of(&raft, &Value::Null).unwrap();
            drivers["timeouts"].as_object_mut().unwrap().extend(given.clone());
            let by_driver = atomix_driver::multiraft::Config::parse(drivers.to_string().as_bytes());
            let by_store = config_of(&raft, &json!({"timeouts": given}));
            prop_assert_eq!(by_store.is_ok(), by_driver.is_ok(), "{:?} {:?}", by_store, by_driver);
        }
    }

    #[test]
    fn a_driver_waits_as_long_as_the_nodes_need_to_elect() {
        for (raft, config, expected) in [
            (
                json!({}),
                json!({}),
                json!({"election": "1000ms", "session": "30000ms"}),
            ),
            (
                json!({"electionTimeout": "20s"}),
                json!(null),
                json!({"election": "20000ms", "session": "60000ms"}),
            ),
            (
                json!({"electionTimeout": "500ms"}),
                json!({"timeouts": {"session": "10s", "connect": "1s"}}),
                json!({"election": "500ms", "session": "10s", "connect": "1s"}),
            ),
            (
                json!({"electionTimeout": "2s"}),
                json!({"timeouts": {"election": "3s"}}),
                json!({"election": "3s", "session": "30000ms"}),
            ),
        ] {
            assert_eq!(timeouts_of(&raft, &config), expected, "{raft} {config}");
        }
    }
}
