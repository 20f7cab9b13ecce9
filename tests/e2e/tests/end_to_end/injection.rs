//! Pods that ask for a runtime sidecar get one that works, in a namespace whose pods must be
//! restricted, and are ready only once it has reached its Store.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use atomix_e2e::cluster::{Cluster, Namespace};
use atomix_e2e::manifests::sample;
use atomix_e2e::wait::until;
use k8s_openapi::api::core::v1::{Namespace as NamespaceObject, Pod};
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;

const SOON: Duration = Duration::from_secs(120);

#[tokio::test]
async fn injected_pods_are_restricted_wait_for_their_store_and_count() -> anyhow::Result<()> {
    let cluster = Cluster::with_chart().await?;
    let namespace = cluster.namespace("inject").await?;
    namespace
        .clone()
        .run(async {
            let namespaces: Api<NamespaceObject> = Api::all(cluster.client());
            let restricted = json!({"metadata": {"labels": {
                "pod-security.kubernetes.io/enforce": "restricted",
            }}});
            let patch = Patch::Merge(restricted);
            namespaces
                .patch(namespace.name(), &PatchParams::default(), &patch)
                .await?;

            // Another test may just have killed the operator; then nobody answers, and no such
            // pod comes in.
            until(
                "the webhook to refuse the host's network",
                SOON,
                async || {
                    let refused = namespace.refused(ON_HOST_NETWORK).await?;
                    ensure!(refused.contains("remove hostNetwork"), "{refused}");
                    Ok(Some(()))
                },
            )
            .await?;

            namespace
                .apply(&sample(&cluster, "injected-application")?)
                .await?;
            let waiting = pods(&cluster, &namespace, |pod| {
                runs(pod) && gate(pod).is_some_and(|gate| gate == ("False", "NoSession"))
            })
            .await?;
            for pod in &waiting {
                ensure!(!is_ready(pod), "{} is ready too early", pod.name_any());
                ensure!(
                    cluster.image("atomix-runtime") == sidecar_image(pod)?,
                    "the sidecar is of another version than the operator: {:?}",
                    sidecar_image(pod)?
                );
            }

            namespace.apply(&sample(&cluster, "store")?).await?;
            namespace.apply(&sample(&cluster, "session")?).await?;
            namespace
                .condition("Session", "visits", "Ready", "True", None, SOON)
                .await?;
            let is_open = |pod: &Pod| gate(pod).is_some_and(|gate| gate == ("True", "Connected"));
            pods(&cluster, &namespace, |pod| is_open(pod) && is_ready(pod)).await?;
            let counted = namespace.counts_beyond("visits", 50, SOON).await?;
            ensure!(counted.replicas == 2, "{counted:?}");
            namespace.nothing_lost("visits").await?;

            // Without a Session nothing counts any more, but the pods stay ready.
            namespace.delete_object("Session", "visits").await?;
            until("the Session is gone", SOON, async || {
                let session = namespace.get("Session", "visits").await?;
                Ok(session.is_none().then_some(()))
            })
            .await?;
            pods(&cluster, &namespace, |pod| is_open(pod) && is_ready(pod)).await?;
            Ok(())
        })
        .await
}

const ON_HOST_NETWORK: &str = "
apiVersion: v1
kind: Pod
metadata:
  name: on-host
  labels:
    atomix.io/inject: \"true\"
spec:
  hostNetwork: true
  containers:
    - name: application
      image: localhost/any:1
";

/// Waits until both pods of the application are so.
async fn pods(
    cluster: &Cluster,
    namespace: &Namespace,
    wanted: impl Fn(&Pod) -> bool,
) -> anyhow::Result<Vec<Pod>> {
    let api: Api<Pod> = Api::namespaced(cluster.client(), namespace.name());
    let mut last = Vec::new();
    let found = until(
        "both injected pods are as they should be",
        SOON,
        async || {
            let ours = ListParams::default().labels("app=visits");
            let pods = api.list(&ours).await?.items;
            last = pods
                .iter()
                .map(|pod| {
                    format!(
                        "{}: {:?}, ready: {}",
                        pod.name_any(),
                        gate(pod),
                        is_ready(pod)
                    )
                })
                .collect();
            Ok((pods.len() == 2 && pods.iter().all(&wanted)).then_some(pods))
        },
    )
    .await;
    found.with_context(|| format!("the pods are {last:?}"))
}

/// Status and reason of the condition that the operator writes.
fn gate(pod: &Pod) -> Option<(&str, &str)> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let mut conditions = conditions.iter();
    let found = conditions.find(|condition| condition.type_ == "atomix.io/connected")?;
    Some((found.status.as_str(), found.reason.as_deref()?))
}

fn runs(pod: &Pod) -> bool {
    let statuses = pod
        .status
        .as_ref()
        .and_then(|status| status.container_statuses.as_ref());
    let mut statuses = statuses.into_iter().flatten();
    statuses.any(|container| container.ready)
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    let mut conditions = conditions.filter(|condition| condition.type_ == "Ready");
    conditions.any(|condition| condition.status == "True")
}

fn sidecar_image(pod: &Pod) -> anyhow::Result<String> {
    let spec = pod.spec.as_ref();
    let sidecar = spec.and_then(|spec| spec.init_containers.as_ref()?.first());
    let sidecar = sidecar.with_context(|| format!("{} has no sidecar", pod.name_any()))?;
    ensure!(
        sidecar.name == "atomix-runtime",
        "the first is {}",
        sidecar.name
    );
    sidecar.image.clone().context("the sidecar has no image")
}
