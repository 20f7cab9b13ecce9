//! The pods of a Store are replaced one at a time by real kubelets while an application counts, and the
//! API server refuses to evict a second one meanwhile.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use atomix_e2e::cluster::Cluster;
use atomix_e2e::manifests::sample;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::Api;
use serde_json::json;

const SOON: Duration = Duration::from_secs(180);

#[tokio::test]
async fn a_change_of_the_pods_goes_through_all_nodes_while_an_application_counts()
-> anyhow::Result<()> {
    let cluster = Cluster::with_chart().await?;
    let namespace = cluster.namespace("rolling").await?;
    namespace
        .clone()
        .run(async {
            for name in ["store", "session", "injected-application"] {
                namespace.apply(&sample(&cluster, name)?).await?;
            }
            let mut counted = namespace.counts_beyond("visits", 50, SOON).await?;
            namespace
                .condition("Store", "counts", "Ready", "True", None, SOON)
                .await?;
            let budgets: Api<PodDisruptionBudget> =
                Api::namespaced(cluster.client(), namespace.name());
            let spec = budgets.get("counts").await?.spec.context("it is empty")?;
            let spec = serde_json::to_value(spec)?;
            ensure!(spec["maxUnavailable"] == json!(1), "{spec}");

            let resources = json!({"requests": {"cpu": "11m"}});
            let raft = json!({"electionTimeout": "1500ms"});
            for change in [
                json!({"pod": {"resources": resources}}),
                json!({"raft": raft}),
            ] {
                let before = namespace.storage_uids().await?;
                namespace.change_store(&change).await?;
                namespace.storage_pods_are_replaced(&before, SOON).await?;
                counted = namespace
                    .counts_beyond("visits", counted.acknowledged + 50, SOON)
                    .await?;
            }
            namespace.nothing_lost("visits").await
        })
        .await
}

#[tokio::test]
async fn an_image_that_does_not_exist_stops_at_the_first_node_and_is_healed_by_another()
-> anyhow::Result<()> {
    let cluster = Cluster::with_chart().await?;
    let namespace = cluster.namespace("roll-stop").await?;
    namespace
        .clone()
        .run(async {
            for name in ["store", "session", "injected-application"] {
                namespace.apply(&sample(&cluster, name)?).await?;
            }
            let counted = namespace.counts_beyond("visits", 50, SOON).await?;
            namespace
                .condition("Store", "counts", "Ready", "True", None, SOON)
                .await?;
            let before = namespace.storage_uids().await?;
            let missing = "localhost/atomix/no-such-image:none";
            let image = |image: &str| json!({"pod": {"image": image}});
            namespace.change_store(&image(missing)).await?;
            let message = namespace
                .condition(
                    "Store",
                    "counts",
                    "Progressing",
                    "True",
                    Some("RollStopped"),
                    SOON,
                )
                .await?;
            ensure!(
                message.contains("1 of 3 pods") && message.contains(missing),
                "{message}"
            );
            let now = namespace.storage_uids().await?;
            let kept = now
                .values()
                .filter(|uid| before.values().any(|old| old == *uid));
            ensure!(kept.count() == 2, "{before:?} became {now:?}");
            namespace
                .counts_beyond("visits", counted.acknowledged + 50, SOON)
                .await?;

            let own = cluster.image("atomix-node");
            let settings = json!({"pod": {"image": own, "annotations": {"again": "yes"}}});
            namespace.change_store(&settings).await?;
            namespace.storage_pods_are_replaced(&before, SOON).await?;
            namespace.nothing_lost("visits").await
        })
        .await
}
