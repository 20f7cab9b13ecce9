//! Step 2 of the runtime controller: what a pod's runtime should have, from the Sessions that
//! select the pod. Pure.

use std::cmp::Reverse;

use atomix_proto::runtime::v1::{Route, Service, StoreId};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::index::store_of;
use super::plan::Desired;
use crate::session::resolve::{Target, Unresolved};
use atomix_controller::{Decoded, ObjectKey, finalizer};
use atomix_resources::Session;
use atomix_resources::labels::SESSION_FINALIZER;

/// A Session that selects the pod, and how its Store is connected.
#[derive(Clone, Debug)]
pub struct SelectingSession {
    /// The Session's name.
    pub key: ObjectKey,
    /// The Session.
    pub session: Decoded<Session>,
    /// How its Store is connected.
    pub target: Result<Target, Unresolved>,
}

/// Whether a Session has any effect: one under deletion has none any more, one without our
/// finalizer none yet, since nobody would disconnect its pods.
pub(super) fn is_active(session: &ObjectMeta) -> bool {
    session.deletion_timestamp.is_none() && finalizer::has(session, SESSION_FINALIZER)
}

/// What the runtime should have, from the Sessions that can be read.
pub(super) fn desired(sessions: &[SelectingSession], has_unreadable: bool) -> Desired {
    let mut active: Vec<&SelectingSession> = sessions
        .iter()
        .filter(|selecting| is_active(&selecting.session.metadata))
        .collect();
    // Oldest first; the name decides between equals, so that the order never changes.
    active.sort_by_key(|selecting| {
        let created = selecting.session.metadata.creation_timestamp.clone();
        (Reverse(created.is_some()), created, selecting.key.clone())
    });
    let mut desired = Desired {
        keeps_unknown: has_unreadable,
        ..Desired::default()
    };
    let mut routes = Vec::new();
    for SelectingSession {
        key,
        session,
        target,
    } in active
    {
        match target {
            // The table is replaced as a whole, and what other Sessions of the pod ask for does not
            // wait for this one.
            _ if session.is_paused() => {
                let store = store_of(key, session);
                routes.push(route(&store, session));
                desired.kept.insert(store);
            }
            Ok(Target { store, connection }) => {
                desired
                    .connections
                    .insert(store.clone(), connection.clone());
                routes.push(route(store, session));
            }
            Err(unresolved) if unresolved.keeps_connection() => {
                let store = store_of(key, session);
                routes.push(route(&store, session));
                desired.kept.insert(store);
            }
            Err(_) => {}
        }
    }
    desired.routes = routes;
    desired
}

fn route(store: &ObjectKey, session: &Session) -> Route {
    let spec = &session.spec;
    let config = spec.config.as_ref().map(|config| {
        // A JSON object always has a text form.
        serde_json::to_vec(config).unwrap_or_default()
    });
    Route {
        store_id: Some(StoreId {
            namespace: store.namespace.clone(),
            name: store.name.clone(),
        }),
        tags: spec.tags.clone().unwrap_or_default(),
        services: vec![Service {
            name: spec.kind.unwrap_or_default().as_str().to_owned(),
            config: config.unwrap_or_default().into(),
        }],
        primitives: spec.primitive.iter().cloned().collect(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use atomix_proto::runtime::v1::DriverId;
    use serde_json::{Value, json};

    use super::*;
    use crate::runtimes::plan::WantedConnection;

    fn selecting(
        name: &str,
        created: &str,
        spec: Value,
        target: Result<Target, Unresolved>,
    ) -> SelectingSession {
        let mut whole =
            json!({"store": {"name": "meadow"}, "selector": {"matchLabels": {"a": "b"}}});
        whole
            .as_object_mut()
            .unwrap()
            .extend(spec.as_object().unwrap().clone());
        let session: Session = serde_json::from_value(json!({
            "apiVersion": "atomix.io/v1beta1",
            "kind": "Session",
            "metadata": {
                "name": name,
                "namespace": "garden",
                "creationTimestamp": created,
                "finalizers": [SESSION_FINALIZER],
            },
            "spec": whole,
        }))
        .unwrap();
        SelectingSession {
            key: ObjectKey::new("garden", name),
            session: session.into(),
            target,
        }
    }

    fn target() -> Result<Target, Unresolved> {
        Ok(Target {
            store: ObjectKey::new("garden", "meadow"),
            connection: WantedConnection {
                driver: DriverId {
                    name: "memory".to_owned(),
                    version: "v1".to_owned(),
                },
                config: "{}".to_owned(),
                config_digest: "digest".to_owned(),
                has_secrets: false,
            },
        })
    }

    const EARLY: &str = "2026-01-01T00:00:00Z";
    const LATE: &str = "2026-01-02T00:00:00Z";

    #[test]
    fn routes_are_the_union_oldest_session_first_and_say_what_the_sessions_say() {
        let found = desired(
            &[
                selecting("a", LATE, json!({}), target()),
                selecting(
                    "z",
                    EARLY,
                    json!({"kind": "counter", "primitive": "hits*", "tags": ["t"], "config": {"b": 1, "a": 2}}),
                    target(),
                ),
                selecting("b", LATE, json!({"kind": "map"}), target()),
            ],
            false,
        );
        let routes = found.routes;
        let kinds: Vec<&str> = routes
            .iter()
            .map(|route| route.services[0].name.as_str())
            .collect();
        assert_eq!(kinds, ["counter", "*", "map"]);
        assert_eq!(routes[0].primitives, ["hits*"]);
        assert_eq!(routes[0].tags, ["t"]);
        assert_eq!(routes[0].services[0].config, r#"{"a":2,"b":1}"#);
        assert_eq!(found.connections.len(), 1);
    }

    #[test]
    fn a_session_under_deletion_or_without_our_finalizer_has_no_effect() {
        let changed = |name: &str, change: fn(&mut ObjectMeta)| {
            let mut selecting = selecting(name, EARLY, json!({}), target());
            let mut session = Session::clone(&selecting.session);
            change(&mut session.metadata);
            selecting.session = session.into();
            selecting
        };
        let deleted = changed("a", |meta| {
            meta.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(
                k8s_openapi::jiff::Timestamp::UNIX_EPOCH,
            ));
        });
        let fresh = changed("b", |meta| meta.finalizers = None);
        let found = desired(&[deleted, fresh], false);
        assert_eq!(found, Desired::default());
    }

    #[test]
    fn beside_a_session_that_cannot_be_read_nothing_is_taken_away() {
        let found = desired(&[selecting("a", EARLY, json!({}), target())], true);
        assert!(found.keeps_unknown && found.keeps(&ObjectKey::new("garden", "rose")));
        assert_eq!((found.connections.len(), found.routes.len()), (1, 1));
        let found = desired(&[], false);
        assert!(!found.keeps(&ObjectKey::new("garden", "rose")));
    }

    #[test]
    fn what_is_paused_or_cannot_be_said_now_stays() {
        let found = desired(
            &[selecting("a", EARLY, json!({"paused": true}), target())],
            false,
        );
        assert_eq!((found.kept.len(), found.routes.len()), (1, 1));
        assert!(found.connections.is_empty());
        let waiting = Err(Unresolved::StoreNotBootstrapped);
        let found = desired(&[selecting("a", EARLY, json!({}), waiting)], false);
        assert_eq!((found.kept.len(), found.routes.len()), (1, 1));
        let found = desired(
            &[selecting(
                "a",
                EARLY,
                json!({}),
                Err(Unresolved::StoreNotFound("counts".to_owned())),
            )],
            false,
        );
        assert_eq!(found, Desired::default());
    }

    #[test]
    fn a_paused_session_holds_up_no_other_one_of_its_pods() {
        let paused = json!({"paused": true, "kind": "map"});
        let found = desired(
            &[
                selecting("a", EARLY, paused, target()),
                selecting("b", LATE, json!({"kind": "counter"}), target()),
            ],
            false,
        );
        let kinds: Vec<&str> = found
            .routes
            .iter()
            .map(|route| route.services[0].name.as_str())
            .collect();
        assert_eq!(kinds, ["map", "counter"]);
        // The other one connects the Store anew where it is to be.
        assert_eq!((found.connections.len(), found.kept.len()), (1, 1));
    }
}
