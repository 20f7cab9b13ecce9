//! A load of counter increments that goes on while a test does other things, and a count of what
//! was acknowledged: none of it may be lost, and none counted twice.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::counter;
use crate::wait::until;

/// Between two increments: without it a load takes a processor, and the cluster shares it.
const PAUSE: Duration = Duration::from_millis(5);

/// Increments one counter by 1, again and again, until it is checked or dropped.
#[derive(Debug)]
pub struct Load {
    pod: Ipv4Addr,
    counter: String,
    counts: Arc<Counts>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Counts {
    acknowledged: AtomicI64,
    /// Increments that failed: each may or may not have been counted.
    unknown: AtomicI64,
    first_failure: Mutex<Option<String>>,
}

impl Drop for Load {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Load {
    /// Begins, through the runtime in a pod.
    pub fn start(pod: Ipv4Addr, counter: &str) -> Self {
        let (counts, stop) = (Arc::new(Counts::default()), CancellationToken::new());
        let task = tokio::spawn({
            let (counts, stop) = (Arc::clone(&counts), stop.clone());
            let counter = counter.to_owned();
            async move {
                while !stop.is_cancelled() {
                    let begun = Instant::now();
                    match counter::increment(pod, &counter, 1).await {
                        Ok(_) => counts.acknowledged.fetch_add(1, Ordering::SeqCst),
                        Err(error) => {
                            let after = begun.elapsed();
                            let mut first = counts.first_failure.lock();
                            first.get_or_insert_with(|| format!("after {after:?}: {error:#}"));
                            counts.unknown.fetch_add(1, Ordering::SeqCst)
                        }
                    };
                    tokio::time::sleep(PAUSE).await;
                }
            }
        });
        Self {
            pod,
            counter: counter.to_owned(),
            counts,
            stop,
            task,
        }
    }

    /// How many increments were acknowledged so far.
    pub fn acknowledged(&self) -> i64 {
        self.counts.acknowledged.load(Ordering::SeqCst)
    }

    /// Why the first increment failed, if one did.
    pub fn first_failure(&self) -> Option<String> {
        self.counts.first_failure.lock().clone()
    }

    /// Waits until `more` increments were acknowledged from now on.
    ///
    /// # Errors
    /// When they are not in time.
    pub async fn goes_on(&self, more: i64) -> Result<()> {
        let goal = self.acknowledged() + more;
        until("increments to go on", Duration::from_secs(60), async || {
            ensure!(
                self.acknowledged() >= goal,
                "{} of {goal}",
                self.acknowledged()
            );
            Ok(())
        })
        .await
    }

    /// Ends the load and checks the counter; returns what was acknowledged and what failed.
    ///
    /// # Errors
    /// When an acknowledged increment is missing or one was counted twice.
    pub async fn check(mut self) -> Result<(i64, i64)> {
        self.stop.cancel();
        (&mut self.task).await.context("the load broke off")?;
        let value = until(
            "the counter to be read",
            Duration::from_secs(60),
            async || counter::increment(self.pod, &self.counter, 0).await,
        )
        .await?;
        let acknowledged = self.acknowledged();
        let unknown = self.counts.unknown.load(Ordering::SeqCst);
        ensure!(
            (acknowledged..=acknowledged + unknown).contains(&value),
            "{acknowledged} increments were acknowledged and {unknown} failed, but the counter \
             stands at {value}"
        );
        Ok((acknowledged, unknown))
    }
}
