//! A watched copy of all objects of a kind that tells its listeners what changed.
//!
//! Unlike kube's reflector it reports objects that vanished while a watch was down as deleted,
//! and gives listeners the object before and after a change, from which they keep their indexes.

use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use atomix_process::admin::Readiness;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use kube::runtime::watcher;
use kube::{Api, Resource};
use parking_lot::RwLock;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::key::ObjectKey;
use crate::metrics::Metrics;

/// Longest wait between two attempts of a broken watch.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// A watch that was begun again so long ago, and has not failed since, works: it says nothing as long
/// as nothing changes. Longer than a connection may take ([`crate::client`]).
const WORKS_AFTER: Duration = Duration::from_secs(10);

/// What happened to one object.
#[derive(Debug)]
pub enum Change<'a, K> {
    /// It is new, or has changed.
    Applied {
        /// The object as it was known; `None` = not known before.
        before: Option<&'a Arc<K>>,
        /// The object as it is.
        after: &'a Arc<K>,
    },
    /// It is gone.
    Deleted(&'a Arc<K>),
}

impl<K> Change<'_, K> {
    /// The newest known form of the object.
    #[must_use]
    pub fn object(&self) -> &Arc<K> {
        match self {
            Self::Applied { after, .. } => after,
            Self::Deleted(object) => object,
        }
    }
}

type Listener<K> = Box<dyn Fn(&Change<'_, K>) + Send + Sync>;
/// A stream of what happens to all objects of a kind.
pub type Watch<K> = BoxStream<'static, watcher::Result<watcher::Event<K>>>;

/// All objects of a kind, as last seen. Clones share one copy.
pub struct Cache<K> {
    shared: Arc<Shared<K>>,
}

struct Shared<K> {
    objects: RwLock<HashMap<ObjectKey, Arc<K>>>,
    listeners: RwLock<Vec<Listener<K>>>,
    synced: watch::Sender<bool>,
}

impl<K> Clone for Cache<K> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<K> Default for Cache<K> {
    fn default() -> Self {
        Self {
            shared: Arc::new(Shared {
                objects: RwLock::default(),
                listeners: RwLock::default(),
                synced: watch::Sender::new(false),
            }),
        }
    }
}

impl<K> Debug for Cache<K> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Cache")
            .field("objects", &self.shared.objects.read().len())
            .finish_non_exhaustive()
    }
}

impl<K> Cache<K> {
    /// The object with this name.
    #[must_use]
    pub fn get(&self, key: &ObjectKey) -> Option<Arc<K>> {
        self.shared.objects.read().get(key).cloned()
    }

    /// Every object for which `wanted` holds, in no order.
    pub fn filter(&self, wanted: impl Fn(&K) -> bool) -> Vec<Arc<K>> {
        let objects = self.shared.objects.read();
        let matching = objects.values().filter(|object| wanted(object));
        matching.cloned().collect()
    }

    /// Every object, in no order.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<K>> {
        self.shared.objects.read().values().cloned().collect()
    }

    /// Calls `listener` at each change, after the cache shows it, one change at a time and in
    /// order. It must not block: it enqueues keys or keeps an index. Objects that are already
    /// known are not reported, so listeners are added before [`Self::run`].
    pub fn listen(&self, listener: impl Fn(&Change<'_, K>) + Send + Sync + 'static) {
        self.shared.listeners.write().push(Box::new(listener));
    }

    /// True once all objects have been seen.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        *self.shared.synced.borrow()
    }

    /// Waits until all objects have been seen.
    pub async fn synced(&self) {
        let mut synced = self.shared.synced.subscribe();
        // The sender lives in `self`, so this cannot fail; a failure would mean nobody waits.
        let _ended = synced.wait_for(|synced| *synced).await;
    }

    fn tell(&self, change: &Change<'_, K>) {
        for listener in self.shared.listeners.read().iter() {
            listener(change);
        }
    }
}

impl<K: Resource<DynamicType = ()> + Send + Sync + 'static> Cache<K> {
    fn applied(&self, object: K) {
        let key = ObjectKey::of(&object);
        let after = Arc::new(object);
        let before = self.shared.objects.write().insert(key, Arc::clone(&after));
        let unchanged = before.as_ref().is_some_and(|before| {
            before.meta().resource_version == after.meta().resource_version
                && before.meta().uid == after.meta().uid
        });
        if unchanged {
            return;
        }
        // Deleted and created again while the watch was down: two objects, not one.
        let (replaced, before) = match before {
            Some(before) if before.meta().uid != after.meta().uid => (Some(before), None),
            other => (None, other),
        };
        if let Some(replaced) = &replaced {
            self.tell(&Change::Deleted(replaced));
        }
        self.tell(&Change::Applied {
            before: before.as_ref(),
            after: &after,
        });
    }

    fn deleted(&self, key: &ObjectKey) {
        let removed = self.shared.objects.write().remove(key);
        if let Some(object) = removed {
            self.tell(&Change::Deleted(&object));
        }
    }

    /// Follows a watch until `shutdown`; never gives up, whatever the API server answers.
    /// `prune` removes what nobody reads before an object is kept. The process is ready while the
    /// cache is complete and its watch works.
    pub async fn follow(
        self,
        resource: &'static str,
        metrics: Metrics,
        readiness: Readiness,
        shutdown: CancellationToken,
        watch: impl Fn() -> Watch<K> + Send + 'static,
        prune: impl Fn(&mut K) + Send + 'static,
    ) {
        let mut events = watch();
        let mut seen: Option<HashSet<ObjectKey>> = None;
        let mut failures = 0_u32;
        let works = || {
            metrics.watch_alive(resource, true);
            readiness.set(self.is_synced(), format!("{resource} are being listed"));
        };
        loop {
            let event = tokio::select! {
                () = shutdown.cancelled() => return,
                event = events.next() => event,
                () = tokio::time::sleep(WORKS_AFTER), if failures > 0 => {
                    failures = 0;
                    works();
                    continue;
                }
            };
            let error = match event {
                Some(Ok(event)) => {
                    failures = 0;
                    self.handle(event, &mut seen, &prune);
                    works();
                    continue;
                }
                Some(Err(error)) => Some(error),
                None => None,
            };
            failures = failures.saturating_add(1);
            metrics.watch_error(resource);
            if failures > 2 {
                metrics.watch_alive(resource, false);
                readiness.not_ready(format!("the watch of {resource} fails"));
            }
            if error.as_ref().is_none_or(is_expired) {
                seen = None;
                events = watch();
            }
            let pause = Duration::from_millis(100)
                .saturating_mul(1 << failures.min(8))
                .min(LONGEST_PAUSE);
            let reason = error.map(|error| error.to_string()).unwrap_or_default();
            tracing::warn!(resource, %reason, retry_in = ?pause, "watch failed");
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    fn handle(
        &self,
        event: watcher::Event<K>,
        seen: &mut Option<HashSet<ObjectKey>>,
        prune: &impl Fn(&mut K),
    ) {
        match event {
            watcher::Event::Init => *seen = Some(HashSet::new()),
            watcher::Event::InitApply(mut object) => {
                if let Some(seen) = seen {
                    seen.insert(ObjectKey::of(&object));
                }
                prune(&mut object);
                self.applied(object);
            }
            watcher::Event::InitDone => {
                let seen = seen.take().unwrap_or_default();
                let known: Vec<ObjectKey> = self.shared.objects.read().keys().cloned().collect();
                for key in known.iter().filter(|key| !seen.contains(*key)) {
                    self.deleted(key);
                }
                self.shared.synced.send_replace(true);
            }
            watcher::Event::Apply(mut object) => {
                prune(&mut object);
                self.applied(object);
            }
            watcher::Event::Delete(object) => self.deleted(&ObjectKey::of(&object)),
        }
    }
}

/// The watch's place in history is gone for good; only a new LIST helps.
fn is_expired(error: &watcher::Error) -> bool {
    matches!(
        error,
        watcher::Error::WatchStartFailed(kube::Error::Api(status)) if status.code == 410
    )
}

/// What to watch: objects that carry `labels` (empty = all). For `PartialObjectMeta<K>` only the
/// metadata is read.
pub fn objects<K>(api: Api<K>, labels: &str) -> impl Fn() -> Watch<K> + Send + use<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let config = config(labels);
    move || watcher::watcher(api.clone(), config.clone()).boxed()
}

/// What to watch: the one object of this name.
pub fn named<K>(api: Api<K>, name: &str) -> impl Fn() -> Watch<K> + Send + use<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    move || watcher::watcher(api.clone(), config.clone()).boxed()
}

fn config(labels: &str) -> watcher::Config {
    let config = watcher::Config::default().page_size(500);
    if labels.is_empty() {
        config
    } else {
        config.labels(labels)
    }
}

/// Removes what no controller reads and what takes most space.
pub fn prune_metadata<K: Resource>(object: &mut K) {
    object.meta_mut().managed_fields = None;
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use atomix_process::admin::Admin;
    use k8s_openapi::api::core::v1::ConfigMap;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
    use parking_lot::Mutex;
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::*;

    fn object(name: &str, uid: &str, version: &str) -> ConfigMap {
        ConfigMap {
            metadata: ObjectMeta {
                namespace: Some("meadow".to_owned()),
                name: Some(name.to_owned()),
                uid: Some(uid.to_owned()),
                resource_version: Some(version.to_owned()),
                ..ObjectMeta::default()
            },
            ..ConfigMap::default()
        }
    }

    fn feed(cache: &Cache<ConfigMap>, events: Vec<watcher::Event<ConfigMap>>) {
        let mut seen = None;
        for event in events {
            cache.handle(event, &mut seen, &prune_metadata);
        }
    }

    #[test]
    fn a_relist_reports_what_vanished_and_what_was_replaced() {
        let cache = Cache::default();
        let log: Arc<Mutex<Vec<String>>> = Arc::default();
        let written = Arc::clone(&log);
        cache.listen(move |change: &Change<'_, ConfigMap>| {
            let meta = change.object().meta();
            let (name, uid) = (meta.name.clone().unwrap(), meta.uid.clone().unwrap());
            written.lock().push(match change {
                Change::Applied { before, .. } => {
                    format!(
                        "{} {name} {uid}",
                        if before.is_some() { "changed" } else { "new" }
                    )
                }
                Change::Deleted(_) => format!("deleted {name} {uid}"),
            });
        });
        feed(
            &cache,
            vec![
                watcher::Event::Init,
                watcher::Event::InitApply(object("rose", "1", "1")),
                watcher::Event::InitApply(object("tulip", "2", "2")),
                watcher::Event::InitApply(object("daisy", "3", "3")),
                watcher::Event::InitDone,
            ],
        );
        assert!(cache.is_synced());
        log.lock().clear();
        feed(
            &cache,
            vec![
                watcher::Event::Init,
                watcher::Event::InitApply(object("rose", "1", "1")),
                watcher::Event::InitApply(object("tulip", "9", "9")),
                watcher::Event::InitDone,
                watcher::Event::Apply(object("rose", "1", "10")),
                watcher::Event::Delete(object("rose", "1", "11")),
            ],
        );
        let expected = [
            "deleted tulip 2",
            "new tulip 9",
            "deleted daisy 3",
            "changed rose 1",
            "deleted rose 1",
        ];
        assert_eq!(*log.lock(), expected);
        assert_eq!(cache.all().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_works_again_before_anything_changes() {
        let metrics = Metrics::default();
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        let is_alive = || {
            let mut text = String::new();
            encode(&mut text, &registry).unwrap();
            let line = text
                .lines()
                .find(|line| line.contains("\"roses\"") && line.contains("alive"));
            line.unwrap().ends_with(" 1")
        };
        let begun = || {
            let failure = || Err(watcher::Error::NoResourceVersion);
            let events = [Ok(watcher::Event::Init), Ok(watcher::Event::InitDone)];
            let events = events.into_iter().chain([failure(), failure(), failure()]);
            let events: Watch<ConfigMap> = futures::stream::iter(events)
                .chain(futures::stream::pending())
                .boxed();
            events
        };
        let readiness = Admin::new(Registry::default()).readiness("roses");
        let shutdown = CancellationToken::new();
        let cache = Cache::default();
        let followed = cache.clone().follow(
            "roses",
            metrics.clone(),
            readiness,
            shutdown.clone(),
            begun,
            prune_metadata,
        );
        let task = tokio::spawn(followed);
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(!is_alive());
        tokio::time::sleep(WORKS_AFTER).await;
        assert!(is_alive());
        shutdown.cancel();
        task.await.unwrap();
    }
}
