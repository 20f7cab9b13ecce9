//! What people do on bad days, by the command line: a leadership handed over, a disk given up, a
//! lost majority recovered.

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use atomix_e2e::cluster::{Cluster, Namespace};
use atomix_e2e::manifests::sample;
use atomix_e2e::wait::until;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::api::{Patch, PatchParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(120);
const PARTITIONS: u32 = 4;
/// What a counter shows that nobody changes any more: every copy has it.
const COUNTED: &str = "42";

#[tokio::test]
async fn a_disk_is_given_up_and_a_lost_majority_is_recovered() -> Result<()> {
    let cluster = Cluster::with_chart().await?;
    let namespace = cluster.namespace("bad-days").await?;
    namespace
        .clone()
        .run(async {
            for name in ["store", "session", "injected-application"] {
                namespace.apply(&sample(&cluster, name)?).await?;
            }
            let counted = namespace.counts_beyond("visits", 50, SOON).await?;
            done(&namespace, &["counter", "set", "by-hand", COUNTED]).await?;

            leaderships_are_handed_over(&namespace).await?;
            one_disk_is_given_up(&cluster, &namespace).await?;
            namespace
                .counts_beyond("visits", counted.acknowledged + 50, SOON)
                .await?;
            namespace.nothing_lost("visits").await?;
            a_lost_majority_is_recovered(&cluster, &namespace).await
        })
        .await
}

async fn leaderships_are_handed_over(namespace: &Namespace) -> Result<()> {
    for to in ["counts-1", "counts-2"] {
        let command = ["store", "transfer-leader", "counts", "--partition", "1"];
        let arguments = [command.as_slice(), &["--to", to]].concat();
        let said = done(namespace, &arguments).await?;
        ensure!(said.contains(&format!("{to} leads partition 1")), "{said}");
    }
    let nowhere = ["store", "transfer-leader", "counts", "--partition", "9"];
    let arguments = [nowhere.as_slice(), &["--to", "counts-1"]].concat();
    refused(namespace, &arguments, "no copy").await
}

/// What a command says once it is done. Busy nodes may not have answered the operator in time: then
/// nothing was done, and it is run again.
async fn done(namespace: &Namespace, arguments: &[&str]) -> Result<String> {
    let what = format!("kubectl atomix {} to be done", arguments.join(" "));
    let told = until(&what, SOON, async || {
        match namespace.kubectl_atomix(arguments) {
            // It was begun, and must not be done twice.
            Err(error) if error.to_string().contains("cannot delete") => Ok(Some(Err(error))),
            told => Ok(Some(Ok(told?))),
        }
    });
    told.await?
}

/// Waits until a command is refused with these words.
async fn refused(namespace: &Namespace, arguments: &[&str], words: &str) -> Result<()> {
    let what = format!("kubectl atomix {} to be refused", arguments.join(" "));
    let refusal = until(&what, SOON, async || {
        match namespace.kubectl_atomix(arguments) {
            Ok(said) => Ok(Some(Err(anyhow!("it was not refused: {said}")))),
            Err(error) if error.to_string().contains(words) => Ok(Some(Ok(()))),
            Err(error) => Err(error),
        }
    });
    refusal.await?
}

async fn one_disk_is_given_up(cluster: &Cluster, namespace: &Namespace) -> Result<()> {
    let before = disk_of(cluster, namespace, "counts-2").await?;
    let said = done(
        namespace,
        &["store", "replace-node", "counts", "2", "--yes"],
    )
    .await?;
    ensure!(said.contains("every partition keeps a majority"), "{said}");
    another_disk(cluster, namespace, "counts-2", before).await?;
    whole(namespace).await
}

async fn a_lost_majority_is_recovered(cluster: &Cluster, namespace: &Namespace) -> Result<()> {
    // So that the operator does not heal the first loss before the second one.
    pause(cluster, namespace, true).await?;
    let before = disk_of(cluster, namespace, "counts-1").await?;
    done(
        namespace,
        &["store", "replace-node", "counts", "1", "--yes"],
    )
    .await?;
    another_disk(cluster, namespace, "counts-1", before).await?;
    let second = ["store", "replace-node", "counts", "2", "--yes"];
    refused(namespace, &second, "--give-up").await?;
    done(namespace, &[second.as_slice(), &["--give-up"]].concat()).await?;
    pause(cluster, namespace, false).await?;
    let message = namespace
        .condition(
            "Store",
            "counts",
            "Ready",
            "False",
            Some("QuorumLost"),
            SOON,
        )
        .await?;
    ensure!(message.contains("store recover counts"), "{message}");

    for partition in 1..=PARTITIONS {
        let partition = partition.to_string();
        let command = ["store", "recover", "counts", "--yes", "--partition"];
        let arguments = [command.as_slice(), &[partition.as_str()]].concat();
        let said = until("the partition to be recovered", SOON, async || {
            match namespace.kubectl_atomix(&arguments) {
                // It was recovered while the operator that was asked died.
                Err(error) if error.to_string().contains("has a leader") => Ok(Some(None)),
                said => Ok(Some(Some(said?))),
            }
        });
        if let Some(said) = said.await? {
            ensure!(said.contains("goes on from counts-0"), "{said}");
        }
    }
    // As a run leaves it that was interrupted while it waited.
    let wish = json!({"recover.atomix.io/partition-1": "counts-0 0000000000000008"});
    let left = json!({"metadata": {"annotations": wish}});
    change_store(cluster, namespace, left).await?;
    let again = ["store", "recover", "counts", "--yes", "--partition", "1"];
    let said = done(namespace, &again).await?;
    ensure!(said.contains("goes on from counts-0"), "{said}");
    let store = namespace.get("Store", "counts").await?;
    let store = store.context("the Store is gone")?;
    let annotations = store.pointer("/metadata/annotations");
    let is_left = annotations.is_some_and(|left| left.to_string().contains("recover"));
    ensure!(!is_left, "the interrupted run's annotation is still there");
    whole(namespace).await?;
    let value = done(namespace, &["counter", "get", "by-hand"]).await?;
    ensure!(value.trim() == COUNTED, "the counter shows {value}");
    Ok(())
}

/// All copies are there again, and nothing is left to do.
async fn whole(namespace: &Namespace) -> Result<()> {
    for (condition, status) in [
        ("Ready", "True"),
        ("Degraded", "False"),
        ("Progressing", "False"),
    ] {
        namespace
            .condition("Store", "counts", condition, status, None, SOON)
            .await?;
    }
    until("every copy to be shown", SOON, async || {
        let shown = namespace.kubectl_atomix(&["status", "counts"])?;
        Ok((!shown.contains("none")).then_some(()))
    })
    .await
}

async fn another_disk(
    cluster: &Cluster,
    namespace: &Namespace,
    pod: &str,
    before: Option<String>,
) -> Result<()> {
    until("another disk to take its place", SOON, async || {
        let now = disk_of(cluster, namespace, pod).await?;
        Ok((now.is_some() && now != before).then_some(()))
    })
    .await
}

async fn disk_of(cluster: &Cluster, namespace: &Namespace, pod: &str) -> Result<Option<String>> {
    let disks: Api<PersistentVolumeClaim> = Api::namespaced(cluster.client(), namespace.name());
    let disk = disks.get_opt(&format!("data-{pod}")).await?;
    Ok(disk.and_then(|disk| disk.uid()))
}

async fn pause(cluster: &Cluster, namespace: &Namespace, paused: bool) -> Result<()> {
    change_store(cluster, namespace, json!({"spec": {"paused": paused}})).await
}

async fn change_store(cluster: &Cluster, namespace: &Namespace, patch: Value) -> Result<()> {
    let kind = GroupVersionKind::gvk("atomix.io", "v1beta1", "Store");
    let resource = ApiResource::from_gvk(&kind);
    let stores: Api<DynamicObject> =
        Api::namespaced_with(cluster.client(), namespace.name(), &resource);
    stores
        .patch("counts", &PatchParams::default(), &Patch::Merge(patch))
        .await?;
    Ok(())
}
