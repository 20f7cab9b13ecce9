//! Step 5 of the session controller: what the status of a Session says. Pure.

use k8s_openapi::jiff::Timestamp;

use super::resolve::{Target, Unresolved};
use crate::runtimes::SessionView;
use crate::runtimes::report::{Failure, Outcome};
use atomix_resources::conditions::{PROGRESSING, READY, STALLED, WantedCondition, follow};
use atomix_resources::labels::{INJECT, RUNTIME};
use atomix_resources::session::{FailingPod, PodCounts};
use atomix_resources::{SessionState, SessionStatus};

/// How many failing pods a status names.
const NAMED_PODS: usize = 20;

/// What a Session is about to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// It lives; its Store is known, or why it is not.
    Open {
        target: Result<Target, Unresolved>,
        is_paused: bool,
    },
    /// It is being deleted and waits for pods.
    Closing { waiting_for: usize },
    /// It is being deleted and every pod is done; others may still hold it.
    Closed,
}

/// What all three conditions are made from.
struct Summary {
    state: SessionState,
    is_ready: bool,
    is_progressing: bool,
    is_stalled: bool,
    reason: &'static str,
    message: String,
}

pub(super) fn status(
    generation: i64,
    previous: &SessionStatus,
    phase: &Phase,
    view: &SessionView,
    now: Timestamp,
) -> SessionStatus {
    let counts = PodCounts {
        not_injected: not_injected(generation, previous, view),
        ..count(view)
    };
    let failing = failing(view);
    let summary = summarize(phase, counts, &failing);
    let condition = |type_, holds| {
        let message = summary.message.clone();
        if holds {
            WantedCondition::is_true(type_, summary.reason, message)
        } else {
            WantedCondition::is_false(type_, summary.reason, message)
        }
    };
    let wanted = [
        condition(READY, summary.is_ready),
        condition(PROGRESSING, summary.is_progressing),
        condition(STALLED, summary.is_stalled),
    ];
    let failing_pods = failing
        .into_iter()
        .take(NAMED_PODS)
        .map(|(name, failure)| FailingPod {
            name,
            reason: failure.reason.to_owned(),
            message: failure.message,
        });
    SessionStatus {
        observed_generation: Some(generation),
        state: Some(summary.state),
        conditions: follow(&previous.conditions, &wanted, generation, now),
        pods: Some(counts),
        failing_pods: failing_pods.collect(),
    }
}

fn count(view: &SessionView) -> PodCounts {
    let number = |wanted: fn(&Outcome) -> bool| {
        let outcomes = view.pods.values().flatten();
        u32::try_from(outcomes.filter(|outcome| wanted(outcome)).count()).unwrap_or(u32::MAX)
    };
    PodCounts {
        matched: u32::try_from(view.pods.len()).unwrap_or(u32::MAX),
        connected: number(|outcome| matches!(outcome, Outcome::Connected)),
        failed: number(|outcome| matches!(outcome, Outcome::Failed(_))),
        not_injected: None,
    }
}

/// What was found when the specification was new, as long as nothing else is known of its pods.
fn not_injected(generation: i64, previous: &SessionStatus, view: &SessionView) -> Option<u32> {
    if !view.pods.is_empty() {
        return None;
    }
    let is_same = previous.observed_generation == Some(generation);
    let told = previous.pods.filter(|_| is_same);
    view.not_injected
        .or_else(|| told.and_then(|pods| pods.not_injected))
        .filter(|number| *number > 0)
}

/// By pod name.
fn failing(view: &SessionView) -> Vec<(String, Failure)> {
    let failing = view.pods.iter().filter_map(|(pod, outcome)| match outcome {
        Some(Outcome::Failed(failure)) => Some((pod.name.clone(), failure.clone())),
        Some(Outcome::Connected | Outcome::Connecting(_)) | None => None,
    });
    failing.collect()
}

fn summarize(phase: &Phase, counts: PodCounts, failing: &[(String, Failure)]) -> Summary {
    match phase {
        Phase::Closing { waiting_for } => Summary {
            state: SessionState::Closing,
            is_ready: false,
            is_progressing: true,
            is_stalled: false,
            reason: "Disconnecting",
            message: format!(
                "waiting for {waiting_for} pods to disconnect: no action; those that do not \
                 answer are dropped after a while"
            ),
        },
        Phase::Closed => Summary {
            state: SessionState::Closed,
            is_ready: false,
            is_progressing: false,
            is_stalled: false,
            reason: "Disconnected",
            message: "every pod is disconnected".to_owned(),
        },
        Phase::Open {
            is_paused: true, ..
        } => {
            let message = "the selected pods stay as they are: remove spec.paused to go on";
            summarize_kept(counts, "Paused", message.to_owned())
        }
        Phase::Open {
            target: Err(unresolved @ Unresolved::StorePaused),
            ..
        } => summarize_kept(counts, unresolved.reason(), unresolved.to_string()),
        Phase::Open {
            target: Err(unresolved),
            ..
        } => Summary {
            state: if counts.connected > 0 {
                state_of(counts)
            } else {
                SessionState::None
            },
            is_ready: false,
            is_progressing: !unresolved.needs_person(),
            is_stalled: unresolved.needs_person(),
            reason: unresolved.reason(),
            message: unresolved.to_string(),
        },
        Phase::Open { target: Ok(_), .. } => summarize_pods(counts, failing),
    }
}

/// Nothing is done on purpose: it is well if every pod is connected, else somebody must let us go on.
fn summarize_kept(counts: PodCounts, reason: &'static str, message: String) -> Summary {
    let is_ready = counts.matched > 0 && counts.connected == counts.matched;
    Summary {
        state: if counts.connected > 0 {
            state_of(counts)
        } else {
            SessionState::None
        },
        is_ready,
        is_progressing: false,
        is_stalled: !is_ready,
        reason,
        message,
    }
}

fn summarize_pods(counts: PodCounts, failing: &[(String, Failure)]) -> Summary {
    let PodCounts {
        matched, connected, ..
    } = counts;
    let state = state_of(counts);
    // What a person must do is said before what heals by itself.
    let foremost = failing
        .iter()
        .find(|(_, failure)| failure.needs_person)
        .or_else(|| failing.first());
    if let Some((pod, failure)) = foremost {
        return Summary {
            state,
            is_ready: false,
            is_progressing: !failure.needs_person,
            is_stalled: failure.needs_person,
            reason: failure.reason,
            message: format!(
                "{} of {matched} pods failed, first {pod}: {}",
                failing.len(),
                failure.message
            ),
        };
    }
    if let Some(number) = counts.not_injected {
        return Summary {
            state,
            is_ready: false,
            is_progressing: false,
            is_stalled: true,
            reason: "NotInjected",
            message: format!(
                "no selected pod has a runtime sidecar, but {number} are selected without one: add \
                 the label {INJECT}: \"true\" to their template and create them anew, or add the \
                 sidecar and the label {RUNTIME}: \"true\" by hand"
            ),
        };
    }
    let is_ready = connected == matched;
    let (reason, message) = match (matched, is_ready) {
        (0, _) => (
            "NoPods",
            "no pod is selected; pods are connected as they come".to_owned(),
        ),
        (_, true) => ("Connected", format!("all {matched} pods are connected")),
        (_, false) => (
            "Connecting",
            format!(
                "{connected} of {matched} pods are connected: no action while the others start; \
                 if it lasts, look at the events of these pods"
            ),
        ),
    };
    Summary {
        state,
        is_ready,
        is_progressing: !is_ready,
        is_stalled: false,
        reason,
        message,
    }
}

fn state_of(counts: PodCounts) -> SessionState {
    if counts.connected == counts.matched {
        SessionState::Opened
    } else {
        SessionState::Opening
    }
}

#[cfg(test)]
mod tests;
