//! The operator under test: where it runs, and its death.

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams};
use kube::{Api, ResourceExt as _};

use crate::cluster::{Cluster, SYSTEM_NAMESPACE};
use crate::processes::kill_in_pod;
use crate::wait::until;

/// Of the Deployment.
const OPERATOR: &str = "atomix-operator";

/// Selects its pods.
const OURS: &str = "app.kubernetes.io/name=atomix-operator";

const SOON: Duration = Duration::from_secs(120);

/// Kills the operator's process, and its pod with it, so that another one starts at once. Returns
/// the pod as it was.
///
/// # Errors
/// When not exactly one operator runs on this machine.
pub async fn kill_operator(cluster: &Cluster) -> anyhow::Result<Pod> {
    let pod = operator_pod(cluster).await?;
    kill_in_pod(&pod, "atomix-operator")?;
    let pods: Api<Pod> = Api::namespaced(cluster.client(), SYSTEM_NAMESPACE);
    let at_once = DeleteParams {
        grace_period_seconds: Some(0),
        ..DeleteParams::default()
    };
    pods.delete(&pod.name_any(), &at_once).await?;
    Ok(pod)
}

/// Replaces the pods of the operator one after the other, as `kubectl rollout restart` does, and waits
/// until the former ones have ended.
///
/// # Errors
/// When that takes longer than two minutes.
pub async fn restart_operator(cluster: &Cluster) -> anyhow::Result<()> {
    let deployments: Api<Deployment> = Api::namespaced(cluster.client(), SYSTEM_NAMESPACE);
    let restarted = deployments.restart(OPERATOR).await?;
    until("new pods of the operator serve", SOON, async || {
        let status = deployments.get(OPERATOR).await?.status.unwrap_or_default();
        let wanted = restarted.spec.as_ref().and_then(|spec| spec.replicas);
        let is_done = status.observed_generation >= restarted.metadata.generation
            && status.updated_replicas == wanted
            && status.available_replicas == wanted
            && status.replicas == wanted;
        Ok(is_done.then_some(()))
    })
    .await?;
    let pods: Api<Pod> = Api::namespaced(cluster.client(), SYSTEM_NAMESPACE);
    until("the former ones have ended", SOON, async || {
        let found = pods.list(&ListParams::default().labels(OURS)).await?;
        let mut pods = found.iter();
        let are_new = pods.all(|pod| pod.metadata.deletion_timestamp.is_none());
        Ok(are_new.then_some(()))
    })
    .await
}

/// The operator's pod, once exactly one runs.
///
/// # Errors
/// When none or several do for two minutes.
pub async fn operator_pod(cluster: &Cluster) -> anyhow::Result<Pod> {
    let pods: Api<Pod> = Api::namespaced(cluster.client(), SYSTEM_NAMESPACE);
    let ours = ListParams::default().labels(OURS);
    until("one operator runs", SOON, async || {
        let mut running = pods.list(&ours).await?.items;
        running.retain(|pod| pod.metadata.deletion_timestamp.is_none() && is_running(pod));
        let one = running.pop();
        Ok(one.filter(|_| running.is_empty()))
    })
    .await
}

fn is_running(pod: &Pod) -> bool {
    pod.status
        .iter()
        .flat_map(|status| status.container_statuses.iter().flatten())
        .filter_map(|container| container.state.as_ref())
        .any(|state| state.running.is_some())
}
