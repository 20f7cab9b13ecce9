//! Which Store a Session means and how runtimes connect to it, or why they cannot. Pure; used by
//! the session controller for conditions and by the runtime controller for connections.

use atomix_proto::digest::config_digest;
use kube::core::DeserializeGuard;
use thiserror::Error;

use crate::driver::builtin::{self, UnknownDriver};
use crate::runtimes::index::store_of;
use crate::runtimes::plan::WantedConnection;
use crate::store::validate::InvalidStore;
use crate::store::{DriverConfig, driver_config, may_connect};
use atomix_controller::ObjectKey;
use atomix_resources::{Session, Store};

/// How a Session's Store is connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The Store.
    pub store: ObjectKey,
    /// How.
    pub connection: WantedConnection,
}

/// Why a Session's Store cannot be connected.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Unresolved {
    /// The Session names another namespace.
    #[error(
        "the Store of another namespace cannot be used yet: \
         create the Store in the Session's namespace, or the Session in the Store's"
    )]
    OtherNamespace,
    /// There is no such Store.
    #[error("Store {0} does not exist: create it, or correct spec.store")]
    StoreNotFound(String),
    /// The Store does not decode.
    #[error("the Store cannot be read: {0}; correct the Store")]
    StoreUnreadable(String),
    /// The Store's specification contradicts itself.
    #[error("the Store is invalid: {0}; correct the Store")]
    StoreInvalid(#[from] InvalidStore),
    /// The Store names a driver that no runtime has.
    #[error("the Store's driver is unknown: {0}")]
    UnknownDriver(#[from] UnknownDriver),
    /// Somebody paused the Store.
    #[error(
        "the Store is paused, so connections stay as they are: remove spec.paused of the Store"
    )]
    StorePaused,
    /// The Store is going.
    #[error("the Store is being deleted: delete this Session too, or choose another Store")]
    StoreDeleted,
    /// The Store's nodes have not begun yet.
    #[error(
        "the Store's nodes are starting for the first time: no action, pods are connected \
         afterwards; if it lasts, look at the Store's conditions"
    )]
    StoreNotBootstrapped,
}

impl Unresolved {
    /// Reason of conditions.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::OtherNamespace => "StoreNamespaceNotSupported",
            Self::StoreNotFound(_) => "StoreNotFound",
            Self::StoreUnreadable(_) => "StoreUnreadable",
            Self::StoreInvalid(_) => "StoreInvalid",
            Self::UnknownDriver(_) => "DriverNotFound",
            Self::StorePaused => "StorePaused",
            Self::StoreDeleted => "StoreDeleted",
            Self::StoreNotBootstrapped => "StoreNotReady",
        }
    }

    /// Whether only a person can go on.
    pub fn needs_person(&self) -> bool {
        match self {
            Self::OtherNamespace
            | Self::StoreNotFound(_)
            | Self::StoreUnreadable(_)
            | Self::StoreInvalid(_)
            | Self::UnknownDriver(_)
            | Self::StorePaused
            | Self::StoreDeleted => true,
            Self::StoreNotBootstrapped => false,
        }
    }

    /// Whether a connection that is there goes on: the Store exists, only what to connect with
    /// cannot be said now.
    pub fn keeps_connection(&self) -> bool {
        match self {
            Self::StoreUnreadable(_)
            | Self::StoreInvalid(_)
            | Self::UnknownDriver(_)
            | Self::StorePaused
            | Self::StoreDeleted
            | Self::StoreNotBootstrapped => true,
            Self::OtherNamespace | Self::StoreNotFound(_) => false,
        }
    }
}

/// How the Store of a Session is connected; `store` is what the cache has under its name.
///
/// # Errors
/// Why it cannot be.
pub fn resolve(
    key: &ObjectKey,
    session: &Session,
    store: Option<&DeserializeGuard<Store>>,
) -> Result<Target, Unresolved> {
    let named = store_of(key, session);
    if named.namespace != key.namespace {
        return Err(Unresolved::OtherNamespace);
    }
    let store = match store {
        None => return Err(Unresolved::StoreNotFound(named.name)),
        Some(DeserializeGuard(Err(undecodable))) => {
            return Err(Unresolved::StoreUnreadable(undecodable.error.clone()));
        }
        Some(DeserializeGuard(Ok(store))) => store,
    };
    if store.metadata.deletion_timestamp.is_some() {
        return Err(Unresolved::StoreDeleted);
    }
    if store.is_paused() {
        return Err(Unresolved::StorePaused);
    }
    let driver = builtin::resolve(&store.spec.driver)?;
    let DriverConfig { json, .. } = driver_config(store)?;
    if !may_connect(store) {
        return Err(Unresolved::StoreNotBootstrapped);
    }
    Ok(Target {
        store: named,
        connection: WantedConnection {
            driver,
            config_digest: config_digest(json.as_bytes()),
            config: json,
        },
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use serde_json::{Value, json};

    use super::*;

    fn store(spec: &Value, status: &Value, deleted: bool) -> DeserializeGuard<Store> {
        let mut object = json!({
            "apiVersion": "atomix.io/v1beta1",
            "kind": "Store",
            "metadata": {"name": "meadow", "namespace": "garden"},
            "spec": spec,
            "status": status,
        });
        if deleted {
            object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        serde_json::from_value(object).unwrap()
    }

    fn session(store: &Value) -> Session {
        serde_json::from_value(json!({
            "apiVersion": "atomix.io/v1beta1",
            "kind": "Session",
            "metadata": {"name": "counting", "namespace": "garden"},
            "spec": {"store": store, "selector": {"matchLabels": {"app": "shop"}}},
        }))
        .unwrap()
    }

    #[test]
    fn each_trouble_has_its_reason_and_heals_when_it_is_gone() {
        let key = ObjectKey::new("garden", "counting");
        let own = session(&json!({"name": "meadow"}));
        let memory = json!({"driver": {"name": "memory"}, "config": {"b": 1, "a": 2}});
        let nodes = json!({
            "driver": {"name": "multi-raft"},
            "multiRaft": {"storage": {"ephemeral": {}}},
        });
        let mut paused = memory.clone();
        paused["paused"] = json!(true);
        let none = json!({});
        let reason = |session: &Session, store: Option<DeserializeGuard<Store>>| {
            resolve(&key, session, store.as_ref()).map_err(|unresolved| unresolved.reason())
        };
        for (found, expected) in [
            (reason(&own, None), "StoreNotFound"),
            (
                reason(
                    &session(&json!({"name": "meadow", "namespace": "field"})),
                    None,
                ),
                "StoreNamespaceNotSupported",
            ),
            (
                reason(&own, Some(store(&json!({"driver": 3}), &none, false))),
                "StoreUnreadable",
            ),
            (
                reason(
                    &own,
                    Some(store(&json!({"driver": {"name": "redis"}}), &none, false)),
                ),
                "DriverNotFound",
            ),
            (
                reason(
                    &own,
                    Some(store(
                        &json!({"driver": {"name": "multi-raft"}}),
                        &none,
                        false,
                    )),
                ),
                "StoreInvalid",
            ),
            (
                reason(&own, Some(store(&paused, &none, false))),
                "StorePaused",
            ),
            (
                reason(&own, Some(store(&memory, &none, true))),
                "StoreDeleted",
            ),
            (
                reason(&own, Some(store(&nodes, &none, false))),
                "StoreNotReady",
            ),
        ] {
            assert_eq!(found, Err(expected));
        }
        let target = reason(&own, Some(store(&memory, &none, false))).unwrap();
        assert_eq!(target.connection.config, r#"{"a":2,"b":1}"#);
        let bootstrapped = json!({"bootstrapped": true});
        let target = reason(&own, Some(store(&nodes, &bootstrapped, false))).unwrap();
        assert_eq!(target.connection.driver.name, "multi-raft");
        assert_eq!(target.store, ObjectKey::new("garden", "meadow"));
    }
}
