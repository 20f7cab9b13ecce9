//! A paused Store is left alone and says so, wherever it stands; it catches up when it goes on.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result, ensure};
use atomix_operator_tests::fault::{CrashPoint, Disturbance, Side};
use atomix_operator_tests::groups;
use atomix_operator_tests::resources::{self, expect_condition};
use atomix_operator_tests::samples::{self, StoreSize};
use atomix_operator_tests::supervised::Supervised;
use atomix_operator_tests::test_bed::TestBed;
use atomix_operator_tests::workload::{self, LIMIT};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::Api;
use kube::api::DeleteParams;
use serde_json::{Value, json};

const SIZE: StoreSize = StoreSize {
    replicas: 1,
    partitions: 1,
};
/// With one copy each, every node has a partition.
const THREE: StoreSize = StoreSize {
    replicas: 3,
    partitions: 3,
};
/// What an operator writes of a Store that is paused: how it is; and that there is an operator.
const TELLING: [&str; 4] = ["stores/status", "pods/status", "events", "leases"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_store_is_not_changed_until_it_goes_on() -> Result<()> {
    workload::run("paused", None, live).await?;
    Ok(())
}

async fn live(bed: &TestBed, operator: &mut Supervised<'_>) -> Result<()> {
    workload::bootstrap(bed, operator, "tulip", SIZE).await?;
    bed.create_pod(samples::application_pod("hive-0", "hive"))
        .await?;
    resources::create(&bed.sessions(), samples::session("bees", "tulip", "hive")).await?;
    operator
        .until("the Session to be connected", LIMIT, async || {
            let session = bed.sessions().get("bees").await?;
            let ready = expect_condition(&session, "Ready", "True")?;
            ensure!(ready.reason == "Connected", "{ready:?}");
            Ok(())
        })
        .await?;

    let change = json!({"spec": {
        "paused": true,
        "multiRaft": {"pod": {"image": "atomix-node:other"}},
    }});
    resources::change(&bed.stores(), "tulip", change).await?;
    let paused = json!({"spec": {"paused": true, "tags": ["sweet"]}});
    resources::change(&bed.sessions(), "bees", paused).await?;
    operator
        .until_settled("both to say that they are paused", LIMIT, async || {
            let store = bed.stores().get("tulip").await?;
            expect_condition(&store, "Ready", "True")?;
            expect_condition(&store, "Stalled", "False")?;
            let progressing = expect_condition(&store, "Progressing", "False")?;
            ensure!(progressing.reason == "Paused", "{progressing:?}");
            let session = bed.sessions().get("bees").await?;
            expect_condition(&session, "Ready", "True")?;
            expect_condition(&session, "Stalled", "False")?;
            let progressing = expect_condition(&session, "Progressing", "False")?;
            ensure!(progressing.reason == "Paused", "{progressing:?}");
            Ok(())
        })
        .await?;
    ensure!(image(bed).await?.as_deref() == Some("atomix-node:test"));

    // Whether a pod may count is told all the same.
    workload::replace_pod(bed, operator, "tulip-0").await?;

    resources::change(&bed.stores(), "tulip", json!({"spec": {"paused": null}})).await?;
    resources::change(&bed.sessions(), "bees", json!({"spec": {"paused": null}})).await?;
    operator
        .until("the change to be carried out", LIMIT, async || {
            let image = image(bed).await?;
            ensure!(
                image.as_deref() == Some("atomix-node:other"),
                "the image is {image:?}"
            );
            let store = workload::store_is_ready(bed, "tulip").await?;
            expect_condition(&store, "Progressing", "False")?;
            let updated = store.data.pointer("/status/updatedReplicas");
            ensure!(updated == Some(&json!(1)), "{updated:?} pods are updated");
            let session = bed.sessions().get("bees").await?;
            let ready = expect_condition(&session, "Ready", "True")?;
            ensure!(ready.reason == "Connected", "{ready:?}");
            Ok(())
        })
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_paused_before_its_mark_is_not_begun() -> Result<()> {
    workload::run("paused-early", None, begin).await?;
    Ok(())
}

async fn begin(bed: &TestBed, operator: &mut Supervised<'_>) -> Result<()> {
    let mut store = samples::store("tulip", SIZE);
    store["spec"]["paused"] = json!(true);
    resources::create(&bed.stores(), store).await?;
    stands_still(bed, operator, async || {
        let store = bed.stores().get("tulip").await?;
        let ready = expect_condition(&store, "Ready", "False")?;
        ensure!(ready.reason == "Paused", "{ready:?}");
        Ok(())
    })
    .await?;

    // The plan is stored, and no node has heard of it.
    let stored = CrashPoint {
        side: Side::After,
        call: "create configmaps".to_owned(),
        occurrence: 1,
    };
    operator.arm(Some(Disturbance::Crash(stored)))?;
    let ended = operator.gate().ended().clone();
    go_on(bed).await?;
    let waited = tokio::time::timeout(LIMIT, ended.cancelled()).await;
    waited.context("the plan was never stored")?;
    pause(bed, operator).await?;
    stands_still(bed, operator, async || {
        let groups = groups::status(address(bed, "tulip-0")?).await?.groups;
        ensure!(groups.is_empty(), "the node has {groups:?}");
        Ok(())
    })
    .await?;

    go_on(bed).await?;
    is_whole(bed, operator, SIZE).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_and_losses_wait_while_a_store_is_paused() -> Result<()> {
    workload::run("paused-late", None, change).await?;
    Ok(())
}

async fn change(bed: &TestBed, operator: &mut Supervised<'_>) -> Result<()> {
    let multi_raft = |fields: Value| json!({"spec": {"multiRaft": fields}});
    let mut store = samples::store("tulip", THREE);
    store["spec"]["multiRaft"]["replicationFactor"] = json!(1);
    workload::bootstrap_of(bed, operator, store, "tulip", THREE).await?;

    pause(bed, operator).await?;
    let copies = multi_raft(json!({"replicationFactor": 3}));
    resources::change(&bed.stores(), "tulip", copies).await?;
    stands_still(bed, operator, async || {
        workload::groups_have(bed, "tulip", THREE, 1).await
    })
    .await?;
    go_on(bed).await?;
    is_whole(bed, operator, THREE).await?;

    let lost = disk_of(bed, "tulip-2").await?;
    pause(bed, operator).await?;
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(bed.client().clone(), bed.namespace());
    let parameters = DeleteParams::default();
    claims.delete("data-tulip-2", &parameters).await?;
    bed.pods().delete("tulip-2", &parameters).await?;
    stands_still(bed, operator, async || {
        let disk = disk_of(bed, "tulip-2").await?;
        ensure!(disk != lost, "it has its old disk");
        let groups = groups::status(address(bed, "tulip-2")?).await?.groups;
        ensure!(groups.is_empty(), "its members are made again: {groups:?}");
        Ok(())
    })
    .await?;
    until_looked_at_again(operator).await?;
    go_on(bed).await?;
    is_whole(bed, operator, THREE).await?;

    pause(bed, operator).await?;
    let size = multi_raft(json!({"storage": {"size": "128Mi"}}));
    resources::change(&bed.stores(), "tulip", size).await?;
    stands_still(bed, operator, async || Ok(())).await?;
    go_on(bed).await?;
    // Nobody provisions here, so the API server refuses to let the claims grow.
    operator
        .until("the volumes to be asked for more", LIMIT, async || {
            let store = workload::store_is_ready(bed, "tulip").await?;
            let progressing = expect_condition(&store, "Progressing", "True")?;
            ensure!(progressing.reason == "VolumesNotGrown", "{progressing:?}");
            workload::groups_are_whole(bed, "tulip", THREE).await
        })
        .await
}

/// Pauses the Store; what is called from then on is counted.
async fn pause(bed: &TestBed, operator: &mut Supervised<'_>) -> Result<()> {
    operator.arm(None)?;
    let paused = json!({"spec": {"paused": true}});
    resources::change(&bed.stores(), "tulip", paused).await?;
    operator
        .until("the Store to be paused", LIMIT, async || {
            is_paused(bed).await
        })
        .await
}

async fn go_on(bed: &TestBed) -> Result<()> {
    resources::change(&bed.stores(), "tulip", json!({"spec": {"paused": null}})).await?;
    Ok(())
}

async fn is_paused(bed: &TestBed) -> Result<()> {
    let store = bed.stores().get("tulip").await?;
    let progressing = expect_condition(&store, "Progressing", "False")?;
    ensure!(progressing.reason == "Paused", "{progressing:?}");
    Ok(())
}

/// Waits until the operator rests while the Store is paused and this holds; checks that until then it
/// has only told what is so.
async fn stands_still(
    bed: &TestBed,
    operator: &mut Supervised<'_>,
    holds: impl AsyncFn() -> Result<()>,
) -> Result<()> {
    operator
        .until_settled("the paused Store to stand still", LIMIT, async || {
            is_paused(bed).await?;
            holds().await
        })
        .await?;
    let calls = operator.calls().into_iter();
    let changes = calls
        .filter(|call| call.call.verb.is_mutating() && !TELLING.contains(&call.call.what.as_str()));
    let changes: Vec<String> = changes.map(|call| call.name()).collect();
    ensure!(changes.is_empty(), "in the pause there were {changes:?}");
    Ok(())
}

/// Waits until the nodes have been asked several times: whether the gate that is shut may open.
async fn until_looked_at_again(operator: &mut Supervised<'_>) -> Result<()> {
    let gate = operator.gate();
    let questions = || {
        let calls = gate.calls().into_iter();
        let asked = calls.filter(|call| call.call.what == "GetStatus");
        asked.count()
    };
    let before = questions();
    operator
        .until("the shut gate to be looked at again", LIMIT, async || {
            let questions = questions() - before;
            ensure!(questions > 12, "nodes were asked {questions} times");
            Ok(())
        })
        .await
}

async fn is_whole(bed: &TestBed, operator: &mut Supervised<'_>, size: StoreSize) -> Result<()> {
    operator
        .until_settled("the Store to be as it says", LIMIT * 2, async || {
            let store = workload::store_is_ready(bed, "tulip").await?;
            expect_condition(&store, "Degraded", "False")?;
            let progressing = expect_condition(&store, "Progressing", "False")?;
            ensure!(progressing.reason == "AsSpecified", "{progressing:?}");
            workload::groups_are_whole(bed, "tulip", size).await
        })
        .await
}

fn address(bed: &TestBed, pod: &str) -> Result<Ipv4Addr> {
    let address = bed.runner().address(pod);
    address.with_context(|| format!("{pod} does not run"))
}

/// The id of a node's disk.
async fn disk_of(bed: &TestBed, pod: &str) -> Result<u64> {
    Ok(groups::status(address(bed, pod)?).await?.node_id)
}

async fn image(bed: &TestBed) -> Result<Option<String>> {
    let sets: Api<StatefulSet> = Api::namespaced(bed.client().clone(), bed.namespace());
    let spec = sets.get("tulip").await?.spec;
    let pod = spec.and_then(|spec| spec.template.spec);
    let container = pod.and_then(|pod| pod.containers.into_iter().next());
    Ok(container.and_then(|container| container.image))
}
