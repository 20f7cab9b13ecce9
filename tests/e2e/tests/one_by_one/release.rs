//! What becomes of everything while the release is uninstalled and installed again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use atomix_e2e::cluster::{Cluster, Namespace, SYSTEM_NAMESPACE};
use atomix_e2e::kustomize;
use atomix_e2e::manifests::{sample, store};
use atomix_e2e::operator::restart_operator;
use atomix_e2e::wait::until;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;

const SOON: Duration = Duration::from_secs(120);

#[tokio::test]
async fn data_pods_and_connections_outlive_the_release() -> Result<()> {
    let cluster = Cluster::with_chart().await?;
    let namespace = cluster.namespace("release").await?;
    namespace
        .clone()
        .run(async {
            for name in ["store", "session", "injected-application"] {
                namespace.apply(&sample(&cluster, name)?).await?;
            }
            let counted = namespace.counts_beyond("visits", 50, SOON).await?;
            let pods = pods_of(&cluster, &namespace).await?;

            cluster.uninstall_chart()?;
            nothing_is_left_of_it(&cluster).await?;
            for (kind, name) in [("Store", "counts"), ("Session", "visits")] {
                let object = namespace.get(kind, name).await?;
                let object = object.with_context(|| format!("{kind} {name} is gone"))?;
                let guarded = &object["metadata"]["finalizers"];
                ensure!(guarded.is_null(), "{kind} {name} waits for {guarded}");
            }
            let counted = namespace
                .counts_beyond("visits", counted.acknowledged + 50, SOON)
                .await?;

            cluster.install_chart().await?;
            cluster.test_chart()?;
            is_guarded(&namespace, true).await?;
            namespace
                .condition("Store", "counts", "Ready", "True", None, SOON)
                .await?;
            namespace
                .counts_beyond("visits", counted.acknowledged + 50, SOON)
                .await?;
            namespace.nothing_lost("visits").await?;
            let now = pods_of(&cluster, &namespace).await?;
            ensure!(now == pods, "pods were replaced: {pods:?} became {now:?}");
            Ok(())
        })
        .await
}

#[tokio::test]
async fn the_command_line_lets_go_as_the_release_does() -> Result<()> {
    let cluster = Cluster::with_chart().await?;
    let namespace = cluster.namespace("uninstall").await?;
    namespace
        .clone()
        .run(async {
            namespace.apply(&store("counts", 1, 1)).await?;
            namespace
                .condition("Store", "counts", "Ready", "True", None, SOON)
                .await?;
            let pods = pods_of(&cluster, &namespace).await?;

            let said = namespace.kubectl_atomix(&["uninstall", "--yes"])?;
            for told in ["stopped Deployment", "Store", "helm uninstall"] {
                ensure!(said.contains(told), "{said}");
            }
            is_guarded(&namespace, false).await?;
            nobody_answers_the_webhook(&cluster, &namespace).await?;
            // Nothing is left to be stopped, and the release's own Job finds nothing to do.
            namespace.kubectl_atomix(&["uninstall", "--yes"])?;
            cluster.uninstall_chart()?;
            nothing_is_left_of_it(&cluster).await?;

            // The same of installs by kustomize, which no other test may meet.
            let guards = guards_by_kustomize(&cluster, &namespace).await;
            let removed = cluster.uninstall_by_kustomize(kustomize::BASE, namespace.name());
            guards.and(removed)?;
            nothing_is_left_of_it(&cluster).await?;
            is_guarded(&namespace, false).await?;
            let folder = kustomize::SINGLE_NAMESPACE;
            let guards = guards_one_namespace(&cluster, &namespace).await;
            let removed = cluster.uninstall_by_kustomize(folder, namespace.name());
            guards.and(removed)?;
            nothing_is_left_of_it(&cluster).await?;
            is_guarded(&namespace, false).await?;

            cluster.install_chart().await?;
            cluster.test_chart()?;
            is_guarded(&namespace, true).await?;
            let now = pods_of(&cluster, &namespace).await?;
            ensure!(now == pods, "pods were replaced: {pods:?} became {now:?}");
            Ok(())
        })
        .await
}

async fn guards_by_kustomize(cluster: &Cluster, namespace: &Namespace) -> Result<()> {
    let folder = "deploy/kustomize/overlays/high-availability";
    cluster.install_by_kustomize(folder, namespace.name())?;
    is_guarded(namespace, true).await?;
    ensure!(pods_in(cluster, SYSTEM_NAMESPACE).await?.len() == 2);
    nobody_notices_a_restart(cluster, namespace).await?;
    namespace.kubectl_atomix(&["uninstall", "--yes"])?;
    Ok(())
}

/// The other namespaces are none of its business.
async fn guards_one_namespace(cluster: &Cluster, namespace: &Namespace) -> Result<()> {
    let elsewhere = cluster.namespace("elsewhere").await?;
    let served = async {
        elsewhere.apply(&store("counts", 1, 1)).await?;
        cluster.install_by_kustomize(kustomize::SINGLE_NAMESPACE, namespace.name())?;
        is_guarded(namespace, true).await?;
        namespace
            .condition("Store", "counts", "Ready", "True", None, SOON)
            .await?;
        namespace.kubectl_atomix(&["uninstall", "--yes"])?;
        is_guarded(&elsewhere, false).await?;
        let store = elsewhere.get("Store", "counts").await?;
        let store = store.context("the Store is gone")?;
        let conditions = &store["status"]["conditions"];
        ensure!(conditions.is_null(), "it was looked at: {store}");
        Ok(())
    };
    elsewhere.clone().run(served).await
}

/// A pod that asks for a sidecar is refused rather than made without one, but not where the webhook would
/// keep the cluster or the operator itself from coming back.
async fn nobody_answers_the_webhook(cluster: &Cluster, namespace: &Namespace) -> Result<()> {
    let Err(refused) = try_pod_that_asks(cluster, namespace.name()).await else {
        bail!("a pod that asks for a sidecar was let in without one");
    };
    let refused = refused.to_string();
    let expected = r#"failed calling webhook "inject.atomix.io""#;
    ensure!(refused.contains(expected), "{refused}");
    for excluded in ["kube-system", SYSTEM_NAMESPACE] {
        let let_in = try_pod_that_asks(cluster, excluded).await;
        let_in.with_context(|| format!("in namespace {excluded}"))?;
    }
    Ok(())
}

/// Asks the API server for a pod that wants a sidecar, without making it.
async fn try_pod_that_asks(cluster: &Cluster, namespace: &str) -> Result<Pod> {
    let pod = serde_json::from_value(json!({
        "metadata": {"name": "asking", "labels": {"atomix.io/inject": "true"}},
        "spec": {
            "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "application",
                "image": "localhost/any:1",
                "securityContext": {
                    "allowPrivilegeEscalation": false,
                    "capabilities": {"drop": ["ALL"]},
                },
            }],
        },
    }))?;
    let dry = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let pods: Api<Pod> = Api::namespaced(cluster.client(), namespace);
    Ok(pods.create(&dry, &pod).await?)
}

/// Both replicas are replaced while pods that want a sidecar are created: none is refused. Then the one
/// that holds the lease is killed, and the other one answers.
async fn nobody_notices_a_restart(cluster: &Cluster, namespace: &Namespace) -> Result<()> {
    let before = pods_in(cluster, SYSTEM_NAMESPACE).await?;
    let restarted = AtomicBool::new(false);
    let restart = async {
        let restart = restart_operator(cluster).await;
        restarted.store(true, Ordering::SeqCst);
        restart
    };
    let create = async {
        let mut admitted = 0;
        while !restarted.load(Ordering::SeqCst) {
            let pod = try_pod_that_asks(cluster, namespace.name()).await;
            let pod = pod.with_context(|| format!("after {admitted} pods that were let in"))?;
            let containers = pod.spec.and_then(|spec| spec.init_containers);
            ensure!(containers.is_some(), "a pod got no sidecar");
            admitted += 1;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(admitted)
    };
    let (restart, admitted): (Result<()>, Result<u32>) = tokio::join!(restart, create);
    restart?;
    let admitted = admitted?;
    ensure!(admitted > 20, "only {admitted} pods asked meanwhile");
    let now = pods_in(cluster, SYSTEM_NAMESPACE).await?;
    ensure!(now.len() == 2, "{now:?}");
    ensure!(now.iter().all(|pod| !before.contains(pod)), "{now:?}");

    let leases: Api<Lease> = Api::namespaced(cluster.client(), SYSTEM_NAMESPACE);
    let lease = leases.get("atomix-operator").await?.spec;
    let holder = lease
        .and_then(|lease| lease.holder_identity)
        .context("nobody leads")?;
    let (pod, _) = now
        .iter()
        .find(|(pod, _)| holder.contains(pod.as_str()))
        .with_context(|| format!("{holder} is none of {now:?}"))?;
    let pods: Api<Pod> = Api::namespaced(cluster.client(), SYSTEM_NAMESPACE);
    pods.delete(pod, &DeleteParams::default().grace_period(0))
        .await?;
    let shown = namespace.kubectl_atomix(&["status"])?;
    ensure!(shown.contains("counts"), "{shown}");
    Ok(())
}

/// Waits until an operator guards the Store against deletion, or checks that none does.
async fn is_guarded(namespace: &Namespace, expected: bool) -> Result<()> {
    until("an operator to guard the Store", SOON, async || {
        let store = namespace.get("Store", "counts").await?;
        let store = store.context("the Store is gone")?;
        let is_guarded = !store["metadata"]["finalizers"].is_null();
        ensure!(expected || !is_guarded, "it still is: {store}");
        Ok((is_guarded == expected).then_some(()))
    })
    .await
}

async fn pods_of(
    cluster: &Cluster,
    namespace: &Namespace,
) -> Result<Vec<(String, Option<String>)>> {
    pods_in(cluster, namespace.name()).await
}

/// Names and uids of all pods.
async fn pods_in(cluster: &Cluster, namespace: &str) -> Result<Vec<(String, Option<String>)>> {
    let pods: Api<Pod> = Api::namespaced(cluster.client(), namespace);
    let found = pods.list(&ListParams::default()).await?;
    let mut named: Vec<_> = found
        .iter()
        .map(|pod| (pod.name_any(), pod.uid()))
        .collect();
    named.sort();
    Ok(named)
}

/// Of the release itself, the Job that let go of everything included.
async fn nothing_is_left_of_it(cluster: &Cluster) -> Result<()> {
    until("the operator and its Job to be gone", SOON, async || {
        let pods: Api<Pod> = Api::namespaced(cluster.client(), SYSTEM_NAMESPACE);
        let jobs: Api<Job> = Api::namespaced(cluster.client(), SYSTEM_NAMESPACE);
        let left = pods.list(&ListParams::default()).await?.items.len()
            + jobs.list(&ListParams::default()).await?.items.len();
        Ok((left == 0).then_some(()))
    })
    .await
}
