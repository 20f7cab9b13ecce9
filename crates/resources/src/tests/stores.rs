//! The rules of a Store: what is refused when it is made, and which changes are.

use serde_json::{Value, json};

use super::*;

type Changes<'a> = &'a [(&'a str, Value)];

fn store() -> Value {
    json!({
        "apiVersion": "atomix.io/v1beta1",
        "kind": "Store",
        "metadata": {"name": "meadow", "namespace": "garden"},
        "spec": {
            "driver": {"name": "multi-raft"},
            "multiRaft": {"replicas": 3, "storage": {"size": "1Gi"}},
        },
    })
}

#[test]
fn a_store_is_refused_with_a_message_that_says_why() {
    let schema = schema_of("stores");
    let cases: &[(Changes<'_>, Option<&str>)] = &[
        (&[], None),
        (&[("/metadata/name", json!("a".repeat(40)))], None),
        (
            &[("/metadata/name", json!("a".repeat(41)))],
            Some("at most 40 characters"),
        ),
        (
            &[("/metadata/name", json!("1st"))],
            Some("starts with a letter"),
        ),
        (
            &[("/metadata/name", json!("a.b"))],
            Some("starts with a letter"),
        ),
        (
            &[("/metadata/name", json!("a-"))],
            Some("ends with a letter or digit"),
        ),
        (
            &[("/spec/driver/name", json!("memory"))],
            Some("multiRaft belongs to"),
        ),
        (
            &[("/spec/multiRaft", json!(null))],
            Some("multiRaft belongs to"),
        ),
        (
            &[
                ("/spec/driver/name", json!("memory")),
                ("/spec/multiRaft", json!(null)),
            ],
            None,
        ),
        (&[("/spec/multiRaft/replicationFactor", json!(3))], None),
        (
            &[("/spec/multiRaft/replicationFactor", json!(5))],
            Some("greater than replicas"),
        ),
        (
            &[("/spec/multiRaft/storage", json!({}))],
            Some("either a size"),
        ),
        (
            &[("/spec/multiRaft/storage", json!({"ephemeral": {}}))],
            None,
        ),
        (
            &[(
                "/spec/multiRaft/storage",
                json!({"ephemeral": {}, "size": "1Gi"}),
            )],
            Some("either a size"),
        ),
        (
            &[(
                "/spec/multiRaft/storage",
                json!({"ephemeral": {}, "retentionPolicy": "Retain"}),
            )],
            Some("neither a storageClassName"),
        ),
        (
            &[("/spec/multiRaft/storage/retentionPolicy", json!("Retain"))],
            None,
        ),
        (
            &[("/spec/multiRaft/storage/retentionPolicy", json!("Delete"))],
            None,
        ),
        (&[("/spec/multiRaft/storage/size", json!("64Mi"))], None),
        (&[("/spec/multiRaft/storage/size", json!(67_108_864))], None),
        (
            &[("/spec/multiRaft/storage/size", json!(1000))],
            Some("at least 64Mi"),
        ),
        (
            &[("/spec/multiRaft/storage/size", json!("63Mi"))],
            Some("at least 64Mi"),
        ),
        (
            &[("/spec/multiRaft/storage/size", json!("much"))],
            Some("at least 64Mi"),
        ),
        (
            &[("/spec/multiRaft/raft", json!({"electionTimeout": "1s"}))],
            None,
        ),
        (
            &[("/spec/multiRaft/raft", json!({"electionTimeout": "299ms"}))],
            Some("between 300ms"),
        ),
        (
            &[("/spec/multiRaft/raft", json!({"electionTimeout": "61s"}))],
            Some("between 300ms"),
        ),
    ];
    for (changes, expected) in cases {
        let found = refusals(&schema, &with(&store(), changes), None);
        match expected {
            None => assert!(found.is_empty(), "{changes:?}: {found:?}"),
            Some(text) => assert!(
                found.iter().any(|message| message.contains(text)),
                "{changes:?}: {found:?}"
            ),
        }
    }
}

#[test]
fn a_change_of_a_store_that_cannot_be_carried_out_is_refused() {
    let schema = schema_of("stores");
    let pod = |pod: Value| [("/spec/multiRaft/pod", pod)];
    let cases: &[(Changes<'_>, Changes<'_>, Option<&str>)] = &[
        (&[], &[("/spec/driver/version", json!("v1"))], None),
        (&[], &[("/spec/config", json!({"timeouts": {}}))], None),
        (&[], &[("/spec/config", json!(null))], None),
        (&[], &[("/spec/paused", json!(true))], None),
        (
            &[],
            &[("/spec/driver/name", json!("memory"))],
            Some("driver.name cannot be changed"),
        ),
        (
            &[],
            &[("/spec/multiRaft", json!(null))],
            Some("neither added nor removed"),
        ),
        (&[], &[("/spec/multiRaft/replicas", json!(5))], None),
        (
            &[("/status", json!({"replicationFactor": 3}))],
            &[
                ("/status", json!({"replicationFactor": 3})),
                ("/spec/multiRaft/replicas", json!(2)),
            ],
            Some("replicas cannot be less than status.replicationFactor"),
        ),
        (
            &[("/status", json!({"replicationFactor": 1}))],
            &[
                ("/status", json!({"replicationFactor": 1})),
                ("/spec/multiRaft/replicas", json!(2)),
            ],
            None,
        ),
        (
            &[("/spec/multiRaft/replicationFactor", json!(3))],
            &[
                ("/spec/multiRaft/replicationFactor", json!(3)),
                ("/spec/multiRaft/replicas", json!(2)),
            ],
            Some("replicationFactor cannot be greater than replicas"),
        ),
        (
            &[("/status", json!({"replicationFactor": 3}))],
            &[
                ("/status", json!({"replicationFactor": 3})),
                ("/spec/multiRaft/replicationFactor", json!(1)),
                ("/spec/multiRaft/replicas", json!(2)),
            ],
            None,
        ),
        (&[], &[("/spec/multiRaft/partitions", json!(3))], None),
        (
            &[],
            &[("/spec/multiRaft/partitions", json!(4))],
            Some("partitions cannot be changed: "),
        ),
        (
            &[],
            &[("/spec/multiRaft/replicationFactor", json!(1))],
            None,
        ),
        (
            &[("/spec/multiRaft/raft", json!({"electionTimeout": "1s"}))],
            &[("/spec/multiRaft/raft", json!({"electionTimeout": "2s"}))],
            None,
        ),
        (
            &[],
            &[("/spec/multiRaft/raft", json!({"electionTimeout": "61s"}))],
            Some("between 300ms"),
        ),
        (
            &[],
            &[("/spec/multiRaft/raft", json!({"snapshotEntryThreshold": 9}))],
            None,
        ),
        (
            &[],
            &[("/spec/updateStrategy", json!({"allowDataLoss": true}))],
            None,
        ),
        (&[], &[("/spec/multiRaft/storage/size", json!("2Gi"))], None),
        (
            &[],
            &[("/spec/multiRaft/storage/size", json!("1023Mi"))],
            Some("storage.size cannot shrink"),
        ),
        (
            &[],
            &[("/spec/multiRaft/storage", json!({"ephemeral": {}}))],
            Some("storage keeps its kind"),
        ),
        (
            &[],
            &[("/spec/multiRaft/storage/storageClassName", json!("fast"))],
            Some("storage keeps its kind and its storageClassName"),
        ),
        (&[], &pod(json!({"image": "other"})), None),
        (
            &pod(json!({"image": "one"})),
            &pod(json!({"image": "two"})),
            None,
        ),
        (&pod(json!({"image": "one"})), &[], None),
        (
            &[],
            &pod(json!({"env": [{"name": "A", "value": "b"}]})),
            None,
        ),
        (&pod(json!({"labels": {"a": "b"}})), &[], None),
        (
            &pod(json!({"image": "one", "labels": {"a": "b"}})),
            &pod(json!({"image": "two", "resources": {"limits": {"cpu": 1}}})),
            None,
        ),
    ];
    for (before, after, expected) in cases {
        let old = with(&store(), before);
        let found = refusals(&schema, &with(&store(), after), Some(&old));
        match expected {
            None => assert!(found.is_empty(), "{before:?} to {after:?}: {found:?}"),
            Some(text) => assert!(
                found.iter().any(|message| message.contains(text)),
                "{before:?} to {after:?}: {found:?}"
            ),
        }
    }
}

#[test]
fn writing_out_a_default_is_no_change_and_neither_is_taking_it_away() {
    let schema = schema_of("stores");
    let policy = ("/spec/multiRaft/storage/retentionPolicy", json!("Retain"));
    let class = (
        "/spec/multiRaft/storage/storageClassName",
        json!("standard"),
    );
    let cases: &[(Changes<'_>, Changes<'_>, bool)] = &[
        (&[], &[("/spec/multiRaft/partitions", json!(3))], true),
        (&[], &[("/spec/multiRaft/replicas", json!(null))], true),
        (&[], &[policy], true),
        (&[], &[class], false),
    ];
    for (before, after, accepted) in cases {
        let (before, after) = (with(&store(), before), with(&store(), after));
        for (new, old) in [(&after, &before), (&before, &after)] {
            // The API server fills the default of replicas in before it asks the rules.
            let defaulted = |object: &Value| {
                let mut object = object.clone();
                let multi_raft = object["spec"]["multiRaft"].as_object_mut().unwrap();
                multi_raft.entry("replicas").or_insert(json!(3));
                object
            };
            let found = refusals(&schema, &defaulted(new), Some(&defaulted(old)));
            assert_eq!(found.is_empty(), *accepted, "{old} to {new}: {found:?}");
        }
    }
}

#[test]
fn every_pod_field_can_be_changed() {
    let multi_raft =
        &schema_of("stores")["properties"]["spec"]["properties"]["multiRaft"]["properties"];
    for field in ["pod", "raft"] {
        let rules = multi_raft[field].to_string();
        assert!(!rules.contains("oldSelf"), "{field}: {rules}");
    }
}
