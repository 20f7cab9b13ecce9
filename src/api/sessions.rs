//! All Sessions that the operator serves, as its SessionService lists them.
//!
//! A Session's id is `NAMESPACE/NAME`; GetSession also takes a bare name that only one namespace has.

use atomix_proto::runtime::v1 as proto;
use atomix_proto::runtime::v1::session_status::State;
use atomix_session_service::{Source, packed_config};
use kube::ResourceExt as _;
use kube::core::DeserializeGuard;
use tokio::sync::watch;
use tonic::Status;

use atomix_controller::{Cache, ObjectKey};
use atomix_resources::{Session, SessionState};

/// How many of the Sessions with a name are named when it is not unique.
const NAMED: usize = 5;

/// The Sessions of the operator's cache. Those that do not decode are not listed: their conditions
/// say so.
pub(crate) struct AllSessions {
    cache: Cache<DeserializeGuard<Session>>,
    changes: watch::Sender<u64>,
}

impl AllSessions {
    /// Listens to the cache, so it is made before the cache is followed.
    pub(crate) fn new(cache: &Cache<DeserializeGuard<Session>>) -> Self {
        let changes = watch::Sender::new(0);
        let sender = changes.clone();
        cache.listen(move |_| sender.send_modify(|number| *number += 1));
        Self {
            cache: cache.clone(),
            changes,
        }
    }

    /// By namespace and name.
    fn sorted(&self, wanted: impl Fn(&Session) -> bool) -> Vec<(ObjectKey, proto::Session)> {
        let guards = self
            .cache
            .filter(|guard| guard.0.as_ref().is_ok_and(&wanted));
        let decoded = guards.iter().filter_map(|guard| guard.0.as_ref().ok());
        let mut listed: Vec<(ObjectKey, proto::Session)> = decoded
            .map(|session| (ObjectKey::of(session), listed(session)))
            .collect();
        listed.sort_by(|(one, _), (other, _)| one.cmp(other));
        listed
    }
}

impl Source for AllSessions {
    fn ready(&self) -> Result<(), Status> {
        if self.cache.is_synced() {
            return Ok(());
        }
        Err(Status::unavailable(
            "the operator has not read all Sessions yet: ask again in a moment",
        ))
    }

    fn list(&self, kind: &str) -> Vec<proto::Session> {
        let listed = self.sorted(|session| kind.is_empty() || kind_of(session) == kind);
        listed.into_iter().map(|(_, session)| session).collect()
    }

    fn find(&self, name: &str, primitive: &str) -> Result<proto::Session, Status> {
        let mut named = self.sorted(|session| {
            let is_named = match name.split_once('/') {
                Some((namespace, name)) => {
                    session.namespace().as_deref() == Some(namespace)
                        && session.metadata.name.as_deref() == Some(name)
                }
                None => session.metadata.name.as_deref() == Some(name),
            };
            is_named && (primitive.is_empty() || primitive_of(session) == primitive)
        });
        if named.len() > 1 {
            let keys: Vec<String> = named.iter().map(|(key, _)| key.to_string()).collect();
            let some = keys.get(..NAMED).unwrap_or(&keys).join(", ");
            return Err(Status::invalid_argument(format!(
                "session_id.name {name:?} is not unique, give NAMESPACE/NAME: there are {} such as {some}",
                keys.len()
            )));
        }
        match named.pop() {
            Some((_, session)) => Ok(session),
            None if primitive.is_empty() => Err(Status::not_found(format!(
                "session {name:?} does not exist"
            ))),
            None => Err(Status::not_found(format!(
                "session {name:?} of primitive {primitive:?} does not exist"
            ))),
        }
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

fn kind_of(session: &Session) -> &'static str {
    session.spec.kind.unwrap_or_default().as_str()
}

fn primitive_of(session: &Session) -> &str {
    session.spec.primitive.as_deref().unwrap_or("*")
}

fn listed(session: &Session) -> proto::Session {
    let state = session.status.as_ref().and_then(|status| status.state);
    let state = match state.unwrap_or_default() {
        SessionState::None => State::None,
        SessionState::Opening => State::Opening,
        SessionState::Opened => State::Opened,
        SessionState::Closing => State::Closing,
        SessionState::Closed => State::Closed,
    };
    // Since Kubernetes 1.35 a resource version is a decimal number that grows.
    let version = session.resource_version();
    let version = version.and_then(|version| version.parse().ok());
    proto::Session {
        meta: Some(proto::SessionMeta {
            id: Some(proto::SessionId {
                name: ObjectKey::of(session).to_string(),
                primitive: Some(proto::PrimitiveId {
                    id: primitive_of(session).to_owned(),
                }),
            }),
            version: version.unwrap_or_default(),
            labels: session.labels().clone().into_iter().collect(),
        }),
        spec: Some(proto::SessionSpec {
            kind: kind_of(session).to_owned(),
            config: Some(packed_config(
                session.spec.config.clone().unwrap_or_default(),
            )),
        }),
        status: Some(proto::SessionStatus {
            state: state.into(),
        }),
    }
}
