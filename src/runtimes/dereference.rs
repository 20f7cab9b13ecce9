//! Step 1 of the runtime controller: everything that a pass reads, from the caches.

use std::sync::Arc;

use super::Runtimes;
use super::desired::SelectingSession;
use super::index::store_of;
use super::pod::RuntimePod;
use crate::session::resolve::{NamedStore, resolve};
use crate::store::ownership;
use atomix_controller::ObjectKey;

/// What a pass works on.
#[derive(Debug)]
pub(super) struct Dereferenced {
    pub(super) pod: Arc<RuntimePod>,
    pub(super) sessions: Vec<SelectingSession>,
    /// A Session that cannot be read may select the pod too.
    pub(super) has_unreadable: bool,
    /// A person has said that one of the Stores is this operator's, though another one's it was.
    pub(super) takes_over: bool,
}

/// `None` = the pod is gone.
pub(super) fn dereference(runtimes: &Runtimes, key: &ObjectKey) -> Option<Dereferenced> {
    let pod = runtimes.shared.pods.get(key)?;
    let (selecting, has_unreadable) = {
        let index = runtimes.shared.index.lock();
        let keys = index.sessions_of(key);
        let sessions = keys.into_iter().filter_map(|session| {
            let found = index.session(&session)?;
            Some((session, found))
        });
        let has_unreadable = index.has_unreadable(&key.namespace);
        (sessions.collect::<Vec<_>>(), has_unreadable)
    };
    let context = &runtimes.shared.context;
    let own = context.channels.caller().id();
    let mut takes_over = false;
    let sessions = selecting
        .into_iter()
        .map(|(key, session)| {
            let store = context.stores.get(&store_of(&key, &session));
            let declared = store.as_deref().and_then(|store| {
                let store = store.0.as_ref().ok()?;
                ownership::declared(store)
            });
            takes_over |= declared == Some(own.as_str());
            let target = resolve(&key, &NamedStore::look(context, &key, &session));
            SelectingSession {
                key,
                session,
                target,
            }
        })
        .collect();
    Some(Dereferenced {
        pod,
        sessions,
        has_unreadable,
        takes_over,
    })
}
