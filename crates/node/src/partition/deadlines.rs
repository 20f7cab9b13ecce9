//! When the leader may end a session that nobody keeps alive.
//!
//! Deadlines live in the leader's memory, in state-machine time; only the end of a session is a log
//! entry. A new leader gives every session its whole timeout again, and so does one that a quorum
//! acknowledges again after it did not for a while: an outage by itself ends no session.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use atomix_primitives::SessionId;

/// The deadlines of one partition's sessions during one leader's term.
#[derive(Debug, Default)]
pub(crate) struct SessionDeadlines {
    sessions: HashMap<SessionId, Lifetime>,
    by_deadline: BTreeSet<(Duration, SessionId)>,
}

#[derive(Debug, Clone, Copy)]
struct Lifetime {
    timeout: Duration,
    deadline: Duration,
}

impl SessionDeadlines {
    /// Makes the sessions exactly those that the state machine holds. A session that was unknown
    /// gets its whole timeout from `now`; the others keep their deadlines.
    pub(crate) fn reconcile(
        &mut self,
        held: impl Iterator<Item = (SessionId, Duration)>,
        now: Duration,
    ) {
        let mut gone: BTreeSet<SessionId> = self.sessions.keys().copied().collect();
        for (session, timeout) in held {
            gone.remove(&session);
            if !self.sessions.contains_key(&session) {
                self.insert(session, timeout, now);
            }
        }
        for session in gone {
            self.remove(session);
        }
    }

    /// Starts the lifetime of a session that was opened.
    pub(crate) fn insert(&mut self, session: SessionId, timeout: Duration, now: Duration) {
        self.remove(session);
        let deadline = now.saturating_add(timeout);
        self.sessions
            .insert(session, Lifetime { timeout, deadline });
        self.by_deadline.insert((deadline, session));
    }

    /// Forgets a session that ended.
    pub(crate) fn remove(&mut self, session: SessionId) {
        if let Some(lifetime) = self.sessions.remove(&session) {
            self.by_deadline.remove(&(lifetime.deadline, session));
        }
    }

    /// Gives the session its whole timeout from `now`. False when the session is unknown.
    pub(crate) fn touch(&mut self, session: SessionId, now: Duration) -> bool {
        let Some(lifetime) = self.sessions.get_mut(&session) else {
            return false;
        };
        let deadline = now.saturating_add(lifetime.timeout);
        if deadline > lifetime.deadline {
            self.by_deadline.remove(&(lifetime.deadline, session));
            lifetime.deadline = deadline;
            self.by_deadline.insert((deadline, session));
        }
        true
    }

    /// Gives every session its whole timeout from `now`.
    pub(crate) fn renew(&mut self, now: Duration) {
        let sessions: Vec<SessionId> = self.sessions.keys().copied().collect();
        for session in sessions {
            self.touch(session, now);
        }
    }

    /// The sessions whose deadline has passed, in the order of their deadlines.
    pub(crate) fn expired(&self, now: Duration) -> Vec<SessionId> {
        self.by_deadline
            .iter()
            .take_while(|(deadline, _)| *deadline < now)
            .map(|(_, session)| *session)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const A: SessionId = SessionId(7);
    const B: SessionId = SessionId(3);

    #[test]
    fn a_session_expires_only_after_its_timeout_without_a_touch() {
        let mut deadlines = SessionDeadlines::default();
        deadlines.insert(A, 10 * SECOND, SECOND);
        deadlines.insert(B, 5 * SECOND, SECOND);
        assert_eq!(deadlines.expired(6 * SECOND), []);
        assert_eq!(deadlines.expired(7 * SECOND), [B]);
        assert!(deadlines.touch(B, 6 * SECOND));
        assert_eq!(deadlines.expired(11 * SECOND), []);
        assert_eq!(deadlines.expired(12 * SECOND), [B, A]);
    }

    #[test]
    fn a_late_touch_never_shortens_a_deadline() {
        let mut deadlines = SessionDeadlines::default();
        deadlines.insert(A, 10 * SECOND, 5 * SECOND);
        assert!(deadlines.touch(A, SECOND));
        assert_eq!(deadlines.expired(15 * SECOND), []);
    }

    #[test]
    fn a_removed_or_unknown_session_cannot_be_touched() {
        let mut deadlines = SessionDeadlines::default();
        deadlines.insert(A, SECOND, SECOND);
        deadlines.remove(A);
        assert!(!deadlines.touch(A, SECOND));
        assert_eq!(deadlines.expired(100 * SECOND), []);
    }

    #[test]
    fn renewing_gives_every_session_its_whole_timeout() {
        let mut deadlines = SessionDeadlines::default();
        deadlines.insert(A, 10 * SECOND, SECOND);
        deadlines.insert(B, 5 * SECOND, SECOND);
        assert_eq!(deadlines.expired(12 * SECOND), [B, A]);
        deadlines.renew(12 * SECOND);
        assert_eq!(deadlines.expired(17 * SECOND), []);
        assert_eq!(deadlines.expired(22 * SECOND), [B]);
        assert_eq!(deadlines.expired(23 * SECOND), [B, A]);
    }

    #[test]
    fn reconciling_adds_unknown_sessions_with_a_whole_timeout_and_keeps_the_others() {
        let mut deadlines = SessionDeadlines::default();
        deadlines.insert(A, 4 * SECOND, Duration::ZERO);
        deadlines.insert(SessionId(9), SECOND, Duration::ZERO);
        deadlines.reconcile([(A, 4 * SECOND), (B, 4 * SECOND)].into_iter(), 3 * SECOND);
        assert_eq!(deadlines.expired(5 * SECOND), [A]);
        assert_eq!(deadlines.expired(8 * SECOND), [A, B]);
    }
}
