//! The configuration that runtimes give to their driver for a Store. Pure.

use std::fmt;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::store::names;
use crate::store::spec::config_from::MergedConfig;
use crate::store::spec::driver_timeouts;
use crate::store::spec::validate::{Cluster, InvalidStore, ValidStore, validate};
use atomix_resources::{Store, StoreStatus};

/// What a runtime connects with. It may hold values of Secrets, so only the digest is shown.
#[derive(Clone, PartialEq, Eq)]
pub struct DriverConfig {
    /// The configuration as JSON with sorted keys.
    pub json: String,
    /// Lower-case hex SHA-256 of it; equal to `status.configDigest` once that is written.
    pub digest: String,
}

impl fmt::Debug for DriverConfig {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("DriverConfig")
            .field("digest", &self.digest)
            .finish_non_exhaustive()
    }
}

/// The driver configuration of a Store. It names the headless Service, never single nodes, so a
/// change of the nodes re-configures nobody.
///
/// # Errors
/// When the spec is invalid.
pub fn driver_config(store: &Store, config: &MergedConfig) -> Result<DriverConfig, InvalidStore> {
    let kept_factor = store
        .status
        .as_ref()
        .and_then(|status| status.replication_factor);
    let valid = validated(store, config, kept_factor)?;
    let metadata = &store.metadata;
    let name = metadata.name.as_deref().unwrap_or_default();
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    let tls = store
        .status
        .as_ref()
        .is_some_and(|status| status.tls == Some(true));
    Ok(of(&valid, name, namespace, tls))
}

/// [`validate`], without a word of what comes from Secrets: a problem quotes the value.
///
/// # Errors
/// As [`validate`].
pub fn validated(
    store: &Store,
    config: &MergedConfig,
    kept_factor: Option<u32>,
) -> Result<ValidStore, InvalidStore> {
    let problems = match validate(store, config.fields.clone(), kept_factor) {
        Err(invalid) if config.has_secrets => invalid.problems,
        result => return result,
    };
    // The same problems, said of the names of the sources.
    let nameable = match validate(store, config.shown.clone(), kept_factor) {
        Ok(_) => Vec::new(),
        Err(invalid) => invalid.problems,
    };
    let mut told: Vec<String> = problems
        .iter()
        .map(|problem| {
            let subject = problem.split(" is ").next();
            let mut nameable = nameable.iter();
            let named =
                nameable.find(|named| *named == problem || named.split(" is ").next() == subject);
            named.cloned().unwrap_or_else(|| {
                "a value of spec.configFrom is refused together with the others: try the values in \
                 spec.config of another Store to see why"
                    .to_owned()
            })
        })
        .collect();
    told.dedup();
    Err(InvalidStore { problems: told })
}

/// What people may see of [`of`]: names of sources instead of their values.
#[must_use]
pub fn shown(
    cluster: &Cluster,
    shown: &Map<String, Value>,
    name: &str,
    namespace: &str,
    tls: bool,
) -> DriverConfig {
    let timeouts = shown.get("timeouts").and_then(Value::as_object);
    let cluster = Cluster {
        driver_timeouts: timeouts.cloned().unwrap_or_default(),
        ..cluster.clone()
    };
    of(
        &ValidStore::MultiRaft(Box::new(cluster)),
        name,
        namespace,
        tls,
    )
}

/// [`driver_config`] of a Store that was validated; `tls` = its nodes speak TLS.
#[must_use]
pub fn of(store: &ValidStore, name: &str, namespace: &str, tls: bool) -> DriverConfig {
    let value = match store {
        ValidStore::MultiRaft(cluster) => {
            let host = names::service_host(name, namespace);
            let mut config = json!({
                "service": format!("{host}:{}", names::PEER_PORT),
                "partitions": cluster.partitions,
                "timeouts": timeouts(cluster),
            });
            // Left out otherwise: older runtimes, which cannot speak it, do not know the field.
            if let Some(fields) = config.as_object_mut().filter(|_| tls) {
                fields.insert("tls".to_owned(), Value::Bool(true));
            }
            config
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
    #![allow(
        clippy::unwrap_used,
        clippy::panic,
        clippy::indexing_slicing,
        reason = "tests"
    )]

    use proptest::option;
    use proptest::prelude::*;

    use super::*;
    use crate::store::spec::config_from::merge::{SourceValue, merge};
    use crate::store::spec::config_from::{SourceKind, SourceObject};

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
        let config = MergedConfig::plain(store.spec.config.clone().unwrap_or_default());
        let config = driver_config(&store, &config)?;
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
    fn what_is_said_of_values_from_secrets_names_their_source_only() {
        let store = |config: Value| -> Store {
            serde_json::from_value(json!({
                "apiVersion": "atomix.io/v1beta1", "kind": "Store",
                "metadata": {"name": "tulip", "namespace": "meadow"},
                "spec": {
                    "driver": {"name": "multi-raft"}, "config": config,
                    "multiRaft": {"storage": {"ephemeral": {}}},
                    "configFrom": [
                        {"secretRef": {"name": "bees"}, "key": "k", "path": "timeouts.session"},
                    ],
                },
            }))
            .unwrap()
        };
        let bees = SourceObject {
            kind: SourceKind::Secret,
            name: "bees".to_owned(),
        };
        for (config, value, expected) in [
            (
                json!({}),
                "honey7s",
                Err("is \"from Secret bees, key k\": give"),
            ),
            // Too short for the others, so no problem of its own.
            (
                json!({"timeouts": {"election": "20s"}}),
                "7s",
                Err("is \"from Secret bees, key k\""),
            ),
            (
                json!({"colour": "red"}),
                "40s",
                Err("spec.config.colour is not for"),
            ),
            (json!({"timeouts": {"election": "10s"}}), "40s", Ok(())),
        ] {
            let store = store(config.clone());
            let values = [SourceValue::of(&bees, "k", value.as_bytes()).unwrap()];
            let merged = merge(&store.spec, &values).unwrap();
            let found = driver_config(&store, &merged);
            match (&found, expected) {
                (Ok(found), Ok(())) => {
                    assert!(found.json.contains(r#""session":"40s""#));
                    assert!(!format!("{found:?}").contains("40s"), "{found:?}");
                }
                (Err(invalid), Err(words)) => {
                    let told = invalid.to_string();
                    assert!(told.contains(words), "{config}: {told}");
                    assert!(!told.contains(value), "{config}: {told}");
                }
                _ => panic!("{config}: {found:?}"),
            }
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
