//! Store: where data lives and which driver reaches it.
//! Not for its pods' details; those are in `storage_pod`.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::core::Duration;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::config_source::{self, ConfigSource};
use super::rules;
use super::storage_pod::StoragePod;

/// Partitions of a Store that does not say.
pub const DEFAULT_PARTITIONS: u32 = 3;
/// Storage nodes of a Store that does not say.
pub const DEFAULT_REPLICAS: u32 = 3;

/// A place where primitives keep their data.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "atomix.io",
    version = "v1beta1",
    kind = "Store",
    plural = "stores",
    namespaced,
    status = "StoreStatus",
    shortname = "ast",
    category = "atomix",
    derive = "PartialEq",
    doc = "A place where primitives keep their data, and the driver that reaches it.",
    scale(
        spec_replicas_path = ".spec.multiRaft.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    validation = Rule::new(rules::REPLICAS_HOLD_KEPT_FACTOR)
        .message("replicas cannot be less than status.replicationFactor: every copy lies on a node of its own; give a smaller replicationFactor, or more replicas"),
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$')")
        .message("the name of a Store starts with a letter, ends with a letter or digit, holds lower-case letters, digits and hyphens, and has at most 40 characters"),
    printcolumn(name = "Driver", type_ = "string", json_path = ".spec.driver.name"),
    printcolumn(name = "Replicas", type_ = "integer", json_path = ".status.replicas"),
    printcolumn(name = "Ready-Replicas", type_ = "integer", json_path = ".status.readyReplicas"),
    printcolumn(name = "Partitions", type_ = "integer", json_path = ".status.partitions.total"),
    printcolumn(name = "Ready-Partitions", type_ = "integer", json_path = ".status.partitions.ready"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Message", type_ = "string", priority = 1, json_path = ".status.conditions[?(@.type==\"Ready\")].message"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("(self.driver.name == 'multi-raft') == has(self.multiRaft)")
        .message("multiRaft belongs to the driver multi-raft: give it with that driver, and only with it"),
    validation = Rule::new("self.driver.name == oldSelf.driver.name")
        .message("driver.name cannot be changed: create a new Store"),
    validation = Rule::new("has(self.multiRaft) == has(oldSelf.multiRaft)")
        .message("multiRaft can be neither added nor removed: create a new Store")
)]
pub struct StoreSpec {
    /// The driver by which applications reach the store.
    pub driver: DriverReference,
    /// Values of Secrets and ConfigMaps of the Store's namespace that are put into `config`, at
    /// most 16. Each object carries the label `atomix.io/config: "true"`; when it changes, connected
    /// runtimes are configured anew. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    #[x_kube(validation = Rule::new(config_source::PATHS_ARE_APART)
        .message("each path of configFrom needs a place of its own: no path may be given twice, or lead into another"))]
    pub config_from: Option<Vec<ConfigSource>>,
    /// The driver's configuration, a JSON object of the driver's own form. For the driver
    /// multi-raft most of it follows from multiRaft; only `timeouts` may be given, with `session`
    /// (default: 30s), `election` (default: raft.electionTimeout) and `connect` (default: 2s).
    /// Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::free_form_object")]
    pub config: Option<Map<String, Value>>,
    /// Names of further namespaces whose Sessions may use this Store, at most 64; no patterns.
    /// Pods of an allowed namespace read and write all of the Store's data, and get its
    /// configuration with the credentials in it. A namespace that is taken out loses its connections
    /// within minutes. Default: none, only the Store's own namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 64),
        inner(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub allowed_namespaces: Option<Vec<String>>,
    /// Storage nodes to run: only and always with the driver multi-raft.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub multi_raft: Option<MultiRaft>,
    /// How pods are replaced when their settings change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_strategy: Option<UpdateStrategy>,
    /// Stops the operator's work on this Store, except for status and deletion. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<bool>,
}

/// How pods are replaced when their settings change.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct UpdateStrategy {
    /// Lets a change replace pods whose data would be lost: those of ephemeral storage with one copy
    /// of each partition. All of them are replaced at once, and the Store begins again empty.
    /// Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_data_loss: Option<bool>,
}

/// Names a driver.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct DriverReference {
    /// Name of the driver: multi-raft, memory, or spec.name of a Driver. Cannot be changed.
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    )]
    pub name: String,
    /// Version of the driver. Default: the only version there is, or the built-in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub version: Option<String>,
}

/// Storage nodes that replicate partitions by Raft.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.replicationFactor) || self.replicationFactor <= self.replicas")
        .message("replicationFactor cannot be greater than replicas: every copy lies on a node of its own; give more replicas, or a smaller replicationFactor"),
    validation = rules::unchanged_with_default("partitions", "3", ": keys are spread over partitions by their number; create a new Store")
)]
pub struct MultiRaft {
    /// Number of storage nodes, 1 to 63, at least replicationFactor. Default: 3. When it grows,
    /// members of partitions move to the new nodes; when it shrinks, they move away before any pod
    /// goes. The volumes of pods that went are kept.
    #[serde(default = "default_replicas")]
    #[schemars(range(min = 1, max = 63))]
    pub replicas: u32,
    /// Number of partitions that keys are spread over, 1 to 1024. Default: 3. Cannot be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1024))]
    pub partitions: Option<u32>,
    /// Copies of each partition: 1, 3, 5 or 7, at most replicas. Default: 3, or 1 when replicas is
    /// less than 3 at creation, which is then kept in status. Changed member by member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 7), extend("enum" = [1, 3, 5, 7]))]
    pub replication_factor: Option<u32>,
    /// Settings of Raft. A change takes effect node by node: the pods are replaced one at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raft: Option<Raft>,
    /// Where the nodes keep data. Volumes can grow, and retentionPolicy can change.
    #[x_kube(
        validation = Rule::new(rules::SAME_KIND_OF_STORAGE)
            .message("storage keeps its kind and its storageClassName: volumes cannot move to another class; create a new Store, or set the old value again"),
        validation = Rule::new(rules::STORAGE_GROWS)
            .message("storage.size cannot shrink: volumes only grow; create a new Store, or set the old value or a greater one")
    )]
    pub storage: Storage,
    /// Settings of the storage pods. A change replaces the pods one at a time, each only while
    /// every partition has all its copies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<StoragePod>,
}

/// Settings of Raft.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct Raft {
    /// Time without a leader after which an election starts, 300ms to 1m. Default: 1s, or 2500ms
    /// with more than 64 partitions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::duration")]
    #[x_kube(validation = Rule::new("duration(self) >= duration('300ms') && duration(self) <= duration('1m')")
        .message("electionTimeout lies between 300ms and 1m"))]
    pub election_timeout: Option<Duration>,
    /// Least number of log entries between two snapshots. Default: 10000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub snapshot_entry_threshold: Option<u64>,
}

/// Where storage nodes keep data: on volumes of a size, or explicitly nowhere that lasts.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.size) != has(self.ephemeral)")
        .message("storage needs either a size, or `ephemeral: {}` for data that is lost with its pods"),
    validation = Rule::new("!has(self.ephemeral) || (!has(self.storageClassName) && !has(self.retentionPolicy))")
        .message("ephemeral storage has neither a storageClassName nor a retentionPolicy")
)]
pub struct Storage {
    /// Size of each node's volume, at least 64Mi. It can grow if the StorageClass allows it. Default:
    /// none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::quantity")]
    #[x_kube(validation = Rule::new("isQuantity(string(self)) && quantity(string(self)).compareTo(quantity('64Mi')) >= 0")
        .message("size is a quantity of at least 64Mi"))]
    pub size: Option<Quantity>,
    /// StorageClass of the volumes. With one that binds at once (volumeBindingMode: Immediate), members
    /// of a disk that was given up are made again only when the pod of the next disk runs. Default:
    /// the cluster's default class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub storage_class_name: Option<String>,
    /// What happens to the volumes of a deleted Store, and of nodes that went when it shrank: Retain
    /// keeps them, and a Store of the same name goes on with their data; Delete deletes them and the
    /// data. Default: Retain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention_policy: Option<RetentionPolicy>,
    /// Keeps data in the pods: it is lost with them. Default: volumes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ephemeral: Option<Ephemeral>,
}

/// What happens to volumes that are not used any more.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum RetentionPolicy {
    /// They stay.
    #[default]
    Retain,
    /// They are deleted.
    Delete,
}

/// Data lives in the pods.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
pub struct Ephemeral {}

/// What the operator last saw of a Store.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct StoreStatus {
    /// Generation of the specification that this status is about; -1 before the first look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, Progressing, Degraded, Stalled and DataLost.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// Storage nodes that exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u32>,
    /// Storage nodes that serve, and whose disks every partition counts on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_replicas: Option<u32>,
    /// Storage nodes whose pods have the settings of the specification.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_replicas: Option<u32>,
    /// Label selector of the storage pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// Copies of each partition that are wanted: as in the specification, or as decided when the
    /// Store was created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replication_factor: Option<u32>,
    /// Counts of partitions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partitions: Option<PartitionCounts>,
    /// The first 20 partitions that are not ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unhealthy_partitions: Vec<UnhealthyPartition>,
    /// Counts the bootstraps of the Store; 1 for the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incarnation: Option<i64>,
    /// Whose data the nodes hold: the uid of the Store that bootstrapped them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store_uid: Option<String>,
    /// Every partition has committed its first entry; only then do runtimes connect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bootstrapped: Option<bool>,
    /// Whether the storage nodes, and the runtimes that reach them, speak mutual TLS. As the operator
    /// was set when the Store was made; it never changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<bool>,
    /// Whether Sessions of any namespace use the Store: then it is not deleted in the foreground.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_use: Option<bool>,
    /// Version of the storage nodes' program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// SHA-256 of the driver's configuration as JSON with sorted keys, in hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_digest: Option<String>,
}

/// Counts of partitions.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct PartitionCounts {
    /// All partitions.
    pub total: u32,
    /// Partitions with a leader that a majority follows.
    pub ready: u32,
}

/// A partition that is not ready.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct UnhealthyPartition {
    /// Number of the partition, from 1.
    pub partition: u32,
    /// CamelCase word for programs.
    pub reason: String,
    /// What is wrong and what to do.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

impl MultiRaft {
    /// Number of partitions, with the default.
    pub fn partition_count(&self) -> u32 {
        self.partitions.unwrap_or(DEFAULT_PARTITIONS)
    }

    /// Copies of each partition, with the default of a new Store.
    pub fn replication_factor_of_new_store(&self) -> u32 {
        self.replication_factor
            .unwrap_or(if self.replicas < 3 { 1 } else { 3 })
    }
}

impl Store {
    /// Whether a change of the pods may lose data.
    pub fn allows_data_loss(&self) -> bool {
        let strategy = self.spec.update_strategy.unwrap_or_default();
        strategy.allow_data_loss.unwrap_or(false)
    }

    /// Whether the operator may change anything but status and deletion.
    pub fn is_paused(&self) -> bool {
        self.spec.paused.unwrap_or(false)
    }

    /// Whether Sessions of another namespace may use it.
    pub fn allows(&self, namespace: &str) -> bool {
        let mut allowed = self.spec.allowed_namespaces.iter().flatten();
        allowed.any(|allowed| allowed == namespace)
    }
}

fn default_replicas() -> u32 {
    DEFAULT_REPLICAS
}
