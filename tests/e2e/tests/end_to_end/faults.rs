//! What fails is brought back, and nothing is lost or done twice.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use atomix_e2e::cluster::{Cluster, SYSTEM_NAMESPACE};
use atomix_e2e::manifests::{sample, session, store};
use atomix_e2e::processes::kill_in_pod;
use atomix_e2e::wait::until;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{DeleteParams, ListParams};
use kube::{Api, ResourceExt as _};

const SOON: Duration = Duration::from_secs(120);

#[tokio::test]
async fn an_operator_killed_half_way_through_a_bootstrap_finishes_it_from_the_stored_plan()
-> anyhow::Result<()> {
    let cluster = Cluster::with_chart().await?;
    let namespace = cluster.namespace("bootstrap").await?;
    namespace
        .clone()
        .run(async {
            namespace.apply(&store("halfway", 3, 8)).await?;
            let plans: Api<ConfigMap> = Api::namespaced(cluster.client(), namespace.name());
            let plan = until("the plan is stored", SOON, async || {
                Ok(plans.get_opt("halfway-bootstrap").await?)
            })
            .await?;
            kill_operator(&cluster).await?;
            namespace
                .condition("Store", "halfway", "Ready", "True", None, SOON)
                .await?;
            let after = plans.get("halfway-bootstrap").await?;
            ensure!(plan.uid() == after.uid(), "the plan was replaced");
            let groups = namespace
                .get("Store", "halfway")
                .await?
                .context("the Store is gone")?;
            ensure!(
                groups["status"]["incarnation"] == 1,
                "{:#}",
                groups["status"]
            );
            Ok(())
        })
        .await
}

#[tokio::test]
async fn a_sidecar_that_is_killed_connects_again_and_the_application_goes_on() -> anyhow::Result<()>
{
    let cluster = Cluster::with_chart().await?;
    let namespace = cluster.namespace("sidecar").await?;
    namespace
        .clone()
        .run(async {
            namespace.apply(&store("counts", 1, 2)).await?;
            namespace
                .apply(&session("visits", "counts", "visits"))
                .await?;
            namespace.apply(&sample(&cluster, "application")?).await?;
            let before = namespace.counts_beyond("visits", 20, SOON).await?;

            let pods: Api<Pod> = Api::namespaced(cluster.client(), namespace.name());
            let victim = pods
                .list(&ListParams::default().labels("app=visits"))
                .await?
                .items
                .into_iter()
                .next()
                .context("the application has no pod")?;
            kill_in_pod(&victim, "atomix-runtime")?;
            until("the sidecar was started again", SOON, async || {
                let pod = pods.get(&victim.name_any()).await?;
                let restarted = pod
                    .status
                    .iter()
                    .flat_map(|status| status.init_container_statuses.iter().flatten())
                    .any(|container| container.restart_count > 0);
                Ok(restarted.then_some(()))
            })
            .await?;
            namespace
                .counts_beyond("visits", before.acknowledged + 100, SOON)
                .await?;
            namespace
                .condition("Session", "visits", "Ready", "True", None, SOON)
                .await?;
            namespace.nothing_lost("visits").await
        })
        .await
}

/// Deletes the operator's pods without grace, as a lost machine would.
async fn kill_operator(cluster: &Cluster) -> anyhow::Result<()> {
    let pods: Api<Pod> = Api::namespaced(cluster.client(), SYSTEM_NAMESPACE);
    let running = pods
        .list(&ListParams::default().labels("app.kubernetes.io/name=atomix-operator"))
        .await?;
    ensure!(!running.items.is_empty(), "no operator runs");
    for pod in running {
        let at_once = DeleteParams {
            grace_period_seconds: Some(0),
            ..DeleteParams::default()
        };
        pods.delete(&pod.name_any(), &at_once).await?;
    }
    Ok(())
}
