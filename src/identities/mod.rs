//! The identities of operator, nodes and runtimes: an authority of the operator's own, or taken over from
//! somebody else who makes it, and short-lived certificates signed by it. The leader makes and renews
//! them; every replica signs one for itself.
//!
//! One Secret in a namespace holds the certificates of all its Stores' nodes, each pod mounts only
//! its Store's; another that of the namespace's runtimes. Both have fixed names, so that the
//! operator needs no permission for other Secrets. See docs/adr/0010.
//!
//! Not for the webhook's certificate, which the API server trusts (`certificates`), nor for who may
//! call what (crate `atomix-tls`).

pub mod args;
mod authority;
#[cfg(test)]
mod company;
mod keeper;
mod leaves;
mod own;
mod seen;
mod source;

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;

use atomix_process::tasks::Tasks;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::core::DeserializeGuard;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::runtimes::Runtimes;
use atomix_controller::cache::{self, Change};
use atomix_controller::queue::{self, RunError};
use atomix_controller::{ObjectKey, Queue};
use atomix_resources::Store;
use atomix_tls::Credentials;

pub use authority::Lifetimes;

use keeper::Keeper;
use own::Own;
use seen::Seen;

/// The Secret of a namespace with the certificates of its Stores' nodes: STORE.crt and STORE.key of
/// each.
pub const NODES_SECRET: &str = "atomix-nodes-tls";
/// The Secret of a namespace with the certificate of its runtimes.
pub const RUNTIME_SECRET: &str = "atomix-runtime-tls";

/// Namespaces that are worked on at a time.
const CONCURRENCY: usize = 8;

/// What the identities are made of.
#[derive(Clone, Debug)]
pub struct IdentityOptions {
    /// Namespace and name of the authority's Secret.
    pub authority: ObjectKey,
    /// The Secret that each authority is taken over from; `None` = they are made here.
    pub source: Option<ObjectKey>,
    /// How long certificates live.
    pub lifetimes: Lifetimes,
    /// What the operator proves its own identity with: set as soon as there is an authority.
    pub credentials: Credentials,
}

/// The identities.
#[derive(Clone)]
pub struct Identities {
    context: Context,
    options: IdentityOptions,
    seen: Arc<Seen>,
    queue: Queue<ObjectKey>,
    authority_changed: Arc<Notify>,
}

impl fmt::Debug for Identities {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Identities")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl Identities {
    /// Identities that follow the shared caches; make them before the caches run.
    #[must_use]
    pub fn new(context: &Context, runtimes: &Runtimes, options: IdentityOptions) -> Self {
        let identities = Self {
            context: context.clone(),
            seen: Arc::new(Seen::new(&options.authority, options.source.as_ref())),
            options,
            queue: Queue::default(),
            authority_changed: Arc::default(),
        };
        identities.listen_to_secrets();
        let listener = identities.clone_for_listener();
        context.stores.listen(move |change| {
            let key = ObjectKey::of(change.object().as_ref());
            let is_there = !matches!(change, Change::Deleted(_)) && has_nodes(change.object());
            listener.add_if(listener.seen.store(&key, is_there), &key);
        });
        let listener = identities.clone_for_listener();
        context.sessions.listen(move |change| {
            let key = ObjectKey::of(change.object().as_ref());
            let is_there = !matches!(change, Change::Deleted(_));
            listener.add_if(listener.seen.user("session", &key, is_there), &key);
        });
        let listener = identities.clone_for_listener();
        runtimes.pods().listen(move |change| {
            let key = ObjectKey::of(change.object().as_ref());
            let is_there = !matches!(change, Change::Deleted(_));
            listener.add_if(listener.seen.user("pod", &key, is_there), &key);
        });
        identities
    }

    fn clone_for_listener(&self) -> Listener {
        Listener {
            seen: Arc::clone(&self.seen),
            queue: self.queue.clone(),
        }
    }

    fn listen_to_secrets(&self) {
        let changed = |listener: &Listener, authority: &ObjectKey, key: &ObjectKey| {
            listener.queue.add(namespace_key(&key.namespace));
            // It may wait for all Secrets to name its next one.
            listener.queue.add(authority.clone());
        };
        for cache in [&self.seen.node_secrets, &self.seen.runtime_secrets] {
            let listener = self.clone_for_listener();
            let authority = self.options.authority.clone();
            cache.listen(move |change| {
                changed(
                    &listener,
                    &authority,
                    &ObjectKey::of(change.object().as_ref()),
                );
            });
        }
        let listener = self.clone_for_listener();
        let authority = self.options.authority.clone();
        let authority_changed = Arc::clone(&self.authority_changed);
        self.seen.authorities.listen(move |_change| {
            authority_changed.notify_one();
            listener.queue.add(authority.clone());
            for namespace in listener.seen.namespaces() {
                listener.queue.add(namespace_key(&namespace));
            }
        });
        let listener = self.clone_for_listener();
        let authority = self.options.authority.clone();
        let source_changed = Arc::clone(&self.authority_changed);
        self.seen.sources.listen(move |_change| {
            source_changed.notify_one();
            listener.queue.add(authority.clone());
        });
    }

    /// Watches the Secrets, and keeps the operator's own certificate; without the lease.
    pub fn watch(&self, tasks: &mut Tasks) {
        let (context, client) = (&self.context, &self.context.client);
        let key = &self.options.authority;
        let secrets: Api<Secret> = Api::namespaced(client.clone(), &key.namespace);
        context.follow(
            tasks,
            "authority secret",
            &self.seen.authorities,
            cache::named(secrets, &key.name),
            cache::prune_metadata,
        );
        if let Some(source) = &self.options.source {
            let secrets: Api<Secret> = Api::namespaced(client.clone(), &source.namespace);
            context.follow(
                tasks,
                "authority source",
                &self.seen.sources,
                cache::named(secrets, &source.name),
                cache::prune_metadata,
            );
        }
        context.follow(
            tasks,
            "node secrets",
            &self.seen.node_secrets,
            cache::named(context.scope.api(client), NODES_SECRET),
            cache::prune_metadata,
        );
        context.follow(
            tasks,
            "runtime secrets",
            &self.seen.runtime_secrets,
            cache::named(context.scope.api(client), RUNTIME_SECRET),
            cache::prune_metadata,
        );
        let own = Own {
            seen: Arc::clone(&self.seen),
            options: self.options.clone(),
            changed: Arc::clone(&self.authority_changed),
            readiness: self
                .options
                .source
                .as_ref()
                .map(|_| context.admin.readiness("authority")),
        };
        let shutdown = tasks.shutdown().clone();
        tasks.spawn("own certificate", async move {
            own.run(shutdown).await;
            Ok::<(), Infallible>(())
        });
    }

    /// Makes and renews certificates until `shutdown`; with the lease.
    ///
    /// # Errors
    /// When a pass panics.
    pub async fn run(
        self,
        runtimes: Runtimes,
        shutdown: CancellationToken,
    ) -> Result<(), RunError> {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = async {
                runtimes.synced().await;
                self.seen.authorities_synced().await;
                self.seen.node_secrets.synced().await;
                self.seen.runtime_secrets.synced().await;
            } => {}
        }
        let keeper = Keeper::new(&self.context, Arc::clone(&self.seen), self.options.clone());
        self.queue.add(self.options.authority.clone());
        let metrics = self.context.metrics.clone();
        let reconcile = move |key: ObjectKey| {
            let keeper = keeper.clone();
            async move { keeper.pass(&key).await }
        };
        let controller = "identities";
        queue::run(
            controller,
            CONCURRENCY,
            self.queue,
            metrics,
            shutdown,
            reconcile,
        )
        .await
    }
}

struct Listener {
    seen: Arc<Seen>,
    queue: Queue<ObjectKey>,
}

impl Listener {
    fn add_if(&self, changed: bool, key: &ObjectKey) {
        if changed {
            self.queue.add(namespace_key(&key.namespace));
        }
    }
}

/// The key of a namespace in the queue.
fn namespace_key(namespace: &str) -> ObjectKey {
    ObjectKey::new(namespace, "")
}

/// One that does not decode may have some: their certificates stay.
fn has_nodes(store: &DeserializeGuard<Store>) -> bool {
    let decoded = store.0.as_ref();
    decoded.map_or(true, |store| store.spec.multi_raft.is_some())
}
