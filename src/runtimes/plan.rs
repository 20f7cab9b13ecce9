//! Step 3 of the runtime controller: what a runtime has and should have in, calls out. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use atomix_proto::digest::routes_digest;
use atomix_proto::runtime::v1::{DriverId, GetStatusResponse, Route, connection};

use atomix_controller::ObjectKey;

/// What one connection of a runtime is like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedConnection {
    /// The driver.
    pub driver: DriverId,
    /// Digest of its configuration.
    pub config_digest: String,
    /// Why the store is not reached; `None` = it is.
    pub trouble: Option<String>,
}

/// What a runtime has.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// Its connections by Store.
    pub connections: BTreeMap<ObjectKey, ObservedConnection>,
    /// Digest of its routing table.
    pub routes_digest: String,
    /// Its routing table; `None` = a runtime of an older version, which does not tell it.
    pub routes: Option<Vec<Route>>,
}

/// How a Store is to be connected. The configuration is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct WantedConnection {
    /// The driver.
    pub driver: DriverId,
    /// Its configuration as JSON.
    pub config: String,
    /// Digest of the configuration.
    pub config_digest: String,
    /// Whether it holds values of Secrets, so that what a driver says of it is not repeated.
    pub has_secrets: bool,
}

impl fmt::Debug for WantedConnection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("WantedConnection")
            .field("driver", &self.driver)
            .field("config_digest", &self.config_digest)
            .finish_non_exhaustive()
    }
}

/// What a runtime should have.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Desired {
    /// Connections by Store.
    pub connections: BTreeMap<ObjectKey, WantedConnection>,
    /// Stores whose connection stays as it is, if there is one: a Session wants them, and how to
    /// connect them cannot be said now.
    pub kept: BTreeSet<ObjectKey>,
    /// The routing table, oldest Session first.
    pub routes: Vec<Route>,
    /// Connections and routes that are there stay, also where nothing here asks for them: a Session
    /// that cannot be read may.
    pub keeps_unknown: bool,
}

impl Desired {
    /// Whether a connection with this Store stays as it is, if there is one.
    pub(super) fn keeps(&self, store: &ObjectKey) -> bool {
        self.keeps_unknown || self.kept.contains(store)
    }
}

/// One call to a runtime.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Connect a Store.
    Connect {
        /// The Store.
        store: ObjectKey,
        /// How.
        connection: WantedConnection,
    },
    /// Change the configuration of a connected Store.
    Configure {
        /// The Store.
        store: ObjectKey,
        /// How; the driver is the present one.
        connection: WantedConnection,
    },
    /// Replace the routing table.
    Program {
        /// The whole table.
        routes: Vec<Route>,
    },
    /// Disconnect a Store.
    Disconnect {
        /// The Store.
        store: ObjectKey,
    },
}

impl Action {
    /// Whether the call carries values of Secrets.
    pub fn has_secrets(&self) -> bool {
        match self {
            Self::Connect { connection, .. } | Self::Configure { connection, .. } => {
                connection.has_secrets
            }
            Self::Program { .. } | Self::Disconnect { .. } => false,
        }
    }
}

/// The calls that make a runtime what it should be; none when it is. A Store is connected before
/// routes lead to it and disconnected after they have gone. A change of driver is a new connection.
pub fn plan(observed: &Observed, desired: &Desired) -> Vec<Action> {
    let mut actions = Vec::new();
    for (store, wanted) in &desired.connections {
        let store = store.clone();
        let connection = wanted.clone();
        match observed.connections.get(&store) {
            None => actions.push(Action::Connect { store, connection }),
            Some(present) if present.driver != wanted.driver => {
                actions.push(Action::Disconnect {
                    store: store.clone(),
                });
                actions.push(Action::Connect { store, connection });
            }
            Some(present) if present.config_digest != wanted.config_digest => {
                actions.push(Action::Configure { store, connection });
            }
            Some(_) => {}
        }
    }
    if let Some(routes) = table(observed, desired)
        && routes_digest(&routes) != observed.routes_digest
    {
        actions.push(Action::Program { routes });
    }
    for store in observed.connections.keys() {
        if !desired.connections.contains_key(store) && !desired.keeps(store) {
            actions.push(Action::Disconnect {
                store: store.clone(),
            });
        }
    }
    actions
}

/// Whether the runtime has the routes that it should have.
pub(super) fn is_programmed(observed: &Observed, desired: &Desired) -> bool {
    table(observed, desired).is_none_or(|routes| routes_digest(&routes) == observed.routes_digest)
}

/// The table that the runtime should have; `None` = whichever it has.
fn table(observed: &Observed, desired: &Desired) -> Option<Vec<Route>> {
    let routes = routes_with_connection(observed, desired);
    if desired.keeps_unknown {
        let present = observed.routes.as_ref()?;
        return Some(with_unknown(routes, present));
    }
    Some(routes)
}

/// Adds the routes that are there and that nobody asked for, each before the one that it is before
/// now: the first of two that match decides.
fn with_unknown(mut routes: Vec<Route>, present: &[Route]) -> Vec<Route> {
    let mut place = routes.len();
    for route in present.iter().rev() {
        match routes.iter().position(|wanted| wanted == route) {
            Some(known) => place = known,
            None => routes.insert(place, route.clone()),
        }
    }
    routes
}

/// A kept Store may never have been connected: then nothing leads to it yet.
fn routes_with_connection(observed: &Observed, desired: &Desired) -> Vec<Route> {
    let is_connected = |route: &&Route| {
        let store = route.store_id.clone().unwrap_or_default();
        let store = ObjectKey::new(store.namespace, store.name);
        desired.connections.contains_key(&store)
            || desired.kept.contains(&store) && observed.connections.contains_key(&store)
    };
    let routes = desired.routes.iter().filter(is_connected);
    routes.cloned().collect()
}

impl Observed {
    /// From a runtime's answer.
    pub fn of(status: GetStatusResponse) -> Self {
        let connections = status
            .connections
            .into_iter()
            .map(|connection| {
                let is_connected = connection.state() == connection::State::Connected;
                let trouble = match (is_connected, connection.message.is_empty()) {
                    (true, _) => None,
                    (false, true) => Some("the runtime has not reached the store yet".to_owned()),
                    (false, false) => Some(connection.message),
                };
                let store = connection.store_id.unwrap_or_default();
                let observed = ObservedConnection {
                    driver: connection.driver_id.unwrap_or_default(),
                    config_digest: connection.config_digest,
                    trouble,
                };
                (ObjectKey::new(store.namespace, store.name), observed)
            })
            .collect();
        let tells_routes = routes_digest(&status.routes) == status.routes_digest;
        Self {
            connections,
            routes: tells_routes.then_some(status.routes),
            routes_digest: status.routes_digest,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use atomix_proto::digest::config_digest;
    use atomix_proto::runtime::v1::StoreId;
    use proptest::prelude::*;

    use super::*;

    fn driver(name: &str) -> DriverId {
        DriverId {
            name: name.to_owned(),
            version: "v1".to_owned(),
        }
    }

    fn wanted(driver_name: &str, config: &str) -> WantedConnection {
        WantedConnection {
            driver: driver(driver_name),
            config: config.to_owned(),
            config_digest: config_digest(config.as_bytes()),
            has_secrets: false,
        }
    }

    fn route(store: &str) -> Route {
        Route {
            store_id: Some(StoreId {
                namespace: "garden".to_owned(),
                name: store.to_owned(),
            }),
            ..Route::default()
        }
    }

    fn key(store: &str) -> ObjectKey {
        ObjectKey::new("garden", store)
    }

    /// A runtime as its protocol describes it: refuses what the semantics refuse.
    #[derive(Clone, Debug, Default)]
    struct Model {
        connections: BTreeMap<ObjectKey, WantedConnection>,
        routes: Vec<Route>,
    }

    impl Model {
        fn observed(&self) -> Observed {
            let connections = self.connections.iter().map(|(store, connection)| {
                let observed = ObservedConnection {
                    driver: connection.driver.clone(),
                    config_digest: connection.config_digest.clone(),
                    trouble: None,
                };
                (store.clone(), observed)
            });
            Observed {
                connections: connections.collect(),
                routes_digest: routes_digest(&self.routes),
                routes: Some(self.routes.clone()),
            }
        }

        fn call(&mut self, action: Action) {
            match action {
                Action::Connect { store, connection } => {
                    assert!(
                        self.connections.insert(store, connection).is_none(),
                        "ALREADY_EXISTS"
                    );
                }
                Action::Configure { store, connection } => {
                    let present = self.connections.get_mut(&store).expect("NOT_FOUND");
                    assert_eq!(present.driver, connection.driver, "another driver");
                    *present = connection;
                }
                Action::Program { routes } => {
                    for route in &routes {
                        let store = route.store_id.clone().unwrap();
                        let store = ObjectKey::new(store.namespace, store.name);
                        assert!(self.connections.contains_key(&store), "route to nowhere");
                    }
                    self.routes = routes;
                }
                Action::Disconnect { store } => {
                    assert!(self.connections.remove(&store).is_some(), "NOT_FOUND");
                }
            }
        }
    }

    fn any_connections() -> impl Strategy<Value = BTreeMap<ObjectKey, WantedConnection>> {
        let store = prop_oneof!["a", "b", "c", "d"].prop_map(|name| key(&name));
        let connection = (prop_oneof!["memory", "multi-raft"], 0..3_u8)
            .prop_map(|(driver, config)| wanted(&driver, &format!("{{\"x\":{config}}}")));
        prop::collection::btree_map(store, connection, 0..4)
    }

    fn routes_of(connections: &BTreeMap<ObjectKey, WantedConnection>) -> Vec<Route> {
        connections.keys().map(|store| route(&store.name)).collect()
    }

    proptest! {
        /// A crash after any call loses only work: the next plan goes on from there.
        #[test]
        fn any_runtime_becomes_what_it_should_be_also_after_a_crash_at_any_call(
            before in any_connections(),
            after in any_connections(),
            crash_at in 0..8_usize,
        ) {
            let mut runtime = Model { routes: routes_of(&before), connections: before };
            let desired = Desired {
                routes: routes_of(&after),
                connections: after.clone(),
                ..Desired::default()
            };
            let first = plan(&runtime.observed(), &desired);
            first.into_iter().take(crash_at).for_each(|action| runtime.call(action));
            let second = plan(&runtime.observed(), &desired);
            second.into_iter().for_each(|action| runtime.call(action));
            prop_assert_eq!(&runtime.connections, &after);
            prop_assert_eq!(&runtime.routes, &routes_of(&after));
            prop_assert_eq!(plan(&runtime.observed(), &desired), vec![]);
        }

        #[test]
        fn a_connection_that_is_kept_is_never_touched(
            before in any_connections(),
            kept in prop_oneof!["a", "b", "c"].prop_map(|name| key(&name)),
        ) {
            let connection = before.get(&kept).cloned();
            let mut runtime = Model { routes: routes_of(&before), connections: before };
            let desired = Desired {
                kept: [kept.clone()].into(),
                routes: vec![route(&kept.name)],
                ..Desired::default()
            };
            for action in plan(&runtime.observed(), &desired) {
                let touched = match &action {
                    Action::Program { .. } => None,
                    Action::Connect { store, .. }
                    | Action::Configure { store, .. }
                    | Action::Disconnect { store } => Some(store),
                };
                prop_assert_ne!(touched, Some(&kept));
                runtime.call(action);
            }
            // Routes lead to it exactly where it is connected.
            prop_assert_eq!(runtime.connections.get(&kept), connection.as_ref());
            prop_assert_eq!(runtime.routes.len(), usize::from(connection.is_some()));
            prop_assert!(is_programmed(&runtime.observed(), &desired));
        }
    }

    proptest! {
        #[test]
        fn beside_a_session_that_cannot_be_read_nothing_is_taken_away_and_all_that_is_wanted_added(
            before in any_connections(),
            after in any_connections(),
        ) {
            let mut runtime = Model { routes: routes_of(&before), connections: before.clone() };
            let desired = Desired {
                routes: routes_of(&after),
                connections: after.clone(),
                keeps_unknown: true,
                ..Desired::default()
            };
            for action in plan(&runtime.observed(), &desired) {
                runtime.call(action);
            }
            for store in before.keys().chain(after.keys()) {
                let wanted = after.get(store).or(before.get(store));
                prop_assert_eq!(runtime.connections.get(store), wanted);
                let leads = runtime.routes.iter().filter(|present| **present == route(&store.name));
                prop_assert_eq!(leads.count(), 1);
            }
            prop_assert_eq!(plan(&runtime.observed(), &desired), vec![]);
            prop_assert!(is_programmed(&runtime.observed(), &desired));
        }
    }

    #[test]
    fn routes_that_nobody_asks_for_stay_where_they_are() {
        let table = |names: &str| -> Vec<Route> {
            let names = names.chars().map(|name| name.to_string());
            names.map(|name| route(&name)).collect()
        };
        for (wanted, present, expected) in [
            ("", "", ""),
            ("ab", "", "ab"),
            ("", "ab", "ab"),
            ("ac", "abc", "abc"),
            ("ab", "abcd", "abcd"),
            ("bd", "abc", "abdc"),
            ("ba", "xaby", "bxay"),
        ] {
            let found = with_unknown(table(wanted), &table(present));
            assert_eq!(found, table(expected), "{wanted} beside {present}");
            assert_eq!(with_unknown(table(wanted), &found), found, "it settles");
        }
    }

    #[test]
    fn an_older_runtime_keeps_the_routes_that_it_does_not_tell() {
        let model = Model {
            connections: [(key("a"), wanted("memory", "{}"))].into(),
            routes: vec![route("a")],
        };
        let told = GetStatusResponse {
            routes_digest: routes_digest(&model.routes),
            ..GetStatusResponse::default()
        };
        assert_eq!(Observed::of(told.clone()).routes, None);
        let told = GetStatusResponse {
            routes: model.routes.clone(),
            ..told
        };
        assert_eq!(Observed::of(told).routes, Some(model.routes.clone()));
        let older = Observed {
            routes: None,
            ..model.observed()
        };
        let mut desired = Desired {
            keeps_unknown: true,
            ..Desired::default()
        };
        assert_eq!(plan(&older, &desired), []);
        assert!(is_programmed(&older, &desired));
        desired.keeps_unknown = false;
        assert_eq!(plan(&older, &desired).len(), 2);
    }

    #[test]
    fn a_new_configuration_keeps_the_connection_and_a_new_driver_replaces_it() {
        let present = Model {
            connections: [(key("a"), wanted("memory", "{}"))].into(),
            routes: vec![route("a")],
        };
        let desired = |connection: WantedConnection| Desired {
            connections: [(key("a"), connection)].into(),
            routes: vec![route("a")],
            ..Desired::default()
        };
        let changed = wanted("memory", r#"{"x":1}"#);
        assert_eq!(
            plan(&present.observed(), &desired(changed.clone())),
            [Action::Configure {
                store: key("a"),
                connection: changed
            }]
        );
        let replaced = wanted("multi-raft", "{}");
        assert_eq!(
            plan(&present.observed(), &desired(replaced.clone())),
            [
                Action::Disconnect { store: key("a") },
                Action::Connect {
                    store: key("a"),
                    connection: replaced
                },
            ]
        );
        assert_eq!(
            plan(&present.observed(), &desired(wanted("memory", "{}"))),
            []
        );
    }
}
