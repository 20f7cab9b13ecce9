//! Elapsed time of a partition's state machine, as its leader counts it.
//!
//! Not wall time: it stands still without a leader that a quorum acknowledges, never goes back, and a
//! leader that was paused does not make up for the pause.

use std::time::Duration;

use tokio::time::Instant;

/// Continues the state machine's time from the last applied entry with a monotonic clock.
#[derive(Debug, Clone)]
pub(crate) struct LeaderClock {
    time: Duration,
    woken: Instant,
    max_gap: Duration,
}

impl LeaderClock {
    /// A new leader's clock, which goes on from the last applied time. Between two wake-ups it
    /// counts at most `max_gap`, one election timeout: a longer gap was a pause of this process.
    pub(crate) fn new(applied: Duration, now: Instant, max_gap: Duration) -> Self {
        Self {
            time: applied,
            woken: now,
            max_gap,
        }
    }

    /// The state machine's time at `now`; never less than what was answered before.
    pub(crate) fn wake(&mut self, now: Instant) -> Duration {
        let gap = now.saturating_duration_since(self.woken).min(self.max_gap);
        self.time = self.time.saturating_add(gap);
        self.woken = self.woken.max(now);
        self.time
    }

    /// Lets the time until `now` pass without counting it. Answers the time, which is as it was.
    pub(crate) fn stand_still(&mut self, now: Instant) -> Duration {
        self.woken = self.woken.max(now);
        self.time
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn time_continues_from_the_last_applied_time() {
        let start = Instant::now();
        let mut clock = LeaderClock::new(5 * SECOND, start, SECOND);
        assert_eq!(clock.wake(start), 5 * SECOND);
        assert_eq!(
            clock.wake(start + Duration::from_millis(300)),
            Duration::from_millis(5300)
        );
        assert_eq!(
            clock.wake(start + Duration::from_millis(400)),
            Duration::from_millis(5400)
        );
    }

    #[test]
    fn a_pause_counts_as_one_election_timeout() {
        let start = Instant::now();
        let mut clock = LeaderClock::new(Duration::ZERO, start, SECOND);
        assert_eq!(clock.wake(start + 60 * SECOND), SECOND);
        assert_eq!(
            clock.wake(start + 60 * SECOND + SECOND / 2),
            SECOND + SECOND / 2
        );
    }

    #[test]
    fn time_that_stood_still_is_never_counted() {
        let start = Instant::now();
        let mut clock = LeaderClock::new(Duration::ZERO, start, SECOND);
        assert_eq!(clock.wake(start + SECOND / 2), SECOND / 2);
        for second in 1..60 {
            assert_eq!(clock.stand_still(start + second * SECOND), SECOND / 2);
        }
        assert_eq!(clock.wake(start + 59 * SECOND), SECOND / 2);
        assert_eq!(clock.wake(start + 60 * SECOND), SECOND + SECOND / 2);
    }

    #[test]
    fn time_never_goes_back() {
        let start = Instant::now() + SECOND;
        let mut clock = LeaderClock::new(SECOND, start, SECOND);
        assert_eq!(clock.wake(start + SECOND / 2), SECOND * 3 / 2);
        assert_eq!(clock.wake(start), SECOND * 3 / 2);
        // The half second that was counted is not counted again.
        assert_eq!(clock.wake(start + SECOND / 2), SECOND * 3 / 2);
    }
}
