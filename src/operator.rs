//! Wires the operator: options in, a running service out, a handle to end it.
//!
//! Clients and the dialer are given from outside, so a test can see, count and fail every call.

use std::convert::Infallible;
use std::sync::Arc;

use atomix_process::admin::Admin;
use atomix_process::tasks::{TaskError, Tasks};
use kube::{Api, Client};
use prometheus_client::registry::Registry;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::api::{self, AllSessions, StoreNodes};
use crate::context::{Context, Scope};
use crate::crds::{self, Crds};
use crate::driver::DriverController;
use crate::identities::{Identities, IdentityOptions};
use crate::object_counts;
use crate::runtimes::Runtimes;
use crate::session::{SessionController, SessionOptions};
use crate::store::spec::config_from::ConfigSources;
use crate::store::{StoreController, StoreOptions};
use crate::webhook::{Webhook, WebhookOptions};
use atomix_controller::dialer::{Channels, Dialer};
use atomix_controller::lease::{self, LeaseLost, LeaseOptions};
use atomix_controller::metrics::Metrics;
use atomix_controller::{Applier, Cache, Caller, Events, cache};

/// Channels to nodes and runtimes that are kept for their next call. Beyond them each followed node
/// has one (at most 512, see `store::nodes::watches`), and each call that goes on.
const KEPT_CHANNELS: usize = 256;

/// What an operator needs.
#[derive(Clone)]
pub struct Options {
    /// For everything but the lease; see [`atomix_controller::client::connect`].
    pub client: Client,
    /// For the lease alone, with connections of its own: a busy operator must still renew.
    pub lease_client: Client,
    /// How nodes and runtimes are reached.
    pub dialer: Arc<dyn Dialer>,
    /// Which namespaces are served.
    pub scope: Scope,
    /// The lease.
    pub lease: LeaseOptions,
    /// Namespaces whose labelled Secrets may be read for Stores.
    pub secret_namespaces: Vec<String>,
    /// Settings of the Store controller.
    pub stores: StoreOptions,
    /// Settings of the session controller.
    pub sessions: SessionOptions,
    /// Identities for mutual TLS; `None` = plain text. The dialer has the same credentials.
    pub identities: Option<IdentityOptions>,
    /// Counters; also given to [`atomix_controller::client::connect`].
    pub metrics: Metrics,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Options")
            .field("scope", &self.scope)
            .field("lease", &self.lease)
            .field("stores", &self.stores)
            .field("sessions", &self.sessions)
            .finish_non_exhaustive()
    }
}

/// Why an operator ended.
#[derive(Debug, Error)]
pub enum OperatorError {
    /// A task that the operator needs ended.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// Another operator may act now.
    #[error(transparent)]
    Lease(#[from] LeaseLost),
    /// The webhook cannot be served at all.
    #[error("cannot serve the webhook by TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The operator itself panicked or was killed.
    #[error("operator ended without a result")]
    Aborted,
}

/// Where an operator serves; what has no listener is not served.
#[derive(Debug, Default)]
pub struct Listeners {
    /// Probes and metrics, plain HTTP.
    pub admin: Option<TcpListener>,
    /// SessionService and Stores, gRPC.
    pub api: Option<TcpListener>,
    /// The injection webhook, HTTPS, and its settings.
    pub webhook: Option<(std::net::TcpListener, WebhookOptions)>,
}

/// An operator that can be started.
#[derive(Debug)]
pub struct Operator {
    options: Options,
    listeners: Listeners,
}

/// A running operator. Dropping it lets the operator run on.
#[derive(Debug)]
pub struct Handle {
    shutdown: CancellationToken,
    running: JoinHandle<Result<(), OperatorError>>,
}

impl Operator {
    /// An operator that serves there.
    #[must_use]
    pub fn new(options: Options, listeners: Listeners) -> Self {
        Self { options, listeners }
    }

    /// Starts it. It ends in order when `shutdown` is cancelled.
    #[must_use]
    pub fn start(self, shutdown: CancellationToken) -> Handle {
        let running = tokio::spawn(run(self.options, self.listeners, shutdown.clone()));
        Handle { shutdown, running }
    }
}

impl Handle {
    /// Ends the operator in order: running reconciles end, then the lease is released.
    ///
    /// # Errors
    /// When it did not end in order.
    pub async fn stop(self) -> Result<(), OperatorError> {
        self.shutdown.cancel();
        self.wait().await
    }

    /// Waits until the operator ends.
    ///
    /// # Errors
    /// When it ended before it was asked to.
    pub async fn wait(self) -> Result<(), OperatorError> {
        self.running.await.unwrap_or(Err(OperatorError::Aborted))
    }

    /// Ends the operator as a crash would: every task at its next await point, nothing finished,
    /// nothing released. As after a crash, a request that was sent may still take effect.
    pub async fn kill(self) {
        self.running.abort();
        let _aborted = self.running.await;
    }
}

async fn run(
    options: Options,
    listeners: Listeners,
    shutdown: CancellationToken,
) -> Result<(), OperatorError> {
    let mut registry = Registry::default();
    options.metrics.register(&mut registry);
    let admin = Admin::new(registry);
    let (events, event_writer) = Events::new(
        options.client.clone(),
        &options.lease.identity,
        options.metrics.clone(),
    );
    let context = Context {
        client: options.client.clone(),
        scope: options.scope.clone(),
        channels: Channels::new(
            options.dialer,
            KEPT_CHANNELS,
            options.metrics.clone(),
            Caller::new(options.lease.operator_id()),
        ),
        applier: Applier::new(options.client.clone()),
        events,
        metrics: options.metrics.clone(),
        admin: admin.clone(),
        stores: Cache::default(),
        sessions: Cache::default(),
        drivers: Cache::default(),
        config_sources: ConfigSources::new(options.client.clone(), &options.secret_namespaces),
    };
    object_counts::follow(&context);
    let lease_readiness = context.admin.readiness(lease::READINESS);
    let stores = StoreController::new(&context, options.stores);
    let drivers = DriverController::new(&context);
    let runtimes = Runtimes::new(&context);
    let sessions = SessionController::new(&context, &runtimes, options.sessions);

    let identities = options
        .identities
        .map(|identities| Identities::new(&context, &runtimes, identities));

    // What works without the lease. Events are written last, so they end with their own token.
    let base_token = CancellationToken::new();
    let mut base = Tasks::new(base_token.clone());
    if let Some(listener) = listeners.admin {
        base.spawn("admin server", admin.serve(listener, base_token.clone()));
    }
    if let Some(listener) = listeners.api {
        let sessions = AllSessions::new(&context.sessions);
        let nodes = StoreNodes::new(&context.stores, stores.pods(), &context.channels);
        base.spawn(
            "API server",
            api::serve(listener, sessions, nodes, base_token.clone()),
        );
    }
    base.spawn("idle channels", {
        let closing = context.channels.clone().close_idle(base_token.clone());
        async move {
            closing.await;
            Ok::<(), Infallible>(())
        }
    });
    base.spawn("events", {
        let token = base_token.clone();
        async move {
            event_writer.run(token).await;
            Ok::<(), Infallible>(())
        }
    });
    follow_shared(&context, &mut base);
    let crds = Crds::default();
    base.spawn("custom resource definitions", {
        let readiness = context.admin.readiness(crds::READINESS);
        crds.clone()
            .follow(options.client.clone(), readiness, base_token.clone())
    });
    stores.watch(&mut base);
    runtimes.watch(&mut base);
    if let Some(identities) = &identities {
        identities.watch(&mut base);
    }
    let mut certificates = None;
    if let Some((listener, options)) = listeners.webhook {
        let webhook = Webhook::new(&context, options);
        webhook.start(&context, listener, &mut base)?;
        let made = webhook.certificates().clone();
        base.spawn("webhook certificates", made.clone().run(base_token.clone()));
        certificates = Some(made);
    }
    let base = base.join();
    tokio::pin!(base);

    let acquired = tokio::select! {
        ended = &mut base => return ended.map_err(Into::into),
        acquired = lease::acquire(
            options.lease_client,
            options.lease,
            options.metrics,
            lease_readiness,
            shutdown.clone(),
        ) => acquired,
    };
    let Some(held) = acquired else {
        base_token.cancel();
        return base.await.map_err(Into::into);
    };

    let release = CancellationToken::new();
    let caller = context.channels.caller();
    caller.act_in(held.term());
    let keeper = held.keep(caller.clone(), release.clone());
    tokio::pin!(keeper);
    let mut controllers = Tasks::new(shutdown.child_token());
    let token = controllers.shutdown().clone();
    controllers.spawn(
        "store controller",
        crds.clone()
            .before(token.clone(), stores.run(token.clone())),
    );
    controllers.spawn(
        "driver controller",
        crds.clone()
            .before(token.clone(), drivers.run(token.clone())),
    );
    if let Some(identities) = identities {
        let run = identities.run(runtimes.clone(), token.clone());
        controllers.spawn("identities", run);
    }
    controllers.spawn(
        "runtime controller",
        crds.clone()
            .before(token.clone(), runtimes.run(token.clone())),
    );
    controllers.spawn(
        "session controller",
        crds.clone()
            .before(token.clone(), sessions.run(token.clone())),
    );
    if let Some(certificates) = certificates {
        certificates.lead();
    }

    // Returning drops, and so aborts, whatever still runs.
    let result = tokio::select! {
        lost = &mut keeper => return lost.map_err(Into::into),
        ended = &mut base => return ended.map_err(Into::into),
        ended = controllers.join() => ended,
    };
    release.cancel();
    keeper.await?;
    base_token.cancel();
    let drained = base.await;
    result.and(drained).map_err(Into::into)
}

/// Watches Stores, Sessions and Drivers, which several controllers read.
fn follow_shared(context: &Context, tasks: &mut Tasks) {
    let (client, scope) = (&context.client, &context.scope);
    context.follow(
        tasks,
        "stores",
        &context.stores,
        cache::objects(scope.api(client), ""),
        cache::prune_metadata,
    );
    context.follow(
        tasks,
        "sessions",
        &context.sessions,
        cache::objects(scope.api(client), ""),
        cache::prune_metadata,
    );
    context.follow(
        tasks,
        "drivers",
        &context.drivers,
        cache::objects(Api::all(client.clone()), ""),
        cache::prune_metadata,
    );
}
