//! How long a link waits before it connects again.

use std::time::Duration;

use rand::Rng as _;

/// Also what a node that has just come by itself is waited for, so that two nodes whose streams break
/// at once do not call each other without a pause.
pub(super) const MIN_PAUSE: Duration = Duration::from_millis(20);
const MAX_PAUSE: Duration = Duration::from_millis(200);
/// A stream that lived so long was a good one.
const STEADY: Duration = Duration::from_secs(2);

/// Pauses that grow from failure to failure. They stay short: a follower that is back must be found
/// before an election timeout has passed.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
}

impl Backoff {
    pub(super) fn new() -> Self {
        Self { next: MIN_PAUSE }
    }

    /// A stream ended. One that breaks soon after it was opened counts as another failure.
    pub(super) fn stream_lived(&mut self, lived: Duration) {
        if lived >= STEADY {
            self.next = MIN_PAUSE;
        }
    }

    /// The pause after a failure; with jitter, so that nodes do not meet in step.
    pub(super) fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(MAX_PAUSE);
        pause.mul_f64(rand::rng().random_range(0.75..1.25))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_limit_and_only_a_steady_stream_makes_them_short_again() {
        let mut backoff = Backoff::new();
        let first = backoff.pause();
        assert!(first >= MIN_PAUSE * 3 / 4 && first <= MIN_PAUSE * 5 / 4);
        for _ in 0..10 {
            backoff.stream_lived(STEADY / 2);
            assert!(backoff.pause() <= MAX_PAUSE * 5 / 4);
        }
        assert!(backoff.pause() >= MAX_PAUSE * 3 / 4);
        backoff.stream_lived(STEADY);
        assert!(backoff.pause() <= MIN_PAUSE * 5 / 4);
    }
}
