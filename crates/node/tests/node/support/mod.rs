//! Real storage nodes as processes on loopback, and a small driver to talk to them.
//!
//! Nothing here hides an outcome: what a node answers is what the test sees.

#![allow(missing_docs, unreachable_pub, reason = "test support")]

pub mod addresses;
pub mod driver;
pub mod nodes;
pub mod services;

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

/// Asks until there is an answer.
///
/// # Panics
/// When there is none within `patience`.
pub async fn eventually<T, F, Fut>(what: &str, patience: Duration, mut ask: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    let deadline = Instant::now() + patience;
    let mut pause = tokio::time::interval(Duration::from_millis(10));
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "not within {patience:?}: {what}");
        pause.tick().await;
    }
}
