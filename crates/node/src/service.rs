//! Puts a node together and runs it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use atomix_primitives::Kinds;
use atomix_process::admin::{Admin, Readiness};
use atomix_process::tasks::{TaskError, Tasks};
use atomix_proto::multiraft::v1::members_server::{self, MembersServer};
use atomix_proto::multiraft::v1::node_server::{self, NodeServer};
use atomix_proto::multiraft::v1::partitions_server::{self, PartitionsServer};
use atomix_proto::multiraft::v1::peers_server::{self, PeersServer};
use atomix_proto::multiraft::v1::plans_server::{self, PlansServer};
use atomix_raft::{Engine, EngineOptions};
use atomix_tls::Guard;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::{broadcast, mpsc};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::bootstrap::{Bootstrapper, PlansService};
use crate::control::NodeService;
use crate::drain;
use crate::error::NodeError;
use crate::exchange::PartitionsService;
use crate::faults::{Fault, Faults};
use crate::fence;
use crate::grpc;
use crate::hosted::Hosted;
use crate::members::{Asker, Joiner, MembersService, watch_standing};
use crate::metrics::Metrics;
use crate::options::{Options, RaftSettings};
use crate::partition::Environment;
use crate::peers::{Greeting, PeerTransport, PeersService};
use crate::reach::Reach;
use crate::recover::retire::retire_former;
use crate::resolver::{DnsResolver, HostsFileResolver, Resolver};
use crate::security::Security;

/// Events that a watcher may lag behind.
const WATCH_EVENTS: usize = 1024;
const SHUTDOWN_GRACE: Duration = Duration::from_secs(10);

type AdjustEngine = Box<dyn FnOnce(EngineOptions) -> EngineOptions + Send>;

/// A node that is about to run.
pub struct Service {
    options: Options,
    resolver: Arc<dyn Resolver>,
    kinds: Kinds,
    adjust_engine: AdjustEngine,
}

/// A running node.
pub struct Handle {
    /// Where the Node service listens.
    pub control_addr: SocketAddr,
    /// Where peers and drivers connect.
    pub peer_addr: SocketAddr,
    /// Where probes and metrics are served.
    pub admin_addr: SocketAddr,
    /// The id of the data directory.
    pub node_id: u64,
    tasks: Tasks,
}

impl Handle {
    /// Waits until the node has stopped: because the token was cancelled, or because something that
    /// it cannot do without broke.
    ///
    /// # Errors
    /// What broke.
    pub async fn join(self) -> Result<(), TaskError> {
        self.tasks.join().await
    }
}

impl Service {
    /// A node with these options, which looks names up in the hosts file, if any, and in DNS.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let resolver: Arc<dyn Resolver> = match &options.hosts_file {
            Some(path) => Arc::new(HostsFileResolver::new(path.clone())),
            None => Arc::new(DnsResolver),
        };
        Self {
            options,
            resolver,
            kinds: Kinds::standard(),
            adjust_engine: Box::new(std::convert::identity),
        }
    }

    /// Looks names up elsewhere.
    #[must_use]
    pub fn with_resolver(mut self, resolver: Arc<dyn Resolver>) -> Self {
        self.resolver = resolver;
        self
    }

    /// Serves other kinds of primitive than the standard ones. All nodes of a store must have the
    /// same.
    #[must_use]
    pub fn with_kinds(mut self, kinds: Kinds) -> Self {
        self.kinds = kinds;
        self
    }

    /// Opens the data directory with other settings than the engine's own; for tests, which have no
    /// time to write as much as makes a production node take snapshots.
    #[must_use]
    pub fn with_engine_options(
        mut self,
        adjust: impl FnOnce(EngineOptions) -> EngineOptions + Send + 'static,
    ) -> Self {
        self.adjust_engine = Box::new(adjust);
        self
    }

    /// Opens the data directory, starts its partitions and serves until `shutdown` is cancelled, and
    /// then as long as other nodes need to take over what this one leads.
    ///
    /// # Errors
    /// When an address is taken or the data directory cannot be used.
    pub async fn start(self, shutdown: CancellationToken) -> Result<Handle, NodeError> {
        let Self {
            options,
            resolver,
            kinds,
            adjust_engine,
        } = self;
        let control = listen(options.control_addr).await?;
        let peer = listen(options.peer_addr).await?;
        let admin_listener = listen(options.admin_addr).await?;
        // Cancelled when the leaderships are handed over, or when something broke.
        let stop = CancellationToken::new();
        let mut tasks = Tasks::new(stop.clone()).with_grace(SHUTDOWN_GRACE);
        let security = Security::open(&options, &mut tasks)?;
        let reach = Reach::new(resolver, security.credentials());

        let metrics = Metrics::default();
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        let admin = Admin::new(registry);
        let readiness = admin.readiness("node");
        readiness.not_ready("the log is being read");
        let admin_addr = admin_listener.1;
        tasks.spawn("admin server", admin.serve(admin_listener.0, stop.clone()));

        let raft = RaftSettings::of(&options);
        // Reads all of the log.
        let engine_options = adjust_engine(EngineOptions::new(options.data_dir));
        let engine = tokio::task::spawn_blocking(move || Engine::open(engine_options))
            .await
            .map_err(NodeError::OpenEnded)??;
        let node_id = engine.node_id();
        tracing::info!(
            node = format!("{:016x}", node_id.0),
            boot = engine.boot_counter(),
            partitions = engine.groups().len(),
            version = env!("CARGO_PKG_VERSION"),
            "the data directory is open"
        );

        let greeting = Arc::new(Greeting::new(
            node_id,
            engine.boot_counter(),
            engine.boot_counters(),
        ));
        let (faults, reported) = Faults::new();
        let (events, _) = broadcast::channel(WATCH_EVENTS);
        let fence = fence::of(&engine, options.require_operator);
        let transport = PeerTransport::new(Arc::clone(&greeting), reach.clone(), stop.clone());
        let environment = Environment {
            engine: engine.clone(),
            raft,
            kinds: Arc::new(kinds),
            transport: Arc::new(transport),
            faults,
            metrics,
            events: events.clone(),
        };
        let hosted = Arc::new(Hosted::start(environment).await?);
        tasks.spawn(
            "storage",
            guard(engine, reported, Arc::clone(&hosted), stop.clone()),
        );

        let asker = Arc::new(Asker::new(Arc::clone(&hosted), reach.clone()));
        let joiner = Joiner::new(Arc::clone(&hosted), Arc::clone(&asker), stop.clone());
        let standing = watch_standing(
            Arc::clone(&hosted),
            Arc::clone(&asker),
            joiner.clone(),
            stop.clone(),
        );
        tasks.spawn("standing", standing);
        let retiring = retire_former(Arc::clone(&hosted), Arc::clone(&asker), stop.clone());
        tasks.spawn("retire", retiring);
        let draining =
            drain::drain_at_shutdown(Arc::clone(&hosted), shutdown.clone(), stop.clone());
        tasks.spawn("drain", draining);

        let control_addr = control.1;
        let peer_addr = peer.1;
        let node_service = NodeService {
            bootstrapper: Arc::new(Bootstrapper::new(Arc::clone(&hosted), reach)),
            asker,
            joiner: joiner.clone(),
            fence,
            hosted: Arc::clone(&hosted),
            events,
            shutdown: stop.clone(),
        };
        let guard = security.control();
        serve_control(&mut tasks, control.0, node_service, guard, &stop).await?;
        let guard = security.data(&mut tasks);
        serve_peers(&mut tasks, peer.0, hosted, greeting, guard, &stop).await?;
        joiner.resume();
        readiness.ready();
        tasks.spawn("readiness", leave_at_shutdown(readiness, shutdown, stop));
        tracing::info!(%control_addr, %peer_addr, %admin_addr, "the node serves");
        Ok(Handle {
            control_addr,
            peer_addr,
            admin_addr,
            node_id: node_id.0,
            tasks,
        })
    }
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), NodeError> {
    let failed = |source| NodeError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

async fn serve_control(
    tasks: &mut Tasks,
    listener: TcpListener,
    service: NodeService,
    guard: Option<Guard>,
    shutdown: &CancellationToken,
) -> Result<(), NodeError> {
    let (health, health_service) = tonic_health::server::health_reporter();
    let service = NodeServer::new(service).max_decoding_message_size(grpc::MAX_CONTROL_MESSAGE);
    health.set_serving::<NodeServer<NodeService>>().await;
    let routes = Routes::new(service)
        .add_service(health_service)
        .add_service(grpc::reflection(&[node_server::SERVICE_NAME])?);
    let serving = grpc::serve(listener, routes, guard, shutdown.clone());
    tasks.spawn("control server", serving);
    Ok(())
}

async fn serve_peers(
    tasks: &mut Tasks,
    listener: TcpListener,
    hosted: Arc<Hosted>,
    greeting: Arc<Greeting>,
    guard: Option<Guard>,
    shutdown: &CancellationToken,
) -> Result<(), NodeError> {
    let (health, health_service) = tonic_health::server::health_reporter();
    let peers = PeersServer::new(PeersService {
        hosted: Arc::clone(&hosted),
        greeting,
        shutdown: shutdown.clone(),
    })
    .max_decoding_message_size(grpc::MAX_PEER_MESSAGE)
    .max_encoding_message_size(grpc::MAX_PEER_MESSAGE);
    let plans = PlansServer::new(PlansService {
        hosted: Arc::clone(&hosted),
    })
    .max_decoding_message_size(grpc::MAX_CONTROL_MESSAGE);
    let members = MembersServer::new(MembersService {
        hosted: Arc::clone(&hosted),
    })
    .max_decoding_message_size(grpc::MAX_CONTROL_MESSAGE);
    let partitions = PartitionsServer::new(PartitionsService {
        hosted,
        shutdown: shutdown.clone(),
    })
    .max_decoding_message_size(grpc::MAX_DRIVER_MESSAGE)
    .max_encoding_message_size(grpc::MAX_NODE_MESSAGE);
    health.set_serving::<PeersServer<PeersService>>().await;
    health.set_serving::<PlansServer<PlansService>>().await;
    health.set_serving::<MembersServer<MembersService>>().await;
    health
        .set_serving::<PartitionsServer<PartitionsService>>()
        .await;
    let routes = Routes::new(peers)
        .add_service(plans)
        .add_service(members)
        .add_service(partitions)
        .add_service(health_service)
        .add_service(grpc::reflection(&[
            peers_server::SERVICE_NAME,
            plans_server::SERVICE_NAME,
            members_server::SERVICE_NAME,
            partitions_server::SERVICE_NAME,
        ])?);
    let serving = grpc::serve(listener, routes, guard, shutdown.clone());
    tasks.spawn("peer server", serving);
    Ok(())
}

/// Ends with the first fatal failure; at the shutdown, stops the partitions.
async fn guard(
    engine: Engine,
    mut reported: mpsc::UnboundedReceiver<Fault>,
    hosted: Arc<Hosted>,
    shutdown: CancellationToken,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    tokio::select! {
        error = engine.failed() => Err(error.into()),
        Some(fault) = reported.recv() => Err(fault.into()),
        () = shutdown.cancelled() => {
            hosted.stop().await;
            Ok(())
        }
    }
}

async fn leave_at_shutdown(
    readiness: Readiness,
    shutdown: CancellationToken,
    stop: CancellationToken,
) -> Result<(), std::convert::Infallible> {
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = stop.cancelled() => {}
    }
    readiness.not_ready("shutting down");
    stop.cancelled().await;
    Ok(())
}
