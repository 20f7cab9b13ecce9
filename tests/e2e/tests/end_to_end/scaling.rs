//! A Store grows and shrinks on real pods while an application counts, as a HorizontalPodAutoscaler
//! wants it. Nothing here measures pods; an autoscaler keeps to its bounds all the same.

use std::time::Duration;

use anyhow::ensure;
use atomix_e2e::cluster::{Cluster, Namespace};
use atomix_e2e::manifests::sample;
use atomix_e2e::wait::until;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::Api;
use kube::api::ListParams;

const SOON: Duration = Duration::from_secs(120);

#[tokio::test]
async fn a_store_grows_and_shrinks_while_an_application_counts_and_nothing_is_lost()
-> anyhow::Result<()> {
    let cluster = Cluster::with_chart().await?;
    let namespace = cluster.namespace("scaling").await?;
    namespace
        .clone()
        .run(async {
            let store = sample(&cluster, "autoscaled-store")?.replace("scores", "counts");
            namespace.apply(&store).await?;
            for name in ["session", "injected-application"] {
                namespace.apply(&sample(&cluster, name)?).await?;
            }
            let mut counted = namespace.counts_beyond("visits", 50, SOON).await?;
            let bounds = [
                ("minReplicas: 3", "minReplicas: 4", 4),
                ("maxReplicas: 5", "maxReplicas: 3", 3),
            ];
            for (before, after, replicas) in bounds {
                // The Store is applied again with it, and keeps what the autoscaler made of it.
                namespace.apply(&store.replace(before, after)).await?;
                settled(&namespace, replicas).await?;
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

/// The Store is whole with so many nodes, and the command line shows these only.
async fn settled(namespace: &Namespace, replicas: u32) -> anyhow::Result<()> {
    namespace.store_is_whole(replicas, SOON).await?;
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
