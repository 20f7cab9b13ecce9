//! Counts what is created and deleted in a namespace, as the API server tells it: also what an
//! operator did in a request whose answer it never saw.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;

use futures::StreamExt as _;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::core::PartialObjectMeta;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, Resource, ResourceExt as _};
use parking_lot::Mutex;
use tokio::task::JoinSet;

/// Creations and deletions by `KIND/NAME`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// How many objects of this name were created.
    pub created: BTreeMap<String, usize>,
    /// How many of them were deleted.
    pub deleted: BTreeMap<String, usize>,
}

/// Watches a namespace until it is dropped.
#[derive(Debug)]
pub struct Observer {
    seen: Arc<Mutex<Seen>>,
    _watches: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Seen {
    created: BTreeSet<(String, String)>,
    deleted: BTreeSet<(String, String)>,
}

impl Observer {
    /// Watches the kinds of objects that a Store or Session could make.
    pub fn start(client: &Client, namespace: &str) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let mut watches = JoinSet::new();
        watches.spawn(follow::<ConfigMap>(
            client.clone(),
            namespace.to_owned(),
            seen.clone(),
        ));
        watches.spawn(follow::<Service>(
            client.clone(),
            namespace.to_owned(),
            seen.clone(),
        ));
        watches.spawn(follow::<StatefulSet>(
            client.clone(),
            namespace.to_owned(),
            seen.clone(),
        ));
        watches.spawn(follow::<Pod>(
            client.clone(),
            namespace.to_owned(),
            seen.clone(),
        ));
        watches.spawn(follow::<Secret>(
            client.clone(),
            namespace.to_owned(),
            seen.clone(),
        ));
        watches.spawn(follow::<PersistentVolumeClaim>(
            client.clone(),
            namespace.to_owned(),
            seen.clone(),
        ));
        watches.spawn(follow::<NetworkPolicy>(
            client.clone(),
            namespace.to_owned(),
            seen.clone(),
        ));
        watches.spawn(follow::<PodDisruptionBudget>(
            client.clone(),
            namespace.to_owned(),
            seen.clone(),
        ));
        Self {
            seen,
            _watches: watches,
        }
    }

    /// The counts so far.
    pub fn counts(&self) -> Counts {
        let seen = self.seen.lock();
        let count = |objects: &BTreeSet<(String, String)>| {
            let mut counts = BTreeMap::new();
            for (name, _) in objects {
                *counts.entry(name.clone()).or_default() += 1;
            }
            counts
        };
        Counts {
            created: count(&seen.created),
            deleted: count(&seen.deleted),
        }
    }
}

async fn follow<K>(client: Client, namespace: String, seen: Arc<Mutex<Seen>>)
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + Send + 'static,
{
    let api: Api<PartialObjectMeta<K>> = Api::namespaced(client, &namespace);
    let mut events = watcher(api, watcher::Config::default())
        .default_backoff()
        .boxed();
    while let Some(event) = events.next().await {
        let (object, is_deleted) = match event {
            Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) => {
                (object, false)
            }
            Ok(watcher::Event::Delete(object)) => (object, true),
            Ok(watcher::Event::Init | watcher::Event::InitDone) => continue,
            Err(error) => {
                tracing::debug!(%error, "a watch was interrupted");
                continue;
            }
        };
        let name = format!("{}/{}", K::kind(&()), object.name_any());
        if name == "ConfigMap/kube-root-ca.crt" {
            continue;
        }
        let entry = (name, object.uid().unwrap_or_default());
        let mut seen = seen.lock();
        if is_deleted {
            seen.deleted.insert(entry.clone());
        }
        seen.created.insert(entry);
    }
}
