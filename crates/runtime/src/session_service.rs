//! SessionService on the control port, for this sidecar's own sessions.
//!
//! A session is an open primitive. Its id is (`NAMESPACE/NAME/KIND` of its store and its kind,
//! primitive name); GetSession also takes `NAMESPACE/NAME` when only one kind has that name there. A
//! session is OPENED while its store is reached and OPENING otherwise. One that a change of routes
//! left without a store is listed as CLOSED with its kind alone as the id's name, until it is closed.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;

use atomix_proto::runtime::v1 as proto;
use atomix_proto::runtime::v1::session_service_server::SessionService;
use atomix_proto::runtime::v1::session_status::State;
use futures::{Stream, stream};
use prost::Message as _;
use prost_types::{Any, ListValue, Struct, Value, value};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::deadline;
use crate::sessions::OpenPrimitive;
use crate::stores::Stores;

const STRUCT_TYPE: &str = "type.googleapis.com/google.protobuf.Struct";

/// The SessionService of a sidecar.
pub(crate) struct Sessions {
    lister: Lister,
    shutdown: CancellationToken,
}

#[derive(Clone)]
struct Lister {
    stores: Arc<Stores>,
    kind: String,
}

impl Sessions {
    pub(crate) fn new(stores: Arc<Stores>, shutdown: CancellationToken) -> Self {
        let kind = String::new();
        Self {
            lister: Lister { stores, kind },
            shutdown,
        }
    }

    fn lister(&self, kind: String) -> Lister {
        let stores = Arc::clone(&self.lister.stores);
        Lister { stores, kind }
    }
}

#[tonic::async_trait]
impl SessionService for Sessions {
    async fn get_session(
        &self,
        request: Request<proto::GetSessionRequest>,
    ) -> Result<Response<proto::GetSessionResponse>, Status> {
        let id = request.into_inner().session_id.unwrap_or_default();
        let primitive = id.primitive.unwrap_or_default().id;
        if id.name.is_empty() {
            return Err(Status::invalid_argument("session_id.name is empty"));
        }
        if primitive.is_empty() {
            return Err(Status::invalid_argument("session_id.primitive.id is empty"));
        }
        let matches: Vec<OpenPrimitive> = self
            .lister
            .list()
            .into_iter()
            .filter(|session| session.key.name == primitive && is_named(session, &id.name))
            .collect();
        match matches.as_slice() {
            [] => Err(Status::not_found(format!(
                "session {:?} of primitive {primitive:?} does not exist",
                id.name
            ))),
            [session] => Ok(Response::new(proto::GetSessionResponse {
                session: Some(self.lister.session(session)),
            })),
            [..] => Err(Status::invalid_argument(format!(
                "session_id.name {:?} is not unique: append the kind, NAMESPACE/NAME/KIND",
                id.name
            ))),
        }
    }

    async fn list_sessions(
        &self,
        request: Request<proto::ListSessionsRequest>,
    ) -> Result<Response<proto::ListSessionsResponse>, Status> {
        let deadline = deadline::of(request.metadata())?;
        let request = request.into_inner();
        let lister = self.lister(request.r#type);
        let mut changes = lister.changes();
        let at_first = lister.response();
        if !request.watch {
            return Ok(Response::new(at_first));
        }
        let changed = async {
            while changes.changed().await.is_ok() {
                let now = lister.response();
                if now != at_first {
                    return now;
                }
            }
            at_first.clone()
        };
        let expiry = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            response = changed => Ok(Response::new(response)),
            () = expiry => Ok(Response::new(lister.response())),
            () = self.shutdown.cancelled() => Err(Status::unavailable("the runtime is shutting down")),
        }
    }

    type WatchSessionsStream =
        Pin<Box<dyn Stream<Item = Result<proto::ListSessionsResponse, Status>> + Send>>;

    async fn watch_sessions(
        &self,
        request: Request<proto::ListSessionsRequest>,
    ) -> Result<Response<Self::WatchSessionsStream>, Status> {
        let lister = self.lister(request.into_inner().r#type);
        let changes = lister.changes();
        let watcher = Watcher {
            lister,
            changes,
            last: None,
            shutdown: self.shutdown.clone(),
        };
        let answers = stream::unfold(watcher, |mut watcher| async move {
            let response = watcher.next().await?;
            Some((Ok(response), watcher))
        });
        Ok(Response::new(Box::pin(answers)))
    }
}

/// One WatchSessions stream. Changes that come faster than the reader takes them become one answer.
struct Watcher {
    lister: Lister,
    changes: watch::Receiver<u64>,
    last: Option<proto::ListSessionsResponse>,
    shutdown: CancellationToken,
}

impl Watcher {
    async fn next(&mut self) -> Option<proto::ListSessionsResponse> {
        loop {
            if self.last.is_some() {
                tokio::select! {
                    changed = self.changes.changed() => changed.ok()?,
                    () = self.shutdown.cancelled() => return None,
                }
            }
            let response = self.lister.response();
            if self.last.as_ref() != Some(&response) {
                self.last = Some(response.clone());
                return Some(response);
            }
        }
    }
}

impl Lister {
    fn changes(&self) -> watch::Receiver<u64> {
        let mut changes = self.stores.open_primitives().changes();
        changes.mark_unchanged();
        changes
    }

    fn list(&self) -> Vec<OpenPrimitive> {
        self.stores.open_primitives().list(&self.kind)
    }

    fn response(&self) -> proto::ListSessionsResponse {
        let sessions = self.list();
        proto::ListSessionsResponse {
            sessions: sessions
                .iter()
                .map(|session| self.session(session))
                .collect(),
        }
    }

    fn session(&self, session: &OpenPrimitive) -> proto::Session {
        let (name, config, state, labels) = match &session.destination {
            None => (
                session.key.kind.clone(),
                Struct::default(),
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
                (name, config_struct(&destination.config), state, labels)
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
                config: Some(Any {
                    type_url: STRUCT_TYPE.to_owned(),
                    value: config.encode_to_vec(),
                }),
            }),
            status: Some(proto::SessionStatus {
                state: state.into(),
            }),
        }
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
fn config_struct(config: &[u8]) -> Struct {
    match serde_json::from_slice(config) {
        Ok(serde_json::Value::Object(fields)) => struct_of(fields),
        Ok(_) | Err(_) => Struct::default(),
    }
}

fn struct_of(fields: serde_json::Map<String, serde_json::Value>) -> Struct {
    Struct {
        fields: fields
            .into_iter()
            .map(|(name, value)| (name, value_of(value)))
            .collect(),
    }
}

fn value_of(json: serde_json::Value) -> Value {
    let kind = match json {
        serde_json::Value::Null => value::Kind::NullValue(0),
        serde_json::Value::Bool(boolean) => value::Kind::BoolValue(boolean),
        serde_json::Value::Number(number) => {
            value::Kind::NumberValue(number.as_f64().unwrap_or_default())
        }
        serde_json::Value::String(text) => value::Kind::StringValue(text),
        serde_json::Value::Array(items) => value::Kind::ListValue(ListValue {
            values: items.into_iter().map(value_of).collect(),
        }),
        serde_json::Value::Object(fields) => value::Kind::StructValue(struct_of(fields)),
    };
    Value { kind: Some(kind) }
}
