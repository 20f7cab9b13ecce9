//! A sidecar in this process, and clients for its ports.

use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use atomix_proto::runtime::counter::v1::counter_client::CounterClient;
use atomix_proto::runtime::counter::v1::counters_client::CountersClient;
use atomix_proto::runtime::v1::runtime_client::RuntimeClient;
use atomix_proto::runtime::v1::session_service_client::SessionServiceClient;
use atomix_proto::runtime::v1::{
    ConnectRequest, DriverId, PrimitiveId, ProgramRequest, Route, Service, StoreId,
};
use atomix_runtime::{Addresses, Options, Sidecar, built_in_drivers};
use clap::Parser as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct TestSidecar {
    pub addresses: Addresses,
    shutdown: CancellationToken,
    running: JoinHandle<()>,
}

impl TestSidecar {
    pub async fn start(arguments: &[&str]) -> Self {
        let fixed = [
            "atomix-runtime",
            "--control-addr=127.0.0.1:0",
            "--app-addr=127.0.0.1:0",
            "--admin-addr=127.0.0.1:0",
        ];
        let options = Options::parse_from(fixed.iter().chain(arguments));
        let shutdown = CancellationToken::new();
        let sidecar = Sidecar::start(&options, built_in_drivers, shutdown.clone())
            .await
            .unwrap();
        let addresses = sidecar.addresses().clone();
        let running = tokio::spawn(async move { sidecar.run().await.unwrap() });
        Self {
            addresses,
            shutdown,
            running,
        }
    }

    pub async fn start_in(state_dir: &Path) -> Self {
        let argument = format!("--state-dir={}", state_dir.display());
        Self::start(&[&argument]).await
    }

    /// One with a connected memory store and a route for every kind.
    pub async fn with_memory_store() -> Self {
        let sidecar = Self::start(&[]).await;
        let mut control = sidecar.control().await;
        control.connect(memory_store("store-a")).await.unwrap();
        control
            .program(program(vec![route("store-a", "*")]))
            .await
            .unwrap();
        sidecar
    }

    pub async fn stop(self) {
        self.shutdown.cancel();
        within("the sidecar to stop", self.running).await.unwrap();
    }

    pub async fn control(&self) -> RuntimeClient<Channel> {
        RuntimeClient::new(channel(self.addresses.control).await)
    }

    pub async fn sessions(&self) -> SessionServiceClient<Channel> {
        SessionServiceClient::new(channel(self.addresses.control).await)
    }

    pub async fn application(&self) -> Channel {
        channel(self.addresses.application[0]).await
    }

    pub async fn counter(&self) -> CounterClient<Channel> {
        CounterClient::new(self.application().await)
    }

    pub async fn counters(&self) -> CountersClient<Channel> {
        CountersClient::new(self.application().await)
    }

    pub async fn admin(&self, path: &str) -> String {
        fetch(self.addresses.admin, path).await
    }
}

pub async fn channel(address: SocketAddr) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    within("a connection", endpoint.connect()).await.unwrap()
}

pub async fn fetch(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

pub fn store(name: &str) -> Option<StoreId> {
    Some(StoreId {
        namespace: "team".into(),
        name: name.into(),
    })
}

pub fn memory_store(name: &str) -> ConnectRequest {
    ConnectRequest {
        store_id: store(name),
        driver_id: Some(DriverId {
            name: "memory".into(),
            version: String::new(),
        }),
        config: "{}".into(),
    }
}

pub fn route(store_name: &str, kind: &str) -> Route {
    Route {
        store_id: store(store_name),
        services: vec![Service {
            name: kind.into(),
            ..Service::default()
        }],
        ..Route::default()
    }
}

pub fn program(routes: Vec<Route>) -> ProgramRequest {
    ProgramRequest { routes }
}

pub fn id(name: &str) -> Option<PrimitiveId> {
    Some(PrimitiveId { id: name.into() })
}

pub async fn within<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(output) => output,
        Err(_) => panic!("waited {PATIENCE:?} for {what}"),
    }
}

/// Asks again until the answer is as wanted.
pub async fn until<F, Fut>(what: &str, mut is_so: F)
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    within(what, async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}
