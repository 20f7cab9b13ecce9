//! The CRDs as a whole: generated files, size, and what must hold for every field and rule.
//! The same rules are run by the real API server in tests/operator.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

use std::collections::BTreeMap;
use std::path::PathBuf;

use kube::core::cel::Validator;
use serde_json::{Value, json};

use super::*;

mod stores;

const SIZE_LIMIT: usize = 200 * 1024;

fn schema_of(plural: &str) -> Value {
    let crd = all()
        .into_iter()
        .find(|crd| crd.spec.names.plural == plural)
        .unwrap();
    let schema = crd.spec.versions[0].schema.clone().unwrap();
    serde_json::to_value(schema.open_api_v3_schema.unwrap()).unwrap()
}

#[test]
fn the_files_in_crds_are_the_generated_ones() {
    // Tests run in the folder of their package.
    let directory = PathBuf::from("../../crds");
    let expected: BTreeMap<String, String> = files()
        .unwrap()
        .into_iter()
        .map(|file| (file.name, file.yaml))
        .collect();
    let mut present = BTreeMap::new();
    for entry in std::fs::read_dir(&directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        present.insert(name, std::fs::read_to_string(path).unwrap());
    }
    assert!(
        present == expected,
        "crds/ is not what the Rust types say: run `make generate` and look at the difference"
    );
}

#[test]
fn each_crd_is_small_enough_for_client_side_apply() {
    for file in files().unwrap() {
        let size = file.yaml.len();
        assert!(
            size < SIZE_LIMIT,
            "{} has {size} bytes, limit {SIZE_LIMIT}",
            file.name
        );
    }
}

#[test]
fn a_new_object_says_that_nobody_has_looked_at_it() {
    for plural in ["stores", "sessions", "drivers"] {
        let schema = schema_of(plural);
        assert_eq!(
            schema["properties"]["status"]["default"],
            json!({"observedGeneration": -1}),
            "{plural}"
        );
        let conditions = &schema["properties"]["status"]["properties"]["conditions"];
        assert_eq!(conditions["x-kubernetes-list-type"], "map", "{plural}");
        assert_eq!(
            conditions["x-kubernetes-list-map-keys"],
            json!(["type"]),
            "{plural}"
        );
    }
}

/// Calls `visit` with the path and schema of every field of spec and status.
fn walk(path: &str, schema: &Value, visit: &mut impl FnMut(&str, &Value)) {
    visit(path, schema);
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        walk(&format!("{path}.{name}"), property, visit);
    }
    for inner in ["items", "additionalProperties"] {
        if schema[inner].is_object() {
            walk(&format!("{path}.{inner}"), &schema[inner], visit);
        }
    }
}

#[test]
fn every_list_map_and_string_has_a_limit_and_every_own_field_a_description() {
    for plural in ["stores", "sessions", "drivers"] {
        let schema = schema_of(plural);
        for part in ["spec", "status"] {
            let mut failures = Vec::new();
            walk(part, &schema["properties"][part], &mut |path, field| {
                let limit = match field["type"].as_str() {
                    Some("string") if field["enum"].is_null() && field["format"].is_null() => {
                        "maxLength"
                    }
                    Some("array") => "maxItems",
                    Some("object") if !field["additionalProperties"].is_null() => "maxProperties",
                    _ => "type",
                };
                let is_value = path.ends_with(".items") || path.ends_with(".additionalProperties");
                if field[limit].is_null() && field["x-kubernetes-int-or-string"].is_null() {
                    failures.push(format!("{path} has no {limit}"));
                }
                if field["description"].is_null() && !is_value {
                    failures.push(format!("{path} has no description"));
                }
                let free_form = field["x-kubernetes-preserve-unknown-fields"] == true;
                if !field["nullable"].is_null() && !free_form {
                    failures.push(format!("{path} is nullable"));
                }
            });
            assert!(failures.is_empty(), "{plural}: {failures:#?}");
        }
    }
}

#[test]
fn only_what_a_user_must_say_is_required_and_only_replicas_has_a_default() {
    let mut required = BTreeMap::new();
    let mut defaults = Vec::new();
    for plural in ["stores", "sessions", "drivers"] {
        walk(
            plural,
            &schema_of(plural)["properties"]["spec"],
            &mut |path, field| {
                // Types of Kubernetes itself bring their own required fields.
                if !field["required"].is_null() && !path.contains(".pod.") {
                    required.insert(path.to_owned(), field["required"].clone());
                }
                if !field["default"].is_null() && !path.contains(".pod.") {
                    defaults.push((path.to_owned(), field["default"].clone()));
                }
            },
        );
    }
    let expected: BTreeMap<String, Value> = [
        ("drivers", json!(["name", "source", "version"])),
        ("drivers.source", json!(["builtin"])),
        ("sessions", json!(["selector", "store"])),
        ("sessions.selector", json!(["matchLabels"])),
        (
            "sessions.selector.matchExpressions.items",
            json!(["key", "operator"]),
        ),
        ("sessions.store", json!(["name"])),
        ("stores", json!(["driver"])),
        ("stores.configFrom.items", json!(["key", "path"])),
        ("stores.configFrom.items.configMapRef", json!(["name"])),
        ("stores.configFrom.items.secretRef", json!(["name"])),
        ("stores.driver", json!(["name"])),
        ("stores.multiRaft", json!(["storage"])),
    ]
    .map(|(path, fields)| (path.to_owned(), fields))
    .into();
    assert_eq!(required, expected);
    assert_eq!(
        defaults,
        [("stores.multiRaft.replicas".to_owned(), json!(3))]
    );
}

/// `base` with each (JSON pointer, value) set; null removes.
fn with(base: &Value, changes: &[(&str, Value)]) -> Value {
    let mut object = base.clone();
    for (pointer, value) in changes {
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        let mut place = &mut object;
        for step in parent.split('/').filter(|step| !step.is_empty()) {
            place = &mut place[step];
        }
        if value.is_null() {
            place.as_object_mut().unwrap().remove(field);
        } else {
            place[field] = value.clone();
        }
    }
    object
}

fn refusals(schema: &Value, object: &Value, old: Option<&Value>) -> Vec<String> {
    match Validator::new().validate(schema, object, old) {
        Ok(()) => Vec::new(),
        Err(errors) => errors
            .into_vec()
            .into_iter()
            .map(|error| error.message)
            .collect(),
    }
}

#[test]
fn a_driver_is_named_as_what_it_is_and_stays_it() {
    let schema = schema_of("drivers");
    let driver = |name: &str, version: &str| {
        json!({
            "apiVersion": "atomix.io/v1beta1",
            "kind": "Driver",
            "metadata": {"name": name},
            "spec": {"name": "rose", "version": version, "source": {"builtin": {}}},
        })
    };
    assert!(refusals(&schema, &driver("rose", "v1"), None).is_empty());
    assert!(refusals(&schema, &driver("rose-v1", "v1"), None).is_empty());
    assert_eq!(refusals(&schema, &driver("tulip", "v1"), None).len(), 1);
    let found = refusals(&schema, &driver("rose", "v2"), Some(&driver("rose", "v1")));
    assert_eq!(found, ["version cannot be changed: create a new Driver"]);
}

#[test]
fn a_label_requirement_has_values_exactly_when_its_operator_takes_some() {
    let schema = schema_of("sessions");
    let session = |requirement: Value| {
        json!({
            "apiVersion": "atomix.io/v1beta1",
            "kind": "Session",
            "metadata": {"name": "counting", "namespace": "garden"},
            "spec": {
                "store": {"name": "meadow"},
                "selector": {"matchLabels": {"app": "a"}, "matchExpressions": [requirement]},
            },
        })
    };
    for (requirement, accepted) in [
        (json!({"key": "a", "operator": "In", "values": ["b"]}), true),
        (json!({"key": "a", "operator": "In"}), false),
        (
            json!({"key": "a", "operator": "NotIn", "values": []}),
            false,
        ),
        (json!({"key": "a", "operator": "Exists"}), true),
        (
            json!({"key": "a", "operator": "DoesNotExist", "values": ["b"]}),
            false,
        ),
    ] {
        let found = refusals(&schema, &session(requirement.clone()), None);
        assert_eq!(found.is_empty(), accepted, "{requirement}: {found:?}");
    }
}

#[test]
fn a_session_is_of_a_kind_that_exists() {
    let schema = schema_of("sessions");
    let kinds = &schema["properties"]["spec"]["properties"]["kind"]["enum"];
    let served = atomix_proto::kinds::KINDS.iter().map(|kind| kind.name);
    let expected: Vec<&str> = std::iter::once("*").chain(served).collect();
    let expected = json!(expected);
    assert_eq!(*kinds, expected);
    for kind in expected.as_array().unwrap() {
        let decoded: PrimitiveKind = serde_json::from_value(kind.clone()).unwrap();
        assert_eq!(Some(decoded.as_str()), kind.as_str());
    }
    let wrong = serde_json::from_value::<PrimitiveKind>(json!("contuer"));
    let message = wrong.unwrap_err().to_string();
    assert!(
        message.contains("\"contuer\", choose *, counter,"),
        "{message}"
    );
}
