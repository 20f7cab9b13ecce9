//! Waiting for a condition with a deadline; nothing here sleeps for a guess of how long it takes.

use std::time::Duration;

use anyhow::bail;
use tokio::time::Instant;

const BETWEEN_LOOKS: Duration = Duration::from_millis(200);

/// Looks again and again until the condition gives a value, and returns it.
///
/// # Errors
/// When it gave none within `limit`; the error names what was waited for and the last failure.
pub async fn until<T>(
    what: &str,
    limit: Duration,
    condition: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    look_again(what, limit, BETWEEN_LOOKS, condition).await
}

/// [`until`] for what must be seen as soon as it is so.
///
/// # Errors
/// As [`until`].
pub async fn until_at_once<T>(
    what: &str,
    limit: Duration,
    condition: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    look_again(what, limit, Duration::from_millis(5), condition).await
}

async fn look_again<T>(
    what: &str,
    limit: Duration,
    between_looks: Duration,
    mut condition: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        let outcome = condition().await;
        if let Ok(Some(value)) = outcome {
            return Ok(value);
        }
        if Instant::now() >= deadline {
            match outcome {
                Err(error) => {
                    bail!("not within {limit:?}: {what}; the last look failed: {error:#}")
                }
                Ok(_) => bail!("not within {limit:?}: {what}"),
            }
        }
        tokio::time::sleep(between_looks).await;
    }
}
