//! From the raw spec to strong types, all errors at once. Pure.
//!
//! What CEL refuses at admission is checked again: an older CRD may have let it in.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::{Map, Value};
use thiserror::Error;

use crate::store::spec::driver_timeouts;
use atomix_resources::storage_pod::StoragePod;
use atomix_resources::store::{RetentionPolicy, Storage};
use atomix_resources::{MultiRaft, Store};

/// The driver whose storage nodes the operator runs.
pub const MULTI_RAFT: &str = "multi-raft";

/// Partitions of a Store before its groups use the slower timings: so many members a node may host
/// in calm. Not by replicas: timings stay when those change.
const GROUPS_OF_A_CALM_NODE: u32 = 64;

/// Why a spec cannot be carried out.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{}", .problems.join("; "))]
pub struct InvalidStore {
    /// Every problem, each a sentence that names the field.
    pub problems: Vec<String>,
}

/// A Store as the controller works with it.
#[derive(Debug, Clone, PartialEq)]
pub enum ValidStore {
    /// Storage nodes are run.
    MultiRaft(Box<Cluster>),
    /// Only a driver's configuration is kept.
    DriverOnly {
        /// The driver's configuration.
        config: Value,
    },
}

/// Storage nodes to run.
#[derive(Debug, Clone, PartialEq)]
pub struct Cluster {
    /// Number of nodes.
    pub replicas: u32,
    /// Number of partitions.
    pub partitions: u32,
    /// Members of each partition.
    pub replication_factor: u32,
    /// Raft's settings.
    pub timings: Timings,
    /// Where nodes keep data.
    pub storage: ClusterStorage,
    /// Settings of the pods.
    pub pod: StoragePod,
    /// A change of the pods may lose data.
    pub allow_data_loss: bool,
    /// Timeouts of the driver that are given.
    pub driver_timeouts: Map<String, Value>,
}

/// Raft's settings; part of the bootstrap plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timings {
    /// Time without a leader after which an election starts.
    pub election_timeout: Duration,
    /// Least number of entries between snapshots; 0 = the node's default.
    pub snapshot_entry_threshold: u64,
}

/// Where nodes keep data.
#[derive(Debug, Clone, PartialEq)]
pub enum ClusterStorage {
    /// In the pods; lost with them.
    Ephemeral,
    /// On a volume each.
    Volumes {
        /// Size of each.
        size: Quantity,
        /// Class; `None` = the cluster's default.
        class: Option<String>,
        /// They are deleted once nothing is on them, and with the Store.
        is_deleted: bool,
    },
}

/// Checks a Store whose driver gets `config`. `kept_factor` is the replication factor in its status,
/// which outlives defaults.
///
/// # Errors
/// Every problem of the spec.
pub fn validate(
    store: &Store,
    config: Map<String, Value>,
    kept_factor: Option<u32>,
) -> Result<ValidStore, InvalidStore> {
    let mut problems = Vec::new();
    let is_multi_raft = store.spec.driver.name == MULTI_RAFT;
    let valid = match (&store.spec.multi_raft, is_multi_raft) {
        (Some(multi_raft), true) => ValidStore::MultiRaft(Box::new(cluster(
            multi_raft,
            &config,
            kept_factor,
            store.allows_data_loss(),
            &mut problems,
        ))),
        (None, false) => ValidStore::DriverOnly {
            config: Value::Object(config),
        },
        (None, true) => {
            problems.push("spec.multiRaft is required with the driver multi-raft".to_owned());
            ValidStore::DriverOnly {
                config: Value::Null,
            }
        }
        (Some(_), false) => {
            let driver = &store.spec.driver.name;
            problems.push(format!(
                "spec.multiRaft belongs to the driver multi-raft, not {driver}"
            ));
            ValidStore::DriverOnly {
                config: Value::Null,
            }
        }
    };
    if problems.is_empty() {
        Ok(valid)
    } else {
        Err(InvalidStore { problems })
    }
}

fn cluster(
    spec: &MultiRaft,
    config: &Map<String, Value>,
    kept_factor: Option<u32>,
    allow_data_loss: bool,
    problems: &mut Vec<String>,
) -> Cluster {
    let replicas = spec.replicas;
    if !(1..=63).contains(&replicas) {
        problems.push(format!(
            "spec.multiRaft.replicas is {replicas}, not between 1 and 63"
        ));
    }
    let partitions = spec.partition_count();
    if !(1..=1024).contains(&partitions) {
        problems.push(format!(
            "spec.multiRaft.partitions is {partitions}, not between 1 and 1024"
        ));
    }
    let factor = spec
        .replication_factor
        .or(kept_factor)
        .unwrap_or_else(|| spec.replication_factor_of_new_store());
    if ![1, 3, 5, 7].contains(&factor) {
        problems.push(format!(
            "spec.multiRaft.replicationFactor is {factor}, not 1, 3, 5 or 7"
        ));
    } else if factor > replicas {
        problems.push(format!(
            "spec.multiRaft.replicationFactor {factor} is greater than replicas {replicas}"
        ));
    }
    for key in config.keys().filter(|key| *key != "timeouts") {
        problems.push(format!(
            "spec.config.{key} is not for the driver multi-raft: only timeouts may be given"
        ));
    }
    let timings = timings(spec, partitions);
    if let Some(given) = config.get("timeouts") {
        problems.extend(driver_timeouts::problems(given, timings.election_timeout));
    }
    Cluster {
        replicas,
        partitions,
        replication_factor: factor,
        timings,
        storage: storage(&spec.storage, problems),
        pod: spec.pod.clone().unwrap_or_default(),
        allow_data_loss,
        driver_timeouts: config
            .get("timeouts")
            .and_then(Value::as_object)
            .cloned()
            .unwrap_or_default(),
    }
}

fn timings(spec: &MultiRaft, partitions: u32) -> Timings {
    let default = if partitions > GROUPS_OF_A_CALM_NODE {
        Duration::from_millis(2500)
    } else {
        Duration::from_secs(1)
    };
    let raft = spec.raft.clone().unwrap_or_default();
    Timings {
        election_timeout: raft.election_timeout.map_or(default, Duration::from),
        snapshot_entry_threshold: raft.snapshot_entry_threshold.unwrap_or(0),
    }
}

fn storage(spec: &Storage, problems: &mut Vec<String>) -> ClusterStorage {
    match (&spec.size, &spec.ephemeral) {
        (Some(size), None) => ClusterStorage::Volumes {
            size: size.clone(),
            class: spec.storage_class_name.clone(),
            is_deleted: spec.retention_policy == Some(RetentionPolicy::Delete),
        },
        (None, Some(_)) => ClusterStorage::Ephemeral,
        (Some(_), Some(_)) | (None, None) => {
            problems
                .push("spec.multiRaft.storage needs either a size, or `ephemeral: {}`".to_owned());
            ClusterStorage::Ephemeral
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use serde_json::json;

    use super::*;

    #[test]
    fn many_groups_elect_more_slowly_unless_the_store_says_otherwise() {
        for (partitions, raft, expected) in [
            (1, json!({}), 1000),
            (64, json!({}), 1000),
            (65, json!({}), 2500),
            (65, json!({"electionTimeout": "700ms"}), 700),
            (1, json!({"electionTimeout": "3s"}), 3000),
        ] {
            let spec = json!({
                "replicas": 3, "partitions": partitions, "raft": raft, "storage": {"size": "1Gi"},
            });
            let spec: MultiRaft = serde_json::from_value(spec).unwrap();
            let timings = timings(&spec, partitions);
            assert_eq!(timings.election_timeout.as_millis(), expected, "{spec:?}");
        }
    }
}
