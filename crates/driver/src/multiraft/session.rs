//! The bookkeeping of one session with one partition: which sequence numbers are open, and what is
//! acknowledged. No input or output.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

/// How many operations may be unanswered. Nodes remember 4,096; the rest is for answers that they do
/// not know to have arrived yet.
const WINDOW: usize = 2_048;

/// How far the oldest unanswered operation may lag before the open ones are listed one by one.
const MAX_LAG: u64 = 512;

/// A session that a partition opened for this connection.
#[derive(Debug)]
pub(crate) struct Session {
    id: u64,
    incarnation: u64,
    timeout: Duration,
    lost: AtomicBool,
    sequences: Mutex<Sequences>,
    acknowledged_more: Notify,
    next_keep_alive: Mutex<Instant>,
}

#[derive(Debug, Default)]
struct Sequences {
    last: u64,
    open: BTreeSet<u64>,
}

/// What the partition may forget: every sequence up to `through` that is not in `open`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Acknowledged {
    pub(crate) through: u64,
    pub(crate) open: Vec<u64>,
}

impl Sequences {
    fn acknowledged(&self) -> Acknowledged {
        let before_oldest = self.open.first().map_or(self.last, |first| first - 1);
        if self.last - before_oldest <= MAX_LAG {
            return Acknowledged {
                through: before_oldest,
                open: Vec::new(),
            };
        }
        Acknowledged {
            through: self.last,
            open: self.open.iter().copied().collect(),
        }
    }

    fn begin(&mut self) -> Option<u64> {
        if self.open.len() >= WINDOW {
            return None;
        }
        self.last += 1;
        self.open.insert(self.last);
        Some(self.last)
    }
}

impl Session {
    pub(crate) fn new(id: u64, incarnation: u64, timeout: Duration, opened: Instant) -> Self {
        Self {
            id,
            incarnation,
            timeout,
            lost: AtomicBool::new(false),
            sequences: Mutex::default(),
            acknowledged_more: Notify::new(),
            next_keep_alive: Mutex::new(opened + timeout / 3),
        }
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// The incarnation of the store's data that it belongs to; 0 = it is not known. Ids come again in
    /// another one.
    pub(crate) fn incarnation(&self) -> u64 {
        self.incarnation
    }

    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    /// Returns whether it was not known before.
    pub(crate) fn set_lost(&self) -> bool {
        !self.lost.swap(true, Ordering::AcqRel)
    }

    pub(crate) fn next_keep_alive(&self) -> Instant {
        *self.next_keep_alive.lock()
    }

    pub(crate) fn keep_alive_at(&self, at: Instant) {
        *self.next_keep_alive.lock() = at;
    }

    /// What is answered and may be forgotten.
    pub(crate) fn acknowledged(&self) -> Acknowledged {
        self.sequences.lock().acknowledged()
    }

    /// The last sequence number that was taken; 0 before the first.
    pub(crate) fn last(&self) -> u64 {
        self.sequences.lock().last
    }

    /// Takes the next sequence number; waits while too many are open.
    pub(crate) async fn begin(self: &Arc<Self>) -> Ticket {
        loop {
            let acknowledged_more = self.acknowledged_more.notified();
            tokio::pin!(acknowledged_more);
            acknowledged_more.as_mut().enable();
            if let Some(sequence) = self.sequences.lock().begin() {
                return Ticket {
                    session: Arc::clone(self),
                    sequence,
                };
            }
            acknowledged_more.await;
        }
    }
}

/// An open sequence number of a session; it is acknowledged when the ticket is dropped.
#[derive(Debug)]
pub(crate) struct Ticket {
    session: Arc<Session>,
    sequence: u64,
}

impl Ticket {
    pub(crate) fn session(&self) -> &Arc<Session> {
        &self.session
    }

    pub(crate) fn sequence(&self) -> u64 {
        self.sequence
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.session.sequences.lock().open.remove(&self.sequence);
        self.session.acknowledged_more.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> Arc<Session> {
        Arc::new(Session::new(7, 1, Duration::from_secs(3), Instant::now()))
    }

    fn up_to(through: u64) -> Acknowledged {
        let open = Vec::new();
        Acknowledged { through, open }
    }

    #[tokio::test]
    async fn the_acknowledged_floor_stops_below_the_oldest_open_sequence() {
        let session = session();
        let first = session.begin().await;
        let second = session.begin().await;
        let third = session.begin().await;
        assert_eq!(
            [first.sequence(), second.sequence(), third.sequence()],
            [1, 2, 3]
        );
        assert_eq!(session.acknowledged(), up_to(0));
        drop(second);
        assert_eq!(session.acknowledged(), up_to(0));
        drop(first);
        assert_eq!(session.acknowledged(), up_to(2));
        drop(third);
        assert_eq!(session.acknowledged(), up_to(3));
        assert_eq!(session.begin().await.sequence(), 4);
    }

    #[tokio::test]
    async fn one_long_wait_does_not_keep_the_answers_of_everything_after_it() {
        let session = session();
        let long = session.begin().await;
        for _ in 0..MAX_LAG {
            session.begin().await;
        }
        let newest = session.begin().await;
        assert_eq!(
            session.acknowledged(),
            Acknowledged {
                through: newest.sequence(),
                open: vec![long.sequence(), newest.sequence()],
            }
        );
        drop(long);
        assert_eq!(session.acknowledged(), up_to(newest.sequence() - 1));
    }

    #[tokio::test]
    async fn a_full_window_waits_until_something_is_answered() {
        let session = session();
        let mut open = Vec::new();
        for _ in 0..WINDOW {
            open.push(session.begin().await);
        }
        let waiting = tokio::spawn({
            let session = Arc::clone(&session);
            async move { session.begin().await.sequence() }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        open.truncate(WINDOW - 1);
        assert_eq!(waiting.await.ok(), Some(WINDOW as u64 + 1));
    }
}
