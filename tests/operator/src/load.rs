//! A load of counter increments that goes on while a test does other things, and a count of what
//! was acknowledged: none of it may be lost, and none counted twice.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::counter::{self, Counters};
use crate::wait::until;

/// For how long increments may stand still.
const LIMIT: Duration = Duration::from_secs(60);

/// Between two increments: without it a load takes a processor, and the cluster shares it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// For a test that wants to see every short interruption.
    Busy,
    /// For a matrix, of which many runs go on at a time.
    Calm,
}

impl Pace {
    fn pause(self) -> Duration {
        match self {
            Self::Busy => Duration::from_millis(5),
            Self::Calm => Duration::from_millis(50),
        }
    }
}

/// How many counters take turns, so that more than one partition has something to lose.
const COUNTERS: usize = 4;

/// Increments counters by 1, again and again, until it is checked or dropped.
#[derive(Debug)]
pub struct Load {
    pod: Ipv4Addr,
    tallies: Arc<[Tally; COUNTERS]>,
    first_failure: Arc<Mutex<Option<String>>>,
    /// Locked during each increment.
    turn: Arc<AsyncMutex<()>>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// What became of the increments of one counter.
#[derive(Debug, Default)]
struct Tally {
    acknowledged: AtomicI64,
    /// Increments that failed: each may or may not have been counted.
    unknown: AtomicI64,
}

impl Drop for Load {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Load {
    /// Begins, through the runtime in a pod.
    pub fn start(pod: Ipv4Addr, pace: Pace) -> Self {
        let worker = Worker {
            pod,
            pace,
            tallies: Arc::default(),
            first_failure: Arc::default(),
            turn: Arc::default(),
            stop: CancellationToken::new(),
        };
        Self {
            pod,
            tallies: Arc::clone(&worker.tallies),
            first_failure: Arc::clone(&worker.first_failure),
            turn: Arc::clone(&worker.turn),
            stop: worker.stop.clone(),
            task: tokio::spawn(worker.run()),
        }
    }

    /// How many increments were acknowledged so far.
    pub fn acknowledged(&self) -> i64 {
        let each = self.tallies.iter();
        each.map(|tally| tally.acknowledged.load(Ordering::SeqCst))
            .sum()
    }

    /// Why the first increment failed, if one did.
    pub fn first_failure(&self) -> Option<String> {
        self.first_failure.lock().clone()
    }

    /// Waits until `more` increments were acknowledged from now on.
    ///
    /// # Errors
    /// When they are not in time.
    pub async fn goes_on(&self, more: i64) -> Result<()> {
        let goal = self.acknowledged() + more;
        until("increments to go on", LIMIT, async || {
            ensure!(
                self.acknowledged() >= goal,
                "{} of {goal}, and the first failure was {:?}",
                self.acknowledged(),
                self.first_failure()
            );
            Ok(())
        })
        .await
    }

    /// Waits until no increment is on its way; none begins before what this returns is dropped.
    pub async fn rest(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.turn).lock_owned().await
    }

    /// Ends the load and checks the counters; returns what was acknowledged and what failed.
    ///
    /// # Errors
    /// When an acknowledged increment is missing or one was counted twice.
    pub async fn check(mut self) -> Result<(i64, i64)> {
        self.stop.cancel();
        (&mut self.task).await.context("the load broke off")?;
        let mut all_unknown = 0;
        for (name, tally) in names().iter().zip(self.tallies.iter()) {
            let read = async || counter::increment(self.pod, name, 0).await;
            let value = until("a counter to be read", LIMIT, read).await?;
            let acknowledged = tally.acknowledged.load(Ordering::SeqCst);
            let unknown = tally.unknown.load(Ordering::SeqCst);
            ensure!(
                (acknowledged..=acknowledged + unknown).contains(&value),
                "{acknowledged} increments of {name} were acknowledged and {unknown} failed, but it \
                 stands at {value}; the first failure was {:?}",
                self.first_failure()
            );
            all_unknown += unknown;
        }
        Ok((self.acknowledged(), all_unknown))
    }
}

fn names() -> [String; COUNTERS] {
    std::array::from_fn(|at| format!("visits-{at}"))
}

/// What makes the increments.
struct Worker {
    pod: Ipv4Addr,
    pace: Pace,
    tallies: Arc<[Tally; COUNTERS]>,
    first_failure: Arc<Mutex<Option<String>>>,
    turn: Arc<AsyncMutex<()>>,
    stop: CancellationToken,
}

impl Worker {
    async fn run(self) {
        let names = names();
        let mut open = None;
        for (name, tally) in names.iter().zip(self.tallies.iter()).cycle() {
            if self.stop.is_cancelled() {
                return;
            }
            let turn = self.turn.lock().await;
            let begun = Instant::now();
            match self.increment(&mut open, name).await {
                Ok(_) => tally.acknowledged.fetch_add(1, Ordering::SeqCst),
                Err(error) => {
                    open = None;
                    let after = begun.elapsed();
                    let mut first = self.first_failure.lock();
                    first.get_or_insert_with(|| format!("after {after:?}: {error:#}"));
                    tally.unknown.fetch_add(1, Ordering::SeqCst)
                }
            };
            drop(turn);
            tokio::time::sleep(self.pace.pause()).await;
        }
    }

    /// Through the connection that is open, or another one.
    async fn increment(&self, open: &mut Option<Counters>, name: &str) -> Result<i64> {
        let counters = match open {
            Some(counters) => counters,
            None => open.insert(Counters::open(self.pod, &names()).await?),
        };
        counters.increment(name, 1).await
    }
}
