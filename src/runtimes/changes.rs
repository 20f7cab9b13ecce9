//! What the runtime controller does when a cache tells of a change: keeps the index and queues the
//! pods and Sessions that it concerns, those of before and those of now. Deletions always count.

use std::collections::BTreeSet;
use std::sync::Arc;

use kube::core::DeserializeGuard;

use super::Shared;
use super::desired::is_active;
use super::pod::{RuntimePod, Sidecar};
use atomix_controller::{Change, Decoded, ObjectKey, finalizer};
use atomix_resources::labels::SESSION_FINALIZER;
use atomix_resources::{Session, Store};

impl Shared {
    pub(super) fn session_changed(&self, change: &Change<'_, DeserializeGuard<Session>>) {
        let key = ObjectKey::of(change.object().as_ref());
        let pods = match change {
            Change::Deleted(_) => self.index.lock().remove_session(&key),
            Change::Applied { before, after } => match Decoded::of(after) {
                // Its last form that decoded stays in force; this operator may not have seen it.
                Err(undecodable) => {
                    let mut index = self.index.lock();
                    if is_active(&undecodable.metadata) {
                        index.set_unreadable(&key);
                        BTreeSet::new()
                    } else {
                        index.remove_unreadable(&key)
                    }
                }
                Ok(session) => {
                    let before = before.and_then(|before| before.0.as_ref().ok());
                    let is_relevant = before.is_none_or(|before| concerns_pods(before, &session));
                    let pods = self.index.lock().set_session(&key, session);
                    if is_relevant { pods } else { BTreeSet::new() }
                }
            },
        };
        pods.into_iter().for_each(|pod| self.queue.add(pod));
        self.sessions.add(key);
    }

    pub(super) fn store_changed(&self, change: &Change<'_, DeserializeGuard<Store>>) {
        if let Change::Applied {
            before: Some(before),
            after,
        } = change
            && let (Ok(before), Ok(after)) = (&before.0, &after.0)
            && !concerns_sessions(before, after)
        {
            return;
        }
        self.ask_for_sessions_of(&ObjectKey::of(change.object().as_ref()));
    }

    /// Queues the Sessions of a Store and their pods.
    pub(super) fn ask_for_sessions_of(&self, store: &ObjectKey) {
        let index = self.index.lock();
        for session in index.sessions_of_store(store) {
            index
                .pods_of(&session)
                .into_iter()
                .for_each(|pod| self.queue.add(pod));
            self.sessions.add(session);
        }
    }

    pub(super) fn pod_changed(&self, change: &Change<'_, RuntimePod>) {
        let pod = change.object();
        let key = ObjectKey::of(pod.as_ref());
        let sessions = match change {
            Change::Deleted(_) => self.index.lock().remove_pod(&key),
            Change::Applied { before, after } => {
                // Always, or the index would keep the form before in memory.
                let sessions = self.index.lock().set_pod(&key, Arc::clone(after));
                let is_same = before.is_some_and(|before| !after.differs_for_runtime(before));
                if is_same && !self.gates.is_foreign(&key, after) {
                    return;
                }
                sessions
            }
        };
        if let (Change::Deleted(_), Sidecar::Running { control, .. }) = (change, pod.sidecar()) {
            self.context.channels.close(control.address);
        }
        // Also for a deleted pod: its report goes in the controller's own order.
        self.queue.add(key);
        sessions
            .into_iter()
            .for_each(|session| self.sessions.add(session));
    }
}

/// A status write concerns no pod.
fn concerns_pods(before: &Session, after: &Session) -> bool {
    let facts = |session: &Session| {
        (
            session.metadata.uid.clone(),
            session.metadata.generation,
            session.metadata.deletion_timestamp.is_some(),
            finalizer::has(&session.metadata, SESSION_FINALIZER),
        )
    };
    facts(before) != facts(after) || before.spec != after.spec
}

/// Most status writes of a Store concern no Session.
fn concerns_sessions(before: &Store, after: &Store) -> bool {
    let facts = |store: &Store| {
        let status = store.status.clone().unwrap_or_default();
        (
            store.metadata.uid.clone(),
            store.metadata.deletion_timestamp.is_some(),
            status.bootstrapped,
            status.replication_factor,
        )
    };
    facts(before) != facts(after) || before.spec != after.spec
}
