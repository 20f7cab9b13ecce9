//! From everything that a reconcile found out to the status. Pure; written only on difference.
//!
//! What a condition says and why is found in `causes`; this file puts the whole together.

mod causes;
mod moves;
pub mod pod_trouble;
mod rolls;

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;
use semver::Version;

use super::bootstrap::{Phase, StoredPlan};
use super::error::StoreError;
use super::names;
use super::reason::Reason;
use super::rolling::Roll;
use crate::driver::builtin::UnknownDriver;
use crate::store::bootstrap::plan_record::Plan;
use crate::store::members::placement::Decision;
use crate::store::nodes::health::{self, PartitionHealth};
use crate::store::nodes::watches::NodeState;
use crate::store::objects::pods::StoragePodView;
use crate::store::spec::config_from::ConfigTrouble;
use crate::store::spec::driver_config::DriverConfig;
use crate::store::spec::validate::Cluster;
use atomix_resources::StoreStatus;
use atomix_resources::conditions::{self, WantedCondition};
use atomix_resources::store::PartitionCounts;
use causes::{Cause, cause};

/// What the status of a Store with storage nodes is made of.
#[derive(Debug)]
pub struct Findings<'a> {
    /// The Store's name.
    pub name: &'a str,
    /// The validated spec.
    pub cluster: &'a Cluster,
    /// The driver's configuration, or why there is none.
    pub config: Result<&'a DriverConfig, &'a ConfigTrouble>,
    /// The driver that runtimes do not have, if that is the one which the Store names.
    pub missing_driver: Option<&'a UnknownDriver>,
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
    /// What is to become of the members; `None` before the mark.
    pub placement: Option<&'a Decision>,
    /// How far a change of the pods is; `None` before the mark.
    pub roll: Option<&'a Roll>,
    /// A budget has refused the next eviction for some time.
    pub eviction_refused: bool,
    /// What ended this pass early.
    pub error: Option<&'a StoreError>,
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
        StoredPlan::Absent
        | StoredPlan::OfEarlierStore
        | StoredPlan::NameTaken(_)
        | StoredPlan::Damaged(_) => (None, previous.bootstrapped),
    };
    let health = partition_health(findings, plan);
    let mut wanted = wanted_conditions(findings, &health);
    wanted.extend(data_lost(plan, previous));
    let ready_replicas = findings.pods.values().filter(|pod| pod.is_ready()).count();
    StoreStatus {
        observed_generation: Some(generation),
        conditions: conditions::follow(&previous.conditions, &wanted, generation, now),
        replicas: u32::try_from(findings.pods.len()).ok(),
        ready_replicas: u32::try_from(ready_replicas).ok(),
        updated_replicas: findings
            .roll
            .and_then(Roll::known_updated)
            .or(previous.updated_replicas),
        selector: Some(names::selector_text(findings.name)),
        replication_factor: Some(findings.cluster.replication_factor),
        partitions: Some(PartitionCounts {
            total: health.total,
            ready: health.ready,
        }),
        unhealthy_partitions: health.unhealthy,
        incarnation: plan.map(incarnation).or(previous.incarnation),
        store_uid: plan
            .map(|plan| plan.store_uid.clone())
            .or_else(|| previous.store_uid.clone()),
        bootstrapped,
        in_use: previous.in_use,
        version: version(findings.nodes).or_else(|| previous.version.clone()),
        config_digest: match findings.config {
            Ok(config) => Some(config.digest.clone()),
            Err(_) => previous.config_digest.clone(),
        },
        tls: previous.tls,
    }
}

fn incarnation(plan: &Plan) -> i64 {
    i64::try_from(plan.incarnation).unwrap_or(i64::MAX)
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

/// The oldest version that a node runs; one that cannot be read counts as older than all.
fn version(nodes: &BTreeMap<u32, NodeState>) -> Option<String> {
    let views = nodes.values().filter_map(NodeState::view);
    let versions = views.map(|view| view.version.clone());
    let versions = versions.filter(|version| !version.is_empty());
    versions.min_by_key(|version| Version::parse(version).ok())
}

fn wanted_conditions(findings: &Findings<'_>, health: &PartitionHealth) -> Vec<WantedCondition> {
    let stalled = causes::stalled(findings);
    let unready = stalled
        .clone()
        .or_else(|| causes::unready(findings, health));
    let ready = match unready {
        None => WantedCondition::is_true(
            conditions::READY,
            Reason::AllPartitionsReady.as_str(),
            ready_message(findings, health),
        ),
        Some(cause) => {
            WantedCondition::is_false(conditions::READY, cause.reason.as_str(), cause.message)
        }
    };
    let degraded = causes::degraded(findings);
    // A change that is refused leaves what serves alone.
    let stalled = stalled
        .or_else(|| causes::quorum_lost(findings, health))
        .or_else(|| rolls::stalled(findings));
    vec![
        ready,
        progressing(findings, health, stalled.as_ref()),
        condition(conditions::DEGRADED, degraded, Reason::FullStrength),
        condition(conditions::STALLED, stalled, Reason::NotStalled),
    ]
}

/// Without a second copy nothing forbids a drain, so it is said what one costs.
fn ready_message(findings: &Findings<'_>, health: &PartitionHealth) -> String {
    let all = format!("all {} partitions have a leader", health.total);
    if findings.cluster.replication_factor > 1 {
        return all;
    }
    format!(
        "{all}; each has one copy, so drains are allowed, and a partition is away while its pod is"
    )
}

/// Whoever reads that nothing progresses must not take it for being done.
fn progressing(
    findings: &Findings<'_>,
    health: &PartitionHealth,
    stalled: Option<&Cause>,
) -> WantedCondition {
    if let Some(stalled) = stalled {
        return WantedCondition::is_false(conditions::PROGRESSING, stalled.reason.as_str(), "");
    }
    if findings.paused {
        return paused();
    }
    let cause = causes::progressing(findings, health);
    condition(conditions::PROGRESSING, cause, Reason::AsSpecified)
}

fn paused() -> WantedCondition {
    let Cause { reason, message } = causes::paused();
    WantedCondition::is_false(conditions::PROGRESSING, reason.as_str(), message)
}

fn condition(
    type_: &'static str,
    cause: Option<Cause>,
    reason_of_false: Reason,
) -> WantedCondition {
    match cause {
        Some(cause) => WantedCondition::is_true(type_, cause.reason.as_str(), cause.message),
        None => WantedCondition::is_false(type_, reason_of_false.as_str(), ""),
    }
}

/// Derived, not noticed in passing: a bootstrapped incarnation is followed by another one only
/// when all data was lost, and whoever writes the next status sees that, also after a crash.
fn data_lost(plan: Option<&Plan>, previous: &StoreStatus) -> Option<WantedCondition> {
    let reason = Reason::EphemeralDisksEmpty.as_str();
    let lost = plan.map(incarnation).zip(previous.incarnation);
    if let Some((now, before)) = lost.filter(|(now, before)| now > before)
        && previous.bootstrapped == Some(true)
    {
        let message = format!(
            "every ephemeral disk was empty, so all data of incarnation {before} is lost and the \
             Store began again empty, as incarnation {now}: fill it again from its source, and use \
             a storage size instead of `ephemeral` for data that must stay; this condition stays \
             as a record until the Store is deleted"
        );
        return Some(WantedCondition::is_true(
            conditions::DATA_LOST,
            reason,
            message,
        ));
    }
    let mut conditions = previous.conditions.iter();
    let recorded = conditions.find(|condition| is_data_loss(condition))?;
    let message = recorded.message.clone();
    Some(WantedCondition::is_true(
        conditions::DATA_LOST,
        reason,
        message,
    ))
}

fn is_data_loss(condition: &Condition) -> bool {
    condition.type_ == conditions::DATA_LOST && condition.status == "True"
}

/// The status of a Store without storage nodes.
#[must_use]
pub fn of_driver_only(
    config: &DriverConfig,
    missing_driver: Option<String>,
    is_paused: bool,
    previous: &StoreStatus,
    generation: i64,
    now: Timestamp,
) -> StoreStatus {
    let missing = missing_driver.map(|message| cause(Reason::DriverNotFound, message));
    let ready = match &missing {
        None => WantedCondition::is_true(
            conditions::READY,
            Reason::DriverAvailable.as_str(),
            "runtimes have the driver",
        ),
        Some(missing) => WantedCondition::is_false(
            conditions::READY,
            missing.reason.as_str(),
            missing.message.clone(),
        ),
    };
    let progressing = match &missing {
        Some(missing) => {
            WantedCondition::is_false(conditions::PROGRESSING, missing.reason.as_str(), "")
        }
        None if is_paused => paused(),
        None => condition(conditions::PROGRESSING, None, Reason::AsSpecified),
    };
    let wanted = [
        ready,
        progressing,
        condition(conditions::STALLED, missing, Reason::NotStalled),
    ];
    StoreStatus {
        observed_generation: Some(generation),
        conditions: conditions::follow(&previous.conditions, &wanted, generation, now),
        config_digest: Some(config.digest.clone()),
        ..StoreStatus::default()
    }
}

/// The status of a Store that only a person can get going again: everything known stays, also that
/// data was lost or strength is missing; the other conditions say why nothing happens.
#[must_use]
pub fn of_halted(
    reason: Reason,
    message: &str,
    previous: &StoreStatus,
    generation: i64,
    now: Timestamp,
) -> StoreStatus {
    let reason = reason.as_str();
    let wanted = [
        WantedCondition::is_false(conditions::READY, reason, message),
        WantedCondition::is_false(conditions::PROGRESSING, reason, ""),
        WantedCondition::is_true(conditions::STALLED, reason, message),
    ];
    StoreStatus {
        observed_generation: Some(generation),
        conditions: conditions::follow_some(&previous.conditions, &wanted, generation, now),
        ..previous.clone()
    }
}

/// Whether an event should warn of a condition of a Store.
#[must_use]
pub fn is_trouble(condition: &Condition) -> bool {
    match condition.type_.as_str() {
        conditions::STALLED | conditions::DEGRADED | conditions::DATA_LOST => {
            condition.status == "True"
        }
        conditions::READY => {
            let is_expected = Reason::all()
                .any(|reason| reason.is_expected() && reason.as_str() == condition.reason);
            condition.status == "False" && !is_expected
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests;
