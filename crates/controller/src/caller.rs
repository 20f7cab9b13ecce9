//! Who this operator says it is in its calls to nodes and runtimes, and whether one of them has
//! met a later holder of the same lease.
//!
//! Not for the decision what that means: `lease` asks the API server who holds the lease.

use std::sync::Arc;

use atomix_process::grpc::fencing::{OPERATOR_ID, OPERATOR_TERM, OperatorTerm, TAKE_OVER};
use http::{HeaderMap, HeaderValue};
use parking_lot::RwLock;
use tokio::sync::watch;

/// The most that a Lease can count.
const HIGHEST_TERM: u64 = i32::MAX as u64;

/// The operator's name and term. Clones share both.
#[derive(Debug, Clone, Default)]
pub struct Caller {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    own: RwLock<Own>,
    /// The highest term of our own lease that anybody has named.
    highest: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Own {
    id: String,
    /// `None` without the lease: then nothing is said.
    term: Option<u64>,
}

impl Caller {
    /// An operator that acts by this lease once it holds it: `NAMESPACE/NAME`.
    #[must_use]
    pub fn new(id: String) -> Self {
        let caller = Self::default();
        caller.shared.own.write().id = id;
        caller
    }

    /// The operator's name; empty in a program that is none.
    #[must_use]
    pub fn id(&self) -> String {
        self.shared.own.read().id.clone()
    }

    /// From now on calls carry this term of the held lease.
    pub fn act_in(&self, term: u64) {
        self.shared.own.write().term = Some(term);
    }

    /// Completes with the term that somebody named, once it is above our own.
    pub async fn outranked(&self) -> u64 {
        let mut highest = self.shared.highest.subscribe();
        loop {
            let seen = *highest.borrow_and_update();
            if self.is_above(seen) {
                return seen;
            }
            // The sender lives as long as this.
            let _ = highest.changed().await;
        }
    }

    fn is_above(&self, seen: u64) -> bool {
        self.shared.own.read().term.is_some_and(|term| term < seen)
    }

    /// Names the sender of a call.
    pub(crate) fn stamp(&self, headers: &mut HeaderMap) {
        let own = self.shared.own.read();
        let Some(term) = own.term else {
            return;
        };
        // Names of Kubernetes objects are valid header values.
        if let Ok(id) = HeaderValue::from_str(&own.id) {
            headers.insert(OPERATOR_ID, id);
            headers.insert(OPERATOR_TERM, HeaderValue::from(term));
        }
    }

    /// Takes note of whom an answer names.
    pub(crate) fn notice(&self, headers: &HeaderMap) {
        let Some(named) = OperatorTerm::of(headers) else {
            return;
        };
        if named.id != self.shared.own.read().id {
            return;
        }
        // No lease ever counts further, whatever somebody says.
        let term = named.term.min(HIGHEST_TERM);
        self.shared.highest.send_if_modified(|highest| {
            let is_higher = term > *highest;
            *highest = term.max(*highest);
            is_higher
        });
    }
}

/// Says that the caller is to take the place of another operator.
pub(crate) fn take_over(headers: &mut HeaderMap) {
    headers.insert(TAKE_OVER, HeaderValue::from_static("true"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(id: &'static str, term: u64) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(OPERATOR_ID, HeaderValue::from_static(id));
        headers.insert(OPERATOR_TERM, HeaderValue::from(term));
        headers
    }

    #[test]
    fn only_the_holder_of_the_lease_names_itself() {
        let caller = Caller::new("meadow/bees".to_owned());
        let mut headers = HeaderMap::new();
        caller.stamp(&mut headers);
        assert!(headers.is_empty());
        caller.act_in(3);
        caller.stamp(&mut headers);
        let expected = OperatorTerm {
            id: "meadow/bees".to_owned(),
            term: 3,
        };
        assert_eq!(OperatorTerm::of(&headers), Some(expected));
    }

    #[tokio::test]
    async fn a_higher_term_of_the_own_lease_outranks_and_no_other() {
        let caller = Caller::new("meadow/bees".to_owned());
        caller.act_in(3);
        caller.notice(&answer("meadow/ants", 9));
        caller.notice(&answer("meadow/bees", 3));
        let waiting = caller.clone();
        let outranked = tokio::spawn(async move { waiting.outranked().await });
        tokio::task::yield_now().await;
        assert!(!outranked.is_finished());
        caller.notice(&answer("meadow/bees", 5));
        assert_eq!(outranked.await.ok(), Some(5));
        caller.act_in(6);
        caller.notice(&answer("meadow/bees", 5));
        assert!(!caller.is_above(5), "our own is above it by now");
    }
}
