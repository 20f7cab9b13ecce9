//! The calls that a runtime gets when its answers are not those that its state promised, because
//! somebody else changed it meanwhile.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::{Context, Poll};

use atomix_controller::dialer::{ChannelError, Destination, Dialer as _, PodDialer};
use atomix_proto::digest::config_digest;
use atomix_proto::runtime::v1::DriverId;
use atomix_runtime::{Options, Sidecar, built_in_drivers};
use clap::Parser as _;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tower::Service;

use super::*;

const LOOK: &str = "GetStatus";
const CONNECT: &str = "Connect";
const CONFIGURE: &str = "Configure";
const DISCONNECT: &str = "Disconnect";

/// The two configurations of a driver that has no fields.
const OLD: &str = "";
const NEW: &str = "{}";

/// What somebody else does with the connection to the Store `iris`.
#[derive(Clone, Copy)]
enum Change {
    Connects(&'static str),
    Disconnects,
}

/// Before each call of which method somebody else does what.
type Meanwhile = (&'static str, Change);

/// A runtime with a connection to each of these Stores.
struct TestRuntime {
    address: SocketAddr,
    shutdown: CancellationToken,
}

impl TestRuntime {
    async fn start(connections: &[(&str, &str)]) -> Self {
        let options = Options::parse_from([
            "atomix-runtime",
            "--control-addr=127.0.0.1:0",
            "--app-addr=127.0.0.1:0",
            "--admin-addr=127.0.0.1:0",
        ]);
        let shutdown = CancellationToken::new();
        let started = Sidecar::start(&options, built_in_drivers, shutdown.clone());
        let sidecar = started.await.unwrap();
        let runtime = Self {
            address: sidecar.addresses().control,
            shutdown,
        };
        tokio::spawn(sidecar.run());
        for (store, config) in connections {
            connect(&mut runtime.client(), store, config).await.unwrap();
        }
        runtime
    }

    fn channel(&self) -> Channel {
        PodDialer::default().dial(&Destination::plain(self.address))
    }

    fn client(&self) -> RuntimeClient<Channel> {
        RuntimeClient::new(self.channel())
    }

    /// The digest of each Store's configuration.
    async fn connections(&self) -> BTreeMap<String, String> {
        let status = self.client().get_status(GetStatusRequest {}).await;
        let connections = status.unwrap().into_inner().connections.into_iter();
        connections
            .map(|connection| (connection.store_id.unwrap().name, connection.config_digest))
            .collect()
    }
}

impl Drop for TestRuntime {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

async fn connect(
    client: &mut RuntimeClient<Channel>,
    store: &str,
    config: &str,
) -> Result<(), Status> {
    let request = ConnectRequest {
        store_id: Some(store_id(&key(store))),
        driver_id: Some(driver()),
        config: config.to_owned().into(),
    };
    client.connect(request).await.map(drop)
}

/// A channel to a runtime that notes each call, before which somebody else may change the runtime.
#[derive(Clone)]
struct Shared {
    runtime: Channel,
    calls: Arc<Mutex<Vec<String>>>,
    meanwhile: Option<Meanwhile>,
    /// Answers that the driver cannot be configured again: of those that are built in each can.
    is_fixed: bool,
}

impl Service<http::Request<Body>> for Shared {
    type Response = http::Response<Body>;
    type Error = ChannelError;
    type Future = BoxFuture<'static, Result<Self::Response, ChannelError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), ChannelError>> {
        self.runtime.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let (_, method) = request.uri().path().rsplit_once('/').unwrap();
        self.calls.lock().push(method.to_owned());
        if self.is_fixed && method == CONFIGURE {
            let refusal = Status::unimplemented("it cannot").into_http();
            return Box::pin(async { Ok(refusal) });
        }
        let change = self.meanwhile.filter(|(before, _)| *before == method);
        let mut other = RuntimeClient::new(self.runtime.clone());
        // The clone may not be ready; the one that was polled is.
        let next = self.runtime.clone();
        let mut ready = std::mem::replace(&mut self.runtime, next);
        Box::pin(async move {
            // From the second time on there may be nothing to change.
            match change {
                Some((_, Change::Connects(config))) => {
                    let _ = connect(&mut other, "iris", config).await;
                }
                Some((_, Change::Disconnects)) => {
                    let store_id = Some(store_id(&key("iris")));
                    let _ = other.disconnect(DisconnectRequest { store_id }).await;
                }
                None => {}
            }
            ready.call(request).await
        })
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

fn digests(stores: &[(&str, &str)]) -> BTreeMap<String, String> {
    let stores = stores.iter();
    stores
        .map(|(store, config)| ((*store).to_owned(), config_digest(config.as_bytes())))
        .collect()
}

/// What came of making a runtime what is wanted.
struct Converged {
    result: Result<(), RuntimeError>,
    pass: Pass,
    calls: Vec<String>,
}

async fn converge(
    runtime: &TestRuntime,
    wanted: &[(&str, &str)],
    meanwhile: Option<Meanwhile>,
    is_fixed: bool,
) -> Converged {
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
    let shared = Shared {
        runtime: runtime.channel(),
        calls: Arc::default(),
        meanwhile,
        is_fixed,
    };
    let mut pass = Pass::default();
    let mut client = Runtime::new(runtime.address, Channel::new(shared.clone()));
    let result = client.converge(&desired, &mut pass).await;
    let calls = shared.calls.lock().clone();
    Converged {
        result,
        pass,
        calls,
    }
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
        calls: &[LOOK, CONFIGURE, DISCONNECT, CONNECT, LOOK],
        done: &["Disconnect iris", "Connect iris"],
    },
    Case {
        what: "UNIMPLEMENTED, and somebody else disconnects first",
        is_fixed: true,
        before: &[("iris", OLD)],
        wanted: &[("iris", NEW)],
        meanwhile: Some((DISCONNECT, Change::Disconnects)),
        calls: &[LOOK, CONFIGURE, DISCONNECT, CONNECT, LOOK],
        done: &["Connect iris"],
    },
    Case {
        what: "NOT_FOUND: the connection to re-configure has gone",
        is_fixed: false,
        before: &[("iris", OLD)],
        wanted: &[("iris", NEW), ("rose", NEW)],
        meanwhile: Some((CONFIGURE, Change::Disconnects)),
        calls: &[LOOK, CONFIGURE, LOOK, CONNECT, CONNECT, LOOK],
        done: &["Connect iris", "Connect rose"],
    },
    Case {
        what: "NOT_FOUND: what is to be disconnected has gone",
        is_fixed: false,
        before: &[("iris", OLD)],
        wanted: &[],
        meanwhile: Some((DISCONNECT, Change::Disconnects)),
        calls: &[LOOK, DISCONNECT, LOOK],
        done: &[],
    },
    Case {
        what: "ALREADY_EXISTS: an answer was lost",
        is_fixed: false,
        before: &[],
        wanted: &[("iris", NEW), ("rose", NEW)],
        meanwhile: Some((CONNECT, Change::Connects(NEW))),
        calls: &[LOOK, CONNECT, LOOK, CONNECT, LOOK],
        done: &["Connect rose"],
    },
    Case {
        what: "ALREADY_EXISTS: somebody else connected it otherwise",
        is_fixed: false,
        before: &[],
        wanted: &[("iris", NEW)],
        meanwhile: Some((CONNECT, Change::Connects(OLD))),
        calls: &[LOOK, CONNECT, LOOK, CONFIGURE, LOOK],
        done: &["Configure iris"],
    },
];

#[tokio::test]
async fn an_answer_that_its_state_did_not_promise_leads_to_another_look_or_a_new_connection() {
    for case in CASES {
        let what = case.what;
        let runtime = TestRuntime::start(case.before).await;
        let Converged {
            result,
            pass,
            calls,
        } = converge(&runtime, case.wanted, case.meanwhile, case.is_fixed).await;
        assert!(result.is_ok(), "{what}: {result:?}");
        assert!(pass.refused.is_empty(), "{what}: {:?}", pass.refused);
        assert_eq!(done(&pass), case.done, "{what}");
        assert_eq!(calls, case.calls, "{what}");
        assert_eq!(runtime.connections().await, digests(case.wanted), "{what}");
    }
}

#[tokio::test]
async fn a_runtime_that_somebody_else_changes_each_time_is_left_for_later() {
    let runtime = TestRuntime::start(&[]).await;
    let meanwhile = Some((LOOK, Change::Disconnects));
    let Converged { result, calls, .. } =
        converge(&runtime, &[("iris", NEW)], meanwhile, false).await;
    assert!(
        matches!(result, Err(RuntimeError::Unsettled { .. })),
        "{result:?}"
    );
    assert_eq!(calls, [LOOK, CONNECT].repeat(LOOKS));
}
