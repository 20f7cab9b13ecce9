//! Names that the operator derives: Stores side by side whose names look alike, and a name that
//! somebody else has.

use anyhow::{Context as _, Result, ensure};
use atomix_operator_tests::resources::{self, expect_condition};
use atomix_operator_tests::samples::{self, StoreSize};
use atomix_operator_tests::supervised::Supervised;
use atomix_operator_tests::test_bed::TestBed;
use atomix_operator_tests::workload::{self, LIMIT};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;

const SIZE: StoreSize = StoreSize {
    replicas: 1,
    partitions: 1,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_store_takes_anothers_name_and_a_taken_one_is_told() -> Result<()> {
    workload::run("names", None, live).await?;
    Ok(())
}

async fn live(bed: &TestBed, operator: &mut Supervised<'_>) -> Result<()> {
    // The second's name is what the first's plan is called.
    for name in ["tulip-bootstrap", "tulip"] {
        workload::bootstrap(bed, operator, name, SIZE).await?;
    }

    let config_maps: Api<ConfigMap> = Api::namespaced(bed.client().clone(), bed.namespace());
    let foreign = serde_json::from_value(json!({
        "metadata": {"name": "rose-bootstrap"},
        "data": {"thorns": "many"},
    }))?;
    config_maps
        .create(&PostParams::default(), &foreign)
        .await
        .context("cannot create a ConfigMap")?;
    resources::create(&bed.stores(), samples::store("rose", SIZE)).await?;
    let first_pod = operator
        .until("the Store to say whose name it is", LIMIT, async || {
            let store = bed.stores().get("rose").await?;
            let stalled = expect_condition(&store, "Stalled", "True")?;
            ensure!(
                stalled.reason == "NameTaken"
                    && stalled.message.contains("rose-bootstrap")
                    && stalled.message.contains("belongs to nobody: delete"),
                "{stalled:?}"
            );
            resources::expect_one_warning(bed.client(), bed.namespace(), "rose", "NameTaken")
                .await?;
            running_pod(bed).await
        })
        .await?;

    // Before the bootstrap a running pod of an old revision holds nothing and is replaced.
    let image = json!({"spec": {"multiRaft": {"pod": {"image": "atomix-node:other"}}}});
    resources::change(&bed.stores(), "rose", image).await?;
    operator
        .until(
            "the pod of the old revision to be replaced",
            LIMIT,
            async || {
                let pod = running_pod(bed).await?;
                ensure!(pod != first_pod, "the first pod is still there");
                Ok(())
            },
        )
        .await?;

    config_maps
        .delete("rose-bootstrap", &DeleteParams::default())
        .await?;
    operator
        .until_settled("the Store to go on", LIMIT, async || {
            workload::store_is_ready(bed, "rose").await?;
            workload::groups_are_whole(bed, "rose", SIZE).await
        })
        .await
}

/// The uid of the Store's pod, once its node runs.
async fn running_pod(bed: &TestBed) -> Result<Option<String>> {
    let pod = bed.pods().get("rose-0").await?;
    let running = pod.status.iter().any(|status| {
        let mut statuses = status.container_statuses.iter().flatten();
        statuses.any(|container| {
            let state = container.state.as_ref();
            state.is_some_and(|state| state.running.is_some())
        })
    });
    ensure!(running, "the pod's node does not run");
    Ok(pod.uid())
}
