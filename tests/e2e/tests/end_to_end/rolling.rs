//! The pods of a Store are replaced one at a time by real kubelets while an application counts, and the
//! API server refuses to evict a second one meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use atomix_e2e::cluster::{Cluster, Namespace};
use atomix_e2e::manifests::sample;
use atomix_e2e::wait::until;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{ListParams, Patch, PatchParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};

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
                let before = uids(&cluster, &namespace).await?;
                patch(&cluster, &namespace, &change).await?;
                replaced(&cluster, &namespace, &before).await?;
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
            let before = uids(&cluster, &namespace).await?;
            let missing = "localhost/atomix/no-such-image:none";
            let image = |image: &str| json!({"pod": {"image": image}});
            patch(&cluster, &namespace, &image(missing)).await?;
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
            let now = uids(&cluster, &namespace).await?;
            let kept = now
                .values()
                .filter(|uid| before.values().any(|old| old == *uid));
            ensure!(kept.count() == 2, "{before:?} became {now:?}");
            namespace
                .counts_beyond("visits", counted.acknowledged + 50, SOON)
                .await?;

            let own = cluster.image("atomix-node");
            let settings = json!({"pod": {"image": own, "annotations": {"again": "yes"}}});
            patch(&cluster, &namespace, &settings).await?;
            replaced(&cluster, &namespace, &before).await?;
            namespace.nothing_lost("visits").await
        })
        .await
}

async fn patch(cluster: &Cluster, namespace: &Namespace, change: &Value) -> anyhow::Result<()> {
    let kind = GroupVersionKind::gvk("atomix.io", "v1beta1", "Store");
    let stores: Api<DynamicObject> = Api::namespaced_with(
        cluster.client(),
        namespace.name(),
        &ApiResource::from_gvk(&kind),
    );
    let change = Patch::Merge(json!({"spec": {"multiRaft": change}}));
    stores
        .patch("counts", &PatchParams::default(), &change)
        .await
        .with_context(|| format!("cannot change the Store by {change:?}"))?;
    Ok(())
}

async fn storage_pods(cluster: &Cluster, namespace: &Namespace) -> anyhow::Result<Vec<Pod>> {
    let pods: Api<Pod> = Api::namespaced(cluster.client(), namespace.name());
    let ours = ListParams::default().labels("atomix.io/store=counts");
    Ok(pods.list(&ours).await?.items)
}

async fn uids(
    cluster: &Cluster,
    namespace: &Namespace,
) -> anyhow::Result<BTreeMap<String, String>> {
    let pods = storage_pods(cluster, namespace).await?;
    let uids = pods
        .iter()
        .map(|pod| (pod.name_any(), pod.uid().unwrap_or_default()));
    Ok(uids.collect())
}

/// Waits until every pod is another one and counts; at no look more than one is away.
async fn replaced(
    cluster: &Cluster,
    namespace: &Namespace,
    before: &BTreeMap<String, String>,
) -> anyhow::Result<()> {
    let old: BTreeSet<&String> = before.values().collect();
    let mut fewest = before.len();
    until(
        "every storage pod is replaced and counts",
        SOON,
        async || {
            let pods = storage_pods(cluster, namespace).await?;
            let ready = pods.iter().filter(|pod| counts(pod)).count();
            // One list is one moment's truth.
            fewest = fewest.min(ready);
            let is_new = |pod: &Pod| pod.uid().is_some_and(|uid| !old.contains(&uid));
            let store = namespace.get("Store", "counts").await?;
            let status = &store.context("the Store is gone")?["status"];
            let conditions = status["conditions"].as_array().into_iter().flatten();
            let mut progressing = conditions.filter(|seen| seen["type"] == "Progressing");
            let is_done = progressing.any(|seen| seen["status"] == "False")
                && status["updatedReplicas"] == json!(before.len());
            let are_new = ready == before.len() && pods.iter().all(is_new);
            Ok((is_done && are_new).then_some(()))
        },
    )
    .await?;
    ensure!(
        fewest + 1 >= before.len(),
        "at some time only {fewest} of {} storage pods counted",
        before.len()
    );
    Ok(())
}

/// Its gate is open and it is not going.
fn counts(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| &status.conditions);
    let mut conditions = conditions.flatten();
    let is_open =
        conditions.any(|seen| seen.type_ == "atomix.io/replicated" && seen.status == "True");
    is_open && pod.metadata.deletion_timestamp.is_none()
}
