//! An operator in this process that can be killed at any call.
//!
//! Each has a thread and a tokio runtime of its own: when it is killed, all its tasks, connections
//! and memory go with the runtime, as with a process.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use atomix_controller::lease::{LeaseLost, LeaseOptions};
use atomix_controller::metrics::Metrics;
use atomix_operator::Scope;
use atomix_operator::identities::IdentityOptions;
use atomix_operator::operator::{Listeners, Operator, OperatorError, Options};
use atomix_operator::session::SessionOptions;
use atomix_operator::store::StoreOptions;
use atomix_tls::Credentials;
use kube::Client;
use kube::client::ClientBuilder;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::api_server::ApiServer;
use crate::fault::{Audit, Disturbance, Gate, Names, WatchTimeout, WatchedApi, WatchedDialer};
use crate::invariants::Guard;
use crate::wait::until;
use crate::webhook::Served;
use crate::{http, samples};

/// The name of every operator's lease.
pub const LEASE: &str = "atomix-operator";

/// How an operator is started.
pub struct Settings {
    /// Where.
    pub server: ApiServer,
    /// Which namespaces it serves.
    pub scope: Scope,
    /// Namespace of its lease.
    pub lease_namespace: String,
    /// Whether the lease expires sooner than it does by default: a test that kills operators
    /// waits for it each time.
    pub short_lease: bool,
    /// Settings of its session controller.
    pub sessions: SessionOptions,
    /// Namespaces whose Secrets it may read.
    pub secret_namespaces: Vec<String>,
    /// What it has to live through.
    pub disturbance: Option<Disturbance>,
    /// Seconds that watches last.
    pub watch_timeout: WatchTimeout,
    /// Its identities: with some, new Stores speak mutual TLS.
    pub identities: Option<IdentityOptions>,
    /// Where it serves the injection webhook, if it does.
    pub webhook: Option<Served>,
    /// Records what it asks of the API server.
    pub audit: Option<Audit>,
    /// It makes NetworkPolicies.
    pub network_policies: bool,
    /// The names of the pods by address.
    pub names: Names,
}

impl Settings {
    /// Those of another operator like this one, without a webhook: only one can have its socket.
    #[must_use]
    pub fn again(&self) -> Self {
        Self {
            server: self.server.clone(),
            scope: self.scope.clone(),
            lease_namespace: self.lease_namespace.clone(),
            short_lease: self.short_lease,
            sessions: self.sessions,
            secret_namespaces: self.secret_namespaces.clone(),
            disturbance: self.disturbance.clone(),
            watch_timeout: self.watch_timeout,
            identities: self.identities.clone(),
            webhook: None,
            audit: self.audit.clone(),
            network_policies: self.network_policies,
            names: Arc::clone(&self.names),
        }
    }
}

/// A running operator; killed when it is dropped.
#[derive(Debug)]
pub struct OperatorUnderTest {
    started: Instant,
    api: SocketAddr,
    admin: SocketAddr,
    gate: Gate,
    shutdown: CancellationToken,
    thread: Option<JoinHandle<Result<()>>>,
}

impl OperatorUnderTest {
    /// Starts an operator with an empty memory.
    pub fn start(settings: Settings) -> Self {
        let gate = Gate::new(settings.disturbance.clone());
        let shutdown = CancellationToken::new();
        let bind = || {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
            let address = listener.local_addr().expect("a bound port has an address");
            (listener, address)
        };
        let (api_listener, api) = bind();
        let (admin_listener, admin) = bind();
        let thread = std::thread::Builder::new()
            .name("operator".to_owned())
            .spawn({
                let (gate, shutdown) = (gate.clone(), shutdown.clone());
                move || live(settings, [api_listener, admin_listener], gate, shutdown)
            })
            .expect("a thread can be started");
        Self {
            started: Instant::now(),
            api,
            admin,
            gate,
            shutdown,
            thread: Some(thread),
        }
    }

    /// When it was started.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Where it serves gRPC.
    pub fn api(&self) -> SocketAddr {
        self.api
    }

    /// Where it serves probes and metrics.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Its calls.
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Waits until it says that it is ready.
    ///
    /// # Errors
    /// What it says instead.
    pub async fn until_ready(&self, limit: Duration) -> Result<()> {
        until("the operator to be ready", limit, async || {
            let (code, text) = http::get(self.admin, "/readyz").await?;
            ensure!(code == 200, "{code}: {text}");
            Ok(())
        })
        .await
    }

    /// Whether it has ended, killed or by itself.
    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Fails when it ended although nobody killed it. On a machine that is too busy an operator may
    /// lose its lease; that it ends then is right, and counts as a kill.
    ///
    /// # Errors
    /// Why it ended.
    pub fn check_alive_or_killed(&mut self) -> Result<()> {
        if !self.has_ended() || self.gate.ended().is_cancelled() {
            return Ok(());
        }
        match self.join() {
            Ok(()) => bail!("the operator ended although nobody asked it to"),
            Err(error) if is_lease_not_renewed(&error) => {
                println!("the machine is too busy, so an operator is started again: {error:#}");
                self.gate.end();
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Waits for the end of one that another one has taken the lease from.
    ///
    /// # Errors
    /// When it ended for another reason.
    pub fn finish_after_its_lease(mut self) -> Result<()> {
        match self.join() {
            Ok(()) => bail!("the operator ended although nobody asked it to"),
            Err(error) if matches!(error.downcast_ref(), Some(OperatorError::Lease(_))) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Waits for the end of one that could not renew its lease.
    ///
    /// # Errors
    /// When it ended for another reason.
    pub fn finish_unrenewed(mut self) -> Result<()> {
        match self.join() {
            Ok(()) => bail!("the operator ended although nobody asked it to"),
            Err(error) if is_lease_not_renewed(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Kills it, unless it has been; nothing of it runs when this returns.
    ///
    /// # Errors
    /// When it had ended by itself before.
    pub fn finish(&mut self) -> Result<()> {
        self.check_alive_or_killed()?;
        self.gate.end();
        self.join()
    }

    /// Ends it as SIGTERM does.
    ///
    /// # Errors
    /// When it does not end in order.
    pub fn terminate(mut self) -> Result<()> {
        self.check_alive_or_killed()?;
        self.shutdown.cancel();
        self.join()
    }

    fn join(&mut self) -> Result<()> {
        let Some(thread) = self.thread.take() else {
            return Ok(());
        };
        match thread.join() {
            Ok(ended) => ended,
            Err(_) => bail!("the operator's thread panicked"),
        }
    }
}

impl Drop for OperatorUnderTest {
    fn drop(&mut self) {
        self.gate.end();
        if let Err(error) = self.join() {
            eprintln!("an operator ended with an error: {error:#}");
        }
    }
}

fn is_lease_not_renewed(error: &anyhow::Error) -> bool {
    matches!(
        error.downcast_ref(),
        Some(OperatorError::Lease(LeaseLost::NotRenewed { .. }))
    )
}

fn live(
    settings: Settings,
    [api, admin]: [TcpListener; 2],
    gate: Gate,
    shutdown: CancellationToken,
) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut settings = settings;
        let webhook = settings.webhook.take();
        let options = options(settings, &gate)?;
        api.set_nonblocking(true)?;
        admin.set_nonblocking(true)?;
        let listeners = Listeners {
            admin: Some(tokio::net::TcpListener::from_std(admin)?),
            api: Some(tokio::net::TcpListener::from_std(api)?),
            webhook: webhook.map(|Served { listener, options }| (listener, options)),
        };
        let operator = Operator::new(options, listeners).start(shutdown.clone());
        tokio::select! {
            () = gate.ended().cancelled() => Ok(()),
            ended = operator.wait() => ended.context("the operator ended"),
        }
    })
}

/// A client as the operator's programs have it, whose calls go through the layer.
pub(crate) fn watched_client(
    server: &ApiServer,
    layer: &WatchedApi,
    metrics: &Metrics,
) -> Result<Client> {
    let config = atomix_controller::client::hardened(server.config());
    let builder = ClientBuilder::try_from(config)?.with_layer(layer);
    Ok(atomix_controller::client::build(builder, metrics))
}

fn options(settings: Settings, gate: &Gate) -> Result<Options> {
    static STARTED: AtomicU32 = AtomicU32::new(0);
    let number = STARTED.fetch_add(1, Ordering::Relaxed);
    let identity = format!("operator-{}-{number}", std::process::id());
    let metrics = Metrics::default();
    let layer = WatchedApi::new(
        gate.clone(),
        Guard::new(settings.server.client(), Arc::clone(&settings.names)),
        settings.watch_timeout,
        settings.audit.clone(),
    );
    let client = || watched_client(&settings.server, &layer, &metrics);
    let mut lease = LeaseOptions::new(settings.lease_namespace.clone(), LEASE.to_owned(), identity);
    if settings.short_lease {
        lease.duration = Duration::from_secs(5);
        lease.renew_deadline = Duration::from_millis(4500);
        lease.renew_every = Duration::from_secs(1);
        lease.look_every = Duration::from_millis(200);
    }
    let operator_namespace = settings.lease_namespace.clone();
    let operator_namespace = settings.network_policies.then_some(operator_namespace);
    // Empty as the memory of a new process is.
    let identities = settings.identities.map(|identities| IdentityOptions {
        credentials: Credentials::default(),
        ..identities
    });
    let credentials = identities.as_ref();
    let credentials = credentials.map(|identities| identities.credentials.clone());
    let dialer = WatchedDialer::new(gate.clone(), Arc::clone(&settings.names), credentials);
    Ok(Options {
        client: client()?,
        lease_client: client()?,
        dialer: Arc::new(dialer),
        scope: settings.scope,
        lease,
        stores: StoreOptions {
            tls: identities.is_some(),
            network_policies: operator_namespace,
            ..samples::store_options()
        },
        sessions: settings.sessions,
        identities,
        secret_namespaces: settings.secret_namespaces,
        metrics,
    })
}
