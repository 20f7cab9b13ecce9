//! A paused Store is left alone and says so; it catches up when it goes on.

use anyhow::{Result, ensure};
use atomix_operator_tests::resources::{self, expect_condition};
use atomix_operator_tests::samples::{self, StoreSize};
use atomix_operator_tests::supervised::Supervised;
use atomix_operator_tests::test_bed::TestBed;
use atomix_operator_tests::workload::{self, LIMIT};
use k8s_openapi::api::apps::v1::StatefulSet;
use kube::api::DeleteParams;
use kube::{Api, ResourceExt as _};
use serde_json::json;

const SIZE: StoreSize = StoreSize {
    replicas: 1,
    partitions: 1,
};

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
    let before = bed.pods().get("tulip-0").await?.uid();
    bed.pods()
        .delete("tulip-0", &DeleteParams::default())
        .await?;
    operator
        .until("the gate of the next pod to open", LIMIT, async || {
            let pod = bed.pods().get("tulip-0").await?;
            ensure!(pod.uid() != before, "it is the former pod");
            let conditions = pod.status.and_then(|status| status.conditions);
            let mut conditions = conditions.into_iter().flatten();
            let gate = conditions.find(|condition| condition.type_ == "atomix.io/replicated");
            let is_open = gate.as_ref().is_some_and(|gate| gate.status == "True");
            ensure!(is_open, "the gate is {gate:?}");
            Ok(())
        })
        .await?;

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

async fn image(bed: &TestBed) -> Result<Option<String>> {
    let sets: Api<StatefulSet> = Api::namespaced(bed.client().clone(), bed.namespace());
    let spec = sets.get("tulip").await?.spec;
    let pod = spec.and_then(|spec| spec.template.spec);
    let container = pod.and_then(|pod| pod.containers.into_iter().next());
    Ok(container.and_then(|container| container.image))
}
