//! Wrong objects: a condition names the cause, other objects are unaffected, and each heals by
//! itself once what it needs is there.

use std::time::Duration;

use anyhow::ensure;
use atomix_e2e::cluster::Cluster;
use atomix_e2e::manifests::{sample, session, store};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use serde_json::json;

const SOON: Duration = Duration::from_secs(120);

#[tokio::test]
async fn wrong_objects_are_named_harm_no_others_and_heal() -> anyhow::Result<()> {
    let cluster = Cluster::with_chart().await?;
    let namespace = cluster.namespace("wrong").await?;
    namespace
        .clone()
        .run(async {
            let unknown_driver = "
apiVersion: atomix.io/v1beta1
kind: Store
metadata:
  name: elsewhere
spec:
  driver:
    name: memory
    version: v0
";
            let malformed = "
apiVersion: atomix.io/v1beta1
kind: Store
metadata:
  name: scratch
spec:
  driver:
    name: memory
  config:
    no-such-setting: true
";
            let no_image = store("counts", 1, 2)
                + "    pod:\n      image: localhost/atomix/no-such-image:none\n";
            namespace.apply(unknown_driver).await?;
            namespace.apply(malformed).await?;
            namespace.apply(&no_image).await?;
            namespace
                .apply(&session("visits", "later", "visits"))
                .await?;
            // Of another kind, so that its routes never compete with those of `visits`.
            let lost = session("lost", "scratch", "visits").replace("kind: counter", "kind: map");
            namespace.apply(&lost).await?;
            namespace.apply(&sample(&cluster, "application")?).await?;

            let message = namespace
                .condition(
                    "Store",
                    "elsewhere",
                    "Ready",
                    "False",
                    Some("DriverNotFound"),
                    SOON,
                )
                .await?;
            ensure!(message.contains("v0"), "{message}");
            let message = namespace
                .condition(
                    "Session",
                    "visits",
                    "Ready",
                    "False",
                    Some("StoreNotFound"),
                    SOON,
                )
                .await?;
            ensure!(message.contains("later"), "{message}");
            let message = namespace
                .condition(
                    "Session",
                    "lost",
                    "Ready",
                    "False",
                    Some("ConfigRefused"),
                    SOON,
                )
                .await?;
            ensure!(message.contains("no-such-setting"), "{message}");
            let message = namespace
                .condition(
                    "Store",
                    "counts",
                    "Ready",
                    "False",
                    Some("ImagePullFailed"),
                    SOON,
                )
                .await?;
            ensure!(message.contains("no-such-image"), "{message}");

            // None of them keeps another from working, and each heals.
            namespace.apply(&store("later", 1, 2)).await?;
            namespace
                .condition("Session", "visits", "Ready", "True", None, SOON)
                .await?;
            namespace.counts_beyond("visits", 10, SOON).await?;
            // What is refused later disconnects nobody.
            namespace
                .apply(&(store("later", 1, 2) + "  config:\n    colour: red\n"))
                .await?;
            let message = namespace
                .condition(
                    "Store",
                    "later",
                    "Stalled",
                    "True",
                    Some("InvalidSpec"),
                    SOON,
                )
                .await?;
            ensure!(message.contains("colour"), "{message}");
            namespace
                .condition(
                    "Session",
                    "visits",
                    "Ready",
                    "False",
                    Some("StoreInvalid"),
                    SOON,
                )
                .await?;
            namespace.nothing_lost("visits").await?;
            namespace
                .apply(&(store("later", 1, 2) + "  config: {}\n"))
                .await?;
            namespace
                .condition("Session", "visits", "Ready", "True", None, SOON)
                .await?;
            namespace
                .apply(&unknown_driver.replace("    version: v0\n", ""))
                .await?;
            namespace
                .condition("Store", "elsewhere", "Ready", "True", None, SOON)
                .await?;
            // Server-side apply turns the object whose last field goes away into null.
            let healed = malformed.replace("config:\n    no-such-setting: true", "config: {}");
            namespace.apply(&healed).await?;
            namespace
                .condition("Session", "lost", "Ready", "True", None, SOON)
                .await?;
            namespace
                .apply(&no_image.replace(
                    "localhost/atomix/no-such-image:none",
                    &cluster.image("atomix-node"),
                ))
                .await?;
            namespace
                .condition("Store", "counts", "Ready", "True", None, SOON)
                .await?;
            Ok(())
        })
        .await
}

#[tokio::test]
async fn a_volume_that_nobody_makes_is_named_and_its_class_heals_it() -> anyhow::Result<()> {
    let cluster = Cluster::with_chart().await?;
    let namespace = cluster.namespace("volume").await?;
    namespace
        .clone()
        .run(async {
            let class = format!("class-of-{}", namespace.name());
            let missing = format!("      storageClassName: {class}\n");
            namespace.apply(&(store("counts", 1, 1) + &missing)).await?;
            let of_counts = async |status, reason| {
                namespace
                    .condition("Store", "counts", "Ready", status, reason, SOON)
                    .await
            };
            let message = of_counts("False", Some("VolumeNotBound")).await?;
            ensure!(message.contains("StorageClass"), "{message}");

            let classes: Api<StorageClass> = Api::all(cluster.client());
            let made = serde_json::from_value(json!({
                "metadata": {"name": class},
                "provisioner": "atomix.io/cluster-local",
                "volumeBindingMode": "WaitForFirstConsumer",
            }))?;
            classes.create(&PostParams::default(), &made).await?;
            let healed = of_counts("True", None).await;
            classes.delete(&class, &DeleteParams::default()).await?;
            healed?;
            Ok(())
        })
        .await
}

#[tokio::test]
async fn what_cannot_be_right_is_refused_at_once_with_what_to_change() -> anyhow::Result<()> {
    let cluster = Cluster::with_chart().await?;
    let namespace = cluster.namespace("refused").await?;
    namespace
        .clone()
        .run(async {
            let good = store("fine", 3, 4);
            for (wrong, names) in [
                (
                    good.replace("replicas: 3", "replicas: 3\n    replicationFactor: 5"),
                    "replicationFactor",
                ),
                (
                    good.replace("replicas: 3", "replicas: 3\n    replicationFactor: 2"),
                    "replicationFactor",
                ),
                (
                    good.replace("name: multi-raft", "name: memory"),
                    "multiRaft",
                ),
                (good.replace("name: fine", "name: Fine"), "name"),
                (
                    good.replace("partitions: 4", "partitions: 5000"),
                    "partitions",
                ),
                (
                    session("s", "fine", "a").replace("kind: counter", "kind: no-such-kind"),
                    "kind",
                ),
                (
                    session("s", "fine", "a")
                        .replace("    matchLabels:\n      app: a\n", "    matchLabels: {}\n"),
                    "selector",
                ),
            ] {
                let message = namespace.refused(&wrong).await?;
                ensure!(
                    message.contains(names),
                    "the message does not name {names}: {message}"
                );
            }
            Ok(())
        })
        .await
}
