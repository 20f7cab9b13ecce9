//! ConfigMaps and Secrets as the files of pods that mount them, kept as they change: what a kubelet
//! does within a minute or two, here at once.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{ConfigMap, KeyToPath, Secret};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, ResourceExt as _};
use parking_lot::Mutex;

/// What an object holds, by the names of its fields.
pub type Content = BTreeMap<String, Vec<u8>>;

/// What a ConfigMap holds.
pub fn of_config_map(map: &ConfigMap) -> Content {
    let fields = map.data.iter().flatten();
    fields
        .map(|(name, text)| (name.clone(), text.clone().into_bytes()))
        .collect()
}

/// What a Secret holds.
pub fn of_secret(secret: &Secret) -> Content {
    let fields = secret.data.iter().flatten();
    fields
        .map(|(name, bytes)| (name.clone(), bytes.0.clone()))
        .collect()
}

/// A folder of a pod that shows an object.
#[derive(Clone, Debug)]
pub struct Mount {
    folder: PathBuf,
    /// File by field; `None` = all, under their own names.
    items: Option<BTreeMap<String, String>>,
}

impl Mount {
    /// A folder, made if it is not there.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new(folder: PathBuf, items: Option<&[KeyToPath]>) -> Result<Self> {
        std::fs::create_dir_all(&folder)?;
        let items = items.map(|items| {
            let pairs = items.iter();
            pairs
                .map(|item| (item.key.clone(), item.path.clone()))
                .collect()
        });
        Ok(Self { folder, items })
    }

    /// Writes the files, each at once for its readers.
    ///
    /// # Errors
    /// When a field that is asked for is missing: a kubelet waits for it.
    pub fn write(&self, content: &Content) -> Result<()> {
        let all = || content.keys().map(|key| (key.clone(), key.clone()));
        let items = self.items.clone().unwrap_or_else(|| all().collect());
        for (field, path) in items {
            let bytes = content
                .get(&field)
                .with_context(|| format!("there is no field {field}"))?;
            let next = self.folder.join(format!("{path}.next"));
            std::fs::write(&next, bytes)?;
            std::fs::rename(&next, self.folder.join(path))?;
        }
        Ok(())
    }
}

/// Mounts by the kind and name of their object.
type ByObject = HashMap<(&'static str, String), Vec<Mount>>;

/// The folders of a namespace's pods that show objects. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Mounts {
    mounts: Arc<Mutex<ByObject>>,
}

impl Mounts {
    /// Keeps a folder as its object changes.
    pub fn add(&self, kind: &'static str, name: &str, mount: Mount) {
        let mut mounts = self.mounts.lock();
        mounts
            .entry((kind, name.to_owned()))
            .or_default()
            .push(mount);
    }

    fn changed(&self, kind: &'static str, name: String, content: &Content) {
        for mount in self.mounts.lock().get(&(kind, name)).into_iter().flatten() {
            // As with a kubelet, what cannot be shown stays as it was.
            if let Err(error) = mount.write(content) {
                tracing::debug!(%error, "a mounted object is not shown");
            }
        }
    }

    /// Follows the objects of a namespace for ever.
    pub async fn follow(self, client: Client, namespace: String) {
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace);
        let secrets: Api<Secret> = Api::namespaced(client, &namespace);
        let mut maps = watcher(maps, watcher::Config::default())
            .default_backoff()
            .applied_objects()
            .boxed();
        let mut secrets = watcher(secrets, watcher::Config::default())
            .default_backoff()
            .applied_objects()
            .boxed();
        loop {
            tokio::select! {
                map = maps.next() => match map {
                    Some(Ok(map)) => {
                        self.changed("ConfigMap", map.name_any(), &of_config_map(&map));
                    }
                    Some(Err(error)) => tracing::debug!(%error, "a watch was interrupted"),
                    None => return,
                },
                secret = secrets.next() => match secret {
                    Some(Ok(secret)) => {
                        self.changed("Secret", secret.name_any(), &of_secret(&secret));
                    }
                    Some(Err(error)) => tracing::debug!(%error, "a watch was interrupted"),
                    None => return,
                },
            }
        }
    }
}
