//! What is to be said of a run beside the undisturbed one.

use std::collections::BTreeSet;
use std::fmt;

use super::Outcome;
use crate::fault::{CrashPoint, Disturbance, EventPoint, Faults};

/// What is to be said of one run.
pub(super) enum Verdict {
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

/// Of a run that ended so.
pub(super) fn of(reference: &Outcome, disturbance: &Disturbance, outcome: &Outcome) -> Verdict {
    let different = differences(reference, outcome);
    if !different.is_empty() {
        return Verdict::Wrong(different);
    }
    let (was_met, excuse) = match disturbance {
        Disturbance::Crash(point) | Disturbance::Pause(point) => (
            outcome.crashed_at.is_some(),
            may_be_missed(point, reference.has_setup),
        ),
        Disturbance::Loss(point) => (outcome.troubled > 0, may_not_come(point, reference)),
        Disturbance::Trouble(faults) => (outcome.troubled > 0, may_be_spared(faults, reference)),
    };
    match excuse {
        _ if was_met => Verdict::Right,
        Some(why) => Verdict::Undisturbed(why),
        None => Verdict::Wrong("it did not come to it, and nothing explains that".to_owned()),
    }
}

/// Why trouble may meet no call; `None` = it may not.
fn may_be_spared(faults: &Faults, reference: &Outcome) -> Option<&'static str> {
    if faults.trouble.is_silence() && faults.share > 0 {
        return Some("the workload makes few such calls");
    }
    if !reference.has_setup {
        return None;
    }
    // A workload with few calls may have none with such a number.
    (faults.trouble.is_of_peers() || faults.share > 0)
        .then_some("after its setup the workload makes few such calls")
}

/// A watch gets at least this part of the events that it got in the undisturbed run.
const CERTAIN_PART_OF_EVENTS: usize = 4;

/// Why an event may not come; `None` = it does in every run.
fn may_not_come(point: &EventPoint, reference: &Outcome) -> Option<&'static str> {
    let seen = reference.events.get(&point.watch).copied();
    let is_certain = seen.is_some_and(|seen| point.number * CERTAIN_PART_OF_EVENTS <= seen);
    (!is_certain).then_some("changes coincide by chance, so a watch may get fewer events")
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
