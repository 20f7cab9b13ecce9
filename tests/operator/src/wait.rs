//! Waiting for a condition with a deadline. Not for waiting a fixed time: no test needs that.

use std::future::Future;
use std::time::Duration;

use anyhow::Result;
use tokio::time::Instant;

/// Between two looks.
const PERIOD: Duration = Duration::from_millis(100);

/// Looks until `look` succeeds, for at most `limit`; each error means "not yet".
///
/// # Errors
/// The last error of `look`, with `what` was waited for.
pub async fn until<T, F, R>(what: &str, limit: Duration, mut look: F) -> Result<T>
where
    F: FnMut() -> R,
    R: Future<Output = Result<T>>,
{
    let deadline = Instant::now() + limit;
    let mut not_yet = anyhow::anyhow!("no look has ended");
    loop {
        match tokio::time::timeout_at(deadline, look()).await {
            Ok(Ok(seen)) => return Ok(seen),
            Ok(Err(error)) => not_yet = error,
            Err(_) => not_yet = not_yet.context("the last look was cut off"),
        }
        if Instant::now() + PERIOD > deadline {
            return Err(not_yet.context(format!("waited {limit:?} for {what}")));
        }
        tokio::time::sleep(PERIOD).await;
    }
}
