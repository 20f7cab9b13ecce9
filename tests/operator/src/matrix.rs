//! Runs a workload once undisturbed, then again for each mutating call of that run with the
//! operator killed before and after the call, and compares what each run ended with. The same with
//! calls that fail once instead.
//!
//! One point is repeated with `ATOMIX_CRASH_AT="after create configmaps #1"`; `ATOMIX_LANES` says
//! how many runs go on at a time.

use std::collections::BTreeSet;
use std::future::Future;

use anyhow::{Context as _, Result, bail};
use futures::StreamExt as _;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use tokio::time::Instant;
use tonic::Code;

use crate::fault::{CrashPoint, Faults, Recorded, Side, Trouble};
use crate::observer::Counts;

/// Only this point is run.
pub const CRASH_AT_VARIABLE: &str = "ATOMIX_CRASH_AT";

/// How many runs of a matrix go on at a time; of all together no more than there are test beds.
pub const LANES_VARIABLE: &str = "ATOMIX_LANES";

const DEFAULT_LANES: usize = 12;

/// Set = no sample is taken, every point is run.
pub const EVERY_CALL_VARIABLE: &str = "ATOMIX_EVERY_CALL";

/// Repeats a sample.
pub const SEED_VARIABLE: &str = "ATOMIX_SEED";

/// Points of a sample.
const SAMPLE: usize = 8;

/// What a run ended with.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// All calls of its operators.
    pub calls: Vec<Recorded>,
    /// Where an operator was killed.
    pub crashed_at: Option<String>,
    /// The objects of the namespace, comparable.
    pub end_state: Vec<String>,
    /// What was created and deleted.
    pub counts: Counts,
    /// How often a call met trouble.
    pub troubled: usize,
    /// The calls are counted from [`Supervised::arm`](crate::supervised::Supervised::arm) on, after a
    /// setup.
    pub has_setup: bool,
}

/// Runs a sample of the points of [`crash_at_every_call`], chosen by a seed that is printed; all of
/// them with [`EVERY_CALL_VARIABLE`]. For workloads that take long.
///
/// # Errors
/// As [`crash_at_every_call`].
pub async fn crash_at_sampled_calls<F, R>(test: &str, run: F) -> Result<()>
where
    F: Fn(Option<CrashPoint>) -> R,
    R: Future<Output = Result<Outcome>>,
{
    let sample = match std::env::var(EVERY_CALL_VARIABLE) {
        Ok(_) => usize::MAX,
        Err(_) => SAMPLE,
    };
    crash_at_calls(test, run, sample).await
}

/// Runs the whole matrix of a test. `run` does the workload in a place of its own, checks what
/// must always hold, and cleans up.
///
/// # Errors
/// Every point whose run failed or ended differently, and how to repeat it.
pub async fn crash_at_every_call<F, R>(test: &str, run: F) -> Result<()>
where
    F: Fn(Option<CrashPoint>) -> R,
    R: Future<Output = Result<Outcome>>,
{
    crash_at_calls(test, run, usize::MAX).await
}

async fn crash_at_calls<F, R>(test: &str, run: F, at_most: usize) -> Result<()>
where
    F: Fn(Option<CrashPoint>) -> R,
    R: Future<Output = Result<Outcome>>,
{
    let begin = Instant::now();
    let reference = run(None).await.context("the undisturbed run failed")?;
    let points = match std::env::var(CRASH_AT_VARIABLE) {
        Ok(text) => vec![text.parse()?],
        Err(_) => sampled(test, points(&reference.calls), at_most),
    };
    let runs = points.len();
    println!(
        "{test}: the undisturbed run made {} mutating calls in {:?}; {runs} runs follow",
        runs / 2,
        begin.elapsed()
    );

    let ended = futures::stream::iter(points)
        .map(|point| {
            let ended = run(Some(point.clone()));
            async { (point, ended.await) }
        })
        .buffer_unordered(lanes()?);
    let mut ended = std::pin::pin!(ended);
    let mut failures = Vec::new();
    let mut not_reached = Vec::new();
    while let Some((point, outcome)) = ended.next().await {
        let difference = match outcome {
            Ok(outcome) => {
                if outcome.crashed_at.is_none() {
                    not_reached.push(point.clone());
                }
                differences(&reference, &outcome)
            }
            Err(error) => format!("{error:#}"),
        };
        if !difference.is_empty() {
            println!("{test}: crash {point}: FAILED: {difference}");
            failures.push(format!(
                "crash {point}: {difference}\n  repeat it with {CRASH_AT_VARIABLE}={:?} cargo test -p atomix-operator-tests {test}",
                point.to_string()
            ));
        }
    }
    println!(
        "{test}: {runs} runs in {:?}, {} failed, {} did not reach their point",
        begin.elapsed(),
        failures.len(),
        not_reached.len(),
    );
    if !failures.is_empty() {
        bail!(
            "{} of {runs} runs failed:\n{}",
            failures.len(),
            failures.join("\n")
        );
    }
    let unexpected: Vec<String> = not_reached
        .iter()
        .filter(|point| may_be_missed(point, reference.has_setup).is_none())
        .map(CrashPoint::to_string)
        .collect();
    for point in &not_reached {
        if let Some(why) = may_be_missed(point, reference.has_setup) {
            println!("{test}: not reached: {point}: {why}");
        }
    }
    if !unexpected.is_empty() {
        bail!(
            "{} of {runs} points were not reached, and nothing explains it: {unexpected:?}",
            unexpected.len()
        );
    }
    Ok(())
}

/// What every operator has to live through; each is met by three runs, a third of the calls each.
pub fn all_troubles() -> Vec<Faults> {
    let refusals = [403, 404, 409, 410, 422, 429, 500].map(Trouble::Refusal);
    let codes = [
        Code::Unavailable,
        Code::AlreadyExists,
        Code::NotFound,
        Code::FailedPrecondition,
        Code::Aborted,
    ];
    let peers = codes.map(Trouble::PeerRefusal);
    let others = [Trouble::Reset, Trouble::ReplyLost, Trouble::PeerReplyLost];
    let troubles = refusals.into_iter().chain(peers).chain(others);
    let of = 3;
    let shares = |trouble: Trouble| {
        (0..of).map(move |share| Faults {
            trouble: trouble.clone(),
            share,
            of,
        })
    };
    let cuts = [(1, true), (2, true), (5, true), (1, false), (3, false)];
    let cuts = cuts.map(|(after, is_expired)| Faults {
        trouble: Trouble::CutWatches { after, is_expired },
        share: 0,
        of: 1,
    });
    troubles.flat_map(shares).chain(cuts).collect()
}

/// Runs the workload undisturbed and then once for each trouble, and compares what the runs ended
/// with.
///
/// # Errors
/// Every run that failed, ended differently, or met no trouble.
pub async fn trouble_at_every_call<F, R>(test: &str, run: F) -> Result<()>
where
    F: Fn(Option<Faults>) -> R,
    R: Future<Output = Result<Outcome>>,
{
    let begin = Instant::now();
    let reference = run(None).await.context("the undisturbed run failed")?;
    println!("{test}: the undisturbed run took {:?}", begin.elapsed());
    let troubles = all_troubles();
    let runs = troubles.len();
    let ended = futures::stream::iter(troubles)
        .map(|faults| {
            let ended = run(Some(faults.clone()));
            async move { (faults, Instant::now(), ended.await) }
        })
        .buffer_unordered(lanes()?);
    let mut ended = std::pin::pin!(ended);
    let mut failures = Vec::new();
    while let Some((faults, started, outcome)) = ended.next().await {
        let wrong = match outcome {
            Ok(outcome) if outcome.troubled == 0 => "no call met it".to_owned(),
            Ok(outcome) => differences(&reference, &outcome),
            Err(error) => format!("{error:#}"),
        };
        println!("{test}: {faults}: {:?}", started.elapsed());
        if !wrong.is_empty() {
            println!("{test}: {faults}: FAILED: {wrong}");
            failures.push(format!("{faults}: {wrong}"));
        }
    }
    println!("{test}: {runs} runs in {:?}", begin.elapsed());
    if !failures.is_empty() {
        let failed = failures.len();
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

/// Why a run may make a call less often than the undisturbed run did; `None` = it may not.
fn may_be_missed(point: &CrashPoint, has_setup: bool) -> Option<&'static str> {
    let mut optional = MAY_BE_MISSED.iter();
    let optional = optional.find(|optional| point.call.starts_with(optional.call))?;
    let is_missable = match optional.first {
        First::Certain => point.occurrence > 1,
        First::CertainWithoutSetup => point.occurrence > 1 || has_setup,
        First::Uncertain => true,
    };
    is_missable.then_some(optional.why)
}

/// Whether the first of these calls is made in every run.
#[derive(Debug, Clone, Copy)]
enum First {
    Certain,
    /// Unless the calls of a setup are not counted, which may have made it.
    CertainWithoutSetup,
    Uncertain,
}

struct Optional {
    /// The beginning of the calls.
    call: &'static str,
    first: First,
    /// Why their number differs from run to run.
    why: &'static str,
}

const MAY_BE_MISSED: [Optional; 8] = [
    Optional {
        call: "patch stores/status",
        first: First::CertainWithoutSetup,
        why: "one write tells of all changes since the last, and changes coincide by chance",
    },
    Optional {
        call: "patch sessions/status",
        first: First::CertainWithoutSetup,
        why: "one write tells of all changes since the last, and changes coincide by chance",
    },
    Optional {
        call: "create events",
        first: First::CertainWithoutSetup,
        why: "the same event is told once, and what is told depends on what a pass happens to see",
    },
    Optional {
        call: "patch events",
        first: First::CertainWithoutSetup,
        why: "a repeated event, which depends on what a pass happens to see",
    },
    Optional {
        call: "tell TransferLeadership",
        first: First::Uncertain,
        why: "members elect by chance, and only leaders that lie unevenly are handed over",
    },
    Optional {
        call: "tell Leave",
        first: First::Uncertain,
        why: "a node whose member was replaced may find out and delete it before it is told to",
    },
    Optional {
        call: "patch pods/status",
        first: First::CertainWithoutSetup,
        why: "a gate shuts only when a look happens to meet a node that is away",
    },
    Optional {
        call: "patch persistentvolumeclaims",
        first: First::Certain,
        why: "a pass that does not see the new size yet asks for it again, which changes nothing",
    },
];

/// So many of these points, each as likely as any other.
fn sampled(test: &str, mut points: Vec<CrashPoint>, at_most: usize) -> Vec<CrashPoint> {
    if points.len() <= at_most {
        return points;
    }
    let seed = match std::env::var(SEED_VARIABLE) {
        Ok(text) => text.parse().unwrap_or_default(),
        Err(_) => rand::random(),
    };
    println!(
        "{test}: {at_most} of {} points, {SEED_VARIABLE}={seed}",
        points.len()
    );
    let mut random = StdRng::seed_from_u64(seed);
    points.shuffle(&mut random);
    points.truncate(at_most);
    points
}

/// Both sides of each mutating call; of the lease only its creation, since it is renewed for ever.
fn points(calls: &[Recorded]) -> Vec<CrashPoint> {
    let is_point = |call: &&Recorded| {
        let is_renewal = call.call.what == "leases" && call.call.to_string() != "create leases";
        call.call.verb.is_mutating() && !call.is_refused && !is_renewal
    };
    let both_sides = |call: &Recorded| {
        [Side::Before, Side::After].map(|side| CrashPoint {
            side,
            call: call.call.to_string(),
            occurrence: call.occurrence,
        })
    };
    calls.iter().filter(is_point).flat_map(both_sides).collect()
}

/// What differs from the reference; empty when nothing does.
fn differences(reference: &Outcome, outcome: &Outcome) -> String {
    let mut text = String::new();
    if reference.counts != outcome.counts {
        text.push_str(&format!(
            "\n  created and deleted: {:?}\n  undisturbed: {:?}",
            outcome.counts, reference.counts
        ));
    }
    let expected: BTreeSet<&String> = reference.end_state.iter().collect();
    let found: BTreeSet<&String> = outcome.end_state.iter().collect();
    for line in found.difference(&expected) {
        text.push_str(&format!("\n  only after the crash: {line}"));
    }
    for line in expected.difference(&found) {
        text.push_str(&format!("\n  only undisturbed: {line}"));
    }
    text
}
