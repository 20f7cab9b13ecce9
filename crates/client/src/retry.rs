//! How long and how often a call is tried. Whether it may be tried again at all is decided by
//! [`Failure::allows`](crate::failure::Failure::allows), from what became of it.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::Result;
use crate::failure::Failure;
use crate::method::Repeat;

/// As good as without an end, and far from what the clock can hold.
pub(crate) const LONGEST: Duration = Duration::from_hours(24 * 365);

/// How calls that failed without an effect are tried again, within their deadline.
///
/// The pause before another attempt doubles from `first_pause` to `longest_pause`; of each a random
/// part between a half and all is waited, so that clients do not return all at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    first_pause: Duration,
    longest_pause: Duration,
    attempts: u32,
}

impl Default for RetryPolicy {
    /// From 20 ms to 1 s, as often as the deadline allows.
    fn default() -> Self {
        Self {
            first_pause: Duration::from_millis(20),
            longest_pause: Duration::from_secs(1),
            attempts: u32::MAX,
        }
    }
}

impl RetryPolicy {
    /// Every call is sent once.
    #[must_use]
    pub fn never() -> Self {
        Self::default().attempts(1)
    }

    /// How often a call is sent at most; 0 counts as 1.
    #[must_use]
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts;
        self
    }

    /// The pause before the second attempt.
    #[must_use]
    pub fn first_pause(mut self, pause: Duration) -> Self {
        self.first_pause = pause;
        self
    }

    /// What pauses grow to.
    #[must_use]
    pub fn longest_pause(mut self, pause: Duration) -> Self {
        self.longest_pause = pause;
        self
    }

    /// The pause after so many attempts; `None` = there is no other.
    fn pause(&self, made: u32) -> Option<Duration> {
        if made >= self.attempts {
            return None;
        }
        let doubled = 2_u32.saturating_pow(made.saturating_sub(1));
        let pause = self.first_pause.saturating_mul(doubled);
        Some(pause.min(self.longest_pause).min(LONGEST))
    }
}

/// The attempts of one call.
#[derive(Debug)]
pub(crate) struct Attempts<'a> {
    policy: &'a RetryPolicy,
    patience: Duration,
    made: u32,
    /// When the present one began.
    began: Instant,
    /// Until when another may begin.
    until: Instant,
}

impl<'a> Attempts<'a> {
    pub(crate) fn new(policy: &'a RetryPolicy, patience: Duration) -> Self {
        let began = Instant::now();
        let patience = patience.min(LONGEST);
        Self {
            policy,
            patience,
            made: 1,
            began,
            until: began + patience,
        }
    }

    /// How long the present attempt may take.
    pub(crate) fn remaining(&self) -> Duration {
        self.until.saturating_duration_since(self.began)
    }

    /// Waits for the time of the next attempt.
    ///
    /// # Errors
    /// The failure, when there is to be none.
    pub(crate) async fn again(&mut self, failure: Failure, repeat: Repeat) -> Result<()> {
        if !failure.allows(repeat) {
            return Err(failure.into_error(repeat));
        }
        let now = Instant::now();
        // One that was well and waited for others does not use up the patience with failures.
        if now.saturating_duration_since(self.began) > self.patience {
            self.until = now + self.patience;
            self.made = 1;
        }
        let Some(pause) = self.policy.pause(self.made) else {
            return Err(failure.into_error(repeat));
        };
        let wake = now + pause.mul_f64(rand::random_range(0.5..=1.0));
        if wake >= self.until {
            return Err(failure.into_error(repeat));
        }
        tokio::time::sleep_until(wake).await;
        self.made = self.made.saturating_add(1);
        self.began = Instant::now();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_end_with_the_attempts() {
        let policy = RetryPolicy::default()
            .first_pause(Duration::from_millis(10))
            .longest_pause(Duration::from_millis(50))
            .attempts(6);
        let pauses: Vec<_> = (1..=6).map(|made| policy.pause(made)).collect();
        let expected = [10, 20, 40, 50, 50].map(|millis| Some(Duration::from_millis(millis)));
        assert_eq!(pauses[..5], expected);
        assert_eq!(pauses[5], None);
        assert_eq!(RetryPolicy::never().pause(1), None);
        let endless = RetryPolicy::default();
        assert_eq!(endless.pause(1_000_000), Some(Duration::from_secs(1)));
    }
}
