//! Driver: how to talk to one kind of store. In this version every driver is built into the
//! runtime; the operator creates their Drivers.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How to talk to one kind of store.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "atomix.io",
    version = "v1beta1",
    kind = "Driver",
    plural = "drivers",
    status = "DriverStatus",
    shortname = "adr",
    category = "atomix",
    derive = "PartialEq",
    doc = "How to talk to one kind of store. The operator creates the built-in ones.",
    validation = Rule::new("self.metadata.name == self.spec.name || self.metadata.name == self.spec.name + '-' + self.spec.version")
        .message("a Driver is named as its spec.name, or as spec.name-spec.version"),
    printcolumn(name = "Driver", type_ = "string", json_path = ".spec.name"),
    printcolumn(name = "Version", type_ = "string", json_path = ".spec.version"),
    printcolumn(name = "Stores", type_ = "integer", json_path = ".status.storeCount"),
    printcolumn(name = "Available", type_ = "string", json_path = ".status.conditions[?(@.type==\"Available\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Available\")].reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct DriverSpec {
    /// Name by which Stores choose the driver. Cannot be changed.
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    )]
    #[x_kube(validation = Rule::new("self == oldSelf").message("name cannot be changed: create a new Driver"))]
    pub name: String,
    /// Version of the driver. Cannot be changed.
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$")
    )]
    #[x_kube(validation = Rule::new("self == oldSelf").message("version cannot be changed: create a new Driver"))]
    pub version: String,
    /// Where the driver's program comes from. Cannot be changed.
    #[x_kube(validation = Rule::new("self == oldSelf").message("source cannot be changed: create a new Driver"))]
    pub source: DriverSource,
}

/// Where a driver's program comes from.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct DriverSource {
    /// It is part of the runtime.
    pub builtin: Builtin,
}

/// Part of the runtime.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
pub struct Builtin {}

/// What the operator last saw of a Driver.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct DriverStatus {
    /// Generation of the specification that this status is about; -1 before the first look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Available, InUse and Stalled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// Number of Stores that use the driver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store_count: Option<u32>,
    /// The first 20 Stores that use the driver, as namespace/name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub stores: Vec<String>,
}
