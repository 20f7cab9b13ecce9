//! The sidecar's own sessions, as its SessionService lists them on the control port.
//!
//! A session is an open primitive. Its id is (`NAMESPACE/NAME/KIND` of its store and its kind,
//! primitive name); GetSession also takes `NAMESPACE/NAME` when only one kind has that name there. A
//! session is OPENED while its store is reached and OPENING otherwise. One that a change of routes
//! left without a store is listed as CLOSED with its kind alone as the id's name, until it is closed.

use std::collections::BTreeMap;
use std::sync::Arc;

use atomix_proto::runtime::v1 as proto;
use atomix_proto::runtime::v1::session_status::State;
use atomix_session_service::{Source, packed_config};
use serde_json::{Map, Value};
use tokio::sync::watch;
use tonic::Status;

use crate::sessions::OpenPrimitive;
use crate::stores::Stores;

/// The open primitives of a sidecar.
pub(crate) struct OwnSessions {
    stores: Arc<Stores>,
}

impl OwnSessions {
    pub(crate) fn new(stores: Arc<Stores>) -> Self {
        Self { stores }
    }

    fn session(&self, session: &OpenPrimitive) -> proto::Session {
        let (name, config, state, labels) = match &session.destination {
            None => (
                session.key.kind.clone(),
                Map::new(),
                State::Closed,
                BTreeMap::new(),
            ),
            Some(destination) => {
                let store = &destination.store;
                let state = if self.stores.is_reached(store) {
                    State::Opened
                } else {
                    State::Opening
                };
                let labels = BTreeMap::from([
                    ("store-namespace".to_owned(), store.namespace.clone()),
                    ("store-name".to_owned(), store.name.clone()),
                ]);
                let name = format!("{store}/{}", session.key.kind);
                (name, config_of(&destination.config), state, labels)
            }
        };
        proto::Session {
            meta: Some(proto::SessionMeta {
                id: Some(proto::SessionId {
                    name,
                    primitive: Some(proto::PrimitiveId {
                        id: session.key.name.clone(),
                    }),
                }),
                version: session.version,
                labels: labels.into_iter().collect(),
            }),
            spec: Some(proto::SessionSpec {
                kind: session.key.kind.clone(),
                config: Some(packed_config(config)),
            }),
            status: Some(proto::SessionStatus {
                state: state.into(),
            }),
        }
    }
}

impl Source for OwnSessions {
    fn list(&self, kind: &str) -> Vec<proto::Session> {
        let sessions = self.stores.open_primitives().list(kind);
        sessions
            .iter()
            .map(|session| self.session(session))
            .collect()
    }

    fn find(&self, name: &str, primitive: &str) -> Result<proto::Session, Status> {
        if primitive.is_empty() {
            return Err(Status::invalid_argument("session_id.primitive.id is empty"));
        }
        let mut matches = self.stores.open_primitives().list("");
        matches.retain(|session| session.key.name == primitive && is_named(session, name));
        match matches.as_slice() {
            [] => Err(Status::not_found(format!(
                "session {name:?} of primitive {primitive:?} does not exist"
            ))),
            [session] => Ok(self.session(session)),
            [..] => Err(Status::invalid_argument(format!(
                "session_id.name {name:?} is not unique: append the kind, NAMESPACE/NAME/KIND"
            ))),
        }
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.stores.open_primitives().changes()
    }
}

fn is_named(session: &OpenPrimitive, name: &str) -> bool {
    match &session.destination {
        None => name == session.key.kind,
        Some(destination) => {
            let store = destination.store.to_string();
            name == store || name == format!("{store}/{}", session.key.kind)
        }
    }
}

/// The kind's configuration, which the routing table has checked to be a JSON object or empty.
fn config_of(config: &[u8]) -> Map<String, Value> {
    match serde_json::from_slice(config) {
        Ok(Value::Object(fields)) => fields,
        Ok(_) | Err(_) => Map::new(),
    }
}
