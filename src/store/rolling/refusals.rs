//! Since when budgets refuse the evictions that a rolling change needs. What is remembered of a pod
//! ends with the pod, when it is not to go any more, and when nobody has asked for a while: a refusal
//! of some other day says nothing.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// For how long a budget may refuse an eviction before people are told: the controller that counts
/// the pods is a little behind each time.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// After how long without being refused again a refusal is forgotten. A pod that is to go is asked
/// for about twice a second.
const LAPSE: Duration = PATIENCE;

#[derive(Debug, Clone, Copy)]
struct Refused {
    since: Instant,
    last: Instant,
}

impl Refused {
    fn is_recent(&self) -> bool {
        self.last.elapsed() <= LAPSE
    }
}

/// Since when budgets have refused the eviction of pods, by the pod's uid.
#[derive(Debug, Default)]
pub struct Refusals(Mutex<HashMap<String, Refused>>);

impl Refusals {
    /// The eviction of this pod was refused now.
    pub fn note(&self, pod_uid: &str) {
        let now = Instant::now();
        let mut refused = self.0.lock();
        let earlier = refused.get(pod_uid).filter(|earlier| earlier.is_recent());
        let since = earlier.map_or(now, |earlier| earlier.since);
        refused.insert(pod_uid.to_owned(), Refused { since, last: now });
    }

    /// Whether it has been refused again and again for longer than this.
    #[must_use]
    pub fn last(&self, pod_uid: &str, limit: Duration) -> bool {
        let refused = self.0.lock();
        let refused = refused.get(pod_uid).filter(|refused| refused.is_recent());
        refused.is_some_and(|refused| refused.since.elapsed() > limit)
    }

    /// To be called when a pod is gone, or is not to go any more.
    pub fn forget(&self, pod_uid: &str) {
        self.0.lock().remove(pod_uid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    async fn refused_for(refusals: &Refusals, pod: &str, seconds: u32) {
        refusals.note(pod);
        for _ in 0..seconds {
            tokio::time::advance(SECOND).await;
            refusals.note(pod);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_lasts_while_it_is_repeated() {
        let refusals = Refusals::default();
        refused_for(&refusals, "tulip", 10).await;
        assert!(!refusals.last("tulip", PATIENCE), "not longer than that");
        refused_for(&refusals, "tulip", 1).await;
        assert!(refusals.last("tulip", PATIENCE));
        assert!(!refusals.last("rose", PATIENCE));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_of_another_day_does_not_count() {
        let refusals = Refusals::default();
        refused_for(&refusals, "tulip", 60).await;
        // The change was taken back, the operator was busy, or the Store was paused.
        tokio::time::advance(LAPSE + SECOND).await;
        assert!(!refusals.last("tulip", Duration::ZERO));
        refusals.note("tulip");
        tokio::time::advance(SECOND).await;
        assert!(
            refusals.last("tulip", Duration::ZERO),
            "it counts from now on"
        );
        assert!(!refusals.last("tulip", PATIENCE / 2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_that_is_not_to_go_any_more_begins_anew() {
        let refusals = Refusals::default();
        refused_for(&refusals, "tulip", 60).await;
        refusals.forget("tulip");
        refusals.note("tulip");
        assert!(!refusals.last("tulip", Duration::ZERO));
    }
}
