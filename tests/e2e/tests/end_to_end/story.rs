//! What the demo shows, checked.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use atomix_e2e::cluster::{Cluster, Namespace};
use atomix_e2e::manifests::sample;
use atomix_e2e::wait::until;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::api::{DeleteParams, ListParams};
use kube::{Api, ResourceExt as _};

const SOON: Duration = Duration::from_secs(120);

#[tokio::test]
async fn an_application_counts_through_the_deletion_of_a_storage_pod_and_nothing_is_lost()
-> anyhow::Result<()> {
    let cluster = Cluster::with_chart().await?;
    let namespace = cluster.namespace("story").await?;
    namespace
        .clone()
        .run(async {
            for name in ["store", "session", "application"] {
                namespace.apply(&sample(&cluster, name)?).await?;
            }
            namespace
                .condition("Store", "counts", "Ready", "True", None, SOON)
                .await?;
            namespace
                .condition("Session", "visits", "Ready", "True", None, SOON)
                .await?;
            let counted = namespace.counts_beyond("visits", 50, SOON).await?;
            ensure!(
                counted.replicas == 2,
                "two replicas count, but {} answered",
                counted.replicas
            );

            the_command_line_shows_it_too(&namespace).await?;

            let pods: Api<Pod> = Api::namespaced(cluster.client(), namespace.name());
            let first = pods.get("counts-0").await?;
            pods.delete("counts-0", &DeleteParams::default()).await?;
            namespace
                .counts_beyond("visits", counted.acknowledged + 100, SOON)
                .await?;
            until(
                "storage pod counts-0 is a new one and ready",
                SOON,
                async || {
                    let pod = pods.get_opt("counts-0").await?;
                    Ok(pod
                        .filter(|pod| pod.uid() != first.uid() && is_ready(pod))
                        .map(|_| ()))
                },
            )
            .await?;
            namespace
                .condition("Store", "counts", "Ready", "True", None, SOON)
                .await?;
            namespace.nothing_lost("visits").await?;

            let store = namespace
                .get("Store", "counts")
                .await?
                .context("the Store is gone")?;
            ensure!(
                store["status"]["partitions"]["ready"] == 4,
                "{:#}",
                store["status"]
            );
            let session = namespace
                .get("Session", "visits")
                .await?
                .context("the Session is gone")?;
            ensure!(
                session["status"]["pods"]["connected"] == 2,
                "{:#}",
                session["status"]
            );
            ensure!(
                session["status"]["state"] == "OPENED",
                "{:#}",
                session["status"]
            );
            let driver = namespace.get("Driver", "multi-raft").await?;
            ensure!(
                driver.is_some(),
                "the operator created no Driver multi-raft"
            );

            // A Session that goes disconnects its pods; a Store that goes keeps its disks.
            namespace.delete_object("Session", "visits").await?;
            until("the Session is gone", SOON, async || {
                Ok(namespace
                    .get("Session", "visits")
                    .await?
                    .is_none()
                    .then_some(()))
            })
            .await?;
            namespace.delete_object("Store", "counts").await?;
            let sets: Api<StatefulSet> = Api::namespaced(cluster.client(), namespace.name());
            until("Store and StatefulSet are gone", SOON, async || {
                let gone = namespace.get("Store", "counts").await?.is_none()
                    && sets.get_opt("counts").await?.is_none();
                Ok(gone.then_some(()))
            })
            .await?;
            let disks: Api<PersistentVolumeClaim> =
                Api::namespaced(cluster.client(), namespace.name());
            let left = disks.list(&ListParams::default()).await?.items.len();
            ensure!(
                left == 3,
                "three disks outlive their Store, but {left} are left"
            );
            kept_disks_are_adopted_until_they_are_deleted(&cluster, &namespace, &disks).await
        })
        .await
}

async fn the_command_line_shows_it_too(namespace: &Namespace) -> anyhow::Result<()> {
    // On a busy machine a partition may just be electing another leader.
    until(
        "the command line to show all of it well",
        SOON,
        async || {
            let all = namespace.kubectl_atomix(&["status"])?;
            let is_shown = |shown: &str| all.contains(shown);
            Ok(["/counts", "/visits", "4/4", "2/2"]
                .into_iter()
                .all(is_shown)
                .then_some(()))
        },
    )
    .await?;
    until("the command line to show every leader", SOON, async || {
        let store = namespace.kubectl_atomix(&["status", "counts"])?;
        let is_shown = |shown: &str| store.contains(shown);
        let has_all = ["counts-0", "counts-1", "counts-2", "PARTITION", "up"]
            .into_iter()
            .all(is_shown);
        Ok((has_all && !store.contains("none")).then_some(()))
    })
    .await?;
    for (arguments, expected) in [
        (["counter", "set", "by-hand", "40"].as_slice(), "40"),
        (&["counter", "increment", "by-hand", "3"], "43"),
        (&["counter", "decrement", "by-hand"], "42"),
        (&["counter", "get", "by-hand"], "42"),
        (&["counter", "get", "by-hand", "--session", "visits"], "42"),
    ] {
        let value = namespace.kubectl_atomix(arguments)?;
        ensure!(value.trim() == expected, "{arguments:?}: {value}");
    }
    let all = namespace.kubectl_atomix(&["status", "--all"])?;
    let own = format!("{}/counts", namespace.name());
    ensure!(all.contains(&own), "{all}");
    for (arguments, expected) in [
        (["status", "nothing"].as_slice(), "cannot read Store"),
        (
            &["counter", "get", "by-hand", "--pod", "nothing"],
            "nothing",
        ),
        (
            &["counter", "get", "by-hand", "--session", "nothing"],
            "nothing",
        ),
        (
            &["status", "counts", "--operator-namespace", "nothing"],
            "operator",
        ),
    ] {
        let refused = namespace.kubectl_atomix(arguments);
        let error = refused.err().map(|error| error.to_string());
        let error = error.with_context(|| format!("{arguments:?} is done"))?;
        ensure!(error.contains(expected), "{arguments:?}: {error}");
    }
    Ok(())
}

async fn kept_disks_are_adopted_until_they_are_deleted(
    cluster: &Cluster,
    namespace: &Namespace,
    disks: &Api<PersistentVolumeClaim>,
) -> anyhow::Result<()> {
    let store = sample(cluster, "store")?;
    namespace.apply(&store).await?;
    namespace
        .condition("Store", "counts", "Ready", "True", None, SOON)
        .await?;
    let store_uid = async || -> anyhow::Result<(Option<String>, Option<String>)> {
        let store = namespace.get("Store", "counts").await?;
        let store = store.context("the Store is there")?;
        let text = |path: &str| Some(store.pointer(path)?.as_str()?.to_owned());
        Ok((text("/metadata/uid"), text("/status/storeUid")))
    };
    let (own, kept) = store_uid().await?;
    ensure!(kept.is_some() && own != kept, "it has the data of {kept:?}");
    namespace.delete_object("Store", "counts").await?;
    let pods: Api<Pod> = Api::namespaced(cluster.client(), namespace.name());
    until("the storage pods are gone", SOON, async || {
        let ours = ListParams::default().labels("atomix.io/store=counts");
        let gone = namespace.get("Store", "counts").await?.is_none()
            && pods.list(&ours).await?.items.is_empty();
        Ok(gone.then_some(()))
    })
    .await?;
    for disk in disks.list(&ListParams::default()).await? {
        disks
            .delete(&disk.name_any(), &DeleteParams::default())
            .await?;
    }
    namespace.apply(&store).await?;
    namespace
        .condition("Store", "counts", "Ready", "True", None, SOON)
        .await?;
    let (own, begun) = store_uid().await?;
    ensure!(
        own == begun,
        "it began anew, not with the data of {begun:?}"
    );
    Ok(())
}

fn is_ready(pod: &Pod) -> bool {
    pod.status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten())
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}
