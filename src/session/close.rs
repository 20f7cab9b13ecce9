//! Step 3 of the session controller for a Session under deletion: which pods its finalizer still
//! waits for. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::runtimes::SessionView;
use atomix_controller::ObjectKey;

/// How the end of a Session goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Closing {
    /// Wait for these pods, at most this long.
    Wait {
        pods: BTreeSet<ObjectKey>,
        at_most: Duration,
    },
    /// Remove the finalizer; these pods did not disconnect in time.
    Release { dropped: BTreeSet<ObjectKey> },
}

/// A pod is waited for while its runtime may know the Session: it was programmed for it, or this
/// operator has not looked at it yet.
pub(super) fn closing(
    view: &SessionView,
    has_report: impl Fn(&ObjectKey) -> bool,
    waited: Duration,
    longest_wait: Duration,
) -> Closing {
    let unseen = view.pods.keys().filter(|pod| !has_report(pod));
    let mut pods: BTreeSet<ObjectKey> = unseen.cloned().collect();
    pods.extend(view.programmed.iter().cloned());
    match longest_wait.checked_sub(waited) {
        Some(at_most) if !pods.is_empty() && !at_most.is_zero() => Closing::Wait { pods, at_most },
        _ => Closing::Release { dropped: pods },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST_WAIT: Duration = Duration::from_secs(30);

    #[test]
    fn the_finalizer_waits_for_every_pod_that_may_know_the_session_but_not_for_ever() {
        let key = |name: &str| ObjectKey::new("garden", name);
        let view = |selected: &[&str], programmed: &[&str]| SessionView {
            pods: selected.iter().map(|name| (key(name), None)).collect(),
            programmed: programmed.iter().map(|name| key(name)).collect(),
            ..SessionView::default()
        };
        let short = Duration::from_secs(1);
        let release = |names: &[&str]| Closing::Release {
            dropped: names.iter().map(|name| key(name)).collect(),
        };
        let wait = |names: &[&str]| Closing::Wait {
            pods: names.iter().map(|name| key(name)).collect(),
            at_most: LONGEST_WAIT - short,
        };
        let closing = |view: &SessionView, is_seen: bool, waited: Duration| {
            closing(view, |_| is_seen, waited, LONGEST_WAIT)
        };
        assert_eq!(closing(&view(&[], &[]), true, short), release(&[]));
        assert_eq!(closing(&view(&["a"], &[]), true, short), release(&[]));
        assert_eq!(closing(&view(&["a"], &[]), false, short), wait(&["a"]));
        // Its labels changed, so it is no longer selected, but it is still connected.
        assert_eq!(closing(&view(&[], &["b"]), true, short), wait(&["b"]));
        assert_eq!(
            closing(&view(&[], &["b"]), true, LONGEST_WAIT),
            release(&["b"])
        );
    }
}
