//! From everything that a reconcile found out to the status. Pure; written only on difference.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;

use super::bootstrap::{Phase, StoredPlan};
use super::driver_config::DriverConfig;
use super::error::StoreError;
use super::health::{self, PartitionHealth};
use super::names;
use super::plan_record::Plan;
use super::pods::StoragePodView;
use super::validate::Cluster;
use super::watches::NodeState;
use crate::controller::{ApplyError, ReconcileError as _};
use crate::crd::StoreStatus;
use crate::crd::conditions::{self, WantedCondition};
use crate::crd::store::PartitionCounts;

/// What the status of a Store with storage nodes is made of.
#[derive(Debug)]
pub struct Findings<'a> {
    /// The Store's name.
    pub name: &'a str,
    /// The validated spec.
    pub cluster: &'a Cluster,
    /// The driver's configuration.
    pub config: &'a DriverConfig,
    /// The Store is paused.
    pub paused: bool,
    /// The stored plan.
    pub plan: &'a StoredPlan,
    /// Where the bootstrap stands.
    pub phase: &'a Phase,
    /// The pods by ordinal.
    pub pods: &'a BTreeMap<u32, Arc<StoragePodView>>,
    /// The nodes by ordinal.
    pub nodes: &'a BTreeMap<u32, NodeState>,
    /// The newest revision of the pods, if known.
    pub newest_revision: Option<&'a str>,
    /// What ended this pass early.
    pub error: Option<&'a StoreError>,
    /// A marked plan was replaced in this pass because all data was gone.
    pub data_lost: bool,
}

/// The status of a Store with storage nodes.
#[must_use]
pub fn of_cluster(
    findings: &Findings<'_>,
    previous: &StoreStatus,
    generation: i64,
    now: Timestamp,
) -> StoreStatus {
    let (plan, bootstrapped) = match findings.plan {
        StoredPlan::Ours { plan, bootstrapped } => (Some(plan.as_ref()), Some(*bootstrapped)),
        StoredPlan::Absent | StoredPlan::OfEarlierStore | StoredPlan::Damaged(_) => {
            (None, previous.bootstrapped)
        }
    };
    let health = partition_health(findings, plan);
    let wanted = wanted_conditions(findings, &health, previous);
    let ready_replicas = findings.pods.values().filter(|pod| pod.is_ready()).count();
    StoreStatus {
        observed_generation: Some(generation),
        conditions: conditions::follow(&previous.conditions, &wanted, generation, now),
        replicas: u32::try_from(findings.pods.len()).ok(),
        ready_replicas: u32::try_from(ready_replicas).ok(),
        selector: Some(names::selector_text(findings.name)),
        replication_factor: Some(findings.cluster.replication_factor),
        partitions: Some(PartitionCounts {
            total: health.total,
            ready: health.ready,
        }),
        unhealthy_partitions: health.unhealthy,
        incarnation: plan
            .and_then(|plan| i64::try_from(plan.incarnation).ok())
            .or(previous.incarnation),
        store_uid: plan
            .map(|plan| plan.store_uid.clone())
            .or_else(|| previous.store_uid.clone()),
        bootstrapped,
        version: version(findings.nodes).or_else(|| previous.version.clone()),
        config_digest: Some(findings.config.digest.clone()),
    }
}

fn partition_health(findings: &Findings<'_>, plan: Option<&Plan>) -> PartitionHealth {
    match plan {
        Some(plan) => health::partitions(findings.name, plan, findings.nodes),
        None => PartitionHealth {
            total: findings.cluster.partitions,
            ready: 0,
            unhealthy: Vec::new(),
        },
    }
}

/// The oldest version that a node runs.
fn version(nodes: &BTreeMap<u32, NodeState>) -> Option<String> {
    let views = nodes.values().filter_map(NodeState::view);
    let versions = views.map(|view| view.version.clone());
    versions.filter(|version| !version.is_empty()).min()
}

/// Why something is as it is.
struct Cause {
    reason: &'static str,
    message: String,
}

fn cause(reason: &'static str, message: impl Into<String>) -> Cause {
    Cause {
        reason,
        message: message.into(),
    }
}

fn wanted_conditions(
    findings: &Findings<'_>,
    health: &PartitionHealth,
    previous: &StoreStatus,
) -> Vec<WantedCondition> {
    let stalled = stalled(findings);
    let degraded = degraded(findings);
    let unready = stalled_or(&stalled, || unready(findings, health));
    let progressing = if stalled.is_some() {
        None
    } else {
        progressing(findings, health)
    };

    let mut wanted = vec![
        match &unready {
            None => WantedCondition::is_true(
                conditions::READY,
                "AllPartitionsReady",
                format!("all {} partitions have a leader", health.total),
            ),
            Some(cause) => {
                WantedCondition::is_false(conditions::READY, cause.reason, &cause.message)
            }
        },
        condition(conditions::PROGRESSING, progressing, "AsSpecified"),
        condition(conditions::DEGRADED, degraded, "FullStrength"),
        condition(conditions::STALLED, stalled, "NotStalled"),
    ];
    let lost_before = previous
        .conditions
        .iter()
        .find(|condition| condition.type_ == conditions::DATA_LOST && condition.status == "True");
    if findings.data_lost {
        wanted.push(WantedCondition::is_true(
            conditions::DATA_LOST,
            "EphemeralDisksEmpty",
            "every ephemeral disk was empty: the Store started again without its data",
        ));
    } else if let Some(lost) = lost_before {
        wanted.push(WantedCondition::is_true(
            conditions::DATA_LOST,
            "EphemeralDisksEmpty",
            lost.message.clone(),
        ));
    }
    wanted
}

fn condition(
    type_: &'static str,
    cause: Option<Cause>,
    reason_of_false: &'static str,
) -> WantedCondition {
    match cause {
        Some(cause) => WantedCondition::is_true(type_, cause.reason, cause.message),
        None => WantedCondition::is_false(type_, reason_of_false, ""),
    }
}

fn stalled_or(stalled: &Option<Cause>, other: impl FnOnce() -> Option<Cause>) -> Option<Cause> {
    match stalled {
        Some(stalled) => Some(cause(stalled.reason, stalled.message.clone())),
        None => other(),
    }
}

/// Only a person can go on.
fn stalled(findings: &Findings<'_>) -> Option<Cause> {
    if let Some(StoreError::Apply(error @ ApplyError::NotOurs { .. })) = findings.error {
        return Some(cause("NameTaken", error.to_string()));
    }
    match findings.phase {
        Phase::ExistingData(disks) => {
            let name = findings.name;
            let described: Vec<String> = disks
                .iter()
                .map(|(ordinal, uid)| format!("{} (store {uid})", names::pod(name, *ordinal)))
                .collect();
            Some(cause(
                "ExistingData",
                format!(
                    "disks of {} hold groups of an earlier Store: to start empty, delete this \
                     Store and its PersistentVolumeClaims `{}-{name}-…`, then create the Store \
                     again; to keep the data, use another name for this Store",
                    described.join(", "),
                    names::DATA_VOLUME,
                ),
            ))
        }
        Phase::PlanMissing => Some(cause(
            "BootstrapPlanMissing",
            format!(
                "ConfigMap {} is missing although the Store was bootstrapped: restore it from a \
                 backup; the operator never bootstraps a Store twice",
                names::bootstrap_plan(findings.name)
            ),
        )),
        Phase::PlanDamaged(why) => Some(cause(
            "BootstrapPlanDamaged",
            format!(
                "ConfigMap {}: {why}: restore it from a backup",
                names::bootstrap_plan(findings.name)
            ),
        )),
        Phase::WaitingForNodes(_)
        | Phase::WaitingForEarlierPlan
        | Phase::Bootstrapping { .. }
        | Phase::Done { .. } => None,
    }
}

/// Why the Store does not serve in full.
fn unready(findings: &Findings<'_>, health: &PartitionHealth) -> Option<Cause> {
    let is_done = matches!(findings.phase, Phase::Done { .. });
    if is_done && health.ready == health.total {
        return None;
    }
    // The first cause, not its consequences.
    if let Some(trouble) = health::troubles(findings.pods).into_iter().next() {
        return Some(cause(trouble.reason, trouble.message));
    }
    progressing(findings, health)
}

/// What the operator waits for or works on.
fn progressing(findings: &Findings<'_>, health: &PartitionHealth) -> Option<Cause> {
    if findings.paused && !matches!(findings.phase, Phase::Done { .. }) {
        return Some(cause("Paused", "spec.paused is true: nothing is changed"));
    }
    if let Some(error) = findings.error.filter(|error| error.is_for_people()) {
        return Some(cause(error.category().as_str(), error.to_string()));
    }
    let name = findings.name;
    let phase = match findings.phase {
        Phase::WaitingForNodes(ordinals) => {
            let pods: Vec<String> = ordinals
                .iter()
                .map(|ordinal| names::pod(name, *ordinal))
                .collect();
            Some(cause(
                "WaitingForNodes",
                format!("no answer yet from {}", pods.join(", ")),
            ))
        }
        Phase::WaitingForEarlierPlan => Some(cause(
            "WaitingForEarlierStore",
            format!(
                "ConfigMap {} of an earlier Store of this name is still there",
                names::bootstrap_plan(name)
            ),
        )),
        Phase::Bootstrapping { uncommitted } => Some(cause(
            "Bootstrapping",
            format!(
                "{} of {} partitions have not committed yet",
                uncommitted.len(),
                health.total
            ),
        )),
        Phase::Done { .. }
        | Phase::ExistingData(_)
        | Phase::PlanMissing
        | Phase::PlanDamaged(_) => None,
    };
    phase
        .or_else(|| unready_partitions(health))
        .or_else(|| old_pods(findings))
}

fn unready_partitions(health: &PartitionHealth) -> Option<Cause> {
    let first = health.unhealthy.first()?;
    let message = format!(
        "{} of {} partitions are not ready; partition {}: {}",
        health.total - health.ready,
        health.total,
        first.partition,
        first.message
    );
    Some(cause("PartitionsNotReady", message))
}

fn old_pods(findings: &Findings<'_>) -> Option<Cause> {
    let newest = findings.newest_revision?;
    let old: Vec<&str> = findings
        .pods
        .values()
        .filter(|pod| pod.revision().is_some_and(|revision| revision != newest))
        .map(|pod| pod.name())
        .collect();
    if old.is_empty() {
        return None;
    }
    Some(cause(
        "PodsOutdated",
        format!(
            "running with their former settings: {}; delete them one at a time, waiting for Ready \
             in between",
            old.join(", ")
        ),
    ))
}

/// The Store serves, with less than its full strength.
fn degraded(findings: &Findings<'_>) -> Option<Cause> {
    let Phase::Done { lost_disks } = findings.phase else {
        return None;
    };
    if !lost_disks.is_empty() {
        let pods: Vec<String> = lost_disks
            .iter()
            .map(|ordinal| names::pod(findings.name, *ordinal))
            .collect();
        return Some(cause(
            "DiskLost",
            format!(
                "{} came back with an empty disk and cannot be a member again; this version \
                 cannot replace members: keep the other pods running and copy the data to a new \
                 Store",
                pods.join(", ")
            ),
        ));
    }
    if let Some(trouble) = health::troubles(findings.pods).into_iter().next() {
        return Some(cause(trouble.reason, trouble.message));
    }
    let silent = health::silent_pods(findings.name, findings.cluster.replicas, findings.nodes);
    if silent.is_empty() {
        return None;
    }
    Some(cause(
        "NodesUnreachable",
        format!("no answer from {}", silent.join(", ")),
    ))
}

/// The status of a Store without storage nodes.
#[must_use]
pub fn of_driver_only(
    config: &DriverConfig,
    missing_driver: Option<String>,
    previous: &StoreStatus,
    generation: i64,
    now: Timestamp,
) -> StoreStatus {
    let wanted = match missing_driver {
        None => vec![
            WantedCondition::is_true(conditions::READY, "DriverAvailable", "runtimes can connect"),
            condition(conditions::PROGRESSING, None, "AsSpecified"),
            condition(conditions::STALLED, None, "NotStalled"),
        ],
        Some(message) => vec![
            WantedCondition::is_false(conditions::READY, "DriverNotFound", &message),
            condition(conditions::PROGRESSING, None, "WaitingForDriver"),
            WantedCondition::is_true(conditions::STALLED, "DriverNotFound", message),
        ],
    };
    StoreStatus {
        observed_generation: Some(generation),
        conditions: conditions::follow(&previous.conditions, &wanted, generation, now),
        config_digest: Some(config.digest.clone()),
        ..StoreStatus::default()
    }
}

/// The status of a Store that cannot be worked on: everything known stays, the conditions say why.
#[must_use]
pub fn of_halted(
    reason: &'static str,
    message: &str,
    only_people: bool,
    previous: &StoreStatus,
    generation: i64,
    now: Timestamp,
) -> StoreStatus {
    let stalled = if only_people {
        WantedCondition::is_true(conditions::STALLED, reason, message)
    } else {
        WantedCondition::is_false(conditions::STALLED, "NotStalled", "")
    };
    let wanted = [
        WantedCondition::is_false(conditions::READY, reason, message),
        WantedCondition::is_false(conditions::PROGRESSING, reason, ""),
        stalled,
    ];
    StoreStatus {
        observed_generation: Some(generation),
        conditions: conditions::follow(&previous.conditions, &wanted, generation, now),
        ..previous.clone()
    }
}

#[cfg(test)]
mod tests;
