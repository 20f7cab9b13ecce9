//! What a run ended with, without what differs between two runs that did the same: uids, times,
//! versions, random ids and the namespace's name.

use std::collections::HashSet;

use anyhow::{Result, bail};
use atomix_resources::labels;
use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Map, Value};

use crate::resources::conditions;
use crate::wait::until;
use crate::workload::LIMIT;

/// The kinds of objects that are compared: (group, version, kind, plural, status is compared).
const KINDS: [(&str, &str, &str, &str, bool); 10] = [
    ("", "v1", "ConfigMap", "configmaps", false),
    ("", "v1", "Secret", "secrets", false),
    ("", "v1", "Service", "services", false),
    (
        "",
        "v1",
        "PersistentVolumeClaim",
        "persistentvolumeclaims",
        false,
    ),
    ("", "v1", "Pod", "pods", false),
    ("apps", "v1", "StatefulSet", "statefulsets", false),
    (
        "policy",
        "v1",
        "PodDisruptionBudget",
        "poddisruptionbudgets",
        false,
    ),
    (
        "networking.k8s.io",
        "v1",
        "NetworkPolicy",
        "networkpolicies",
        false,
    ),
    ("atomix.io", "v1beta1", "Store", "stores", true),
    ("atomix.io", "v1beta1", "Session", "sessions", true),
];

/// Metadata that differs between runs.
const VOLATILE_METADATA: [&str; 7] = [
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "managedFields",
    "selfLink",
    "generateName",
    "namespace",
];

/// Fields anywhere below that differ between runs: chosen by the API server or derived from names
/// and ids that differ.
const VOLATILE_FIELDS: [&str; 10] = [
    "clusterIP",
    "clusterIPs",
    "controller-revision-hash",
    "configDigest",
    "lastTransitionTime",
    "uid",
    "storeUid",
    "volumeName",
    "kube-api-access",
    "message",
];

/// The objects of a namespace, as lines `KIND/NAME JSON`, sorted, when the garbage collector has removed
/// what follows those that are gone.
///
/// # Errors
/// When they cannot be read, or garbage stays.
pub async fn end_state(client: &Client, namespace: &str) -> Result<Vec<String>> {
    until("garbage to be collected", LIMIT, async || {
        look(client, namespace).await
    })
    .await
}

async fn look(client: &Client, namespace: &str) -> Result<Vec<String>> {
    let (mut lines, mut uids, mut owners) = (Vec::new(), HashSet::new(), Vec::new());
    for (group, version, kind, plural, with_status) in KINDS {
        let api = objects(client, namespace, (group, version, kind, plural));
        for mut object in api.list(&ListParams::default()).await? {
            let name = object.metadata.name.clone().unwrap_or_default();
            uids.extend(object.uid());
            let of_object = object.owner_references().iter();
            owners.extend(of_object.map(|owner| (format!("{kind}/{name}"), owner.clone())));
            if name == "kube-root-ca.crt" {
                continue;
            }
            if kind == "Secret" {
                forget_secrets(&mut object);
            }
            let comparable = comparable(&object, with_status, namespace)?;
            lines.push(format!("{kind}/{name} {comparable}"));
        }
    }
    owners.retain(|(_, owner)| KINDS.iter().any(|kind| kind.2 == owner.kind));
    if let Some((object, owner)) = owners.iter().find(|(_, owner)| !uids.contains(&owner.uid)) {
        bail!(
            "{object} is there, its {} {} is not",
            owner.kind,
            owner.name
        );
    }
    lines.sort();
    Ok(lines)
}

/// Of [`KINDS`], what an operator makes for a Store and changes with it.
const CHILDREN: [&str; 5] = [
    "ConfigMap",
    "Service",
    "StatefulSet",
    "PodDisruptionBudget",
    "NetworkPolicy",
];

/// The objects that an operator has made for a Store and that follow from its specification alone, as
/// lines `KIND/NAME JSON`, sorted.
///
/// # Errors
/// When they cannot be read.
pub async fn made_for(client: &Client, namespace: &str, store: &str) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    let children = KINDS.into_iter();
    for (group, version, kind, plural, _) in children.filter(|kind| CHILDREN.contains(&kind.2)) {
        let api = objects(client, namespace, (group, version, kind, plural));
        let of_store = ListParams::default().labels(&format!("{}={store}", labels::STORE));
        for mut object in api.list(&of_store).await? {
            let name = object.metadata.name.clone().unwrap_or_default();
            // The plan tells of the nodes that there were.
            if name.ends_with("-bootstrap") {
                continue;
            }
            // How often it was changed.
            object.metadata.generation = None;
            forget_first_size(&mut object);
            remove_empty(&mut object.data);
            let comparable = comparable(&object, false, namespace)?;
            lines.push(format!("{kind}/{name} {comparable}"));
        }
    }
    lines.sort();
    Ok(lines)
}

/// Removes objects without fields: server-side apply leaves them behind when what was in them is applied no
/// more.
pub fn remove_empty(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.values_mut().for_each(remove_empty);
            fields.retain(|_, field| field.as_object().is_none_or(|inner| !inner.is_empty()));
        }
        Value::Array(items) => items.iter_mut().for_each(remove_empty),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// A claim template keeps the size with which it was made, while the claims grow.
fn forget_first_size(stateful_set: &mut DynamicObject) {
    let templates = stateful_set.data.pointer_mut("/spec/volumeClaimTemplates");
    let templates = templates.and_then(Value::as_array_mut);
    for template in templates.into_iter().flatten() {
        if let Some(spec) = template.get_mut("spec").and_then(Value::as_object_mut) {
            spec.remove("resources");
        }
    }
}

fn objects(
    client: &Client,
    namespace: &str,
    (group, version, kind, plural): (&str, &str, &str, &str),
) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk(group, version, kind);
    let resource = ApiResource::from_gvk_with_plural(&kind, plural);
    Api::namespaced_with(client.clone(), namespace, &resource)
}

/// Keys and certificates are new each time; what there is of them is not.
fn forget_secrets(secret: &mut DynamicObject) {
    let data = secret.data.get_mut("data").and_then(Value::as_object_mut);
    let values = data.into_iter().flat_map(Map::values_mut);
    values.for_each(|value| *value = Value::Null);
}

fn comparable(object: &DynamicObject, with_status: bool, namespace: &str) -> Result<String> {
    let mut value = serde_json::to_value(object)?;
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        for field in VOLATILE_METADATA {
            metadata.remove(field);
        }
    }
    if with_status {
        // A sentence may tell of the way there; type, status and reason say what is so.
        let shown: Vec<Value> = conditions(object)?
            .into_iter()
            .map(|condition| {
                Value::String(format!(
                    "{}={} {}",
                    condition.type_, condition.status, condition.reason
                ))
            })
            .collect();
        if let Some(status) = value.get_mut("status").and_then(Value::as_object_mut) {
            status.insert("conditions".to_owned(), Value::Array(shown));
        }
    } else if let Some(fields) = value.as_object_mut() {
        fields.remove("status");
    }
    remove_volatile(&mut value);
    let text = value.to_string().replace(namespace, "NAMESPACE");
    Ok(without_random_ids(&text))
}

fn remove_volatile(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            let kept: Map<String, Value> = std::mem::take(fields)
                .into_iter()
                .filter(|(name, _)| !VOLATILE_FIELDS.contains(&name.as_str()))
                .collect();
            *fields = kept;
            fields.values_mut().for_each(remove_volatile);
        }
        Value::Array(items) => items.iter_mut().for_each(remove_volatile),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Replaces uids, 16-digit ids of nodes and members, and random suffixes of projected volumes.
fn without_random_ids(text: &str) -> String {
    let is_part = |character: char| character.is_ascii_alphanumeric() || character == '-';
    let mut result = String::new();
    let mut word = String::new();
    for character in text.chars().chain(std::iter::once('\n')) {
        if is_part(character) {
            word.push(character);
            continue;
        }
        if is_uid(&word) {
            result.push_str("UID");
        } else if word.len() == 16 && word.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            result.push_str("ID");
        } else if word.starts_with("kube-api-access-") {
            result.push_str("kube-api-access");
        } else {
            result.push_str(&word);
        }
        word.clear();
        if character != '\n' {
            result.push(character);
        }
    }
    result
}

fn is_uid(word: &str) -> bool {
    word.len() == 36
        && word.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn objects_without_fields_are_removed_with_those_that_held_nothing_else() {
        let mut value = json!({
            "affinity": {"nodeAffinity": {"required": {}}},
            "env": [{"name": "COLOUR", "valueFrom": {}}],
            "ports": [],
            "text": "",
        });
        remove_empty(&mut value);
        let expected = json!({"env": [{"name": "COLOUR"}], "ports": [], "text": ""});
        assert_eq!(value, expected);
    }

    #[test]
    fn random_ids_are_replaced_and_names_are_kept() {
        let text = r#"{\"storeUid\":\"0a1b2c3d-0000-4000-8000-0123456789ab\",\"node\":\"00ff00ff00ff00ff\",\"name\":\"tulip-0\"}"#;
        let expected = r#"{\"storeUid\":\"UID\",\"node\":\"ID\",\"name\":\"tulip-0\"}"#;
        assert_eq!(without_random_ids(text), expected);
    }
}
