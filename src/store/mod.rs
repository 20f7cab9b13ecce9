//! The Store controller: from a Store to running, bootstrapped storage nodes.
//!
//! A pass (`reconcile`) takes the steps in this order: `dereference` (all reads) → `spec` → `bootstrap`
//! or `members` (plans) → `objects` (built and applied) → `volumes` → `rolling` (looks) → `status` →
//! changes of members, or else of pods and leaders. Plans are pure; what carries them out stands
//! beside them.
//!
//! Not for runtimes: they are told of a Store by the Session controller, which asks [`may_connect`]
//! (`status.bootstrapped` is true, or the Store has no storage nodes) and takes the configuration from
//! [`driver_config`].
//!
//! Where to change what: a new object in `objects::build`, a rule of the spec in the crate `resources`
//! (CEL) and `spec::validate`, a word of a condition in `reason`, its sentence in `status`, when a
//! failed Bootstrap is tried again in `bootstrap` (what) and `controller::backoff` (when).

pub mod bootstrap;
pub mod deletion;
pub mod dereference;
pub mod error;
#[cfg(test)]
mod histories;
pub mod leaders;
pub mod members;
pub mod names;
pub mod nodes;
pub mod objects;
pub mod ownership;
pub mod reason;
mod reconcile;
pub mod rolling;
pub mod spec;
pub mod status;
pub mod volumes;

use std::convert::Infallible;
use std::sync::Arc;

use atomix_process::tasks::Tasks;
use kube::Resource;
use kube::core::DeserializeGuard;
use tokio_util::sync::CancellationToken;

pub use error::StoreError;
pub use nodes::node_view::{GroupView, MembershipView, NodeView};
pub use spec::driver_config::{DriverConfig, driver_config, may_connect};

use crate::context::Context;
use crate::runtimes::index::store_of;
use atomix_controller::queue::{self, RunError};
use atomix_controller::{Cache, Change, ObjectKey, Queue, cache};
use atomix_resources::{Session, Store, labels};
use dereference::Children;
use objects::pods::StoragePodView;
use reconcile::Reconciler;

/// Stores that are reconciled at the same time.
const CONCURRENCY: usize = 16;

/// Settings of the Store controller.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// Image of storage nodes whose Store names none.
    pub node_image: String,
    /// New Stores speak mutual TLS.
    pub tls: bool,
    /// Namespace of the operator itself, if it makes NetworkPolicies; they let it in.
    pub network_policies: Option<String>,
}

/// Reconciles Stores.
#[derive(Debug)]
pub struct StoreController {
    context: Context,
    queue: Queue<ObjectKey>,
    children: Children,
    reconciler: Arc<Reconciler>,
}

impl StoreController {
    /// A controller that has seen nothing yet.
    #[must_use]
    pub fn new(context: &Context, options: StoreOptions) -> Self {
        let queue = Queue::default();
        let children = Children::default();
        let reconciler = Arc::new(Reconciler::new(
            context.clone(),
            options,
            children.clone(),
            queue.clone(),
        ));
        let controller = Self {
            context: context.clone(),
            queue,
            children,
            reconciler,
        };
        controller.listen_to_stores();
        controller.listen_to_sessions();
        controller.listen_to_children();
        controller
    }

    /// The storage pods of all Stores, as last seen.
    #[must_use]
    pub fn pods(&self) -> &Cache<StoragePodView> {
        &self.children.pods
    }

    fn listen_to_stores(&self) {
        let queue = self.queue.clone();
        self.context
            .stores
            .listen(move |change: &Change<'_, DeserializeGuard<Store>>| {
                queue.add(ObjectKey::of(change.object().as_ref()));
            });
    }

    /// A Store that is being deleted waits for Sessions, and its status says whether there are any.
    fn listen_to_sessions(&self) {
        let queue = self.queue.clone();
        let stores = self.context.stores.clone();
        self.context
            .sessions
            .listen(move |change: &Change<'_, DeserializeGuard<Session>>| {
                let named = |session: &DeserializeGuard<Session>| {
                    let session = session.0.as_ref().ok()?;
                    Some(store_of(&ObjectKey::of(session), session))
                };
                let was_unreadable = match change {
                    Change::Applied { before, .. } => {
                        before.is_some_and(|before| before.0.is_err())
                    }
                    Change::Deleted(_) => false,
                };
                if was_unreadable || change.object().0.is_err() {
                    // It may use, or have used, any Store that it can.
                    let session = ObjectKey::of(change.object().as_ref());
                    let usable = stores.filter(|store| is_usable_from(&session.namespace, store));
                    for store in usable {
                        queue.add(ObjectKey::of(store.as_ref()));
                    }
                }
                let Some(key) = named(change.object()) else {
                    return;
                };
                let left = match change {
                    Change::Deleted(_) => Some(key.clone()),
                    Change::Applied { before, .. } => before
                        .and_then(|before| named(before))
                        .filter(|before| *before != key),
                };
                if let Some(left) = left.filter(|left| stores.get(left).is_some()) {
                    queue.add(left);
                }
                let is_news = stores.get(&key).is_some_and(|store| {
                    let is_going = store.meta().deletion_timestamp.is_some();
                    let decoded = store.0.as_ref().ok();
                    let status = decoded.and_then(|store| store.status.as_ref());
                    let in_use = status.and_then(|status| status.in_use);
                    is_going || in_use == Some(false)
                });
                if is_news {
                    queue.add(key);
                }
            });
    }

    fn listen_to_children(&self) {
        let applier = self.context.applier.clone();
        let queue = self.queue.clone();
        self.children.services.listen(move |change| {
            if let Change::Deleted(object) = change {
                applier.forget(object.as_ref());
            }
            add_store_of(&queue, change.object().as_ref());
        });
        let applier = self.context.applier.clone();
        let queue = self.queue.clone();
        self.children.config_maps.listen(move |change| {
            if let Change::Deleted(object) = change {
                applier.forget(object.as_ref());
            }
            add_store_of(&queue, change.object().as_ref());
        });
        let applier = self.context.applier.clone();
        let queue = self.queue.clone();
        self.children.network_policies.listen(move |change| {
            if let Change::Deleted(object) = change {
                applier.forget(object.as_ref());
            }
            add_store_of(&queue, change.object().as_ref());
        });
        let applier = self.context.applier.clone();
        let queue = self.queue.clone();
        self.children.stateful_sets.listen(move |change| {
            if let Change::Deleted(object) = change {
                applier.forget(object.as_ref());
            }
            add_store_of(&queue, change.object().as_ref());
        });
        let applier = self.context.applier.clone();
        let queue = self.queue.clone();
        self.children.budgets.listen(move |change| {
            if let Change::Deleted(object) = change {
                applier.forget(object.as_ref());
            }
            add_store_of(&queue, change.object().as_ref());
        });
        let queue = self.queue.clone();
        self.children
            .claims
            .listen(move |change| add_store_of(&queue, change.object().as_ref()));
        let reconciler = Arc::downgrade(&self.reconciler);
        let queue = self.queue.clone();
        self.children.pods.listen(move |change| {
            if let Change::Deleted(pod) = change
                && let Some(reconciler) = reconciler.upgrade()
            {
                reconciler.forget_pod(pod);
            }
            add_store_of(&queue, change.object().as_ref());
        });
    }

    /// Starts the watches of what belongs to Stores.
    pub fn watch(&self, tasks: &mut Tasks) {
        let (context, children) = (&self.context, &self.children);
        context.config_sources.watch(context, &self.queue, tasks);
        let (client, scope) = (&context.client, &context.scope);
        let selector = names::CHILD_SELECTOR;
        let watch = cache::objects(scope.api(client), selector);
        context.follow(
            tasks,
            "services",
            &children.services,
            watch,
            cache::prune_metadata,
        );
        let watch = cache::objects(scope.api(client), selector);
        context.follow(
            tasks,
            "configmaps",
            &children.config_maps,
            watch,
            cache::prune_metadata,
        );
        if self.reconciler.makes_network_policies() {
            let watch = cache::objects(scope.api(client), selector);
            context.follow(
                tasks,
                "networkpolicies",
                &children.network_policies,
                watch,
                cache::prune_metadata,
            );
        }
        let watch = cache::objects(scope.api(client), selector);
        context.follow(
            tasks,
            "statefulsets",
            &children.stateful_sets,
            watch,
            cache::prune_metadata,
        );
        let watch = cache::objects(scope.api(client), selector);
        context.follow(
            tasks,
            "poddisruptionbudgets",
            &children.budgets,
            watch,
            cache::prune_metadata,
        );
        let watch = cache::objects(scope.api(client), selector);
        context.follow(
            tasks,
            "storage pods",
            &children.pods,
            watch,
            objects::pods::prune,
        );
        let watch = cache::objects(scope.api(client), selector);
        context.follow(
            tasks,
            "persistentvolumeclaims",
            &children.claims,
            watch,
            cache::prune_metadata,
        );
    }

    /// Reconciles until `shutdown`; only with the lease.
    ///
    /// # Errors
    /// When a reconcile panics.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), RunError> {
        let Self {
            context,
            queue,
            children,
            reconciler,
        } = self;
        let Children {
            services,
            config_maps,
            network_policies,
            stateful_sets,
            pods,
            budgets,
            claims,
        } = &children;
        let makes_network_policies = reconciler.makes_network_policies();
        let synced = async {
            context.synced().await;
            context.config_sources.synced().await;
            services.synced().await;
            config_maps.synced().await;
            if makes_network_policies {
                network_policies.synced().await;
            }
            stateful_sets.synced().await;
            pods.synced().await;
            budgets.synced().await;
            claims.synced().await;
            Ok::<(), Infallible>(())
        };
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            _synced = synced => {}
        }
        let metrics = context.metrics.clone();
        queue::run("store", CONCURRENCY, queue, metrics, shutdown, move |key| {
            let reconciler = Arc::clone(&reconciler);
            async move { reconciler.reconcile(&key).await }
        })
        .await
    }
}

fn is_usable_from(namespace: &str, store: &DeserializeGuard<Store>) -> bool {
    match &store.0 {
        Ok(store) => deletion::may_be_of(namespace, &ObjectKey::of(store), store),
        Err(unreadable) => unreadable.metadata.namespace.as_deref() == Some(namespace),
    }
}

/// Asks for a reconcile of the Store that a child's label names.
fn add_store_of<K: Resource>(queue: &Queue<ObjectKey>, child: &K) {
    let meta = child.meta();
    let store = meta
        .labels
        .as_ref()
        .and_then(|labels| labels.get(labels::STORE));
    if let Some(store) = store {
        queue.add(ObjectKey::new(
            meta.namespace.clone().unwrap_or_default(),
            store,
        ));
    }
}
