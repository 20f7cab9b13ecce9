//! A Store grows and shrinks on real pods while an application counts, by the scale subresource, as
//! kubectl and autoscalers change it.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use atomix_e2e::cluster::{Cluster, Namespace};
use atomix_e2e::manifests::sample;
use atomix_e2e::wait::until;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use serde_json::json;

const SOON: Duration = Duration::from_secs(120);

#[tokio::test]
async fn a_store_grows_and_shrinks_while_an_application_counts_and_nothing_is_lost()
-> anyhow::Result<()> {
    let cluster = Cluster::with_chart().await?;
    let namespace = cluster.namespace("scaling").await?;
    namespace
        .clone()
        .run(async {
            for name in ["store", "session", "injected-application"] {
                namespace.apply(&sample(&cluster, name)?).await?;
            }
            let mut counted = namespace.counts_beyond("visits", 50, SOON).await?;
            for replicas in [4, 3] {
                scale(&cluster, &namespace, replicas).await?;
                settled(&cluster, &namespace, replicas).await?;
                counted = namespace
                    .counts_beyond("visits", counted.acknowledged + 50, SOON)
                    .await?;
            }
            namespace.nothing_lost("visits").await?;

            // The disk of the node that went stays.
            let disks: Api<PersistentVolumeClaim> =
                Api::namespaced(cluster.client(), namespace.name());
            let left = disks.list(&ListParams::default()).await?.items.len();
            ensure!(left == 4, "four disks were made, and {left} are left");
            Ok(())
        })
        .await
}

async fn scale(cluster: &Cluster, namespace: &Namespace, replicas: u32) -> anyhow::Result<()> {
    let kind = GroupVersionKind::gvk("atomix.io", "v1beta1", "Store");
    let stores: Api<DynamicObject> = Api::namespaced_with(
        cluster.client(),
        namespace.name(),
        &ApiResource::from_gvk(&kind),
    );
    let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
    stores
        .patch_scale("counts", &PatchParams::default(), &patch)
        .await
        .with_context(|| format!("cannot scale the Store to {replicas}"))?;
    Ok(())
}

/// The Store is ready with so many nodes, each of which has members, and no other pod is left.
async fn settled(cluster: &Cluster, namespace: &Namespace, replicas: u32) -> anyhow::Result<()> {
    let pods: Api<Pod> = Api::namespaced(cluster.client(), namespace.name());
    let what = format!("the Store has {replicas} nodes and rests");
    until(&what, SOON, async || {
        let store = namespace
            .get("Store", "counts")
            .await?
            .context("the Store is gone")?;
        let status = &store["status"];
        let holds = |type_: &str, value: &str| {
            let conditions = status["conditions"].as_array().into_iter().flatten();
            let generation = &store["metadata"]["generation"];
            let mut wanted = conditions.filter(|condition| {
                condition["type"] == type_ && condition["observedGeneration"] == *generation
            });
            wanted.any(|condition| condition["status"] == value)
        };
        let ours = ListParams::default().labels("atomix.io/store=counts");
        let running = pods.list(&ours).await?.items.len();
        let is_settled = status["readyReplicas"] == replicas
            && status["replicas"] == replicas
            && running == usize::try_from(replicas)?
            && holds("Ready", "True")
            && holds("Progressing", "False");
        Ok(is_settled.then_some(()))
    })
    .await?;
    // Another test may just have killed the operator, which is asked.
    until("the command line to show its nodes", SOON, async || {
        let shown = namespace.kubectl_atomix(&["status", "counts"])?;
        let last = format!("counts-{}", replicas - 1);
        ensure!(shown.contains(&last), "no {last} in:\n{shown}");
        let gone = format!("counts-{replicas}");
        ensure!(!shown.contains(&gone), "{gone} is left in:\n{shown}");
        Ok(Some(()))
    })
    .await
}
