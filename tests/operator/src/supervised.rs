//! An operator that is started again, with an empty memory, when its crash point has ended it: what
//! a Deployment does for a real one.

use std::future::Future;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::time::Instant;

use crate::fault::{CrashPoint, Faults, Gate, Recorded};
use crate::operator_under_test::{OperatorUnderTest, Settings};
use crate::test_bed::TestBed;

/// Between two looks.
const PERIOD: Duration = Duration::from_millis(100);

/// An operator that has written nothing for this long has nothing more to write, unless something
/// changes.
const QUIET: Duration = Duration::from_millis(1500);

/// A supervised operator of a test bed.
pub struct Supervised<'a> {
    bed: &'a TestBed,
    operator: OperatorUnderTest,
    crashed_at: Option<String>,
    /// The calls of operators that have crashed.
    past_calls: Vec<Recorded>,
    has_setup: bool,
}

impl<'a> Supervised<'a> {
    /// Starts the first operator.
    pub fn start(bed: &'a TestBed, crash: Option<CrashPoint>) -> Self {
        Self {
            bed,
            operator: bed.operator(crash),
            crashed_at: None,
            past_calls: Vec::new(),
            has_setup: false,
        }
    }

    /// Starts the first operator with settings of its own; those after a crash have them not.
    pub fn start_with(bed: &'a TestBed, settings: Settings) -> Self {
        Self {
            bed,
            operator: OperatorUnderTest::start(settings),
            crashed_at: None,
            past_calls: Vec::new(),
            has_setup: false,
        }
    }

    /// Forgets all calls so far; the operator that runs now ends at `crash`.
    pub fn arm(&mut self, crash: Option<CrashPoint>) {
        self.past_calls.clear();
        self.has_setup = true;
        self.operator.gate().arm(crash);
    }

    /// Whether [`Self::arm`] was called, so that the calls before it do not count.
    pub fn has_setup(&self) -> bool {
        self.has_setup
    }

    /// From now on, calls of the operator that runs now meet trouble.
    pub fn meet(&self, faults: Option<Faults>) {
        self.operator.gate().meet(faults);
    }

    /// How often a call of the operator that runs now met trouble.
    pub fn troubled(&self) -> usize {
        self.operator.gate().troubled()
    }

    /// The calls of the operator that runs now.
    pub fn gate(&self) -> Gate {
        self.operator.gate().clone()
    }

    /// Where the operator that runs now serves gRPC.
    pub fn api(&self) -> std::net::SocketAddr {
        self.operator.api()
    }

    /// Where the operator that runs now serves probes and metrics.
    pub fn admin(&self) -> std::net::SocketAddr {
        self.operator.admin()
    }

    /// Where the operator crashed.
    pub fn crashed_at(&self) -> Option<&str> {
        self.crashed_at.as_deref()
    }

    /// All calls, also those of operators that have crashed.
    pub fn calls(&self) -> Vec<Recorded> {
        let mut calls = self.past_calls.clone();
        calls.extend(self.operator.gate().calls());
        calls
    }

    /// As [`crate::wait::until`], while the operator is kept running.
    ///
    /// # Errors
    /// The last error of `look`, or why the operator ended by itself.
    pub async fn until<T, F, R>(&mut self, what: &str, limit: Duration, mut look: F) -> Result<T>
    where
        F: FnMut() -> R,
        R: Future<Output = Result<T>>,
    {
        let deadline = Instant::now() + limit;
        let mut not_yet = anyhow::anyhow!("no look has ended");
        loop {
            if let Err(error) = self.keep_running() {
                return Err(error).with_context(|| format!("at {what}, after: {not_yet:#}"));
            }
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

    /// As [`Self::until`], and then until the operator has nothing more to write while what is
    /// looked for still holds.
    ///
    /// # Errors
    /// As [`Self::until`].
    pub async fn until_settled<T, F, R>(
        &mut self,
        what: &str,
        limit: Duration,
        mut look: F,
    ) -> Result<T>
    where
        F: FnMut() -> R,
        R: Future<Output = Result<T>>,
    {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let seen = self.until(what, left, &mut look).await?;
            let has_crashed = self.operator.gate().ended().is_cancelled();
            if !has_crashed && self.last_write().elapsed() >= QUIET {
                return Ok(seen);
            }
            if Instant::now() > deadline {
                bail!("waited {limit:?} for the operator to stop writing; it did not");
            }
            tokio::time::sleep(PERIOD).await;
        }
    }

    fn last_write(&self) -> Instant {
        let writes = self.operator.gate().calls().into_iter().rev();
        let mut writes = writes
            .filter(|call| call.call.verb.is_mutating() && !call.call.what.starts_with("leases"));
        match writes.next() {
            Some(write) => write.at,
            None => self.operator.started(),
        }
    }

    fn keep_running(&mut self) -> Result<()> {
        self.operator.check_alive_or_killed()?;
        if !self.operator.gate().ended().is_cancelled() {
            return Ok(());
        }
        self.past_calls.extend(self.operator.gate().calls());
        self.crashed_at = self.operator.gate().crashed_at();
        // The first is gone before the second begins.
        self.operator.finish()?;
        self.operator = self.bed.operator(None);
        Ok(())
    }
}
