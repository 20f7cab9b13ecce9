//! Calls that nobody answers.

use parking_lot::Mutex;
use tokio::time::Instant;

/// The callers that wait for answers that never come.
#[derive(Debug, Default)]
pub(super) struct Silence(Mutex<Callers>);

#[derive(Debug, Default)]
struct Callers {
    waiting: usize,
    /// When one gave up last.
    given_up: Option<Instant>,
}

/// A caller that waits, until it is dropped.
struct Waiting<'a>(&'a Mutex<Callers>);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut callers = self.0.lock();
        callers.waiting -= 1;
        callers.given_up = Some(Instant::now());
    }
}

impl Silence {
    /// Waits for ever.
    pub(super) async fn wait(&self) {
        self.0.lock().waiting += 1;
        let _waiting = Waiting(&self.0);
        std::future::pending::<()>().await;
    }

    /// Until when anybody has waited.
    pub(super) fn waited_until(&self) -> Option<Instant> {
        let callers = self.0.lock();
        match callers.waiting {
            0 => callers.given_up,
            _ => Some(Instant::now()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_caller_waits_until_it_gives_up() {
        let silence = Silence::default();
        assert_eq!(silence.waited_until(), None);
        let limit = Duration::from_secs(15);
        let unanswered = tokio::time::timeout(limit, silence.wait());
        let waiting = async {
            tokio::time::sleep(limit / 2).await;
            assert_eq!(silence.waited_until(), Some(Instant::now()));
        };
        let (unanswered, ()) = tokio::join!(unanswered, waiting);
        assert!(unanswered.is_err());
        let given_up = Instant::now();
        tokio::time::advance(limit).await;
        assert_eq!(silence.waited_until(), Some(given_up));
    }
}
