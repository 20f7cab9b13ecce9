//! Waiting for a condition with a deadline. Not for waiting a fixed time: no test needs that.

use std::future::Future;
use std::time::Duration;

use anyhow::Result;
use tokio::time::Instant;

/// How long to wait before the next look: the longer it has taken, the longer, since looks take the
/// processors from what is looked for.
pub(crate) fn period(waited: Duration) -> Duration {
    const SHORTEST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_millis(300);
    (waited / 10).clamp(SHORTEST, LONGEST)
}

/// Looks until `look` succeeds, for at most `limit`; each error means "not yet".
///
/// # Errors
/// The last error of `look`, with `what` was waited for.
pub async fn until<T, F, R>(what: &str, limit: Duration, mut look: F) -> Result<T>
where
    F: FnMut() -> R,
    R: Future<Output = Result<T>>,
{
    let began = Instant::now();
    let deadline = began + limit;
    let mut not_yet = anyhow::anyhow!("no look has ended");
    loop {
        match tokio::time::timeout_at(deadline, look()).await {
            Ok(Ok(seen)) => return Ok(seen),
            Ok(Err(error)) => not_yet = error,
            Err(_) => not_yet = not_yet.context("the last look was cut off"),
        }
        let period = period(began.elapsed());
        if Instant::now() + period > deadline {
            return Err(not_yet.context(format!("waited {limit:?} for {what}")));
        }
        tokio::time::sleep(period).await;
    }
}
