//! The API server itself judges what the CRDs say: what is refused, with which message, and what a
//! new object looks like. The same rules are tried without a cluster in crates/resources/src/tests.rs.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests"
)]

use anyhow::{Context as _, Result, bail, ensure};
use atomix_operator_tests::api_server::ApiServer;
use atomix_operator_tests::namespace::TestNamespace;
use atomix_resources::{Driver, Session, Store};
use kube::api::{ApiResource, DeleteParams, DynamicObject, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};

mod stores;

/// Whether a case is accepted, or part of the message that refuses it.
#[derive(Clone, Copy, Debug)]
enum Expected {
    Accepted,
    Refused(&'static str),
}

use Expected::{Accepted, Refused};

fn store(name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "atomix.io/v1beta1",
        "kind": "Store",
        "metadata": {"name": name},
        "spec": spec,
    })
}

/// A Store of storage nodes with these fields of `multiRaft` besides its storage.
fn nodes(fields: Value) -> Value {
    let mut multi_raft = json!({"storage": {"size": "1Gi"}});
    let extra = fields.as_object().expect("fields are an object").clone();
    multi_raft.as_object_mut().expect("an object").extend(extra);
    json!({"driver": {"name": "multi-raft"}, "multiRaft": multi_raft})
}

fn memory(fields: Value) -> Value {
    let mut spec = json!({"driver": {"name": "memory"}});
    let extra = fields.as_object().expect("fields are an object").clone();
    spec.as_object_mut().expect("an object").extend(extra);
    spec
}

fn session(spec: Value) -> Value {
    let mut whole =
        json!({"store": {"name": "tulip"}, "selector": {"matchLabels": {"app": "hive"}}});
    let extra = spec.as_object().expect("fields are an object").clone();
    whole.as_object_mut().expect("an object").extend(extra);
    json!({
        "apiVersion": "atomix.io/v1beta1",
        "kind": "Session",
        "metadata": {"name": "bees"},
        "spec": whole,
    })
}

fn driver(name: &str, spec_name: &str, version: &str) -> Value {
    json!({
        "apiVersion": "atomix.io/v1beta1",
        "kind": "Driver",
        "metadata": {"name": name},
        "spec": {"name": spec_name, "version": version, "source": {"builtin": {}}},
    })
}

fn judge(what: &str, answer: kube::Result<DynamicObject>, expected: Expected) -> Result<()> {
    match (answer, expected) {
        (Ok(_), Accepted) => Ok(()),
        (Ok(_), Refused(text)) => bail!("{what} was accepted, not refused with {text:?}"),
        (Err(error), Accepted) => Err(error).with_context(|| format!("{what} was refused")),
        (Err(kube::Error::Api(status)), Refused(text)) => {
            ensure!(
                status.code == 422 && status.message.contains(text),
                "{what} was refused otherwise than with {text:?}: {} {}",
                status.code,
                status.message
            );
            Ok(())
        }
        (Err(error), Refused(_)) => Err(error).with_context(|| what.to_owned()),
    }
}

fn api_of<K>(client: &Client, namespace: Option<&str>) -> Api<DynamicObject>
where
    K: kube::Resource<DynamicType = ()>,
{
    let resource = ApiResource::erase::<K>(&());
    match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    }
}

fn dry_run() -> PostParams {
    PostParams {
        dry_run: true,
        ..PostParams::default()
    }
}

async fn expect_created(api: &Api<DynamicObject>, object: Value, expected: Expected) -> Result<()> {
    let what = format!("create {object}");
    let object: DynamicObject = serde_json::from_value(object)?;
    judge(&what, api.create(&dry_run(), &object).await, expected)
}

/// Creates the first form for real and judges a replacement by the second.
async fn expect_replaced(
    api: &Api<DynamicObject>,
    before: Value,
    after: Value,
    expected: Expected,
) -> Result<()> {
    let what = format!("change {before} to {after}");
    let before: DynamicObject = serde_json::from_value(before)?;
    let created = api
        .create(&PostParams::default(), &before)
        .await
        .context("cannot create")?;
    let mut after: DynamicObject = serde_json::from_value(after)?;
    after.metadata.resource_version = created.metadata.resource_version;
    let name = created.metadata.name.context("it has a name")?;
    let answer = api.replace(&name, &dry_run(), &after).await;
    api.delete(&name, &DeleteParams::default())
        .await
        .context("cannot delete")?;
    judge(&what, answer, expected)
}

#[tokio::test]
async fn a_session_and_a_driver_are_refused_with_a_message_that_says_why() -> Result<()> {
    let server = ApiServer::connect().await?;
    let namespace = TestNamespace::create(&server, "crds").await?;
    let client = server.client();
    let sessions = api_of::<Session>(&client, Some(namespace.name()));
    let requirement = |requirement: Value| json!({"selector": {"matchLabels": {"app": "hive"}, "matchExpressions": [requirement]}});
    let cases = [
        (session(json!({})), Accepted),
        (
            session(json!({"kind": "counter", "primitive": "honey*", "tags": ["a"]})),
            Accepted,
        ),
        (session(json!({"kind": "*"})), Accepted),
        (session(json!({"kind": "a*"})), Refused("spec.kind")),
        (
            session(json!({"kind": "contuer"})),
            Refused("supported values: \"*\", \"counter\", \"countermap\""),
        ),
        (
            session(json!({"primitive": "a*b"})),
            Refused("spec.primitive"),
        ),
        (session(json!({"tags": [""]})), Refused("spec.tags")),
        (session(json!({"config": [1]})), Refused("spec.config")),
        (
            session(json!({"selector": {"matchLabels": {}}})),
            Refused("spec.selector.matchLabels"),
        ),
        (
            session(json!({"selector": {}})),
            Refused("spec.selector.matchLabels"),
        ),
        (
            session(requirement(
                json!({"key": "a", "operator": "In", "values": ["b"]}),
            )),
            Accepted,
        ),
        (
            session(requirement(json!({"key": "a", "operator": "In"}))),
            Refused("In and NotIn need values"),
        ),
        (
            session(requirement(
                json!({"key": "a", "operator": "Exists", "values": ["b"]}),
            )),
            Refused("take none"),
        ),
    ];
    for (object, expected) in cases {
        expect_created(&sessions, object, expected).await?;
    }

    let drivers = api_of::<Driver>(&client, None);
    let name = namespace.name();
    for (object, expected) in [
        (driver(name, name, "v1"), Accepted),
        (driver(&format!("{name}-v1"), name, "v1"), Accepted),
        (
            driver("other", name, "v1"),
            Refused("a Driver is named as its spec.name"),
        ),
        (driver(name, name, ""), Refused("spec.version")),
    ] {
        expect_created(&drivers, object, expected).await?;
    }
    let before = || driver(&format!("{name}-v1"), name, "v1");
    let mut renamed = before();
    renamed["spec"]["name"] = json!("other");
    let mut newer = before();
    newer["spec"]["version"] = json!("v2");
    let mut elsewhere = before();
    elsewhere["spec"]["source"] = json!({});
    for (after, expected) in [
        (
            renamed,
            Refused("name cannot be changed: create a new Driver"),
        ),
        (
            newer,
            Refused("version cannot be changed: create a new Driver"),
        ),
        (elsewhere, Refused("spec.source.builtin")),
    ] {
        expect_replaced(&drivers, before(), after, expected).await?;
    }
    namespace.remove().await
}

#[tokio::test]
async fn a_new_object_says_that_nobody_has_looked_at_it_and_has_no_other_default() -> Result<()> {
    let server = ApiServer::connect().await?;
    let namespace = TestNamespace::create(&server, "crds").await?;
    let stores = api_of::<Store>(&server.client(), Some(namespace.name()));
    let wanted = nodes(json!({}));
    let object: DynamicObject = serde_json::from_value(store("tulip", wanted.clone()))?;
    let created = stores.create(&PostParams::default(), &object).await?;
    let mut expected = wanted;
    expected["multiRaft"]["replicas"] = json!(3);
    ensure!(created.data["spec"] == expected, "{}", created.data["spec"]);
    ensure!(
        created.data["status"] == json!({"observedGeneration": -1}),
        "{}",
        created.data["status"]
    );
    namespace.remove().await
}
