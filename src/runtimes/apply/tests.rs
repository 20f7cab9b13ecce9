//! The calls that a runtime gets when its answers are not those that its state promised, against a
//! server that keeps to the protocol.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::sync::Arc;

use atomix_controller::dialer::{Destination, Dialer as _, PodDialer};
use atomix_proto::digest::{config_digest, routes_digest};
use atomix_proto::runtime::v1::connection::State as Reached;
use atomix_proto::runtime::v1::runtime_server::{Runtime as RuntimeService, RuntimeServer};
use atomix_proto::runtime::v1::{
    ConfigureResponse, ConnectResponse, Connection, DisconnectResponse, DriverId,
    GetStatusResponse, ProgramResponse,
};
use parking_lot::{Mutex, MutexGuard};
use tokio::net::TcpListener;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use super::*;

const LOOK: &str = "GetStatus";
const OLD: &str = r#"{"colour":"blue"}"#;
const NEW: &str = r#"{"colour":"red"}"#;

/// Before which calls somebody else does what to the runtime.
type Meanwhile = (&'static str, fn(&mut State));

/// A runtime of which somebody else changes the connections.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    calls: Vec<String>,
    /// Configurations by the Store's name.
    connections: BTreeMap<String, String>,
    /// Its driver keeps the configuration that it began with.
    is_fixed: bool,
    meanwhile: Option<Meanwhile>,
}

impl Shared {
    /// Notes a call, and which Store it is about.
    fn called(&self, method: &str, store: Option<StoreId>) -> (MutexGuard<'_, State>, String) {
        let store = store.unwrap_or_default().name;
        let mut state = self.0.lock();
        let call = format!("{method} {store}").trim_end().to_owned();
        if let Some((_, change)) = state.meanwhile.filter(|(before, _)| *before == call) {
            change(&mut state);
        }
        state.calls.push(call);
        (state, store)
    }
}

#[tonic::async_trait]
impl RuntimeService for Shared {
    async fn connect(
        &self,
        request: Request<ConnectRequest>,
    ) -> Result<Response<ConnectResponse>, Status> {
        let request = request.into_inner();
        let (mut state, store) = self.called("Connect", request.store_id);
        if state.connections.contains_key(&store) {
            return Err(Status::already_exists(store));
        }
        let config = String::from_utf8(request.config.to_vec()).unwrap();
        state.connections.insert(store, config);
        Ok(Response::new(ConnectResponse {}))
    }

    async fn configure(
        &self,
        request: Request<ConfigureRequest>,
    ) -> Result<Response<ConfigureResponse>, Status> {
        let request = request.into_inner();
        let (mut state, store) = self.called("Configure", request.store_id);
        if !state.connections.contains_key(&store) {
            return Err(Status::not_found(store));
        }
        if state.is_fixed {
            return Err(Status::unimplemented(store));
        }
        let config = String::from_utf8(request.config.to_vec()).unwrap();
        state.connections.insert(store, config);
        Ok(Response::new(ConfigureResponse {}))
    }

    async fn disconnect(
        &self,
        request: Request<DisconnectRequest>,
    ) -> Result<Response<DisconnectResponse>, Status> {
        let (mut state, store) = self.called("Disconnect", request.into_inner().store_id);
        let gone = state.connections.remove(&store);
        gone.ok_or_else(|| Status::not_found(store))?;
        Ok(Response::new(DisconnectResponse {}))
    }

    async fn program(
        &self,
        _: Request<ProgramRequest>,
    ) -> Result<Response<ProgramResponse>, Status> {
        drop(self.called("Program", None));
        Ok(Response::new(ProgramResponse {}))
    }

    async fn get_status(
        &self,
        _: Request<GetStatusRequest>,
    ) -> Result<Response<GetStatusResponse>, Status> {
        let (state, _) = self.called(LOOK, None);
        let connections = state.connections.iter().map(|(store, config)| Connection {
            store_id: Some(store_id(&key(store))),
            driver_id: Some(driver()),
            config_digest: config_digest(config.as_bytes()),
            state: Reached::Connected.into(),
            message: String::new(),
        });
        Ok(Response::new(GetStatusResponse {
            connections: connections.collect(),
            routes_digest: routes_digest(&[]),
            ..GetStatusResponse::default()
        }))
    }
}

fn key(store: &str) -> ObjectKey {
    ObjectKey::new("garden", store)
}

fn driver() -> DriverId {
    DriverId {
        name: "memory".to_owned(),
        version: "v1".to_owned(),
    }
}

fn named(stores: &[(&str, &str)]) -> BTreeMap<String, String> {
    let stores = stores.iter();
    stores
        .map(|(store, config)| ((*store).to_owned(), (*config).to_owned()))
        .collect()
}

/// Serves the runtime, and makes it what is wanted.
async fn converge(runtime: &Shared, wanted: &[(&str, &str)]) -> (Result<(), RuntimeError>, Pass) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server::builder().add_service(RuntimeServer::new(runtime.clone()));
    let serving = tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    let channel = PodDialer::default().dial(&Destination::plain(address));

    let connections = wanted.iter().map(|(store, config)| {
        let connection = WantedConnection {
            driver: driver(),
            config: (*config).to_owned(),
            config_digest: config_digest(config.as_bytes()),
            has_secrets: false,
        };
        (key(store), connection)
    });
    let desired = Desired {
        connections: connections.collect(),
        ..Desired::default()
    };
    let mut pass = Pass::default();
    let mut runtime = Runtime::new(address, channel);
    let result = runtime.converge(&desired, &mut pass).await;
    serving.abort();
    (result, pass)
}

fn done(pass: &Pass) -> Vec<String> {
    let done = pass.done.iter().map(|action| match action {
        Action::Connect { store, .. } => format!("Connect {}", store.name),
        Action::Configure { store, .. } => format!("Configure {}", store.name),
        Action::Program { .. } => "Program".to_owned(),
        Action::Disconnect { store } => format!("Disconnect {}", store.name),
    });
    done.collect()
}

struct Case {
    what: &'static str,
    is_fixed: bool,
    before: &'static [(&'static str, &'static str)],
    wanted: &'static [(&'static str, &'static str)],
    meanwhile: Option<Meanwhile>,
    calls: &'static [&'static str],
    done: &'static [&'static str],
}

const CASES: &[Case] = &[
    Case {
        what: "UNIMPLEMENTED: the driver cannot be re-configured",
        is_fixed: true,
        before: &[("iris", OLD)],
        wanted: &[("iris", NEW)],
        meanwhile: None,
        calls: &[
            LOOK,
            "Configure iris",
            "Disconnect iris",
            "Connect iris",
            LOOK,
        ],
        done: &["Disconnect iris", "Connect iris"],
    },
    Case {
        what: "UNIMPLEMENTED, and somebody else disconnects first",
        is_fixed: true,
        before: &[("iris", OLD)],
        wanted: &[("iris", NEW)],
        meanwhile: Some(("Disconnect iris", |state| state.connections.clear())),
        calls: &[
            LOOK,
            "Configure iris",
            "Disconnect iris",
            "Connect iris",
            LOOK,
        ],
        done: &["Connect iris"],
    },
    Case {
        what: "NOT_FOUND: the connection to re-configure has gone",
        is_fixed: false,
        before: &[("iris", OLD)],
        wanted: &[("iris", NEW), ("rose", NEW)],
        meanwhile: Some(("Configure iris", |state| state.connections.clear())),
        calls: &[
            LOOK,
            "Configure iris",
            LOOK,
            "Connect iris",
            "Connect rose",
            LOOK,
        ],
        done: &["Connect iris", "Connect rose"],
    },
    Case {
        what: "NOT_FOUND: what is to be disconnected has gone",
        is_fixed: false,
        before: &[("iris", OLD)],
        wanted: &[],
        meanwhile: Some(("Disconnect iris", |state| state.connections.clear())),
        calls: &[LOOK, "Disconnect iris", LOOK],
        done: &[],
    },
    Case {
        what: "ALREADY_EXISTS: an answer was lost",
        is_fixed: false,
        before: &[],
        wanted: &[("iris", NEW), ("rose", NEW)],
        meanwhile: Some(("Connect iris", |state| {
            state.connections = named(&[("iris", NEW)]);
        })),
        calls: &[LOOK, "Connect iris", LOOK, "Connect rose", LOOK],
        done: &["Connect rose"],
    },
    Case {
        what: "ALREADY_EXISTS: somebody else connected it otherwise",
        is_fixed: false,
        before: &[],
        wanted: &[("iris", NEW)],
        meanwhile: Some(("Connect iris", |state| {
            state.connections = named(&[("iris", OLD)]);
        })),
        calls: &[LOOK, "Connect iris", LOOK, "Configure iris", LOOK],
        done: &["Configure iris"],
    },
];

#[tokio::test]
async fn an_answer_that_its_state_did_not_promise_leads_to_another_look_or_a_new_connection() {
    for case in CASES {
        let runtime = Shared::default();
        {
            let mut state = runtime.0.lock();
            state.connections = named(case.before);
            state.is_fixed = case.is_fixed;
            state.meanwhile = case.meanwhile;
        }
        let (result, pass) = converge(&runtime, case.wanted).await;
        let what = case.what;
        assert!(result.is_ok(), "{what}: {result:?}");
        assert!(pass.refused.is_empty(), "{what}: {:?}", pass.refused);
        assert_eq!(done(&pass), case.done, "{what}");
        let state = runtime.0.lock();
        assert_eq!(state.calls, case.calls, "{what}");
        assert_eq!(state.connections, named(case.wanted), "{what}");
    }
}

#[tokio::test]
async fn a_runtime_that_somebody_else_changes_each_time_is_left_for_later() {
    let runtime = Shared::default();
    runtime.0.lock().meanwhile = Some((LOOK, |state| state.connections.clear()));
    let (result, _) = converge(&runtime, &[("iris", NEW)]).await;
    assert!(
        matches!(result, Err(RuntimeError::Unsettled { .. })),
        "{result:?}"
    );
    let calls = [LOOK, "Connect iris"].repeat(LOOKS);
    assert_eq!(runtime.0.lock().calls, calls);
}
