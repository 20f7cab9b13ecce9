//! Which disturbances a matrix tries.

use anyhow::{Context as _, Result};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use tonic::Code;

use super::{DISTURBANCE_VARIABLE, Outcome};
use crate::fault::{CrashPoint, Disturbance, EventPoint, Faults, Recorded, Side, Trouble, Verb};

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
    losses: usize,
}

const SAMPLE: Size = Size {
    crashes: 2,
    pauses: 1,
    troubles: 2,
    losses: 1,
};

/// Of runs that cannot go on beside each other.
const SMALL_SAMPLE: Size = Size {
    crashes: 1,
    pauses: 0,
    troubles: 1,
    losses: 0,
};

/// Of the same, where there is time.
const LARGE_SAMPLE: Size = Size {
    crashes: 12,
    pauses: 4,
    troubles: 12,
    losses: 4,
};

/// Every crash, and a sample of pauses and of lost events.
pub(super) fn every_crash(test: &str, reference: &Outcome) -> Vec<Disturbance> {
    let mut samples = samples(test);
    let pauses = samples.take(pauses(&reference.calls), SAMPLE.pauses);
    let losses = samples.take(losses(test, reference), SAMPLE.losses);
    let crashes = crashes(&reference.calls).into_iter();
    crashes.chain(pauses).chain(losses).collect()
}

/// Every trouble, but for those that never answer and for lost events, of which there is a sample.
pub(super) fn every_trouble(test: &str, reference: &Outcome) -> Vec<Disturbance> {
    let (silent, others): (Vec<_>, Vec<_>) = troubles(reference)
        .into_iter()
        .partition(Disturbance::is_silence);
    let mut samples = samples(test);
    let silent = samples.take(silent, SAMPLE.troubles);
    let losses = samples.take(losses(test, reference), SAMPLE.losses);
    others.into_iter().chain(silent).chain(losses).collect()
}

/// A sample of everything.
pub(super) fn sample(test: &str, reference: &Outcome) -> Vec<Disturbance> {
    sample_of(test, samples(test), reference, &SAMPLE)
}

/// As [`sample`], for runs that cannot go on beside each other: never everything.
pub(super) fn small_sample(test: &str, reference: &Outcome) -> Vec<Disturbance> {
    let size = if leaves_nothing_out() {
        &LARGE_SAMPLE
    } else {
        &SMALL_SAMPLE
    };
    sample_of(test, seeded(test), reference, size)
}

/// As [`small_sample`] where nothing is left out, else nothing.
pub(super) fn nothing_in_a_hurry(test: &str, reference: &Outcome) -> Vec<Disturbance> {
    if leaves_nothing_out() {
        return small_sample(test, reference);
    }
    println!("{test}: undisturbed, {EVERY_CALL_VARIABLE} disturbs it");
    Vec::new()
}

fn sample_of(
    test: &str,
    mut samples: Samples,
    reference: &Outcome,
    size: &Size,
) -> Vec<Disturbance> {
    let crashes = samples.take(crashes(&reference.calls), size.crashes);
    let pauses = samples.take(pauses(&reference.calls), size.pauses);
    let troubles = samples.take(troubles(reference), size.troubles);
    let losses = samples.take(losses(test, reference), size.losses);
    let calls = crashes.into_iter().chain(pauses).chain(troubles);
    calls.chain(losses).collect()
}

/// As it was printed.
pub(super) fn named(text: &str) -> Result<Disturbance> {
    if let Some(point) = text.strip_prefix("crash ") {
        return Ok(Disturbance::Crash(point.parse()?));
    }
    if let Some(point) = text.strip_prefix("pause ") {
        return Ok(Disturbance::Pause(point.parse()?));
    }
    if let Some(point) = text.strip_prefix("lose ") {
        return Ok(Disturbance::Loss(point.parse()?));
    }
    let mut troubles = all_troubles().into_iter();
    troubles
        .find(|trouble| trouble.to_string() == text)
        .with_context(|| format!("{DISTURBANCE_VARIABLE}={text:?} is no disturbance"))
}

/// The troubles that the calls of such a run can meet.
fn troubles(reference: &Outcome) -> Vec<Disturbance> {
    let is_to_peer = |call: &Recorded| matches!(call.call.verb, Verb::Ask | Verb::Tell);
    let calls_peers = reference.calls.iter().any(is_to_peer);
    let watches = !reference.events.is_empty();
    let mut troubles = all_troubles();
    troubles.retain(|trouble| {
        (calls_peers || !trouble.is_of_peers()) && (watches || !trouble.is_of_watches())
    });
    troubles
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

/// Of how many events of a watch each is lost in a run of its own.
const EVENTS_OF_A_WATCH: usize = 8;

/// Each event of each watch is lost; of a watch with many, some that lie evenly.
fn losses(test: &str, reference: &Outcome) -> Vec<Disturbance> {
    let mut losses = Vec::new();
    for (watch, count) in &reference.events {
        let numbers = spread(*count, EVENTS_OF_A_WATCH);
        println!("{test}: {watch} had {count} events, of which it may lose {numbers:?}");
        losses.extend(numbers.into_iter().map(|number| {
            let watch = watch.clone();
            Disturbance::Loss(EventPoint { watch, number })
        }));
    }
    losses
}

/// All numbers up to `count`, or `at_most` of them from the first to the last.
fn spread(count: usize, at_most: usize) -> Vec<usize> {
    let taken = count.min(at_most);
    let gaps = taken.saturating_sub(1).max(1);
    let numbers = (0..taken).map(|number| 1 + number * (count - 1) / gaps);
    numbers.collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_chosen_evenly_from_the_first_to_the_last() {
        for (count, at_most, expected) in [
            (0, 4, vec![]),
            (1, 4, vec![1]),
            (3, 4, vec![1, 2, 3]),
            (4, 4, vec![1, 2, 3, 4]),
            (10, 4, vec![1, 4, 7, 10]),
            (6, 4, vec![1, 2, 4, 6]),
        ] {
            assert_eq!(spread(count, at_most), expected, "{count} {at_most}");
        }
    }

    #[test]
    fn disturbances_are_found_by_what_is_printed_of_them() {
        for text in [
            "crash after patch stores/status tulip #2",
            "pause before create pods/eviction tulip-0 #1",
            "lose watch pods app%3Dhive #3",
            "the peer's reply is lost (share 1 of 3)",
        ] {
            assert_eq!(named(text).unwrap().to_string(), text);
        }
        assert!(named("the machine burns").is_err());
    }
}
