//! Deletion of a Store: it waits for the Sessions of its own namespace, then lets go. Its disks
//! stay, whatever happens to the rest.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::DeserializeGuard;

use atomix_controller::{Cache, ObjectKey, finalizer};
use atomix_resources::labels::SESSION_FINALIZER;
use atomix_resources::{Session, Store};

/// How many Sessions a message names.
const NAMED: usize = 5;

/// The Sessions of the Store's own namespace that use it, or may do so, by name. Sessions elsewhere
/// never hold a Store up: a namespace that is deleted must not wait for another one's objects.
#[must_use]
pub fn sessions_using(
    store: &ObjectKey,
    sessions: &Cache<DeserializeGuard<Session>>,
) -> Vec<String> {
    let using = sessions.filter(|guarded| match &guarded.0 {
        Ok(session) => session_uses(session, store),
        Err(unreadable) => {
            unreadable.metadata.namespace.as_ref() == Some(&store.namespace)
                && may_use_a_store(&unreadable.metadata)
        }
    });
    let mut names: Vec<String> = using
        .iter()
        .filter_map(|session| match &session.0 {
            Ok(session) => session.metadata.name.clone(),
            Err(unreadable) => {
                let name = unreadable.metadata.name.as_ref()?;
                Some(format!(
                    "{name} (which cannot be read, so it may use the Store)"
                ))
            }
        })
        .collect();
    names.sort_unstable();
    names
}

/// Whether a Session uses the Store, or may do so: one of its own namespace, or of one that it allows.
#[must_use]
pub fn is_used(
    key: &ObjectKey,
    store: &Store,
    sessions: &Cache<DeserializeGuard<Session>>,
) -> bool {
    let using = sessions.filter(|session| is_user(session, key, store));
    !using.is_empty()
}

/// A Session that cannot be read: pods keep what an operator that could read it connected them with.
fn may_use_a_store(session: &ObjectMeta) -> bool {
    finalizer::has(session, SESSION_FINALIZER)
}

/// A namespace without permission holds up nothing of another one's Store.
fn is_user(session: &DeserializeGuard<Session>, key: &ObjectKey, store: &Store) -> bool {
    let (meta, may_name_it) = match &session.0 {
        Ok(session) => (&session.metadata, names(session, key)),
        Err(unreadable) => (&unreadable.metadata, may_use_a_store(&unreadable.metadata)),
    };
    may_name_it && may_be_of(meta.namespace.as_deref().unwrap_or_default(), key, store)
}

/// Whether Sessions of this namespace can use the Store.
pub fn may_be_of(namespace: &str, key: &ObjectKey, store: &Store) -> bool {
    namespace == key.namespace || store.allows(namespace)
}

/// Whether a Session of the Store's namespace refers to the Store.
#[must_use]
pub fn session_uses(session: &Session, store: &ObjectKey) -> bool {
    session.metadata.namespace.as_ref() == Some(&store.namespace) && names(session, store)
}

fn names(session: &Session, store: &ObjectKey) -> bool {
    let reference = &session.spec.store;
    let own = session.metadata.namespace.as_ref();
    reference.name == store.name && reference.namespace.as_ref().or(own) == Some(&store.namespace)
}

/// What the status says while Sessions hold a deletion up.
#[must_use]
pub fn waiting_message(sessions: &[String]) -> String {
    let named = sessions
        .get(..NAMED.min(sessions.len()))
        .unwrap_or_default();
    let rest = sessions.len() - named.len();
    let more = if rest == 0 {
        String::new()
    } else {
        format!(" and {rest} more")
    };
    format!(
        "deletion waits for {} Sessions of this namespace: {}{more}; delete them",
        sessions.len(),
        named.join(", ")
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use serde_json::json;

    use super::*;

    #[test]
    fn a_store_is_used_from_its_own_namespace_and_from_those_that_it_allows() {
        let store: Store = serde_json::from_value(json!({
            "metadata": {"name": "meadow", "namespace": "field"},
            "spec": {"driver": {"name": "memory"}, "allowedNamespaces": ["garden"]},
        }))
        .unwrap();
        let key = ObjectKey::new("field", "meadow");
        for (namespace, reference, expected) in [
            ("field", json!({"name": "meadow"}), true),
            ("field", json!({"name": "wood"}), false),
            (
                "garden",
                json!({"name": "meadow", "namespace": "field"}),
                true,
            ),
            ("garden", json!({"name": "meadow"}), false),
            (
                "wood",
                json!({"name": "meadow", "namespace": "field"}),
                false,
            ),
        ] {
            let session = serde_json::from_value(json!({
                "metadata": {"name": "counting", "namespace": namespace},
                "spec": {"store": reference, "selector": {"matchLabels": {"app": "shop"}}},
            }));
            let found = is_user(&session.unwrap(), &key, &store);
            assert_eq!(found, expected, "{namespace}: {reference}");
        }
        // Of one that cannot be read nobody knows, once an operator has connected pods for it.
        for (namespace, finalizer, expected) in [
            ("field", SESSION_FINALIZER, true),
            ("field", "garden.example/other", false),
            ("garden", SESSION_FINALIZER, true),
            ("wood", SESSION_FINALIZER, false),
        ] {
            let session: DeserializeGuard<Session> = serde_json::from_value(json!({
                "apiVersion": "atomix.io/v1beta1",
                "kind": "Session",
                "metadata": {"name": "odd", "namespace": namespace, "finalizers": [finalizer]},
                "spec": {"newer": true},
            }))
            .unwrap();
            assert!(session.0.is_err());
            let found = is_user(&session, &key, &store);
            assert_eq!(found, expected, "{namespace}: {finalizer}");
        }
    }

    #[test]
    fn a_message_names_some_and_counts_the_rest() {
        let names: Vec<String> = (0..7).map(|number| format!("s{number}")).collect();
        let message = waiting_message(&names);
        assert!(message.contains("7 Sessions"), "{message}");
        assert!(
            message.contains("s0, s1, s2, s3, s4 and 2 more"),
            "{message}"
        );
        assert!(waiting_message(&names[..1]).contains(": s0; delete"));
    }
}
