//! Stores that are made, and changes of them.

use anyhow::{Context as _, Result, ensure};
use atomix_operator_tests::api_server::ApiServer;
use atomix_operator_tests::namespace::TestNamespace;
use atomix_resources::Store;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::{Accepted, Refused, api_of, expect_created, expect_replaced, memory, nodes, store};

/// A Store with these sources besides key and path.
fn sources(fields: &[Value]) -> Value {
    let source = |fields: &Value| {
        let mut source = json!({"key": "k", "path": "a.b"});
        let fields = fields.as_object().expect("fields are an object").clone();
        source.as_object_mut().expect("an object").extend(fields);
        source
    };
    memory(json!({"configFrom": fields.iter().map(source).collect::<Vec<_>>()}))
}

#[tokio::test]
async fn a_store_is_refused_with_a_message_that_says_why() -> Result<()> {
    let server = ApiServer::connect().await?;
    let namespace = TestNamespace::create(&server, "crds").await?;
    let stores = api_of::<Store>(&server.client(), Some(namespace.name()));
    let none = || json!({});
    let cases = [
        (store("tulip", nodes(none())), Accepted),
        (store(&"a".repeat(40), nodes(none())), Accepted),
        (
            store(&"a".repeat(41), nodes(none())),
            Refused("at most 40 characters"),
        ),
        (store("1st", nodes(none())), Refused("starts with a letter")),
        (store("a.b", nodes(none())), Refused("starts with a letter")),
        (store("tulip", memory(none())), Accepted),
        (
            store("tulip", memory(json!({"config": {"a": [1, {"b": null}]}}))),
            Accepted,
        ),
        (
            store("tulip", memory(json!({"config": "text"}))),
            Refused("spec.config"),
        ),
        (store("tulip", json!({})), Refused("spec.driver")),
        (
            store("tulip", json!({"driver": {}})),
            Refused("spec.driver.name"),
        ),
        (
            store("tulip", sources(&[json!({"secretRef": {"name": "a"}})])),
            Accepted,
        ),
        (
            store("tulip", sources(&[json!({})])),
            Refused("either a secretRef or a configMapRef"),
        ),
        (
            store(
                "tulip",
                sources(&[json!({"secretRef": {"name": "a"}, "configMapRef": {"name": "b"}})]),
            ),
            Refused("either a secretRef or a configMapRef"),
        ),
        (
            store(
                "tulip",
                sources(&[json!({"secretRef": {"name": "a"}, "path": "a..b"})]),
            ),
            Refused("configFrom[0].path"),
        ),
        (
            store(
                "tulip",
                sources(&[json!({"secretRef": {"name": "a"}, "key": "a/b"})]),
            ),
            Refused("configFrom[0].key"),
        ),
        (
            store("tulip", sources(&[json!({"secretRef": {"name": ""}})])),
            Refused("configFrom[0].secretRef.name"),
        ),
        (
            store(
                "tulip",
                sources(&[
                    json!({"secretRef": {"name": "a"}}),
                    json!({"secretRef": {"name": "b"}, "path": "a.b.c"}),
                ]),
            ),
            Refused("a place of its own"),
        ),
        (
            store(
                "tulip",
                sources(&[
                    json!({"secretRef": {"name": "a"}}),
                    json!({"secretRef": {"name": "b"}, "path": "a.bc"}),
                ]),
            ),
            Accepted,
        ),
        (
            store("tulip", json!({"driver": {"name": "multi-raft"}})),
            Refused("multiRaft belongs to"),
        ),
        (
            store(
                "tulip",
                memory(json!({"multiRaft": {"storage": {"size": "1Gi"}}})),
            ),
            Refused("multiRaft belongs to"),
        ),
        (
            store(
                "tulip",
                memory(json!({"allowedNamespaces": ["meadow", "team-a"]})),
            ),
            Accepted,
        ),
        (
            store("tulip", memory(json!({"allowedNamespaces": ["*"]}))),
            Refused("allowedNamespaces"),
        ),
        (
            store("tulip", memory(json!({"allowedNamespaces": [""]}))),
            Refused("allowedNamespaces"),
        ),
        (
            store(
                "tulip",
                memory(json!({"allowedNamespaces": ["meadow", "meadow"]})),
            ),
            Refused("Duplicate value"),
        ),
        (
            store(
                "tulip",
                memory(
                    json!({"allowedNamespaces": (0..65).map(|n| format!("n-{n}")).collect::<Vec<_>>()}),
                ),
            ),
            Refused("Too many"),
        ),
        (
            store("tulip", nodes(json!({"replicas": 0}))),
            Refused("replicas"),
        ),
        (
            store("tulip", nodes(json!({"replicas": 64}))),
            Refused("replicas"),
        ),
        (
            store("tulip", nodes(json!({"partitions": 0}))),
            Refused("partitions"),
        ),
        (
            store("tulip", nodes(json!({"partitions": 1025}))),
            Refused("partitions"),
        ),
        (store("tulip", nodes(json!({"partitions": null}))), Accepted),
        (
            store("tulip", nodes(json!({"replicationFactor": 2}))),
            Refused("replicationFactor"),
        ),
        (
            store("tulip", nodes(json!({"replicationFactor": 5}))),
            Refused("greater than replicas"),
        ),
        (
            store(
                "tulip",
                nodes(json!({"replicas": 5, "replicationFactor": 5})),
            ),
            Accepted,
        ),
        (
            store("tulip", nodes(json!({"storage": {}}))),
            Refused("either a size"),
        ),
        (
            store("tulip", nodes(json!({"storage": {"ephemeral": {}}}))),
            Accepted,
        ),
        (
            store(
                "tulip",
                nodes(json!({"storage": {"ephemeral": {}, "size": "1Gi"}})),
            ),
            Refused("either a size"),
        ),
        (
            store(
                "tulip",
                nodes(json!({"storage": {"ephemeral": {}, "retentionPolicy": "Delete"}})),
            ),
            Refused("neither a storageClassName"),
        ),
        (
            store("tulip", nodes(json!({"storage": {"size": 67_108_864}}))),
            Accepted,
        ),
        (
            store("tulip", nodes(json!({"storage": {"size": 1}}))),
            Refused("at least 64Mi"),
        ),
        (
            store("tulip", nodes(json!({"storage": {"size": "much"}}))),
            Refused("at least 64Mi"),
        ),
        (
            store("tulip", nodes(json!({"raft": {"electionTimeout": "1.5s"}}))),
            Accepted,
        ),
        (
            store("tulip", nodes(json!({"raft": {"electionTimeout": "1ms"}}))),
            Refused("between 300ms and 1m"),
        ),
        (
            store("tulip", nodes(json!({"raft": {"electionTimeout": "soon"}}))),
            Refused("electionTimeout"),
        ),
        (
            store(
                "tulip",
                nodes(json!({"pod": {"imagePullPolicy": "Sometimes"}})),
            ),
            Refused("imagePullPolicy"),
        ),
        (
            store(
                "tulip",
                nodes(json!({"pod": {
                    "resources": {"requests": {"cpu": 1, "memory": "1Gi"}},
                    "env": [{"name": "A", "value": "b"}],
                    "securityContext": {"runAsUser": 1000},
                    "tolerations": [{"operator": "Exists"}],
                    "affinity": {"podAntiAffinity": {}},
                }})),
            ),
            Accepted,
        ),
    ];
    for (object, expected) in cases {
        expect_created(&stores, object, expected).await?;
    }
    namespace.remove().await
}

#[tokio::test]
async fn a_change_of_a_store_that_cannot_be_carried_out_is_refused() -> Result<()> {
    let server = ApiServer::connect().await?;
    let namespace = TestNamespace::create(&server, "crds").await?;
    let stores = api_of::<Store>(&server.client(), Some(namespace.name()));
    let pod = |pod: Value| nodes(json!({"pod": pod}));
    let plain = || nodes(json!({}));
    let cases = [
        (
            plain(),
            nodes(json!({"replicas": 3, "partitions": 3})),
            Accepted,
        ),
        (
            plain(),
            nodes(json!({
                "replicationFactor": 3,
                "raft": {"electionTimeout": "1s", "snapshotEntryThreshold": 10_000},
                "storage": {"size": "1Gi", "retentionPolicy": "Retain"},
            })),
            Accepted,
        ),
        (
            nodes(json!({
                "replicationFactor": 3,
                "raft": {"electionTimeout": "1000ms"},
                "storage": {"size": "1Gi", "retentionPolicy": "Retain"},
            })),
            plain(),
            Accepted,
        ),
        (
            nodes(json!({"replicas": 2})),
            nodes(json!({"replicas": 2, "replicationFactor": 1})),
            Accepted,
        ),
        (
            memory(json!({"config": {"size": 1}})),
            memory(json!({"config": null})),
            Accepted,
        ),
        (plain(), nodes(json!({"replicas": 5})), Accepted),
        (
            nodes(json!({"replicas": 5, "replicationFactor": 5})),
            nodes(json!({"replicas": 3, "replicationFactor": 5})),
            Refused("replicationFactor cannot be greater than replicas"),
        ),
        (
            nodes(json!({"replicas": 5, "replicationFactor": 5})),
            nodes(json!({"replicas": 3, "replicationFactor": 3})),
            Accepted,
        ),
        // Timings stay when members move to more nodes.
        (
            nodes(json!({"replicas": 3, "partitions": 100})),
            nodes(json!({"replicas": 9, "partitions": 100})),
            Accepted,
        ),
        (
            plain(),
            nodes(json!({"partitions": 4})),
            Refused("partitions cannot be changed: "),
        ),
        (plain(), nodes(json!({"replicationFactor": 1})), Accepted),
        (
            plain(),
            nodes(json!({"raft": {"electionTimeout": "2s", "snapshotEntryThreshold": 9}})),
            Accepted,
        ),
        (
            plain(),
            nodes(json!({"storage": {"size": "2Gi"}})),
            Accepted,
        ),
        (
            plain(),
            nodes(json!({"storage": {"size": "1073741823"}})),
            Refused("storage.size cannot shrink"),
        ),
        (
            plain(),
            nodes(json!({"storage": {"size": 2_147_483_648_u64, "retentionPolicy": "Delete"}})),
            Accepted,
        ),
        (
            nodes(json!({"storage": {"ephemeral": {}}})),
            plain(),
            Refused("storage keeps its kind"),
        ),
        (
            plain(),
            memory(json!({})),
            Refused("driver.name cannot be changed"),
        ),
        (plain(), pod(json!({"image": "a"})), Accepted),
        (
            pod(json!({"image": "a"})),
            pod(json!({"image": "b"})),
            Accepted,
        ),
        (pod(json!({"image": "a"})), plain(), Accepted),
        (plain(), pod(json!({"nodeSelector": {"a": "b"}})), Accepted),
        (
            pod(json!({"image": "a", "env": [{"name": "A", "value": "b"}]})),
            pod(json!({"image": "a", "env": [{"name": "A", "value": "c"}]})),
            Accepted,
        ),
        (
            pod(json!({"image": "a", "affinity": {"podAffinity": {}}})),
            pod(json!({"image": "b", "affinity": {"podAffinity": {}}})),
            Accepted,
        ),
        (
            memory(json!({})),
            memory(json!({"config": {"a": 1}, "paused": true})),
            Accepted,
        ),
        (
            memory(json!({})),
            plain(),
            Refused("neither added nor removed"),
        ),
    ];
    for (before, after, expected) in cases {
        expect_replaced(
            &stores,
            store("tulip", before),
            store("tulip", after),
            expected,
        )
        .await?;
    }
    namespace.remove().await
}

#[tokio::test]
async fn replicas_are_scaled_as_any_scaler_does_but_not_below_the_copies() -> Result<()> {
    let server = ApiServer::connect().await?;
    let namespace = TestNamespace::create(&server, "crds").await?;
    let stores = api_of::<Store>(&server.client(), Some(namespace.name()));
    let object = serde_json::from_value(store("tulip", nodes(json!({}))))?;
    stores.create(&PostParams::default(), &object).await?;
    let status = json!({"status": {
        "replicas": 3, "replicationFactor": 3, "selector": "atomix.io/store=tulip",
    }});
    let parameters = PatchParams::default();
    stores
        .patch_status("tulip", &parameters, &Patch::Merge(status))
        .await?;

    let scale = stores.get_scale("tulip").await?;
    let seen = scale.status.context("no status of the scale")?;
    ensure!(seen.replicas == 3, "{seen:?}");
    ensure!(
        seen.selector.as_deref() == Some("atomix.io/store=tulip"),
        "{seen:?}"
    );
    let to = |replicas: i32| Patch::Merge(json!({"spec": {"replicas": replicas}}));
    stores.patch_scale("tulip", &parameters, &to(5)).await?;
    let scaled = stores.get("tulip").await?;
    ensure!(scaled.data["spec"]["multiRaft"]["replicas"] == json!(5));

    let refused = stores.patch_scale("tulip", &parameters, &to(2)).await;
    let message = refused.err().context("it was scaled to 2")?.to_string();
    ensure!(
        message.contains("replicas cannot be less than status.replicationFactor"),
        "{message}"
    );
    let with_factor = json!({"spec": {"multiRaft": {"replicas": 2, "replicationFactor": 1}}});
    stores
        .patch("tulip", &parameters, &Patch::Merge(with_factor))
        .await?;
    namespace.remove().await
}
