//! What becomes of the members, in words. Pure.

use super::Findings;
use super::causes::{Cause, cause, listed};
use super::pod_trouble;
use crate::store::members::placement::{Action, Decision, Join, Leave, Purpose, Wait};
use crate::store::names;
use crate::store::nodes::health;
use crate::store::reason::Reason;

/// Members that change, or why they do not.
pub(super) fn progressing(findings: &Findings<'_>) -> Option<Cause> {
    let decision = findings.placement?;
    changes(findings, decision)
        .or_else(|| waiting(findings, decision))
        .or_else(|| starting(findings, decision))
        .or_else(|| keeping(findings, decision))
}

/// Disks that are gone.
pub(super) fn lost(findings: &Findings<'_>) -> Option<Cause> {
    let lost = &findings.placement?.lost;
    let partitions: std::collections::BTreeSet<u32> =
        lost.iter().map(|(partition, _)| *partition).collect();
    let ordinals: std::collections::BTreeSet<u32> =
        lost.iter().filter_map(|(_, ordinal)| *ordinal).collect();
    if partitions.is_empty() {
        return None;
    }
    let pods: Vec<String> = ordinals
        .into_iter()
        .map(|ordinal| names::pod(findings.name, ordinal))
        .collect();
    Some(cause(
        Reason::DiskLost,
        format!(
            "the disk of {} is gone, and {} partitions with it a copy: no action while they are \
             copied again from their other members; keep the other pods running",
            listed(&pods),
            partitions.len()
        ),
    ))
}

fn changes(findings: &Findings<'_>, decision: &Decision) -> Option<Cause> {
    let first = decision.actions.first()?;
    let is_repair = decision
        .actions
        .iter()
        .any(|action| action.purpose() == Purpose::Repair);
    let reason = if is_repair {
        Reason::ReplacingMembers
    } else {
        Reason::MovingMembers
    };
    let described: Vec<String> = decision
        .actions
        .iter()
        .map(|action| described(findings.name, action))
        .collect();
    let potential = decision.potential;
    let left = potential.displaced + potential.deviation;
    let left = match first.purpose() {
        Purpose::Spread | Purpose::Undo => String::new(),
        Purpose::Repair | Purpose::Copies | Purpose::Drain => {
            format!(" ({left} changes are left)")
        }
    };
    Some(cause(
        reason,
        format!(
            "{}{left}: no action while members are copied",
            listed(&described)
        ),
    ))
}

fn described(store: &str, action: &Action) -> String {
    match action {
        Action::Join(Join {
            partition,
            ordinal,
            from,
            ..
        }) => {
            let to = names::pod(store, *ordinal);
            match from.filter(|from| from != ordinal) {
                Some(from) => {
                    format!(
                        "partition {partition} moves from {} to {to}",
                        names::pod(store, from)
                    )
                }
                None => format!("partition {partition} gets a copy on {to}"),
            }
        }
        Action::Leave(Leave {
            partition, from, ..
        }) => match from {
            Some(from) => format!("partition {partition} leaves {}", names::pod(store, *from)),
            None => format!("partition {partition} gives up a copy"),
        },
    }
}

fn waiting(findings: &Findings<'_>, decision: &Decision) -> Option<Cause> {
    let pod = |ordinal: Option<u32>| match ordinal {
        Some(ordinal) => names::pod(findings.name, ordinal),
        None => "a pod that is unknown".to_owned(),
    };
    let bound_at_once = |ordinal: Option<u32>| {
        let also = pod_trouble::bound_at_once(findings.pods.get(&ordinal?)?)?;
        Some(format!("; {also}"))
    };
    let bound_at_once = |ordinal| bound_at_once(ordinal).unwrap_or_default();
    let mut told = decision.waiting.iter().filter_map(|wait| match wait {
        // Told as a partition that is not ready.
        Wait::NoLeader { .. } => None,
        Wait::Unreachable { partition, ordinal } => Some(format!(
            "partition {partition} is not changed while its member on {} does not answer: get \
             these pods running; only a member whose disk is gone is replaced{}",
            pod(*ordinal),
            bound_at_once(*ordinal)
        )),
        Wait::NoTarget { partition } => Some(format!(
            "no pod can take a member of partition {partition}: get these pods running that do \
             not, or add some with spec.multiRaft.replicas"
        )),
        Wait::Joint { partition } => Some(format!(
            "partition {partition} completes a change of its members: no action; if it lasts, \
             look at the logs of the storage pods"
        )),
        Wait::NoMajority { partition } => Some(format!(
            "a member of partition {partition} is to go, but those that would stay have no \
             majority that answers: get these pods running"
        )),
        Wait::ForeignDisk { ordinal } => Some(format!(
            "the disk of {} holds partitions that are not this Store's and takes no members: if \
             nobody needs them, delete its PersistentVolumeClaim and the pod",
            pod(Some(*ordinal))
        )),
    });
    let first = told.next()?;
    Some(cause(Reason::PlacementWaits, first))
}

/// New pods that have not answered.
fn starting(findings: &Findings<'_>, decision: &Decision) -> Option<Cause> {
    let new = (0..findings.cluster.replicas).filter(|at| !decision.holding.contains(at));
    let silent = health::silent_pods(findings.name, new, findings.nodes);
    if silent.is_empty() {
        return None;
    }
    Some(cause(
        Reason::WaitingForNodes,
        format!(
            "no answer yet from {}, which are to take members: no action while they start; if it \
             lasts, look at `kubectl describe pod` and at their logs",
            listed(&silent)
        ),
    ))
}

/// Pods beyond those that are asked for.
fn keeping(findings: &Findings<'_>, decision: &Decision) -> Option<Cause> {
    let kept = findings.cluster.replicas..decision.replicas;
    let pods: Vec<String> = kept
        .map(|ordinal| names::pod(findings.name, ordinal))
        .collect();
    if pods.is_empty() {
        return None;
    }
    Some(cause(
        Reason::PlacementWaits,
        format!(
            "{} stay until each has answered that it holds no member: get these pods running",
            listed(&pods)
        ),
    ))
}
