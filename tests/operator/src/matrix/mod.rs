//! Runs a workload once undisturbed, then again for each mutating call of that run with the
//! operator killed before and after the call, for each kind of trouble that its calls can meet, and for
//! events of its watches that it does not hear of; and compares what each run ended with.
//!
//! One disturbance is repeated with `ATOMIX_DISTURBANCE`, as it was printed; `ATOMIX_LANES` says how
//! many runs go on at a time, `ATOMIX_SEED` and `ATOMIX_EVERY_CALL` which are chosen.

mod choice;
mod verdict;

use std::collections::BTreeMap;
use std::future::Future;

use anyhow::{Context as _, Result, bail};
use futures::StreamExt as _;
use tokio::time::Instant;

use crate::fault::{Disturbance, Recorded};
use crate::observer::Counts;

use verdict::Verdict;

/// Only this disturbance is run.
pub const DISTURBANCE_VARIABLE: &str = "ATOMIX_DISTURBANCE";

/// How many runs of a matrix go on at a time; of all together no more than there are test beds.
pub const LANES_VARIABLE: &str = "ATOMIX_LANES";

const DEFAULT_LANES: usize = 12;

/// What a run ended with.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// All calls of its operators.
    pub calls: Vec<Recorded>,
    /// How many events came to each watch of the last operator, by the watch as text.
    pub events: BTreeMap<String, usize>,
    /// Where an operator was killed.
    pub crashed_at: Option<String>,
    /// The objects of the namespace, comparable.
    pub end_state: Vec<String>,
    /// What was created and deleted.
    pub counts: Counts,
    /// How often a call met trouble, or an event was lost.
    pub troubled: usize,
    /// Calls and events are counted from [`Supervised::arm`](crate::supervised::Supervised::arm) on, after a
    /// setup.
    pub has_setup: bool,
}

/// Runs the workload with a crash before and after each of its calls, and with a sample of pauses and of
/// lost events (see [`disturb_sampled_calls`]). `run` does the workload in a place of its own, checks what must
/// always hold, and cleans up.
///
/// # Errors
/// Every disturbance whose run failed or ended differently, and how to repeat it.
pub async fn crash_at_every_call<F, R>(test: &str, run: F) -> Result<()>
where
    F: Fn(Option<Disturbance>) -> R,
    R: Future<Output = Result<Outcome>>,
{
    let choose = |reference: &Outcome| choice::every_crash(test, reference);
    disturb(test, lanes()?, run, choose).await
}

/// Runs the workload once for each trouble; of those that never answer, and of lost events, for a sample.
///
/// # Errors
/// As [`crash_at_every_call`].
pub async fn trouble_at_every_call<F, R>(test: &str, run: F) -> Result<()>
where
    F: Fn(Option<Disturbance>) -> R,
    R: Future<Output = Result<Outcome>>,
{
    let choose = |reference: &Outcome| choice::every_trouble(test, reference);
    disturb(test, lanes()?, run, choose).await
}

/// Runs a sample of crashes, of pauses in which another operator takes over, of troubles and of lost
/// events; another one by `ATOMIX_SEED`, all of them with `ATOMIX_EVERY_CALL`. For workloads that take
/// long.
///
/// # Errors
/// As [`crash_at_every_call`].
pub async fn disturb_sampled_calls<F, R>(test: &str, run: F) -> Result<()>
where
    F: Fn(Option<Disturbance>) -> R,
    R: Future<Output = Result<Outcome>>,
{
    let choose = |reference: &Outcome| choice::sample(test, reference);
    disturb(test, lanes()?, run, choose).await
}

/// As [`disturb_sampled_calls`], with runs that cannot go on beside each other, and so fewer of them,
/// also with `ATOMIX_EVERY_CALL`.
///
/// # Errors
/// As [`crash_at_every_call`].
pub async fn disturb_one_at_a_time<F, R>(test: &str, run: F) -> Result<()>
where
    F: Fn(Option<Disturbance>) -> R,
    R: Future<Output = Result<Outcome>>,
{
    let choose = |reference: &Outcome| choice::small_sample(test, reference);
    disturb(test, 1, run, choose).await
}

/// As [`disturb_one_at_a_time`] with `ATOMIX_EVERY_CALL`; without it the workload is run once, undisturbed.
/// For what another test disturbs in a smaller place.
///
/// # Errors
/// As [`crash_at_every_call`].
pub async fn disturb_only_at_length<F, R>(test: &str, run: F) -> Result<()>
where
    F: Fn(Option<Disturbance>) -> R,
    R: Future<Output = Result<Outcome>>,
{
    let choose = |reference: &Outcome| choice::nothing_in_a_hurry(test, reference);
    disturb(test, 1, run, choose).await
}

async fn disturb<F, R>(
    test: &str,
    lanes: usize,
    run: F,
    choose: impl FnOnce(&Outcome) -> Vec<Disturbance>,
) -> Result<()>
where
    F: Fn(Option<Disturbance>) -> R,
    R: Future<Output = Result<Outcome>>,
{
    let begin = Instant::now();
    let reference = run(None).await.context("the undisturbed run failed")?;
    let disturbances = match std::env::var(DISTURBANCE_VARIABLE) {
        Ok(text) => vec![choice::named(&text)?],
        Err(_) => choose(&reference),
    };
    let runs = disturbances.len();
    println!(
        "{test}: the undisturbed run made {} mutating calls in {:?}; {runs} runs follow",
        choice::points(&reference.calls).count(),
        begin.elapsed()
    );
    let ended = futures::stream::iter(disturbances)
        .map(|disturbance| {
            let ended = run(Some(disturbance.clone()));
            async move { (disturbance, Instant::now(), ended.await) }
        })
        .buffer_unordered(lanes);
    let mut ended = std::pin::pin!(ended);
    let mut failures = Vec::new();
    while let Some((disturbance, began, outcome)) = ended.next().await {
        let verdict = match outcome {
            Ok(outcome) => verdict::of(&reference, &disturbance, &outcome),
            Err(error) => Verdict::Wrong(format!("{error:#}")),
        };
        println!(
            "{test}: {disturbance}: {verdict}, after {:?}",
            began.elapsed()
        );
        if let Verdict::Wrong(why) = verdict {
            failures.push(format!(
                "{disturbance}: {why}\n  repeat it with {DISTURBANCE_VARIABLE}={:?} \
                 cargo test {test}",
                disturbance.to_string()
            ));
        }
    }
    let failed = failures.len();
    println!(
        "{test}: {runs} runs in {:?}, {failed} failed",
        begin.elapsed()
    );
    if failed > 0 {
        bail!("{failed} of {runs} runs failed:\n{}", failures.join("\n"));
    }
    Ok(())
}

fn lanes() -> Result<usize> {
    match std::env::var(LANES_VARIABLE) {
        Ok(text) => text.parse().context(LANES_VARIABLE),
        Err(_) => Ok(DEFAULT_LANES),
    }
}
