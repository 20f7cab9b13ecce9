//! Why a Store with storage nodes is not as it should be, and what to do about it. Pure.
//!
//! Each sentence names the object, the cause and an action; a test goes through all reasons.

use super::{Findings, moves, rolls};
use crate::store::bootstrap::Phase;
use crate::store::error::StoreError;
use crate::store::names;
use crate::store::nodes::health::{self, PartitionHealth};
use crate::store::reason::Reason;
use atomix_controller::{ApplyError, Category, ReconcileError as _};
use atomix_resources::store::UnhealthyPartition;

/// How many pods a message names.
const NAMED: usize = 5;

/// Why something is as it is.
#[derive(Debug, Clone)]
pub(super) struct Cause {
    pub(super) reason: Reason,
    pub(super) message: String,
}

pub(super) fn cause(reason: Reason, message: impl Into<String>) -> Cause {
    Cause {
        reason,
        message: message.into(),
    }
}

/// The Store is left alone.
pub(super) fn paused() -> Cause {
    cause(
        Reason::Paused,
        "spec.paused is true, so nothing is changed or compared: remove it to go on",
    )
}

/// Only a person can go on.
pub(super) fn stalled(findings: &Findings<'_>) -> Option<Cause> {
    if let Some(StoreError::Apply(error @ ApplyError::NotOurs { .. })) = findings.error {
        return Some(cause(Reason::NameTaken, error.to_string()));
    }
    if let Some(error) = findings.error.filter(|error| error.is_of_other_operator()) {
        return Some(cause(Reason::ManagedByOther, error.to_string()));
    }
    let name = findings.name;
    let plan = names::bootstrap_plan(name);
    match findings.phase {
        Phase::NameTaken(owner) => Some(cause(
            Reason::NameTaken,
            format!(
                "ConfigMap {plan} exists and {owner}: delete or rename it, or choose another name"
            ),
        )),
        Phase::ExistingData(disks) => {
            let described: Vec<String> = disks
                .iter()
                .map(|(ordinal, uid)| format!("{} (store {uid})", names::pod(name, *ordinal)))
                .collect();
            Some(cause(
                Reason::ExistingData,
                format!(
                    "disks of {} hold groups of an earlier Store: to start empty, delete this \
                     Store and its PersistentVolumeClaims `{}-{name}-…`, then create the Store \
                     again; to keep the data, use another name for this Store",
                    listed(&described),
                    names::DATA_VOLUME,
                ),
            ))
        }
        Phase::Unadoptable(why) => Some(cause(
            Reason::ExistingData,
            format!(
                "there is data of an earlier Store on the disks `{}-{name}-…` that this one cannot \
                 go on with: {why}; or, to start empty, delete this Store and its \
                 PersistentVolumeClaims, then create the Store again",
                names::DATA_VOLUME,
            ),
        )),
        Phase::PlanMissing => Some(cause(
            Reason::BootstrapPlanMissing,
            format!(
                "ConfigMap {plan} is missing, and so is the data, although the Store was \
                 bootstrapped: restore it, or the disks, from a backup; the operator never \
                 bootstraps a Store twice"
            ),
        )),
        Phase::PlanDamaged(why) => Some(cause(
            Reason::BootstrapPlanDamaged,
            format!("ConfigMap {plan}: {why}: restore it from a backup"),
        )),
        Phase::WaitingForNodes(_)
        | Phase::WaitingForEarlierPlan
        | Phase::Bootstrapping { .. }
        | Phase::Done => {
            let config = || config_trouble(findings);
            missing_driver(findings)
                .or_else(|| config().filter(|trouble| !trouble.reason.is_expected()))
        }
    }
}

/// The nodes go on, but nobody can connect anew.
fn missing_driver(findings: &Findings<'_>) -> Option<Cause> {
    let missing = findings.missing_driver?;
    Some(cause(Reason::DriverNotFound, missing.to_string()))
}

/// The nodes need nothing of it, but nobody can connect anew.
fn config_trouble(findings: &Findings<'_>) -> Option<Cause> {
    let trouble = findings.config.err()?;
    Some(cause(trouble.reason(), trouble.to_string()))
}

/// Why the Store does not serve in full.
pub(super) fn unready(findings: &Findings<'_>, health: &PartitionHealth) -> Option<Cause> {
    let is_done = matches!(findings.phase, Phase::Done);
    if is_done && health.ready == health.total {
        return config_trouble(findings);
    }
    // The first cause, not its consequences.
    if let Some(trouble) = health::troubles(findings.pods).into_iter().next() {
        return Some(cause(trouble.reason, trouble.message));
    }
    if findings.paused && !is_done {
        return Some(paused());
    }
    progressing(findings, health)
}

/// What the operator waits for or works on.
pub(super) fn progressing(findings: &Findings<'_>, health: &PartitionHealth) -> Option<Cause> {
    if let Some(error) = findings.error.filter(|error| error.is_for_people()) {
        return Some(of_error(error));
    }
    let name = findings.name;
    let phase = match findings.phase {
        Phase::WaitingForNodes(ordinals) => {
            let pods: Vec<String> = ordinals
                .iter()
                .map(|ordinal| names::pod(name, *ordinal))
                .collect();
            // Not what each of them is at just now: that changes with every step of their start.
            Some(cause(
                Reason::WaitingForNodes,
                format!(
                    "no answer yet from {}: no action while they start; if it lasts, look at \
                     `kubectl describe pod` and at their logs",
                    listed(&pods)
                ),
            ))
        }
        Phase::WaitingForEarlierPlan => Some(cause(
            Reason::WaitingForEarlierStore,
            format!(
                "ConfigMap {} of an earlier Store of this name is still there: no action while it \
                 is collected; if it lasts, delete it",
                names::bootstrap_plan(name)
            ),
        )),
        Phase::Bootstrapping { uncommitted } => Some(cause(
            Reason::Bootstrapping,
            format!(
                "{} of {} partitions have not committed yet: no action while they elect; if it \
                 lasts, look at the logs of the storage pods",
                uncommitted.len(),
                health.total
            ),
        )),
        Phase::Done
        | Phase::NameTaken(_)
        | Phase::ExistingData(_)
        | Phase::Unadoptable(_)
        | Phase::PlanMissing
        | Phase::PlanDamaged(_) => None,
    };
    phase
        .or_else(|| rolls::progressing(findings))
        .or_else(|| unready_partitions(health))
        .or_else(|| moves::progressing(findings))
}

fn of_error(error: &StoreError) -> Cause {
    if let StoreError::Growth(_) = error {
        return cause(
            Reason::VolumesNotGrown,
            format!(
                "{error}: set allowVolumeExpansion: true in the StorageClass of the volumes; it is \
                 tried again, and nothing else waits for it"
            ),
        );
    }
    let category = error.category();
    let advice = match category {
        Category::Forbidden => "grant the operator's ServiceAccount this right",
        Category::PeerRefused => "look at the pod's log; it is tried again",
        Category::Rejected => "correct what the API server names, in the Store or in its namespace",
        Category::InvalidObject => "correct the Store",
        Category::Conflict
        | Category::NotFound
        | Category::PeerUnavailable
        | Category::Throttled
        | Category::Timeout
        | Category::Unavailable => "no action; it is tried again",
    };
    cause(Reason::Failed(category), format!("{error}: {advice}"))
}

/// Nothing but a person's word brings these partitions back, whatever the others do. Before the mark
/// no data was in them, and the plan is replaced.
pub(super) fn quorum_lost(findings: &Findings<'_>, health: &PartitionHealth) -> Option<Cause> {
    let is_done = matches!(findings.phase, Phase::Done);
    unready_partitions(health).filter(|cause| is_done && cause.reason == Reason::QuorumLost)
}

fn unready_partitions(health: &PartitionHealth) -> Option<Cause> {
    let is_lost = |partition: &&UnhealthyPartition| partition.reason == Reason::QuorumLost.as_str();
    let lost = health.unhealthy.iter().find(is_lost);
    let first = lost.or(health.unhealthy.first())?;
    let message = format!(
        "{} of {} partitions are not ready; partition {}: {}",
        health.total - health.ready,
        health.total,
        first.partition,
        first.message
    );
    let reason = if lost.is_some() {
        Reason::QuorumLost
    } else {
        Reason::PartitionsNotReady
    };
    Some(cause(reason, message))
}

/// The Store serves, with less than its full strength.
pub(super) fn degraded(findings: &Findings<'_>) -> Option<Cause> {
    if !matches!(findings.phase, Phase::Done) {
        return None;
    }
    if let Some(lost) = moves::lost(findings) {
        return Some(lost);
    }
    if let Some(trouble) = health::troubles(findings.pods).into_iter().next() {
        return Some(cause(trouble.reason, trouble.message));
    }
    let holding = match findings.placement {
        Some(decision) => decision.holding.clone(),
        None => (0..findings.cluster.replicas).collect(),
    };
    let silent = health::silent_pods(findings.name, holding, findings.nodes);
    if silent.is_empty() {
        return None;
    }
    Some(cause(
        Reason::NodesUnreachable,
        format!(
            "no answer from {}: no action while they start again; if it lasts, look at their logs \
             and at what keeps the operator from reaching them",
            listed(&silent)
        ),
    ))
}

/// Some names, and how many more there are.
pub(super) fn listed(names: &[String]) -> String {
    let named = names.get(..NAMED.min(names.len())).unwrap_or_default();
    match names.len() - named.len() {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}
