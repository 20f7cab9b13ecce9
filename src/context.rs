//! What all controllers share: clients, caches of our own resources, the controllers' kit.

use std::convert::Infallible;

use atomix_process::admin::Admin;
use atomix_process::tasks::Tasks;
use k8s_openapi::NamespaceResourceScope;
use kube::core::DeserializeGuard;
use kube::{Api, Client, Resource};

use atomix_controller::cache::Watch;
use atomix_controller::dialer::Channels;
use atomix_controller::metrics::Metrics;

use crate::store::spec::config_from::ConfigSources;
use atomix_controller::{Applier, Cache, Events};
use atomix_resources::{Driver, Session, Store};

/// Which namespaces the operator serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// All.
    Cluster,
    /// Only this one; Drivers are only read then.
    Namespace(String),
}

impl Scope {
    /// Whether objects of this namespace are served.
    #[must_use]
    pub fn serves(&self, namespace: &str) -> bool {
        match self {
            Self::Cluster => true,
            Self::Namespace(served) => served == namespace,
        }
    }

    /// The API for all served objects of a namespaced kind.
    #[must_use]
    pub fn api<K>(&self, client: &Client) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        match self {
            Self::Cluster => Api::all(client.clone()),
            Self::Namespace(namespace) => Api::namespaced(client.clone(), namespace),
        }
    }
}

/// What all controllers share. Clones share everything.
#[derive(Clone)]
pub struct Context {
    /// The client for everything but the lease.
    pub client: Client,
    /// Which namespaces are served.
    pub scope: Scope,
    /// Channels to nodes and runtimes.
    pub channels: Channels,
    /// Server-side apply with memory.
    pub applier: Applier,
    /// Kubernetes Events.
    pub events: Events,
    /// Counters.
    pub metrics: Metrics,
    /// Where parts report whether they are ready.
    pub admin: Admin,
    /// All served Stores, also those that do not decode.
    pub stores: Cache<DeserializeGuard<Store>>,
    /// All served Sessions, also those that do not decode.
    pub sessions: Cache<DeserializeGuard<Session>>,
    /// All Drivers, also those that do not decode.
    pub drivers: Cache<DeserializeGuard<Driver>>,
    /// What Stores take from Secrets and ConfigMaps.
    pub config_sources: ConfigSources,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Context")
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}

impl Context {
    /// Starts the watch that keeps `cache`; see [`Cache::follow`].
    pub fn follow<K>(
        &self,
        tasks: &mut Tasks,
        resource: &'static str,
        cache: &Cache<K>,
        watch: impl Fn() -> Watch<K> + Send + 'static,
        prune: impl Fn(&mut K) + Send + 'static,
    ) where
        K: Resource<DynamicType = ()> + Send + Sync + 'static,
    {
        let readiness = self.admin.readiness(resource);
        let metrics = self.metrics.clone();
        let shutdown = tasks.shutdown().clone();
        let following = cache
            .clone()
            .follow(resource, metrics, readiness, shutdown, watch, prune);
        tasks.spawn(resource, async move {
            following.await;
            Ok::<(), Infallible>(())
        });
    }

    /// The same, for calls that take nodes and runtimes over from another operator, because a person
    /// has said so.
    #[must_use]
    pub fn taking_over(&self) -> Self {
        Self {
            channels: self.channels.taking_over(),
            ..self.clone()
        }
    }

    /// Waits until Stores, Sessions and Drivers have been listed.
    pub async fn synced(&self) {
        self.stores.synced().await;
        self.sessions.synced().await;
        self.drivers.synced().await;
    }
}
