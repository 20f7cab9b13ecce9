//! Which disturbances a matrix tries.

use anyhow::{Context as _, Result};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use tonic::Code;

use super::{DISTURBANCE_VARIABLE, Outcome};
use crate::fault::{CrashPoint, Disturbance, Faults, Recorded, Side, Trouble};

/// Set = no sample is taken, every disturbance is run.
pub(super) const EVERY_CALL_VARIABLE: &str = "ATOMIX_EVERY_CALL";

/// Takes another sample.
pub(super) const SEED_VARIABLE: &str = "ATOMIX_SEED";

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

/// Of the same, where there is time.
const LARGE_SAMPLE: Size = Size {
    crashes: 12,
    pauses: 4,
    troubles: 12,
};

/// Every crash, and a sample of pauses.
pub(super) fn every_crash(test: &str, reference: &Outcome) -> Vec<Disturbance> {
    let pauses = samples(test).take(pauses(&reference.calls), SAMPLE.pauses);
    crashes(&reference.calls)
        .into_iter()
        .chain(pauses)
        .collect()
}

/// Every trouble, but for those that never answer, of which there is a sample.
pub(super) fn every_trouble(test: &str) -> Vec<Disturbance> {
    let (silent, others): (Vec<_>, Vec<_>) = all_troubles()
        .into_iter()
        .partition(Disturbance::is_silence);
    let silent = samples(test).take(silent, SAMPLE.troubles);
    others.into_iter().chain(silent).collect()
}

/// A sample of everything.
pub(super) fn sample(test: &str, reference: &Outcome) -> Vec<Disturbance> {
    sample_of(samples(test), reference, &SAMPLE)
}

/// As [`sample`], for runs that cannot go on beside each other: never everything.
pub(super) fn small_sample(test: &str, reference: &Outcome) -> Vec<Disturbance> {
    let size = if leaves_nothing_out() {
        &LARGE_SAMPLE
    } else {
        &SMALL_SAMPLE
    };
    sample_of(seeded(test), reference, size)
}

fn sample_of(mut samples: Samples, reference: &Outcome, size: &Size) -> Vec<Disturbance> {
    let crashes = samples.take(crashes(&reference.calls), size.crashes);
    let pauses = samples.take(pauses(&reference.calls), size.pauses);
    let troubles = samples.take(all_troubles(), size.troubles);
    crashes.into_iter().chain(pauses).chain(troubles).collect()
}

/// As it was printed.
pub(super) fn named(text: &str) -> Result<Disturbance> {
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

/// Takes samples, or everything.
struct Samples(Option<StdRng>);

fn leaves_nothing_out() -> bool {
    std::env::var_os(EVERY_CALL_VARIABLE).is_some()
}

fn samples(test: &str) -> Samples {
    if leaves_nothing_out() {
        Samples(None)
    } else {
        seeded(test)
    }
}

/// The same each time, unless a seed is given.
fn seeded(test: &str) -> Samples {
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
pub(super) fn points(calls: &[Recorded]) -> impl Iterator<Item = CrashPoint> {
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
