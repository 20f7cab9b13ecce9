//! A node loses its power: its network and all of its processes are gone at once. It comes back with
//! its disks.

use anyhow::{Context as _, ensure};
use atomix_e2e::rows::{LIMIT, Row};
use atomix_e2e::stores::STORE;

#[tokio::test]
async fn a_node_is_lost_and_comes_back() -> anyhow::Result<()> {
    Row::run("a node is lost and comes back", async |row| {
        let home = row.nodes().with_operator().await?;
        let others = row.nodes().others(&home);
        let victim = others.first().context("there is one node only")?;
        lost_and_back(row, victim, &home).await
    })
    .await
}

#[tokio::test]
async fn the_node_of_the_operator_is_lost_and_comes_back() -> anyhow::Result<()> {
    Row::run(
        "the node of the operator is lost and comes back",
        async |row| {
            let victim = row.nodes().with_operator().await?;
            let others = row.nodes().others(&victim);
            let home = others.first().context("there is one node only")?;
            lost_and_back(row, &victim, home).await
        },
    )
    .await
}

/// A node is away for a moment only: nobody but its own pods notices.
#[tokio::test]
async fn a_node_restarts_before_anybody_takes_it_for_lost() -> anyhow::Result<()> {
    Row::run(
        "a node restarts before anybody takes it for lost",
        async |row| {
            let home = row.nodes().with_operator().await?;
            let others = row.nodes().others(&home);
            let victim = others.last().context("there is one node only")?;
            let load = row.store_under_load(&home).await?;
            let before = row.namespace().storage_uids().await?;
            row.nodes().happens(&["stop"], victim).await?;
            row.nodes().happens(&["start"], victim).await?;
            load.goes_on(100).await?;
            row.namespace().store_is_whole(3, LIMIT).await?;
            let after = row.namespace().storage_uids().await?;
            ensure!(before == after, "{before:?} became {after:?}");
            load.is_intact().await
        },
    )
    .await
}

/// The machine is taken out of the cluster and its disk is given up; the Store makes its copies again
/// on the machines that are left.
#[tokio::test]
async fn a_node_is_lost_for_good_and_its_disk_is_replaced() -> anyhow::Result<()> {
    Row::run(
        "a node is lost for good and its disk is replaced",
        async |row| {
            let namespace = row.namespace();
            let home = row.nodes().with_operator().await?;
            let others = row.nodes().others(&home);
            let victim = others.last().context("there is one node only")?;
            let load = row.store_under_load(&home).await?;
            let pod = row.storage_pod_on(victim).await?;

            row.nodes().happens(&["stop"], victim).await?;
            row.nodes().is_ready(victim, false).await?;
            row.nodes().kubectl(&["delete", "node", victim]).await?;
            namespace.kubectl_atomix(&["store", "replace-node", STORE, &pod, "--yes"])?;
            namespace.store_is_whole(3, 2 * LIMIT).await?;
            let left = row.storage_pod_on(victim).await;
            ensure!(left.is_err(), "{left:?} is on a machine that is gone");
            load.is_intact().await
        },
    )
    .await
}

async fn lost_and_back(row: &Row, victim: &str, home: &str) -> anyhow::Result<()> {
    let load = row.store_under_load(home).await?;
    row.storage_pod_on(victim).await?;
    let before = row.namespace().storage_uids().await?;

    row.nodes().happens(&["stop"], victim).await?;
    // The two others are a majority of every partition.
    load.goes_on(100).await?;
    row.nodes().is_ready(victim, false).await?;
    load.goes_on(100).await?;

    row.nodes().happens(&["start"], victim).await?;
    row.nodes().is_ready(victim, true).await?;
    row.namespace().store_is_whole(3, LIMIT).await?;
    // Nobody thought that the disk was lost: it is the same pod with the same volume.
    let after = row.namespace().storage_uids().await?;
    ensure!(before == after, "{before:?} became {after:?}");
    load.is_intact().await
}
