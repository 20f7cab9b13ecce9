//! A sidecar in this process, and clients of it.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use atomix_client::{Client, ClientBuilder, Subscription};
use atomix_proto::runtime::v1::runtime_client::RuntimeClient;
use atomix_proto::runtime::v1::{
    ConnectRequest, DriverId, ProgramRequest, Route, Service, StoreId,
};
use atomix_runtime::{Options, Sidecar, built_in_drivers};
use clap::Parser as _;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

pub const PATIENCE: Duration = Duration::from_secs(30);

pub struct TestSidecar {
    pub address: SocketAddr,
    control: SocketAddr,
    shutdown: CancellationToken,
    running: JoinHandle<()>,
}

impl TestSidecar {
    /// One with a connected memory store and a route for every kind.
    pub async fn start() -> Self {
        let sidecar = Self::start_at("127.0.0.1:0".parse().unwrap(), None).await;
        sidecar.connect_store("store-a").await;
        sidecar.program(vec![route("store-a", &[])]).await;
        sidecar
    }

    /// One without a store, but for those that its folder remembers.
    pub async fn start_at(address: SocketAddr, state_dir: Option<&Path>) -> Self {
        let mut arguments = vec![
            "atomix-runtime".to_owned(),
            "--control-addr=127.0.0.1:0".to_owned(),
            "--admin-addr=127.0.0.1:0".to_owned(),
            format!("--app-addr={address}"),
        ];
        arguments.extend(state_dir.map(|folder| format!("--state-dir={}", folder.display())));
        let options = Options::parse_from(arguments);
        let shutdown = CancellationToken::new();
        let starting = Sidecar::start(&options, built_in_drivers, shutdown.clone());
        let sidecar = starting.await.unwrap();
        let addresses = sidecar.addresses().clone();
        let running = tokio::spawn(async move { sidecar.run().await.unwrap() });
        Self {
            address: addresses.application[0],
            control: addresses.control,
            shutdown,
            running,
        }
    }

    pub async fn client(&self) -> Client {
        within("a client", self.builder().connect()).await.unwrap()
    }

    pub fn builder(&self) -> ClientBuilder {
        Client::builder().address(self.address.to_string())
    }

    pub async fn connect_store(&self, name: &str) {
        let connect = ConnectRequest {
            store_id: store(name),
            driver_id: Some(DriverId {
                name: "memory".into(),
                version: String::new(),
            }),
            config: "{}".into(),
        };
        self.control().await.connect(connect).await.unwrap();
    }

    pub async fn program(&self, routes: Vec<Route>) {
        let program = ProgramRequest { routes };
        self.control().await.program(program).await.unwrap();
    }

    pub async fn stop(self) {
        self.shutdown.cancel();
        within("the sidecar to stop", self.running).await.unwrap();
    }

    async fn control(&self) -> RuntimeClient<Channel> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.control)).unwrap();
        RuntimeClient::new(endpoint.connect().await.unwrap())
    }
}

/// An address that no other test, of this process or another, uses: a sidecar can come back there.
pub fn own_address() -> SocketAddr {
    static NEXT: AtomicU8 = AtomicU8::new(200);
    let [.., high, low] = std::process::id().to_be_bytes();
    let ip = Ipv4Addr::new(127, NEXT.fetch_add(1, Ordering::Relaxed), high, low);
    SocketAddr::new(IpAddr::V4(ip), 5678)
}

fn store(name: &str) -> Option<StoreId> {
    Some(StoreId {
        namespace: "team".into(),
        name: name.into(),
    })
}

/// A route of every kind to a store, for primitives with these tags.
pub fn route(store_name: &str, tags: &[&str]) -> Route {
    Route {
        store_id: store(store_name),
        tags: tags.iter().map(ToString::to_string).collect(),
        services: vec![Service {
            name: "*".into(),
            config: r#"{"cache": {"enabled": true, "size": 7}}"#.into(),
        }],
        ..Route::default()
    }
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
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// The next item of a subscription that goes on.
pub async fn next<T: Send + 'static>(subscription: &mut Subscription<T>) -> T {
    let item = within("an item", subscription.next()).await;
    item.unwrap().expect("the subscription ended")
}

/// All items of a subscription that ends.
pub async fn all<T: Send + 'static>(mut subscription: Subscription<T>) -> Vec<T> {
    let mut items = Vec::new();
    while let Some(item) = within("an item", subscription.next()).await.unwrap() {
        items.push(item);
    }
    items
}
