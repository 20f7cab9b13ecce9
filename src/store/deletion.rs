//! Deletion of a Store: it waits for the Sessions of its own namespace, then lets go. Its disks
//! stay, whatever happens to the rest.

use kube::core::DeserializeGuard;

use atomix_controller::{Cache, ObjectKey};
use atomix_resources::Session;

/// How many Sessions a message names.
const NAMED: usize = 5;

/// The Sessions of the Store's own namespace that use it, by name. Sessions elsewhere never hold
/// a Store up: a namespace that is deleted must not wait for another one's objects.
#[must_use]
pub fn sessions_using(
    store: &ObjectKey,
    sessions: &Cache<DeserializeGuard<Session>>,
) -> Vec<String> {
    let using = sessions.filter(|guarded| match &guarded.0 {
        Ok(session) => session_uses(session, store),
        // It cannot be said what it uses; it is reported as invalid and connects nothing.
        Err(_) => false,
    });
    let mut names: Vec<String> = using
        .iter()
        .filter_map(|session| session.0.as_ref().ok()?.metadata.name.clone())
        .collect();
    names.sort_unstable();
    names
}

/// Whether a Session of any namespace refers to the Store.
#[must_use]
pub fn is_used(store: &ObjectKey, sessions: &Cache<DeserializeGuard<Session>>) -> bool {
    let using = sessions.filter(|guarded| {
        let session = guarded.0.as_ref();
        session.is_ok_and(|session| names(session, store))
    });
    !using.is_empty()
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
    use super::*;

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
