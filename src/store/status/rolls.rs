//! How far a rolling change is and what it waits for, in words. Pure.
//!
//! No partition is named: which of them is the last to catch up changes from look to look, and each
//! change of a condition is a write.

use super::Findings;
use super::causes::{Cause, cause, listed};
use crate::store::names;
use crate::store::nodes::health;
use crate::store::reason::Reason;
use crate::store::rolling::{Roll, Step, Wait};
use crate::store::status::pod_trouble;

/// Pods that are replaced, or why they are not.
pub(super) fn progressing(findings: &Findings<'_>) -> Option<Cause> {
    let roll = findings.roll.filter(|roll| roll.is_under_way())?;
    let far = format!(
        "{} of {} pods have the newest settings",
        roll.updated, roll.total
    );
    match &roll.step {
        Step::Done | Step::Refused { .. } => None,
        Step::Wait(Wait::Template) => Some(cause(
            Reason::ReplacingPods,
            "the pods' settings may have changed: no action while Kubernetes takes note of them",
        )),
        // The members that move are told.
        Step::Wait(Wait::Moves) => None,
        Step::Replace(ordinals, _) => {
            let pods: Vec<String> = ordinals
                .iter()
                .map(|ordinal| names::pod(findings.name, *ordinal))
                .collect();
            if findings.eviction_refused {
                return Some(cause(
                    Reason::RollStopped,
                    format!(
                        "{far}, and the change has stopped: the API server refuses the eviction of \
                         {}: look at the PodDisruptionBudgets that select it, and at the pods that \
                         are not ready",
                        listed(&pods)
                    ),
                ));
            }
            Some(cause(
                Reason::ReplacingPods,
                format!(
                    "{far}; replaces {}: no action while one follows the other",
                    listed(&pods)
                ),
            ))
        }
        Step::Wait(Wait::Pod { ordinal }) => Some(waits_for_pod(findings, &far, *ordinal)),
        Step::Wait(Wait::NoLeader { .. }) => Some(cause(
            Reason::ReplacingPods,
            format!("{far}; waits until every partition has a leader: no action while they elect"),
        )),
        Step::Wait(Wait::Copy { ordinal, .. }) => {
            let on = match ordinal {
                Some(ordinal) => format!(" on {}", names::pod(findings.name, *ordinal)),
                None => String::new(),
            };
            Some(cause(
                Reason::ReplacingPods,
                format!("{far}; waits until all copies{on} have caught up: no action"),
            ))
        }
    }
}

fn waits_for_pod(findings: &Findings<'_>, far: &str, ordinal: u32) -> Cause {
    let pod = findings.pods.get(&ordinal);
    if let Some(trouble) = pod.and_then(|pod| pod_trouble::of(pod)) {
        let message = format!("{far}, and the change has stopped: {}", trouble.message);
        return cause(Reason::RollStopped, message);
    }
    let name = names::pod(findings.name, ordinal);
    let silent = health::silent_pods(findings.name, [ordinal], findings.nodes);
    cause(
        Reason::ReplacingPods,
        format!(
            "{far}; waits for {}: no action while it starts; if it lasts, look at \
             `kubectl describe pod {name}` and at its log",
            silent.first().unwrap_or(&name)
        ),
    )
}

/// Data would be lost, so only a person can go on.
pub(super) fn stalled(findings: &Findings<'_>) -> Option<Cause> {
    let Step::Refused { ordinal } = findings.roll?.step else {
        return None;
    };
    let Roll { updated, total, .. } = findings.roll?;
    Some(cause(
        Reason::DataLossNotAllowed,
        format!(
            "{updated} of {total} pods have the newest settings: {} keeps the only copy of its \
             partitions in the pod, so a new pod would lose them. Set the old settings again; or \
             give spec.multiRaft.replicationFactor 3 with at least as many replicas first; or, to \
             begin again empty, set spec.updateStrategy.allowDataLoss to true",
            names::pod(findings.name, ordinal)
        ),
    ))
}
