//! Which Store a Session means and how runtimes connect to it, or why they cannot. Pure; used by
//! the session controller for conditions and by the runtime controller for connections.

use std::sync::Arc;

use kube::core::DeserializeGuard;
use thiserror::Error;

use crate::context::Context;
use crate::driver::builtin::{self, UnknownDriver};
use crate::runtimes::index::store_of;
use crate::runtimes::plan::WantedConnection;
use crate::store::spec::config_from::{ConfigTrouble, MergedConfig};
use crate::store::spec::validate::InvalidStore;
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
    /// The Session names another namespace, whose Store does not allow it. The same is said when
    /// there is no such Store: what exists elsewhere is told to nobody who may not use it.
    #[error(
        "Store {store} does not exist, or does not allow the namespace {namespace}: let its owner \
         add {namespace} to its spec.allowedNamespaces, or correct spec.store"
    )]
    Forbidden {
        /// The Store.
        store: ObjectKey,
        /// The Session's namespace.
        namespace: String,
    },
    /// The Session names a namespace that another operator serves, or none.
    #[error(
        "this operator does not serve the namespace {0}: use a Store of the Session's namespace, or \
         an operator for all namespaces"
    )]
    NamespaceNotServed(String),
    /// There is no such Store.
    #[error("Store {0} does not exist: create it, or correct spec.store")]
    StoreNotFound(String),
    /// The Store does not decode.
    #[error("the Store cannot be read: {0}; correct the Store")]
    StoreUnreadable(String),
    /// The Store's driver gets no configuration.
    #[error("the Store's configuration cannot be made: {0}")]
    StoreConfig(#[from] ConfigTrouble),
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
            Self::Forbidden { .. } => "StoreForbidden",
            Self::NamespaceNotServed(_) => "StoreNamespaceNotServed",
            Self::StoreNotFound(_) => "StoreNotFound",
            Self::StoreUnreadable(_) => "StoreUnreadable",
            Self::StoreConfig(trouble) => trouble.reason().as_str(),
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
            Self::Forbidden { .. }
            | Self::NamespaceNotServed(_)
            | Self::StoreNotFound(_)
            | Self::StoreUnreadable(_)
            | Self::StoreInvalid(_)
            | Self::UnknownDriver(_)
            | Self::StorePaused
            | Self::StoreDeleted => true,
            Self::StoreConfig(trouble) => trouble.needs_person(),
            Self::StoreNotBootstrapped => false,
        }
    }

    /// Whether a connection that is there goes on: the Store exists, only what to connect with
    /// cannot be said now.
    pub fn keeps_connection(&self) -> bool {
        match self {
            Self::StoreUnreadable(_)
            | Self::StoreConfig(_)
            | Self::StoreInvalid(_)
            | Self::UnknownDriver(_)
            | Self::StorePaused
            | Self::StoreDeleted
            | Self::StoreNotBootstrapped => true,
            Self::Forbidden { .. } | Self::NamespaceNotServed(_) | Self::StoreNotFound(_) => false,
        }
    }
}

/// What is known of the Store that a Session names.
#[derive(Clone, Debug)]
pub struct NamedStore {
    /// Its name.
    pub key: ObjectKey,
    /// Whether the operator serves its namespace.
    pub is_served: bool,
    /// The Store, as the cache has it.
    pub store: Option<Arc<DeserializeGuard<Store>>>,
    /// Its driver's configuration, if it decodes.
    pub config: Option<Result<MergedConfig, ConfigTrouble>>,
}

impl NamedStore {
    /// Looks at what the caches have under the name that a Session gives.
    pub fn look(context: &Context, session: &ObjectKey, spec: &Session) -> Self {
        let key = store_of(session, spec);
        let store = context.stores.get(&key);
        let decoded = store.as_ref().and_then(|store| store.0.as_ref().ok());
        Self {
            is_served: context.scope.serves(&key.namespace),
            config: decoded.map(|store| context.config_sources.of(&key, store)),
            store,
            key,
        }
    }
}

/// How the Store of a Session is connected.
///
/// # Errors
/// Why it cannot be.
pub fn resolve(session: &ObjectKey, named: &NamedStore) -> Result<Target, Unresolved> {
    let NamedStore {
        key,
        is_served,
        store,
        config,
    } = named;
    if !is_served {
        return Err(Unresolved::NamespaceNotServed(key.namespace.clone()));
    }
    let is_own = key.namespace == session.namespace;
    let store = match store.as_deref() {
        Some(DeserializeGuard(Ok(store))) if is_own || store.allows(&session.namespace) => store,
        Some(DeserializeGuard(Err(undecodable))) => {
            // Whom it allows cannot be read, so whoever is connected stays so, and learns no more.
            let what = if is_own {
                undecodable.error.as_str()
            } else {
                "see its conditions"
            };
            return Err(Unresolved::StoreUnreadable(what.to_owned()));
        }
        None if is_own => return Err(Unresolved::StoreNotFound(key.name.clone())),
        Some(DeserializeGuard(Ok(_))) | None => {
            return Err(Unresolved::Forbidden {
                store: key.clone(),
                namespace: session.namespace.clone(),
            });
        }
    };
    if store.metadata.deletion_timestamp.is_some() {
        return Err(Unresolved::StoreDeleted);
    }
    if store.is_paused() {
        return Err(Unresolved::StorePaused);
    }
    let driver = builtin::resolve(&store.spec.driver)?;
    let config = config.clone().unwrap_or(Err(ConfigTrouble::NotRead))?;
    let DriverConfig { json, digest } = driver_config(store, &config)?;
    if !may_connect(store) {
        return Err(Unresolved::StoreNotBootstrapped);
    }
    Ok(Target {
        store: key.clone(),
        connection: WantedConnection {
            driver,
            config: json,
            config_digest: digest,
            has_secrets: config.has_secrets,
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

    fn named(
        key: &ObjectKey,
        session: &Session,
        store: Option<DeserializeGuard<Store>>,
    ) -> NamedStore {
        let decoded = store.as_ref().and_then(|store| store.0.as_ref().ok());
        let config = decoded.map(|store| store.spec.config.clone().unwrap_or_default());
        NamedStore {
            key: store_of(key, session),
            is_served: true,
            config: config.map(|config| Ok(MergedConfig::plain(config))),
            store: store.map(Arc::new),
        }
    }

    #[test]
    fn a_store_of_another_namespace_is_used_only_where_it_allows_that() {
        let key = ObjectKey::new("garden", "counting");
        let elsewhere = session(&json!({"name": "meadow", "namespace": "field"}));
        let spec =
            |allowed: &[&str]| json!({"driver": {"name": "memory"}, "allowedNamespaces": allowed});
        let found = |store: Option<DeserializeGuard<Store>>, is_served: bool| {
            let named = NamedStore {
                is_served,
                ..named(&key, &elsewhere, store)
            };
            resolve(&key, &named)
        };
        let of = |allowed: &[&str]| Some(store(&spec(allowed), &json!({}), false));
        let allowed = found(of(&["wood", "garden"]), true).unwrap();
        assert_eq!(allowed.store, ObjectKey::new("field", "meadow"));
        // Whether it exists is not told.
        let forbidden = found(of(&["wood"]), true).unwrap_err();
        assert_eq!(found(None, true), Err(forbidden.clone()));
        assert_eq!(found(of(&[]), true), Err(forbidden.clone()));
        assert_eq!(forbidden.reason(), "StoreForbidden");
        assert!(forbidden.needs_person() && !forbidden.keeps_connection());
        assert!(
            forbidden
                .to_string()
                .contains("add garden to its spec.allowedNamespaces")
        );
        let not_served = found(of(&["garden"]), false).unwrap_err();
        assert_eq!(not_served.reason(), "StoreNamespaceNotServed");
        let unreadable = found(Some(store(&json!({"driver": 3}), &json!({}), false)), true);
        let unreadable = unreadable.unwrap_err();
        assert!(unreadable.keeps_connection(), "{unreadable}");
        assert!(!unreadable.to_string().contains("driver"), "{unreadable}");
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
            resolve(&key, &named(&key, session, store)).map_err(|unresolved| unresolved.reason())
        };
        for (found, expected) in [
            (reason(&own, None), "StoreNotFound"),
            (
                reason(
                    &session(&json!({"name": "meadow", "namespace": "field"})),
                    None,
                ),
                "StoreForbidden",
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
