//! `spec.configFrom` of Stores: values of Secrets and ConfigMaps in the driver's configuration.
//!
//! The objects are followed by their metadata alone and by a label, so that a change is noticed at
//! once and no other Secret is ever seen; values are fetched by name when a reconcile of their Store
//! finds another version than it read. They live in memory, and are shown nowhere: not in a status,
//! an event, a log or an object. Secrets are only followed in namespaces that the operator was given.
//! Not for what runtimes do with the result; [`ConfigSources::of`] is asked by `session::resolve`.

pub mod merge;
mod read;
pub mod trouble;

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;

use atomix_process::tasks::Tasks;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::core::{DeserializeGuard, PartialObjectMeta};
use kube::{Api, Client, ResourceExt as _};
use parking_lot::{Mutex, RwLock};

use crate::context::Context;
use atomix_controller::{ApiError, Cache, Change, ObjectKey, Queue, cache};
use atomix_resources::labels::CONFIG;
use atomix_resources::{ConfigSource, Store};

pub use merge::MergedConfig;
use merge::{SourceValue, merge, object_of, sources};
use read::Version;
pub use trouble::{ConfigTrouble, SourceKind, SourceObject};

/// The configurations of Stores with `spec.configFrom`. Clones share everything.
#[derive(Clone)]
pub struct ConfigSources {
    shared: Arc<Shared>,
}

type Listener = Box<dyn Fn(&ObjectKey) + Send + Sync>;

struct Shared {
    client: Client,
    config_maps: Cache<PartialObjectMeta<ConfigMap>>,
    /// By the namespaces in which Secrets may be read.
    secrets: BTreeMap<String, Cache<PartialObjectMeta<Secret>>>,
    /// What was read for each Store.
    read: RwLock<HashMap<ObjectKey, Read>>,
    listeners: Mutex<Vec<Listener>>,
}

/// What was read for a Store.
#[derive(Clone)]
struct Read {
    uid: Option<String>,
    sources: Vec<ConfigSource>,
    /// Of each object that was read.
    versions: BTreeMap<SourceObject, Version>,
    values: Result<Vec<SourceValue>, ConfigTrouble>,
}

impl Read {
    fn is_of(&self, store: &Store) -> bool {
        self.uid == store.metadata.uid && self.sources == sources(&store.spec)
    }
}

impl fmt::Debug for ConfigSources {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ConfigSources")
            .field("secret_namespaces", &self.shared.secrets.keys())
            .finish_non_exhaustive()
    }
}

impl ConfigSources {
    /// Nothing has been read yet. Secrets are read in these namespaces only.
    #[must_use]
    pub fn new(client: Client, secret_namespaces: &[String]) -> Self {
        let secrets = secret_namespaces
            .iter()
            .map(|namespace| (namespace.clone(), Cache::default()));
        Self {
            shared: Arc::new(Shared {
                client,
                config_maps: Cache::default(),
                secrets: secrets.collect(),
                read: RwLock::default(),
                listeners: Mutex::default(),
            }),
        }
    }

    /// The configuration that a Store's driver gets, as far as it has been read.
    ///
    /// # Errors
    /// Why there is none.
    pub fn of(&self, key: &ObjectKey, store: &Store) -> Result<MergedConfig, ConfigTrouble> {
        if sources(&store.spec).is_empty() {
            let config = store.spec.config.clone().unwrap_or_default();
            return Ok(MergedConfig::plain(config));
        }
        let all = self.shared.read.read();
        let read = all.get(key).filter(|read| read.is_of(store));
        let values = &read.ok_or(ConfigTrouble::NotRead)?.values;
        merge(&store.spec, values.as_ref().map_err(Clone::clone)?)
    }

    /// Calls `listener` with each Store whose values have changed. It must not block.
    pub fn listen(&self, listener: impl Fn(&ObjectKey) + Send + Sync + 'static) {
        self.shared.listeners.lock().push(Box::new(listener));
    }

    /// Reads what a Store needs and what has changed since.
    ///
    /// # Errors
    /// When the API server does not answer, or refuses; [`Self::of`] tells of the latter too.
    pub async fn read(&self, key: &ObjectKey, store: &Store) -> Result<(), ApiError> {
        if sources(&store.spec).is_empty() {
            self.forget(key);
            return Ok(());
        }
        let known = self.shared.read.read().get(key).cloned();
        let known = known.filter(|read| read.is_of(store));
        let objects = sources(&store.spec).iter().map(object_of).collect();
        let versions = known.as_ref().map(|read| &read.versions);
        if versions.is_some_and(|versions| self.is_current(&key.namespace, &objects, versions)) {
            return Ok(());
        }
        let (versions, found) = self.fetch(&key.namespace, &objects).await?;
        let (values, refused) = match found {
            Ok(found) => (read::values(sources(&store.spec), &found), None),
            Err(read::NotFetched { trouble, refused }) => (Err(trouble), refused),
        };
        let news = Read {
            uid: store.metadata.uid.clone(),
            sources: sources(&store.spec).to_vec(),
            versions,
            values,
        };
        let is_same = known.is_some_and(|known| known.values == news.values);
        self.shared.read.write().insert(key.clone(), news);
        if !is_same {
            for listener in self.shared.listeners.lock().iter() {
                listener(key);
            }
        }
        refused.map_or(Ok(()), Err)
    }

    /// Forgets a Store that is gone.
    pub fn forget(&self, key: &ObjectKey) {
        // Most Stores have nothing here: readers are not held up for them.
        if self.shared.read.read().contains_key(key) {
            self.shared.read.write().remove(key);
        }
    }

    /// Follows the objects; a change of one asks for a reconcile of the Stores that name it.
    pub fn watch(&self, context: &Context, queue: &Queue<ObjectKey>, tasks: &mut Tasks) {
        let label = format!("{CONFIG}=true");
        let (client, scope) = (&context.client, &context.scope);
        let config_maps = &self.shared.config_maps;
        ask_for_stores(config_maps, SourceKind::ConfigMap, context, queue);
        context.follow(
            tasks,
            "configmaps with configuration",
            config_maps,
            cache::objects(scope.api(client), &label),
            cache::prune_metadata,
        );
        for (namespace, secrets) in &self.shared.secrets {
            ask_for_stores(secrets, SourceKind::Secret, context, queue);
            // One for each namespace that the operator is given, for the life of the process.
            let name: &'static str = format!("secrets with configuration in {namespace}").leak();
            let api = Api::namespaced(client.clone(), namespace);
            let watch = cache::objects(api, &label);
            context.follow(tasks, name, secrets, watch, cache::prune_metadata);
            // A Secret that is not there causes no event: the Stores that wait for it are asked anew.
            let (secrets, stores) = (secrets.clone(), context.stores.clone());
            let (queue, namespace) = (queue.clone(), namespace.clone());
            let shutdown = tasks.shutdown().clone();
            tasks.spawn(name, async move {
                tokio::select! {
                    () = shutdown.cancelled() => return Ok::<(), Infallible>(()),
                    () = async { secrets.synced().await; stores.synced().await } => {}
                }
                let waiting = stores.filter(|store| {
                    let store = store.0.as_ref();
                    store.is_ok_and(|store| {
                        store.namespace().as_ref() == Some(&namespace)
                            && !sources(&store.spec).is_empty()
                    })
                });
                for store in waiting {
                    queue.add(ObjectKey::of(store.as_ref()));
                }
                shutdown.cancelled().await;
                Ok(())
            });
        }
    }

    /// Waits until ConfigMaps have been listed. Secrets are not waited for: where the operator lacks
    /// the right to list them, only the Stores of that namespace say so.
    pub async fn synced(&self) {
        self.shared.config_maps.synced().await;
    }
}

/// Queues the Stores that name an object when it changes.
fn ask_for_stores<K>(
    cache: &Cache<PartialObjectMeta<K>>,
    kind: SourceKind,
    context: &Context,
    queue: &Queue<ObjectKey>,
) where
    PartialObjectMeta<K>: kube::Resource,
{
    let (stores, queue) = (context.stores.clone(), queue.clone());
    cache.listen(move |change: &Change<'_, PartialObjectMeta<K>>| {
        let changed = ObjectKey::of(change.object().as_ref());
        let names_it = |guarded: &DeserializeGuard<Store>| {
            let Ok(store) = &guarded.0 else { return false };
            let mut objects = sources(&store.spec).iter().map(object_of);
            store.metadata.namespace.as_deref() == Some(changed.namespace.as_str())
                && objects.any(|object| object.kind == kind && object.name == changed.name)
        };
        for store in stores.filter(names_it) {
            queue.add(ObjectKey::of(store.as_ref()));
        }
    });
}
