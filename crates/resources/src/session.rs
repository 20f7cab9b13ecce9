//! Session: which pods use which Store for which primitives; the Kubernetes form of the Session
//! that runtimes and the operator list over gRPC.

use std::collections::BTreeMap;

use atomix_proto::kinds::KINDS;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::rules;

/// Connects pods with a Store.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "atomix.io",
    version = "v1beta1",
    kind = "Session",
    plural = "sessions",
    namespaced,
    status = "SessionStatus",
    shortname = "asn",
    category = "atomix",
    derive = "PartialEq",
    doc = "Connects the pods that it selects with a Store, for the primitives that it names.",
    printcolumn(name = "Store", type_ = "string", json_path = ".spec.store.name"),
    printcolumn(name = "Kind", type_ = "string", json_path = ".spec.kind"),
    printcolumn(name = "State", type_ = "string", json_path = ".status.state"),
    printcolumn(name = "Pods", type_ = "integer", json_path = ".status.pods.matched"),
    printcolumn(
        name = "Connected",
        type_ = "integer",
        json_path = ".status.pods.connected"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason"
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        priority = 1,
        json_path = ".status.conditions[?(@.type==\"Ready\")].message"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct SessionSpec {
    /// The Store that the pods use.
    pub store: StoreReference,
    /// Which pods of the Session's own namespace: those whose labels match and that carry a
    /// runtime sidecar.
    pub selector: PodSelector,
    /// Kind of primitive, or `*` for every kind. Default: `*`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "kind_of_primitive")]
    pub kind: Option<PrimitiveKind>,
    /// Name of the primitive, or `prefix*` for all whose names start so. Default: every name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[^*]*\*?$"))]
    pub primitive: Option<String>,
    /// Tags that a primitive must ask for, at most 32. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 63)))]
    pub tags: Option<Vec<String>>,
    /// Configuration of the primitives, a JSON object of their own form. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::free_form_object")]
    pub config: Option<Map<String, Value>>,
    /// Stops the operator's work on the connections of the selected pods, except for status and
    /// deletion: none is made or changed for this Session. A change of kind, primitive, tags or
    /// config takes effect nevertheless where its Store is connected, since all Sessions of a pod
    /// share one routing table. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<bool>,
}

/// Which primitives a Session serves, by their kind: one of those that the application API has, or
/// every kind.
#[derive(Serialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrimitiveKind(&'static str);

impl PrimitiveKind {
    /// Every kind.
    pub const EVERY: Self = Self("*");

    /// Its name on the wire.
    pub fn as_str(self) -> &'static str {
        self.0
    }

    /// Whether primitives of the kind with this name are among them.
    pub fn includes(self, kind: &str) -> bool {
        self == Self::EVERY || self.0 == kind
    }

    fn all() -> impl Iterator<Item = Self> {
        let kinds = KINDS.iter().map(|kind| Self(kind.name));
        std::iter::once(Self::EVERY).chain(kinds)
    }
}

impl Default for PrimitiveKind {
    fn default() -> Self {
        Self::EVERY
    }
}

impl<'de> Deserialize<'de> for PrimitiveKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Self::all().find(|kind| kind.0 == name).ok_or_else(|| {
            let names: Vec<_> = Self::all().map(Self::as_str).collect();
            D::Error::custom(format!(
                "unknown kind of primitive {name:?}, choose {}",
                names.join(", ")
            ))
        })
    }
}

/// The schema of a field that may be left out: one of the kinds, and not null.
fn kind_of_primitive(_generator: &mut SchemaGenerator) -> Schema {
    let names: Vec<_> = PrimitiveKind::all().map(PrimitiveKind::as_str).collect();
    json_schema!({"type": "string", "enum": names})
}

/// Names a Store.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "camelCase")]
pub struct StoreReference {
    /// Name of the Store.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Namespace of the Store, which must list the Session's in its allowedNamespaces. Default: the
    /// Session's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
}

/// Selects pods by labels: all pairs and all expressions must hold.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct PodSelector {
    /// Labels that a pod must have, 1 to 16.
    #[schemars(length(min = 1, max = 16), extend("minProperties" = 1, "maxProperties" = 16))]
    pub match_labels: BTreeMap<String, String>,
    /// Further requirements, at most 16. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub match_expressions: Option<Vec<LabelRequirement>>,
}

/// A requirement on one label of a pod.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "self.operator in ['In', 'NotIn'] \
     ? has(self.values) && self.values.size() > 0 \
     : !has(self.values) || self.values.size() == 0")
    .message("In and NotIn need values; Exists and DoesNotExist take none"))]
pub struct LabelRequirement {
    /// Key of the label.
    #[schemars(length(min = 1, max = 317))]
    pub key: String,
    /// In, NotIn, Exists or DoesNotExist.
    pub operator: LabelOperator,
    /// Values for In and NotIn, at most 32. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), inner(length(max = 63)))]
    pub values: Option<Vec<String>>,
}

/// How a label is compared.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum LabelOperator {
    /// It has one of the values.
    In,
    /// It has none of the values, or is absent.
    NotIn,
    /// It is there.
    Exists,
    /// It is absent.
    DoesNotExist,
}

/// What the operator last saw of a Session.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct SessionStatus {
    /// Generation of the specification that this status is about; -1 before the first look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// NONE, OPENING, OPENED, CLOSING or CLOSED.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<SessionState>,
    /// Ready, Progressing and Stalled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// Counts of pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<PodCounts>,
    /// The first 20 pods that could not be connected, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub failing_pods: Vec<FailingPod>,
}

/// State of a Session, as on the wire.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "UPPERCASE")]
pub enum SessionState {
    /// Nothing has been done yet.
    #[default]
    None,
    /// At least one pod is not connected yet.
    Opening,
    /// Every selected pod is connected.
    Opened,
    /// The Session is being deleted; pods are disconnected.
    Closing,
    /// Every pod is disconnected.
    Closed,
}

/// Counts of a Session's pods.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct PodCounts {
    /// Pods with a runtime sidecar that the Session selects and that have not ended.
    pub matched: u32,
    /// Of these, pods whose runtime has what the Session asks for.
    pub connected: u32,
    /// Of these, pods whose runtime could not be reached or refused.
    pub failed: u32,
    /// Pods that the selector matched without a runtime sidecar when this specification was first
    /// seen, at most 100; as long as no pod with one is matched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_injected: Option<u32>,
}

/// A pod that could not be connected.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "camelCase")]
pub struct FailingPod {
    /// Name of the pod.
    pub name: String,
    /// CamelCase word for programs.
    pub reason: String,
    /// What went wrong and what to do.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

impl Session {
    /// Whether the operator may change anything but status and deletion.
    pub fn is_paused(&self) -> bool {
        self.spec.paused.unwrap_or(false)
    }
}

impl PodSelector {
    /// The selector as the API server takes it in a LIST.
    pub fn as_text(&self) -> String {
        let pairs = self.match_labels.iter();
        let mut parts: Vec<String> = pairs.map(|(key, value)| format!("{key}={value}")).collect();
        let expressions = self.match_expressions.iter().flatten();
        parts.extend(expressions.map(LabelRequirement::as_text));
        parts.join(",")
    }

    /// Whether a pod with these labels is selected.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let pairs_match = self
            .match_labels
            .iter()
            .all(|(key, value)| labels.get(key) == Some(value));
        pairs_match
            && self
                .match_expressions
                .iter()
                .flatten()
                .all(|requirement| requirement.matches(labels))
    }
}

impl LabelRequirement {
    fn as_text(&self) -> String {
        let key = &self.key;
        let values = self.values.iter().flatten().cloned();
        let values = values.collect::<Vec<String>>().join(",");
        match self.operator {
            LabelOperator::In => format!("{key} in ({values})"),
            LabelOperator::NotIn => format!("{key} notin ({values})"),
            LabelOperator::Exists => key.clone(),
            LabelOperator::DoesNotExist => format!("!{key}"),
        }
    }

    fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.key);
        let listed = |value: &String| self.values.iter().flatten().any(|listed| listed == value);
        match self.operator {
            LabelOperator::In => value.is_some_and(listed),
            LabelOperator::NotIn => !value.is_some_and(listed),
            LabelOperator::Exists => value.is_some(),
            LabelOperator::DoesNotExist => value.is_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn a_selector_needs_every_pair_and_every_expression() {
        let requirement = |operator, values: &[&str]| LabelRequirement {
            key: "tier".to_owned(),
            operator,
            values: Some(values.iter().map(|value| (*value).to_owned()).collect()),
        };
        let cases = [
            (vec![], labels(&[("app", "shop")]), true),
            (vec![], labels(&[("app", "shop"), ("tier", "web")]), true),
            (vec![], labels(&[("app", "other")]), false),
            (vec![], labels(&[]), false),
            (
                vec![requirement(LabelOperator::In, &["web"])],
                labels(&[("app", "shop")]),
                false,
            ),
            (
                vec![requirement(LabelOperator::In, &["web", "db"])],
                labels(&[("app", "shop"), ("tier", "db")]),
                true,
            ),
            (
                vec![requirement(LabelOperator::NotIn, &["web"])],
                labels(&[("app", "shop")]),
                true,
            ),
            (
                vec![requirement(LabelOperator::NotIn, &["web"])],
                labels(&[("app", "shop"), ("tier", "web")]),
                false,
            ),
            (
                vec![requirement(LabelOperator::Exists, &[])],
                labels(&[("app", "shop")]),
                false,
            ),
            (
                vec![requirement(LabelOperator::DoesNotExist, &[])],
                labels(&[("app", "shop")]),
                true,
            ),
        ];
        for (expressions, pod, expected) in cases {
            let selector = PodSelector {
                match_labels: labels(&[("app", "shop")]),
                match_expressions: Some(expressions),
            };
            assert_eq!(selector.matches(&pod), expected, "{selector:?} on {pod:?}");
        }
        let selector = PodSelector {
            match_labels: labels(&[("app", "shop")]),
            match_expressions: Some(vec![
                requirement(LabelOperator::In, &["web", "db"]),
                requirement(LabelOperator::NotIn, &["old"]),
                requirement(LabelOperator::Exists, &[]),
                requirement(LabelOperator::DoesNotExist, &[]),
            ]),
        };
        let text = "app=shop,tier in (web,db),tier notin (old),tier,!tier";
        assert_eq!(selector.as_text(), text);
    }
}
