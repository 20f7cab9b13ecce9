//! A copy of a map in memory that follows every change: reads cost nothing and are a moment old.
//!
//! Start it several times on a machine with a sidecar; each writes one entry and shows what all have
//! written.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use atomix_client::{Client, Error, Map, Result, Update};
use clap::Parser;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Writes one entry of a map and shows a cache of all.
#[derive(Debug, Parser)]
struct Options {
    /// The name of the map.
    #[arg(long, default_value = "settings")]
    map: String,
    /// The key to write.
    #[arg(long, default_value = "color")]
    key: String,
    /// Its value.
    #[arg(long, default_value = "blue")]
    value: String,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let client = Client::connect().await?;
    let settings = client.map::<String, String>(&options.map);
    let cache = MapCache::follow(settings.clone());
    settings.put(&options.key, &options.value).await?;
    cache
        .wait_for(|entries| entries.get(&options.key) == Some(&options.value))
        .await;
    println!("{} = {:?}", options.key, cache.get(&options.key));
    Ok(())
}

/// A copy of a map.
pub struct MapCache<K, V> {
    entries: Arc<RwLock<HashMap<K, V>>>,
    changes: watch::Receiver<u64>,
    following: JoinHandle<()>,
}

impl<K, V> MapCache<K, V>
where
    K: Serialize + DeserializeOwned + Hash + Eq + Clone + Send + Sync + 'static,
    V: Serialize + DeserializeOwned + Clone + Send + Sync + 'static,
{
    /// Follows a map until it is dropped.
    pub fn follow(map: Map<K, V>) -> Self {
        let entries = Arc::new(RwLock::new(HashMap::new()));
        let (changed, changes) = watch::channel(0);
        let copy = Arc::clone(&entries);
        let following = tokio::spawn(async move {
            loop {
                let Err(error) = copy_until_it_ends(&map, &copy, &changed).await else {
                    return;
                };
                eprintln!("the cache begins anew: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        Self {
            entries,
            changes,
            following,
        }
    }

    /// The value of a key, as far as changes have arrived.
    pub fn get(&self, key: &K) -> Option<V> {
        self.entries.read().ok()?.get(key).cloned()
    }

    /// Waits until the copy is as wanted.
    pub async fn wait_for(&self, is_so: impl Fn(&HashMap<K, V>) -> bool) {
        let mut changes = self.changes.clone();
        let looked = changes.wait_for(|_| self.entries.read().is_ok_and(|copy| is_so(&copy)));
        // It fails when nobody follows any more.
        let _ = looked.await;
    }
}

impl<K, V> Drop for MapCache<K, V> {
    fn drop(&mut self) {
        self.following.abort();
    }
}

/// Takes over entries and changes until the stream ends. After a loss the copy begins empty.
async fn copy_until_it_ends<K, V>(
    map: &Map<K, V>,
    copy: &RwLock<HashMap<K, V>>,
    changed: &watch::Sender<u64>,
) -> Result<(), Error>
where
    K: Serialize + DeserializeOwned + Hash + Eq + Send + 'static,
    V: Serialize + DeserializeOwned + Send + 'static,
{
    let mut updates = map.watch().await?;
    if let Ok(mut copy) = copy.write() {
        copy.clear();
    }
    while let Some(update) = updates.next().await? {
        if let Ok(mut copy) = copy.write() {
            match update {
                Update::Present(entry) => copy.insert(entry.key, entry.value.value),
                Update::Removed(entry) => copy.remove(&entry.key),
            };
        }
        changed.send_modify(|count| *count += 1);
    }
    Ok(())
}
