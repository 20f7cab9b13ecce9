//! Since when something has been so of a pod: a budget that refuses its eviction, a node that seems
//! away. What is remembered ends with the pod, when it is so no more, and when nobody has found it so
//! for a while: what was found some other day says nothing.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

#[derive(Debug, Clone, Copy)]
struct Spell {
    since: Instant,
    last: Instant,
}

/// Of which pods something has been so, and since when, by the pod's uid.
#[derive(Debug)]
pub struct Lasting {
    lapse: Duration,
    spells: Mutex<HashMap<String, Spell>>,
}

impl Lasting {
    /// Of none. What was not found again for `lapse` is forgotten.
    #[must_use]
    pub fn new(lapse: Duration) -> Self {
        Self {
            lapse,
            spells: Mutex::default(),
        }
    }

    /// It is so of this pod now.
    pub fn note(&self, pod_uid: &str) {
        let now = Instant::now();
        let mut spells = self.spells.lock();
        let earlier = spells.get(pod_uid).filter(|spell| self.is_recent(spell));
        let since = earlier.map_or(now, |earlier| earlier.since);
        spells.insert(pod_uid.to_owned(), Spell { since, last: now });
    }

    /// Whether it has been so again and again for longer than this.
    #[must_use]
    pub fn lasts(&self, pod_uid: &str, limit: Duration) -> bool {
        let spells = self.spells.lock();
        let spell = spells.get(pod_uid).filter(|spell| self.is_recent(spell));
        spell.is_some_and(|spell| spell.since.elapsed() > limit)
    }

    /// To be called when it is so no more, or the pod is gone.
    pub fn forget(&self, pod_uid: &str) {
        self.spells.lock().remove(pod_uid);
    }

    fn is_recent(&self, spell: &Spell) -> bool {
        spell.last.elapsed() <= self.lapse
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const LIMIT: Duration = Duration::from_secs(10);

    fn none() -> Lasting {
        Lasting::new(LIMIT)
    }

    async fn is_so_for(lasting: &Lasting, pod: &str, seconds: u32) {
        lasting.note(pod);
        for _ in 0..seconds {
            tokio::time::advance(SECOND).await;
            lasting.note(pod);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_lasts_while_it_is_found_again() {
        let lasting = none();
        is_so_for(&lasting, "tulip", 10).await;
        assert!(!lasting.lasts("tulip", LIMIT), "not longer than that");
        is_so_for(&lasting, "tulip", 1).await;
        assert!(lasting.lasts("tulip", LIMIT));
        assert!(!lasting.lasts("rose", LIMIT));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_so_another_day_does_not_count() {
        let lasting = none();
        is_so_for(&lasting, "tulip", 60).await;
        // The change was taken back, the operator was busy, or the Store was paused.
        tokio::time::advance(LIMIT + SECOND).await;
        assert!(!lasting.lasts("tulip", Duration::ZERO));
        lasting.note("tulip");
        tokio::time::advance(SECOND).await;
        assert!(
            lasting.lasts("tulip", Duration::ZERO),
            "it counts from now on"
        );
        assert!(!lasting.lasts("tulip", LIMIT / 2));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_so_no_more_begins_anew() {
        let lasting = none();
        is_so_for(&lasting, "tulip", 60).await;
        lasting.forget("tulip");
        lasting.note("tulip");
        assert!(!lasting.lasts("tulip", Duration::ZERO));
    }
}
