//! What people do on bad days, by the command line: a leadership handed over, a disk given up, a
//! lost majority recovered.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use atomix_e2e::cluster::{Cluster, Namespace};
use atomix_e2e::manifests::sample;
use atomix_e2e::wait::until;
use serde_json::json;

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
            namespace
                .done(&["counter", "set", "by-hand", COUNTED])
                .await?;

            leaderships_are_handed_over(&namespace).await?;
            one_disk_is_given_up(&namespace).await?;
            namespace
                .counts_beyond("visits", counted.acknowledged + 50, SOON)
                .await?;
            namespace.nothing_lost("visits").await?;
            a_lost_majority_is_recovered(&namespace).await
        })
        .await
}

async fn leaderships_are_handed_over(namespace: &Namespace) -> Result<()> {
    for to in ["counts-1", "counts-2"] {
        let command = ["store", "transfer-leader", "counts", "--partition", "1"];
        let arguments = [command.as_slice(), &["--to", to]].concat();
        let said = namespace.done(&arguments).await?;
        ensure!(said.contains(&format!("{to} leads partition 1")), "{said}");
    }
    let nowhere = ["store", "transfer-leader", "counts", "--partition", "9"];
    let arguments = [nowhere.as_slice(), &["--to", "counts-1"]].concat();
    namespace.refused_command(&arguments, "no copy").await
}

async fn one_disk_is_given_up(namespace: &Namespace) -> Result<()> {
    let before = namespace.disk_of("counts-2").await?;
    let said = namespace
        .done(&["store", "replace-node", "counts", "2", "--yes"])
        .await?;
    ensure!(said.contains("every partition keeps a majority"), "{said}");
    namespace.another_disk("counts-2", before).await?;
    whole(namespace).await
}

async fn a_lost_majority_is_recovered(namespace: &Namespace) -> Result<()> {
    let message = namespace.lose_majority().await?;
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
    namespace.merge_into_store(&left).await?;
    let again = ["store", "recover", "counts", "--yes", "--partition", "1"];
    let said = namespace.done(&again).await?;
    ensure!(said.contains("goes on from counts-0"), "{said}");
    let store = namespace.get("Store", "counts").await?;
    let store = store.context("the Store is gone")?;
    let annotations = store.pointer("/metadata/annotations");
    let is_left = annotations.is_some_and(|left| left.to_string().contains("recover"));
    ensure!(!is_left, "the interrupted run's annotation is still there");
    whole(namespace).await?;
    let value = namespace.done(&["counter", "get", "by-hand"]).await?;
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
