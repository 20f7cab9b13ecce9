//! Which Sessions select which pods, without looking at all of them. Pure.
//!
//! A Session is found by one of its label pairs, a pod by each of its own.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use kube::ResourceExt as _;

use super::keys_by::KeysBy;
use super::pod::RuntimePod;
use atomix_controller::{Decoded, ObjectKey};
use atomix_resources::Session;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Label(Box<str>);

impl Label {
    fn new(namespace: &str, key: &str, value: &str) -> Self {
        // None of them may contain a space.
        Self(format!("{namespace} {key} {value}").into_boxed_str())
    }
}

/// Pods, Sessions and the Stores that Sessions name.
#[derive(Debug, Default)]
pub struct Index {
    pods: HashMap<ObjectKey, Arc<RuntimePod>>,
    pods_by_label: KeysBy<Label>,
    /// In the last form that decoded.
    sessions: HashMap<ObjectKey, Decoded<Session>>,
    sessions_by_label: KeysBy<Label>,
    sessions_by_store: KeysBy<ObjectKey>,
    /// Sessions that may have an effect, no form of which has ever decoded.
    unreadable: BTreeSet<ObjectKey>,
}

impl Index {
    /// Notes a pod; returns the Sessions that selected it before or do now.
    pub fn set_pod(&mut self, key: &ObjectKey, pod: Arc<RuntimePod>) -> BTreeSet<ObjectKey> {
        if let Some(known) = self.pods.get_mut(key)
            && known.labels() == pod.labels()
        {
            *known = pod;
            return self.sessions_of(key);
        }
        let mut affected = self.remove_pod(key);
        for label in labels_in(&key.namespace, pod.labels()) {
            self.pods_by_label.insert(label, key);
        }
        self.pods.insert(key.clone(), pod);
        affected.extend(self.sessions_of(key));
        affected
    }

    /// Forgets a pod; returns the Sessions that selected it.
    pub fn remove_pod(&mut self, key: &ObjectKey) -> BTreeSet<ObjectKey> {
        let affected = self.sessions_of(key);
        if let Some(pod) = self.pods.remove(key) {
            for label in labels_in(&key.namespace, pod.labels()) {
                self.pods_by_label.remove(&label, key);
            }
        }
        affected
    }

    /// Notes a Session; returns the pods that it selected before or does now.
    pub fn set_session(
        &mut self,
        key: &ObjectKey,
        session: Decoded<Session>,
    ) -> BTreeSet<ObjectKey> {
        let mut affected = self.remove_session(key);
        if let Some(label) = found_by(key, &session) {
            self.sessions_by_label.insert(label, key);
        }
        let store = store_of(key, &session);
        self.sessions_by_store.insert(store, key);
        self.sessions.insert(key.clone(), session);
        affected.extend(self.pods_of(key));
        affected
    }

    /// Notes a Session that does not decode but may have an effect. What it selects is known only
    /// if an earlier form of it decoded.
    pub fn set_unreadable(&mut self, key: &ObjectKey) {
        if !self.sessions.contains_key(key) {
            self.unreadable.insert(key.clone());
        }
    }

    /// Forgets that a Session does not decode; returns the pods that it may have selected.
    pub fn remove_unreadable(&mut self, key: &ObjectKey) -> BTreeSet<ObjectKey> {
        if !self.unreadable.remove(key) {
            return BTreeSet::new();
        }
        let pods = self.pods.keys();
        let may_be_selected = pods.filter(|pod| pod.namespace == key.namespace);
        may_be_selected.cloned().collect()
    }

    /// Whether a Session of which nothing is known may select pods of the namespace.
    pub fn has_unreadable(&self, namespace: &str) -> bool {
        let mut unreadable = self.unreadable.iter();
        unreadable.any(|session| session.namespace == namespace)
    }

    /// Forgets a Session; returns the pods that it selected, or may have.
    pub fn remove_session(&mut self, key: &ObjectKey) -> BTreeSet<ObjectKey> {
        let mut affected = self.remove_unreadable(key);
        affected.extend(self.pods_of(key));
        if let Some(session) = self.sessions.remove(key) {
            if let Some(label) = found_by(key, &session) {
                self.sessions_by_label.remove(&label, key);
            }
            self.sessions_by_store.remove(&store_of(key, &session), key);
        }
        affected
    }

    /// The Session in the last form that decoded.
    pub fn session(&self, key: &ObjectKey) -> Option<Decoded<Session>> {
        self.sessions.get(key).cloned()
    }

    /// The Sessions that select a pod.
    pub fn sessions_of(&self, pod: &ObjectKey) -> BTreeSet<ObjectKey> {
        let Some(found) = self.pods.get(pod) else {
            return BTreeSet::new();
        };
        labels_in(&pod.namespace, found.labels())
            .flat_map(|label| self.selecting(&label, found.labels()))
            .collect()
    }

    /// The pods that a Session selects.
    pub fn pods_of(&self, key: &ObjectKey) -> BTreeSet<ObjectKey> {
        let Some(session) = self.sessions.get(key) else {
            return BTreeSet::new();
        };
        let rarest = labels_in(&key.namespace, &session.spec.selector.match_labels)
            .min_by_key(|label| self.pods_by_label.count(label));
        let candidates = rarest
            .iter()
            .flat_map(|label| self.pods_by_label.get(label));
        let is_selected = |pod: &&ObjectKey| {
            self.pods
                .get(*pod)
                .is_some_and(|found| session.spec.selector.matches(found.labels()))
        };
        candidates.filter(is_selected).cloned().collect()
    }

    /// The Sessions that name a Store.
    pub fn sessions_of_store(&self, store: &ObjectKey) -> BTreeSet<ObjectKey> {
        self.sessions_by_store.get(store).cloned().collect()
    }

    /// The Sessions of a label that select a pod with these labels.
    fn selecting(&self, label: &Label, labels: &BTreeMap<String, String>) -> Vec<ObjectKey> {
        let sessions = self.sessions_by_label.get(label);
        let selecting = sessions.filter(|session| self.selects(session, labels));
        selecting.cloned().collect()
    }

    fn selects(&self, session: &ObjectKey, labels: &BTreeMap<String, String>) -> bool {
        let session = self.sessions.get(session);
        session.is_some_and(|session| session.spec.selector.matches(labels))
    }
}

/// The Store that a Session names.
pub fn store_of(key: &ObjectKey, session: &Session) -> ObjectKey {
    let reference = &session.spec.store;
    let namespace = reference.namespace.as_ref().unwrap_or(&key.namespace);
    ObjectKey::new(namespace.clone(), reference.name.clone())
}

fn found_by(key: &ObjectKey, session: &Session) -> Option<Label> {
    labels_in(&key.namespace, &session.spec.selector.match_labels).next()
}

fn labels_in<'a>(
    namespace: &'a str,
    labels: &'a BTreeMap<String, String>,
) -> impl Iterator<Item = Label> + 'a {
    labels
        .iter()
        .map(|(key, value)| Label::new(namespace, key, value))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use atomix_resources::SessionSpec;
    use atomix_resources::session::{PodSelector, StoreReference};

    fn pod(labels: &BTreeMap<String, String>) -> Arc<RuntimePod> {
        let mut pod = RuntimePod::default();
        pod.metadata.labels = Some(labels.clone());
        Arc::new(pod)
    }

    fn session(labels: &BTreeMap<String, String>, store: &str) -> Decoded<Session> {
        let spec = SessionSpec {
            store: StoreReference {
                name: store.to_owned(),
                namespace: None,
            },
            selector: PodSelector {
                match_labels: labels.clone(),
                match_expressions: None,
            },
            kind: None,
            primitive: None,
            tags: None,
            config: None,
            paused: None,
        };
        Session::new("any", spec).into()
    }

    #[derive(Clone, Debug)]
    enum Step {
        SetPod(ObjectKey, BTreeMap<String, String>),
        RemovePod(ObjectKey),
        SetSession(ObjectKey, BTreeMap<String, String>, String),
        RemoveSession(ObjectKey),
        SetUnreadable(ObjectKey),
        RemoveUnreadable(ObjectKey),
    }

    fn any_key() -> impl Strategy<Value = ObjectKey> {
        ("[xy]", "[abc]").prop_map(|(namespace, name)| ObjectKey::new(namespace, name))
    }

    fn any_step() -> impl Strategy<Value = Step> {
        let labels = || prop::collection::btree_map("[kl]", "[vw]", 1..3);
        prop_oneof![
            (any_key(), labels()).prop_map(|(key, labels)| Step::SetPod(key, labels)),
            any_key().prop_map(Step::RemovePod),
            (any_key(), labels(), "[st]")
                .prop_map(|(key, labels, store)| Step::SetSession(key, labels, store)),
            any_key().prop_map(Step::RemoveSession),
            any_key().prop_map(Step::SetUnreadable),
            any_key().prop_map(Step::RemoveUnreadable),
        ]
    }

    /// Looks at everything each time.
    #[derive(Default)]
    struct Naive {
        pods: BTreeMap<ObjectKey, BTreeMap<String, String>>,
        sessions: BTreeMap<ObjectKey, Decoded<Session>>,
        unreadable: BTreeSet<ObjectKey>,
    }

    impl Naive {
        fn end_unreadable(&mut self, session: &ObjectKey) -> BTreeSet<ObjectKey> {
            let was_unreadable = self.unreadable.remove(session);
            let pods = self.pods.keys();
            pods.filter(|pod| was_unreadable && pod.namespace == session.namespace)
                .cloned()
                .collect()
        }

        fn matches(&self, session: &ObjectKey, pod: &ObjectKey) -> bool {
            match (self.sessions.get(session), self.pods.get(pod)) {
                (Some(found), Some(labels)) => {
                    session.namespace == pod.namespace && found.spec.selector.matches(labels)
                }
                _ => false,
            }
        }

        fn pods_of(&self, session: &ObjectKey) -> BTreeSet<ObjectKey> {
            self.pods
                .keys()
                .filter(|pod| self.matches(session, pod))
                .cloned()
                .collect()
        }

        fn sessions_of(&self, pod: &ObjectKey) -> BTreeSet<ObjectKey> {
            self.sessions
                .keys()
                .filter(|key| self.matches(key, pod))
                .cloned()
                .collect()
        }
    }

    proptest! {
        #[test]
        fn the_index_answers_like_a_look_at_everything(
            steps in prop::collection::vec(any_step(), 1..60),
        ) {
            let mut index = Index::default();
            let mut naive = Naive::default();
            for step in steps {
                match step {
                    Step::SetPod(key, labels) => {
                        let mut expected = naive.sessions_of(&key);
                        naive.pods.insert(key.clone(), labels.clone());
                        expected.extend(naive.sessions_of(&key));
                        prop_assert_eq!(index.set_pod(&key, pod(&labels)), expected);
                    }
                    Step::RemovePod(key) => {
                        let expected = naive.sessions_of(&key);
                        naive.pods.remove(&key);
                        prop_assert_eq!(index.remove_pod(&key), expected);
                    }
                    Step::SetSession(key, labels, store) => {
                        let mut expected = naive.end_unreadable(&key);
                        expected.extend(naive.pods_of(&key));
                        let session = session(&labels, &store);
                        naive.sessions.insert(key.clone(), session.clone());
                        expected.extend(naive.pods_of(&key));
                        prop_assert_eq!(index.set_session(&key, session), expected);
                        let store = ObjectKey::new(key.namespace.clone(), store);
                        prop_assert!(index.sessions_of_store(&store).contains(&key));
                    }
                    Step::RemoveSession(key) => {
                        let mut expected = naive.end_unreadable(&key);
                        expected.extend(naive.pods_of(&key));
                        naive.sessions.remove(&key);
                        prop_assert_eq!(index.remove_session(&key), expected);
                    }
                    Step::SetUnreadable(key) => {
                        index.set_unreadable(&key);
                        // The last form that decoded stays in force.
                        if !naive.sessions.contains_key(&key) {
                            naive.unreadable.insert(key);
                        }
                    }
                    Step::RemoveUnreadable(key) => {
                        let expected = naive.end_unreadable(&key);
                        prop_assert_eq!(index.remove_unreadable(&key), expected);
                    }
                }
                for namespace in ["x", "y"] {
                    let expected = naive.unreadable.iter().any(|key| key.namespace == namespace);
                    prop_assert_eq!(index.has_unreadable(namespace), expected);
                }
            }
            for (pod, session) in naive.pods.keys().zip(naive.sessions.keys()) {
                prop_assert_eq!(index.sessions_of(pod), naive.sessions_of(pod));
                prop_assert_eq!(index.pods_of(session), naive.pods_of(session));
            }
            naive.pods.keys().for_each(|key| { index.remove_pod(key); });
            naive.sessions.keys().for_each(|key| { index.remove_session(key); });
            prop_assert!(index.pods_by_label.is_empty());
            prop_assert!(index.sessions_by_label.is_empty());
            prop_assert!(index.sessions_by_store.is_empty());
        }
    }
}
