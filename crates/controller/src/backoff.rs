//! Growing waiting times, one per object, that reset on success. kube has none.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use rand::Rng as _;

/// The first waiting time after a failure.
const FIRST: Duration = Duration::from_millis(200);

/// The longest waiting time.
const LONGEST: Duration = Duration::from_secs(60);

/// Counts the consecutive failures of each key.
#[derive(Debug)]
pub struct Backoff<K> {
    failures: HashMap<K, u32>,
    first: Duration,
    longest: Duration,
}

impl<K> Default for Backoff<K> {
    fn default() -> Self {
        Self {
            failures: HashMap::new(),
            first: FIRST,
            longest: LONGEST,
        }
    }
}

impl<K: Eq + Hash> Backoff<K> {
    /// Notes one more failure and returns how long to wait: double the last time, spread by up to
    /// a quarter so that objects that failed together do not come back together.
    pub fn failed(&mut self, key: K) -> Duration {
        let failures = self.failures.entry(key).or_insert(0);
        let waiting = self
            .first
            .saturating_mul(1_u32.checked_shl(*failures).unwrap_or(u32::MAX))
            .min(self.longest);
        *failures = failures.saturating_add(1).min(31);
        waiting.mul_f64(rand::rng().random_range(0.75..=1.0))
    }

    /// Forgets the failures of a key.
    pub fn succeeded(&mut self, key: &K) {
        self.failures.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_grows_to_a_limit_per_key_and_resets() {
        let mut backoff = Backoff::default();
        let mut last = Duration::ZERO;
        for round in 0..40_u32 {
            let waiting = backoff.failed("tulip");
            assert!(waiting <= LONGEST);
            if round < 7 {
                assert!(waiting > last, "round {round}: {waiting:?} after {last:?}");
            }
            last = waiting;
        }
        assert!(last >= LONGEST.mul_f64(0.75));
        assert!(backoff.failed("rose") <= FIRST);
        backoff.succeeded(&"tulip");
        assert!(backoff.failed("tulip") <= FIRST);
    }
}
