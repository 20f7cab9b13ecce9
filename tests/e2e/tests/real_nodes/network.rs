//! The network between nodes is cut and healed. Everything runs on meanwhile, on both sides.

use anyhow::{Context as _, ensure};
use atomix_e2e::load::Load;
use atomix_e2e::rows::{LIMIT, Row};
use atomix_e2e::stores::STORE;

#[tokio::test]
async fn a_node_is_cut_from_everything_and_healed() -> anyhow::Result<()> {
    Row::run("a node is cut from everything and healed", async |row| {
        let home = row.nodes().with_operator().await?;
        let others = row.nodes().others(&home);
        let victim = others.first().context("there is one node only")?;
        cut_and_healed(row, victim, &home, &["cut"]).await
    })
    .await
}

#[tokio::test]
async fn the_node_of_the_operator_is_cut_from_everything_and_healed() -> anyhow::Result<()> {
    Row::run(
        "the node of the operator is cut from everything and healed",
        async |row| {
            let victim = row.nodes().with_operator().await?;
            let others = row.nodes().others(&victim);
            let home = others.first().context("there is one node only")?;
            cut_and_healed(row, &victim, home, &["cut"]).await
        },
    )
    .await
}

/// The API server and the kubelet see nothing of it: the node stays ready.
#[tokio::test]
async fn a_node_is_cut_from_the_other_nodes_only_and_healed() -> anyhow::Result<()> {
    Row::run(
        "a node is cut from the other nodes only and healed",
        async |row| {
            let home = row.nodes().with_operator().await?;
            let others = row.nodes().others(&home);
            let victim = others.last().context("there is one node only")?;
            cut_and_healed(row, victim, &home, &["cut", "--from-nodes"]).await
        },
    )
    .await
}

async fn cut_and_healed(row: &Row, victim: &str, home: &str, cut: &[&str]) -> anyhow::Result<()> {
    let load = row.store_under_load(home).await?;
    // Increments on the wrong side have unknown outcomes, and may be applied once it is healed.
    let stranded = Load::apply(row.namespace(), "stranded", victim).await?;
    let stranded = stranded.begins().await?;
    row.storage_pod_on(victim).await?;
    let before = row.namespace().storage_uids().await?;

    row.nodes().happens(cut, victim).await?;
    load.goes_on(100).await?;
    if cut == ["cut"] {
        row.nodes().is_ready(victim, false).await?;
    } else {
        row.namespace()
            .condition("Store", STORE, "Degraded", "True", None, LIMIT)
            .await?;
        // It reaches one of three copies.
        stranded.stands_still().await?;
    }
    load.goes_on(100).await?;

    row.nodes().happens(&["heal"], victim).await?;
    row.nodes().is_ready(victim, true).await?;
    row.namespace().store_is_whole(3, LIMIT).await?;
    let after = row.namespace().storage_uids().await?;
    ensure!(before == after, "{before:?} became {after:?}");
    load.is_intact().await?;
    stranded.is_intact().await
}
