//! What is known: which namespaces need certificates for whom, and the Secrets that there are. Kept
//! by the listeners of the caches, so that no pass counts thousands of pods.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::SystemTime;

use k8s_openapi::api::core::v1::Secret;
use parking_lot::Mutex;

use super::authority::{Authority, Lifetimes};
use super::keeper::is_ours;
use super::leaves::Wanted;
use super::source::{self, SourceError};
use crate::certificates::x509::Pair;
use atomix_controller::{Cache, ObjectKey};
use atomix_tls::Identity;

/// Who needs certificates in one namespace.
#[derive(Debug, Default)]
struct Needs {
    /// Stores with storage nodes.
    stores: BTreeSet<String>,
    /// Sessions and pods with a runtime.
    users: BTreeSet<(&'static str, String)>,
}

/// What is known.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) authorities: Cache<Secret>,
    pub(super) node_secrets: Cache<Secret>,
    pub(super) runtime_secrets: Cache<Secret>,
    /// The Secret with the authority that somebody else makes, if one is named.
    pub(super) sources: Cache<Secret>,
    /// Name of the authority's Secret.
    authority_key: ObjectKey,
    /// Name of that Secret of somebody else's.
    source_key: Option<ObjectKey>,
    needs: Mutex<HashMap<String, Needs>>,
}

impl Seen {
    pub(super) fn new(authority: &ObjectKey, source: Option<&ObjectKey>) -> Self {
        Self {
            authorities: Cache::default(),
            node_secrets: Cache::default(),
            runtime_secrets: Cache::default(),
            sources: Cache::default(),
            authority_key: authority.clone(),
            source_key: source.cloned(),
            needs: Mutex::default(),
        }
    }

    /// The authority, as last seen.
    pub(super) fn authority(&self) -> Option<Authority> {
        let secret = self.authorities.get(&self.authority_key)?;
        Authority::of(secret.data.as_ref()?).ok()
    }

    /// The authority that somebody else makes, as last seen; `None` = nobody is named.
    pub(super) fn source(
        &self,
        now: SystemTime,
        lifetimes: &Lifetimes,
    ) -> Option<Result<Pair, SourceError>> {
        let key = self.source_key.as_ref()?;
        let secret = self.sources.get(key);
        Some(source::read(key, secret.as_deref(), now, lifetimes))
    }

    /// Waits until it is known what there is of authorities.
    pub(super) async fn authorities_synced(&self) {
        self.authorities.synced().await;
        if self.source_key.is_some() {
            self.sources.synced().await;
        }
    }

    /// All Secrets with certificates of ours.
    pub(super) fn ours(&self) -> Vec<Arc<Secret>> {
        let mut ours = self.node_secrets.filter(is_ours);
        ours.extend(self.runtime_secrets.filter(is_ours));
        ours
    }

    pub(super) fn secret(&self, key: &ObjectKey) -> Option<Arc<Secret>> {
        let nodes = self.node_secrets.get(key);
        nodes.or_else(|| self.runtime_secrets.get(key))
    }

    /// A Store with storage nodes is there, or no longer. True = that is new.
    pub(super) fn store(&self, key: &ObjectKey, is_there: bool) -> bool {
        let mut needs = self.needs.lock();
        let stores = &mut needs.entry(key.namespace.clone()).or_default().stores;
        let changed = if is_there {
            stores.insert(key.name.clone())
        } else {
            stores.remove(&key.name)
        };
        tidy(&mut needs, &key.namespace);
        changed
    }

    /// A Session or a pod with a runtime is there, or no longer. True = its namespace has its first
    /// or has lost its last.
    pub(super) fn user(&self, kind: &'static str, key: &ObjectKey, is_there: bool) -> bool {
        let mut needs = self.needs.lock();
        let users = &mut needs.entry(key.namespace.clone()).or_default().users;
        let before = users.is_empty();
        let user = (kind, key.name.clone());
        if is_there {
            users.insert(user);
        } else {
            users.remove(&user);
        }
        let changed = before != users.is_empty();
        tidy(&mut needs, &key.namespace);
        changed
    }

    /// What the Secret of a namespace's storage nodes should hold.
    pub(super) fn nodes_of(&self, namespace: &str) -> Wanted {
        let needs = self.needs.lock();
        let stores = needs.get(namespace).map(|needs| &needs.stores);
        let identity = |store: &String| Identity::Node {
            namespace: namespace.to_owned(),
            store: store.clone(),
        };
        let stores = stores.into_iter().flatten();
        stores
            .map(|store| (store.clone(), identity(store)))
            .collect()
    }

    /// What the Secret of a namespace's runtimes should hold.
    pub(super) fn runtime_of(&self, namespace: &str) -> Wanted {
        let needs = self.needs.lock();
        let is_used = needs
            .get(namespace)
            .is_some_and(|needs| !needs.users.is_empty());
        if !is_used {
            return Wanted::new();
        }
        let namespace = namespace.to_owned();
        Wanted::from([("tls".to_owned(), Identity::Runtime { namespace })])
    }

    /// All namespaces that need certificates or have them.
    pub(super) fn namespaces(&self) -> BTreeSet<String> {
        let needed: BTreeSet<String> = self.needs.lock().keys().cloned().collect();
        let ours = self.ours();
        let present = ours
            .iter()
            .filter_map(|secret| secret.metadata.namespace.clone());
        needed.into_iter().chain(present).collect()
    }
}

fn tidy(needs: &mut HashMap<String, Needs>, namespace: &str) {
    let is_idle = |needs: &Needs| needs.stores.is_empty() && needs.users.is_empty();
    if needs.get(namespace).is_some_and(is_idle) {
        needs.remove(namespace);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_needs_a_runtime_certificate_from_its_first_user_to_its_last() {
        let seen = Seen::new(&ObjectKey::new("garden", "authority"), None);
        let session = ObjectKey::new("meadow", "bees");
        let pod = ObjectKey::new("meadow", "bees");
        assert!(seen.user("pod", &pod, true));
        assert!(!seen.user("session", &session, true));
        assert!(!seen.user("session", &session, true), "told twice");
        assert!(!seen.user("pod", &pod, false));
        assert_eq!(seen.runtime_of("meadow").len(), 1);
        assert!(seen.user("session", &session, false));
        assert!(seen.runtime_of("meadow").is_empty());

        assert!(seen.store(&ObjectKey::new("field", "tulip"), true));
        assert!(!seen.store(&ObjectKey::new("field", "tulip"), true));
        let nodes = seen.nodes_of("field");
        let identity = nodes.get("tulip").map(ToString::to_string);
        assert_eq!(
            identity.as_deref(),
            Some("spiffe://atomix.io/node/field/tulip")
        );
        assert!(seen.nodes_of("meadow").is_empty());
        assert!(seen.store(&ObjectKey::new("field", "tulip"), false));
        assert!(seen.namespaces().is_empty());
    }
}
