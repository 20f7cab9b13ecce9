//! The sidecar as a whole: its ports, its stores and the tasks between them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use atomix_driver::resolver::{DnsResolver, HostsFileResolver, Resolver};
use atomix_driver::{ConnectionState, Driver, MemoryDriver, MultiRaftDriver};
use atomix_process::admin::{Admin, Readiness};
use atomix_process::tasks::{TaskError, Tasks};
use atomix_proto::runtime::v1::runtime_server::RuntimeServer;
use atomix_proto::runtime::v1::session_service_server::SessionServiceServer;
use atomix_session_service::Sessions;
use atomix_tls::{Credentials, CredentialsError, Guard, Identity, Party, Rules};
use futures::Stream;
use prometheus_client::registry::Registry;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::application::{self, ApplicationService, Owners};
use crate::control::RuntimeService;
use crate::metrics::Metrics;
use crate::options::Options;
use crate::session_service::OwnSessions;
use crate::sessions::OpenPrimitives;
use crate::state_file::{StateFile, StateFileError};
use crate::stores::Stores;

const RUNTIME: &str = "atomix.runtime.v1.Runtime";
const SESSION_SERVICE: &str = "atomix.runtime.v1.SessionService";
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Why a sidecar could not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// A port is not free or not ours.
    #[error("cannot listen on {address} for {purpose}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What for.
        purpose: &'static str,
        /// Why.
        source: io::Error,
    },
    /// No address for applications was given.
    #[error("no address for applications: give --app-addr")]
    NoApplicationAddress,
    /// The folder of the state file cannot be used.
    #[error("cannot use the state folder")]
    State(#[from] StateFileError),
    /// The certificates cannot be used.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The description of the services is broken.
    #[error("cannot describe the services")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// A sidecar that listens; [`Sidecar::run`] serves.
pub struct Sidecar {
    tasks: Tasks,
    addresses: Addresses,
}

/// Where a sidecar listens; with port 0 in the options these are the ports that it got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    /// The control port.
    pub control: SocketAddr,
    /// The application ports.
    pub application: Vec<SocketAddr>,
    /// The admin port.
    pub admin: SocketAddr,
}

/// The drivers that are built into this program.
/// `credentials` prove to storage nodes who this process is.
pub fn built_in_drivers(
    options: &Options,
    credentials: Option<Credentials>,
) -> Vec<Arc<dyn Driver>> {
    let resolver: Arc<dyn Resolver> = match &options.hosts_file {
        Some(path) => Arc::new(HostsFileResolver::new(path.clone())),
        None => Arc::new(DnsResolver),
    };
    vec![
        Arc::new(MemoryDriver::default()),
        Arc::new(MultiRaftDriver::new(resolver).with_credentials(credentials)),
    ]
}

impl Sidecar {
    /// Listens on all ports, restores what was connected before, and starts to serve. It ends when
    /// `shutdown` is cancelled. With certificates the control port is for the operator alone, and
    /// `drivers` get the credentials that follow them.
    ///
    /// # Errors
    /// When a port, the state folder or the certificates cannot be used.
    pub async fn start(
        options: &Options,
        drivers: impl FnOnce(&Options, Option<Credentials>) -> Vec<Arc<dyn Driver>>,
        shutdown: CancellationToken,
    ) -> Result<Self, StartError> {
        let mut tasks = Tasks::new(shutdown.clone());
        let credentials = open_credentials(options, &mut tasks)?;
        let drivers = drivers(options, credentials.clone());
        let admin_listener = listen(options.admin_addr, "probes and metrics").await?;
        let control_listener = listen(options.control_addr, "the operator").await?;
        let application_listeners = listen_for_applications(&options.app_addr).await?;
        let file = options
            .state_dir
            .as_deref()
            .map(StateFile::open)
            .transpose()?;
        if file.is_none() {
            tracing::warn!("no --state-dir: connections are not kept over a restart");
        }

        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        let admin = Admin::new(registry);
        let readiness = admin.readiness("stores");
        let open = Arc::new(OpenPrimitives::default());
        let stores = Stores::restore(drivers, file, Arc::clone(&open)).await;
        let (owners, closed) = Owners::new();
        let addresses = Addresses {
            control: control_listener.addr,
            application: application_listeners
                .iter()
                .map(|bound| bound.addr)
                .collect(),
            admin: admin_listener.addr,
        };

        tasks.spawn(
            "admin",
            admin.serve(admin_listener.listener, shutdown.clone()),
        );
        tasks.spawn(
            "readiness",
            follow_stores(
                Arc::clone(&stores),
                readiness,
                metrics.clone(),
                shutdown.clone(),
            ),
        );
        tasks.spawn(
            "closed connections",
            end_connections(Arc::clone(&stores), closed, shutdown.clone()),
        );
        // Stores are left only after the last call has ended: then every sender is gone.
        let (serving, mut all_served) = mpsc::channel::<()>(1);
        let guard = credentials.map(only_the_operator);
        let control = control_routes(&stores, options.require_operator, &shutdown).await?;
        let control = match &guard {
            Some(guard) => guard.protect(control),
            None => control,
        };
        tasks.spawn(
            "control",
            serve(
                control,
                atomix_tls::accept(control_listener.listener, guard),
                shutdown.clone(),
                serving.clone(),
            ),
        );
        let service = ApplicationService::new(
            Arc::clone(&stores),
            metrics,
            options.default_deadline,
            shutdown.clone(),
        );
        let application = application_routes(service).await?;
        for bound in application_listeners {
            let connections = application::accept(bound.listener, owners.clone());
            tasks.spawn(
                "application",
                serve(
                    application.clone(),
                    connections,
                    shutdown.clone(),
                    serving.clone(),
                ),
            );
        }
        tasks.spawn("stores", async move {
            shutdown.cancelled().await;
            drop(serving);
            all_served.recv().await;
            stores.shut_down().await;
            Ok::<(), io::Error>(())
        });
        tracing::info!(
            control = %addresses.control,
            application = ?addresses.application,
            admin = %addresses.admin,
            "serving"
        );
        Ok(Self { tasks, addresses })
    }

    /// Where it listens.
    #[must_use]
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Serves until the shutdown.
    ///
    /// # Errors
    /// When a part of it ends before the shutdown, or does not end after it.
    pub async fn run(self) -> Result<(), TaskError> {
        self.tasks.join().await
    }
}

/// `tasks` keep them as the folder changes.
fn open_credentials(
    options: &Options,
    tasks: &mut Tasks,
) -> Result<Option<Credentials>, CredentialsError> {
    let folder = options.tls_directory.as_deref();
    let opened = atomix_tls::open_or_plaintext(folder, tasks.shutdown())?;
    Ok(opened.map(|(credentials, follow)| {
        tasks.spawn("certificates", follow);
        credentials
    }))
}

struct Bound {
    listener: TcpListener,
    addr: SocketAddr,
}

async fn listen(address: SocketAddr, purpose: &'static str) -> Result<Bound, StartError> {
    let failed = |source| StartError::Listen {
        address,
        purpose,
        source,
    };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let addr = listener.local_addr().map_err(failed)?;
    Ok(Bound { listener, addr })
}

/// All addresses, but one whose address family this machine does not have may be missing.
async fn listen_for_applications(addresses: &[SocketAddr]) -> Result<Vec<Bound>, StartError> {
    let mut listeners = Vec::with_capacity(addresses.len());
    let mut missing = None;
    for address in addresses {
        match listen(*address, "applications").await {
            Ok(bound) => listeners.push(bound),
            Err(StartError::Listen { source, .. }) if is_missing_family(&source) => {
                tracing::info!(%address, "this address does not exist here");
                missing = Some(StartError::Listen {
                    address: *address,
                    purpose: "applications",
                    source,
                });
            }
            Err(error) => return Err(error),
        }
    }
    if listeners.is_empty() {
        return Err(missing.unwrap_or(StartError::NoApplicationAddress));
    }
    Ok(listeners)
}

fn is_missing_family(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported
    ) || error.raw_os_error() == Some(EAFNOSUPPORT)
}

/// Linux: the kernel has no IPv6.
const EAFNOSUPPORT: i32 = 97;

fn only_the_operator(credentials: Credentials) -> Guard {
    let operator = || Party::Exactly(Identity::Operator);
    let rules = Rules::new()
        .allow(RUNTIME, operator())
        .allow(SESSION_SERVICE, operator());
    Guard::new(credentials, rules)
}

async fn control_routes(
    stores: &Arc<Stores>,
    requires_operator: bool,
    shutdown: &CancellationToken,
) -> Result<Routes, StartError> {
    let services = [RUNTIME.to_owned(), SESSION_SERVICE.to_owned()];
    let runtime = RuntimeServer::new(RuntimeService::new(Arc::clone(stores), requires_operator));
    let sessions = Sessions::new(OwnSessions::new(Arc::clone(stores)), shutdown.clone());
    let sessions = SessionServiceServer::new(sessions);
    Ok(common_routes(&services)
        .await?
        .add_service(runtime)
        .add_service(sessions))
}

async fn application_routes(service: ApplicationService) -> Result<Routes, StartError> {
    let services: Vec<String> = application::calls::service_names().collect();
    let routes = common_routes(&services).await?;
    // Every path that is not health or reflection: the service knows which exist.
    Ok(routes.into_axum_router().fallback_service(service).into())
}

/// Health and reflection for these services.
async fn common_routes(services: &[String]) -> Result<Routes, StartError> {
    let (reporter, health) = tonic_health::server::health_reporter();
    report_serving(&reporter, services).await;
    let mut reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(atomix_proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
    for service in services {
        reflection = reflection.with_service_name(service);
    }
    let reflection = reflection.with_service_name("grpc.health.v1.Health");
    Ok(Routes::default()
        .add_service(health)
        .add_service(reflection.build_v1()?))
}

async fn report_serving(reporter: &HealthReporter, services: &[String]) {
    for service in services {
        reporter
            .set_service_status(service, ServingStatus::Serving)
            .await;
    }
}

async fn serve<I, IO>(
    routes: Routes,
    connections: I,
    shutdown: CancellationToken,
    _serving: mpsc::Sender<()>,
) -> Result<(), tonic::transport::Error>
where
    I: Stream<Item = io::Result<IO>> + Send + 'static,
    IO: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
    IO: tonic::transport::server::Connected,
{
    let server = Server::builder()
        .http2_keepalive_interval(Some(PING_INTERVAL))
        .http2_keepalive_timeout(Some(PING_TIMEOUT));
    atomix_process::grpc::serve(server, routes, connections, shutdown).await
}

/// Keeps readiness and gauges as the stores are. Ready = every wanted store is reached.
async fn follow_stores(
    stores: Arc<Stores>,
    readiness: Readiness,
    metrics: Metrics,
    shutdown: CancellationToken,
) -> Result<(), io::Error> {
    let mut changes = stores.open_primitives().changes();
    loop {
        let connections = stores.connections();
        let unreached: Vec<String> = connections
            .iter()
            .filter_map(|connection| match &connection.state {
                ConnectionState::Connected => None,
                ConnectionState::Connecting { reason }
                | ConnectionState::Misconfigured { reason } => {
                    Some(format!("store {}: {reason}", connection.store))
                }
            })
            .collect();
        readiness.set(unreached.is_empty(), unreached.join("; "));
        metrics.set_stores(connections.len(), connections.len() - unreached.len());
        metrics.set_open_primitives(stores.open_primitives().count());
        tokio::select! {
            changed = changes.changed() => if changed.is_err() {
                return Ok(());
            },
            () = shutdown.cancelled() => return Ok(()),
        }
    }
}

/// Ends what closed application connections used and owned.
async fn end_connections(
    stores: Arc<Stores>,
    mut closed: mpsc::UnboundedReceiver<application::Closed>,
    shutdown: CancellationToken,
) -> Result<(), io::Error> {
    loop {
        tokio::select! {
            ended = closed.recv() => match ended {
                Some(ended) => {
                    let stores = Arc::clone(&stores);
                    tokio::spawn(async move {
                        stores.connection_closed(ended.owner, ended.owned).await;
                    });
                }
                None => shutdown.cancelled().await,
            },
            () = shutdown.cancelled() => return Ok(()),
        }
    }
}
