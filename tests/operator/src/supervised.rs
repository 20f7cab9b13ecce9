//! An operator that is started again, with an empty memory, when its crash point has ended it: what
//! a Deployment does for a real one.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::time::Instant;

use crate::fault::{Disturbance, Gate, Recorded};
use crate::operator_under_test::{OperatorUnderTest, Settings};
use crate::test_bed::TestBed;
use crate::wait::period;

/// An operator that has written nothing for this long has nothing more to write, unless something
/// changes.
const QUIET: Duration = Duration::from_millis(1500);

/// A supervised operator of a test bed.
pub struct Supervised<'a> {
    /// Of an operator that has to live through this.
    settings: Box<dyn Fn(Option<Disturbance>) -> Settings + Send + 'a>,
    operator: OperatorUnderTest,
    /// Another one, which stands still or was woken when the present one had taken over.
    paused: Option<OperatorUnderTest>,
    crashed_at: Option<String>,
    /// The calls of operators that have crashed.
    past_calls: Vec<Recorded>,
    has_setup: bool,
    /// How many operators ended because they could not renew their lease.
    unrenewed: usize,
    /// Everything may take so many times as long.
    patience: u32,
}

/// An operator has the lease, and has had nothing to write for a while, nor waited for an answer.
pub(crate) fn is_quiet(gate: &Gate) -> bool {
    let Some(leads_since) = gate.leads_since().filter(|_| !gate.ended().is_cancelled()) else {
        return false;
    };
    let acts = [gate.last_write(), gate.waited_until()];
    let last = acts.into_iter().flatten().fold(leads_since, Instant::max);
    last.elapsed() >= QUIET
}

/// Where calls end by their time limits.
const LONG_PATIENCE: u32 = 3;

fn patience(disturbance: Option<&Disturbance>) -> u32 {
    if disturbance.is_some_and(Disturbance::is_silence) {
        LONG_PATIENCE
    } else {
        1
    }
}

impl<'a> Supervised<'a> {
    /// Starts the first operator.
    pub fn start(bed: &'a TestBed, disturbance: Option<Disturbance>) -> Self {
        let settings = move |disturbance| Settings {
            disturbance,
            ..bed.settings()
        };
        Self::start_as(settings, disturbance)
    }

    /// Starts the first operator; `settings` makes those of each.
    pub fn start_as(
        settings: impl Fn(Option<Disturbance>) -> Settings + Send + 'a,
        disturbance: Option<Disturbance>,
    ) -> Self {
        Self {
            patience: patience(disturbance.as_ref()),
            operator: OperatorUnderTest::start(settings(disturbance)),
            settings: Box::new(settings),
            paused: None,
            crashed_at: None,
            past_calls: Vec::new(),
            has_setup: false,
            unrenewed: 0,
        }
    }

    fn another(&self, disturbance: Option<Disturbance>) -> OperatorUnderTest {
        OperatorUnderTest::start((self.settings)(disturbance))
    }

    /// Starts the first operator with settings of its own; those after a crash have them not.
    pub fn start_with(bed: &'a TestBed, settings: Settings) -> Self {
        let first = Cell::new(Some(settings));
        let settings = move |disturbance| {
            first.take().unwrap_or_else(|| Settings {
                disturbance,
                ..bed.settings()
            })
        };
        Self::start_as(settings, None)
    }

    /// Forgets all calls so far; the operator has to live through this from now on. Another one is
    /// started where that is more than one that runs already can meet.
    ///
    /// # Errors
    /// When the operator had ended by itself.
    pub fn arm(&mut self, disturbance: Option<Disturbance>) -> Result<()> {
        self.past_calls.clear();
        self.has_setup = true;
        self.patience = patience(disturbance.as_ref());
        if disturbance
            .as_ref()
            .is_some_and(Disturbance::concerns_the_start)
        {
            self.operator.finish()?;
            self.operator = self.another(disturbance);
        } else {
            self.operator.gate().arm(disturbance);
        }
        Ok(())
    }

    /// Ends the operator, and starts another one with the settings as they are now.
    ///
    /// # Errors
    /// When the operator had ended by itself.
    pub fn replace(&mut self) -> Result<()> {
        self.past_calls.extend(self.operator.gate().calls());
        self.operator.finish()?;
        self.operator = self.another(None);
        Ok(())
    }

    /// Whether [`Self::arm`] was called, so that the calls before it do not count.
    pub fn has_setup(&self) -> bool {
        self.has_setup
    }

    /// How often a call of the operator that runs now met trouble, or it lost an event.
    pub fn troubled(&self) -> usize {
        self.operator.gate().troubled()
    }

    /// How many events came to each watch of the operator that runs now.
    pub fn events(&self) -> BTreeMap<String, usize> {
        self.operator.gate().events()
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

    /// How many operators ended because they could not renew their lease.
    pub fn unrenewed(&self) -> usize {
        self.unrenewed
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
        let limit = limit * self.patience;
        self.look_until(what, limit, Instant::now(), &mut look)
            .await
    }

    async fn look_until<T, F, R>(
        &mut self,
        what: &str,
        limit: Duration,
        began: Instant,
        look: &mut F,
    ) -> Result<T>
    where
        F: FnMut() -> R,
        R: Future<Output = Result<T>>,
    {
        let deadline = began + limit;
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
            let period = period(began.elapsed());
            if Instant::now() + period > deadline {
                return Err(not_yet.context(format!("waited {limit:?} for {what}")));
            }
            tokio::time::sleep(period).await;
        }
    }

    /// As [`Self::until`], once the operator has nothing more to write while what is looked for holds.
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
        let limit = limit * self.patience;
        let began = Instant::now();
        loop {
            let seen = self.look_until(what, limit, began, &mut look).await?;
            if self.is_quiet() {
                match &self.paused {
                    None => return Ok(seen),
                    // Nothing was left to be done for the one that took over.
                    Some(paused) => paused.gate().wake(),
                }
            }
            // What it writes may be the end of what was seen: only then it is looked at again.
            loop {
                tokio::time::sleep(period(began.elapsed())).await;
                self.keep_running()?;
                if began.elapsed() > limit {
                    bail!("waited {limit:?} for the operator to stop writing; it did not");
                }
                if self.is_quiet() {
                    break;
                }
            }
        }
    }

    /// Wakes an operator that stands still, if there is one, and waits until it has found out that it
    /// has lost its lease, and the other one has nothing more to write.
    ///
    /// # Errors
    /// When that does not happen in time.
    pub async fn end_pause(&mut self, limit: Duration) -> Result<()> {
        if self.paused.is_none() && !self.operator.gate().is_paused() {
            return Ok(());
        }
        let what = "an operator that stood still to end";
        self.until_settled(what, limit, async || Ok(())).await
    }

    /// Of the operator that runs now.
    fn is_quiet(&self) -> bool {
        is_quiet(self.operator.gate())
    }

    fn keep_running(&mut self) -> Result<()> {
        self.take_over()?;
        let was_killed = self.operator.gate().ended().is_cancelled();
        self.operator.check_alive_or_killed()?;
        if !self.operator.gate().ended().is_cancelled() {
            return Ok(());
        }
        let is_unrenewed = !was_killed && self.operator.gate().crashed_at().is_none();
        self.unrenewed += usize::from(is_unrenewed);
        self.past_calls.extend(self.operator.gate().calls());
        self.crashed_at = self.operator.gate().crashed_at();
        // The first is gone before the second begins.
        self.operator.finish()?;
        self.operator = self.another(None);
        Ok(())
    }

    /// Another operator takes over from one that stands still; once it has written something, the
    /// first one goes on, and must find out that it has lost its lease.
    fn take_over(&mut self) -> Result<()> {
        if self.operator.gate().is_paused() {
            self.crashed_at = self.operator.gate().crashed_at();
            self.past_calls.extend(self.operator.gate().calls());
            let next = self.another(None);
            self.paused = Some(std::mem::replace(&mut self.operator, next));
        }
        let Some(paused) = &self.paused else {
            return Ok(());
        };
        if paused.gate().is_paused() && self.operator.gate().last_write().is_some() {
            paused.gate().wake();
        }
        if paused.has_ended()
            && let Some(paused) = self.paused.take()
        {
            paused.finish_after_its_lease()?;
        }
        Ok(())
    }
}
