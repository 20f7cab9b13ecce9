//! Runs a workload once undisturbed, then again for each mutating call of that run with the
//! operator killed before and after the call, and for each kind of trouble that its calls can meet,
//! and compares what each run ended with.
//!
//! One disturbance is repeated with `ATOMIX_DISTURBANCE`, as it was printed; `ATOMIX_LANES` says how
//! many runs go on at a time.

use std::collections::BTreeSet;
use std::fmt;
use std::future::Future;

use anyhow::{Context as _, Result, bail};
use futures::StreamExt as _;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use tokio::time::Instant;
use tonic::Code;

use crate::fault::{CrashPoint, Disturbance, Faults, Recorded, Side, Trouble};
use crate::observer::Counts;

/// Only this disturbance is run.
pub const DISTURBANCE_VARIABLE: &str = "ATOMIX_DISTURBANCE";

/// How many runs of a matrix go on at a time; of all together no more than there are test beds.
pub const LANES_VARIABLE: &str = "ATOMIX_LANES";

const DEFAULT_LANES: usize = 12;

/// Set = no sample is taken, every disturbance is run.
pub const EVERY_CALL_VARIABLE: &str = "ATOMIX_EVERY_CALL";

/// Takes another sample.
pub const SEED_VARIABLE: &str = "ATOMIX_SEED";

/// A change is tested by the same sample before it and after it.
const DEFAULT_SEED: u64 = 1;

/// How much of each a sample holds.
struct Size {
    crashes: usize,
    pauses: usize,
    troubles: usize,
}

const SAMPLE: Size = Size {
    crashes: 4,
    pauses: 1,
    troubles: 2,
};

/// Of runs that cannot go on beside each other.
const SMALL_SAMPLE: Size = Size {
    crashes: 1,
    pauses: 0,
    troubles: 1,
};

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

/// Runs the workload with a crash before and after each of its calls, and with a sample of pauses
/// (see [`disturb_sampled_calls`]). `run` does the workload in a place of its own, checks what must
/// always hold, and cleans up.
///
/// # Errors
/// Every disturbance whose run failed or ended differently, and how to repeat it.
pub async fn crash_at_every_call<F, R>(test: &str, run: F) -> Result<()>
where
    F: Fn(Option<Disturbance>) -> R,
    R: Future<Output = Result<Outcome>>,
{
    let choose = |reference: &Outcome| {
        let crashes = crashes(&reference.calls);
        let pauses = samples(test).take(pauses(&reference.calls), SAMPLE.pauses);
        crashes.into_iter().chain(pauses).collect()
    };
    disturb(test, lanes()?, run, choose).await
}

/// Runs the workload once for each trouble, of those that never answer for a sample.
///
/// # Errors
/// As [`crash_at_every_call`].
pub async fn trouble_at_every_call<F, R>(test: &str, run: F) -> Result<()>
where
    F: Fn(Option<Disturbance>) -> R,
    R: Future<Output = Result<Outcome>>,
{
    let choose = |_: &Outcome| {
        let (silent, others): (Vec<_>, Vec<_>) = all_troubles()
            .into_iter()
            .partition(Disturbance::is_silence);
        let silent = samples(test).take(silent, SAMPLE.troubles);
        others.into_iter().chain(silent).collect()
    };
    disturb(test, lanes()?, run, choose).await
}

/// Runs a sample of crashes, of pauses in which another operator takes over, and of troubles; another
/// one by [`SEED_VARIABLE`], all of them with [`EVERY_CALL_VARIABLE`]. For workloads that take long.
///
/// # Errors
/// As [`crash_at_every_call`].
pub async fn disturb_sampled_calls<F, R>(test: &str, run: F) -> Result<()>
where
    F: Fn(Option<Disturbance>) -> R,
    R: Future<Output = Result<Outcome>>,
{
    let choose = |reference: &Outcome| sample(test, reference, &SAMPLE);
    disturb(test, lanes()?, run, choose).await
}

/// As [`disturb_sampled_calls`], with runs that cannot go on beside each other, and so fewer of them.
///
/// # Errors
/// As [`crash_at_every_call`].
pub async fn disturb_one_at_a_time<F, R>(test: &str, run: F) -> Result<()>
where
    F: Fn(Option<Disturbance>) -> R,
    R: Future<Output = Result<Outcome>>,
{
    let choose = |reference: &Outcome| sample(test, reference, &SMALL_SAMPLE);
    disturb(test, 1, run, choose).await
}

fn sample(test: &str, reference: &Outcome, size: &Size) -> Vec<Disturbance> {
    let mut samples = samples(test);
    let crashes = samples.take(crashes(&reference.calls), size.crashes);
    let pauses = samples.take(pauses(&reference.calls), size.pauses);
    let troubles = samples.take(all_troubles(), size.troubles);
    crashes.into_iter().chain(pauses).chain(troubles).collect()
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
        Ok(text) => vec![named(&text)?],
        Err(_) => choose(&reference),
    };
    let runs = disturbances.len();
    println!(
        "{test}: the undisturbed run made {} mutating calls in {:?}; {runs} runs follow",
        points(&reference.calls).count(),
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
            Ok(outcome) => verdict(&reference, &disturbance, &outcome),
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

/// What is to be said of one run.
enum Verdict {
    Right,
    /// Nothing came of the disturbance, for this reason.
    Undisturbed(&'static str),
    Wrong(String),
}

impl fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Right => formatter.write_str("ok"),
            Self::Undisturbed(why) => write!(formatter, "ok, but not met: {why}"),
            Self::Wrong(why) => write!(formatter, "FAILED: {why}"),
        }
    }
}

fn verdict(reference: &Outcome, disturbance: &Disturbance, outcome: &Outcome) -> Verdict {
    let different = differences(reference, outcome);
    if !different.is_empty() {
        return Verdict::Wrong(different);
    }
    let (was_met, excuse) = match disturbance {
        Disturbance::Crash(point) | Disturbance::Pause(point) => (
            outcome.crashed_at.is_some(),
            may_be_missed(point, reference.has_setup),
        ),
        Disturbance::Trouble(faults) => (outcome.troubled > 0, may_be_spared(faults, reference)),
    };
    match excuse {
        _ if was_met => Verdict::Right,
        Some(why) => Verdict::Undisturbed(why),
        None => Verdict::Wrong("it did not come to it, and nothing explains that".to_owned()),
    }
}

/// As it was printed.
fn named(text: &str) -> Result<Disturbance> {
    if let Some(point) = text.strip_prefix("crash ") {
        return Ok(Disturbance::Crash(point.parse()?));
    }
    if let Some(point) = text.strip_prefix("pause ") {
        return Ok(Disturbance::Pause(point.parse()?));
    }
    let mut troubles = all_troubles().into_iter();
    troubles
        .find(|trouble| trouble.to_string() == text)
        .with_context(|| format!("{DISTURBANCE_VARIABLE}={text:?} is no disturbance"))
}

/// What every operator has to live through; most are met by three runs, a third of the calls each.
fn all_troubles() -> Vec<Disturbance> {
    let refusals = [403, 404, 409, 410, 422, 429, 500].map(Trouble::Refusal);
    let codes = [
        Code::Unavailable,
        Code::AlreadyExists,
        Code::NotFound,
        Code::FailedPrecondition,
        Code::Aborted,
    ];
    let peers = codes.map(Trouble::PeerRefusal);
    let others = [
        Trouble::Overload,
        Trouble::Reset,
        Trouble::ReplyLost,
        Trouble::PeerReplyLost,
    ];
    let troubles = refusals.into_iter().chain(peers).chain(others);
    let answers = troubles.flat_map(|trouble| shares(trouble, SHARES));
    let silences = [Trouble::Unanswered, Trouble::PeerUnanswered];
    let silences = silences.map(|silence| shares(silence, SHARES_OF_SILENCE));
    let cuts = [(1, true), (2, true), (5, true), (1, false), (3, false)];
    let cuts = cuts.map(|(after, is_expired)| Faults {
        trouble: Trouble::CutWatches { after, is_expired },
        share: 0,
        of: 1,
    });
    let faults = answers.chain(silences.into_iter().flatten()).chain(cuts);
    faults.map(Disturbance::Trouble).collect()
}

/// Of how many calls one meets the trouble.
const SHARES: usize = 3;

/// Each such call costs its time limit.
const SHARES_OF_SILENCE: usize = 10;

fn shares(trouble: Trouble, of: usize) -> impl Iterator<Item = Faults> {
    (0..of).map(move |share| Faults {
        trouble: trouble.clone(),
        share,
        of,
    })
}

/// Why trouble may meet no call; `None` = it may not.
fn may_be_spared(faults: &Faults, reference: &Outcome) -> Option<&'static str> {
    if faults.trouble.is_silence() && faults.share > 0 {
        return Some("the workload makes few such calls");
    }
    if !reference.has_setup {
        return None;
    }
    let is_of_peers = matches!(
        faults.trouble,
        Trouble::PeerRefusal(_) | Trouble::PeerReplyLost | Trouble::PeerUnanswered
    );
    // A workload with few calls may have none with such a number.
    (is_of_peers || faults.share > 0).then_some("after its setup the workload makes few such calls")
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

const MAY_BE_MISSED: [Optional; 10] = [
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
        call: "tell Configure",
        first: First::CertainWithoutSetup,
        why: "one call tells of all changes since the last, and changes coincide by chance",
    },
    Optional {
        call: "tell TransferLeadership",
        first: First::Uncertain,
        why: "members elect by chance, and only leaders that lie unevenly are handed over",
    },
    Optional {
        call: "tell Recover",
        first: First::Certain,
        why: "a node is asked again until its answer to a question shows that it is done",
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

/// Takes samples, or everything.
struct Samples(Option<StdRng>);

/// The same each time, unless a seed is given.
fn samples(test: &str) -> Samples {
    if std::env::var_os(EVERY_CALL_VARIABLE).is_some() {
        return Samples(None);
    }
    let seed = match std::env::var(SEED_VARIABLE) {
        Ok(text) => text.parse().unwrap_or(DEFAULT_SEED),
        Err(_) => DEFAULT_SEED,
    };
    println!("{test}: a sample, {SEED_VARIABLE}={seed}");
    Samples(Some(StdRng::seed_from_u64(seed)))
}

impl Samples {
    /// So many of these, each as likely as any other.
    fn take(&mut self, mut all: Vec<Disturbance>, at_most: usize) -> Vec<Disturbance> {
        if let Some(random) = &mut self.0 {
            // Calls at the same time have no order of their own.
            all.sort_by_cached_key(ToString::to_string);
            all.shuffle(random);
            all.truncate(at_most);
        }
        all
    }
}

/// A crash on both sides of each mutating call.
fn crashes(calls: &[Recorded]) -> Vec<Disturbance> {
    let points = points(calls);
    let both_sides = |point: CrashPoint| {
        [Side::Before, Side::After].map(|side| {
            let call = point.call.clone();
            Disturbance::Crash(CrashPoint {
                side,
                call,
                ..point
            })
        })
    };
    points.flat_map(both_sides).collect()
}

/// A pause before each mutating call but that which makes the lease: nobody has it yet.
fn pauses(calls: &[Recorded]) -> Vec<Disturbance> {
    let points = points(calls).filter(|point| !point.call.ends_with("leases"));
    points.map(Disturbance::Pause).collect()
}

/// Before each mutating call; of the lease only its creation, since it is renewed for ever.
fn points(calls: &[Recorded]) -> impl Iterator<Item = CrashPoint> {
    let is_point = |call: &&Recorded| {
        let is_renewal = call.call.what == "leases" && call.call.to_string() != "create leases";
        call.call.verb.is_mutating() && !call.is_refused && !is_renewal
    };
    let before = |call: &Recorded| CrashPoint {
        side: Side::Before,
        call: call.call.to_string(),
        occurrence: call.occurrence,
    };
    calls.iter().filter(is_point).map(before)
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
