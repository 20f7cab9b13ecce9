//! People take nodes out of service: cordon and drain. Volumes stay on their node, so a storage pod
//! that was evicted waits for its node, and the budget lets no second one go meanwhile.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use atomix_e2e::rows::{LIMIT, Row};
use atomix_e2e::wait::until;
use serde_json::json;

/// How long a drain that a budget forbids is tried for.
const FORBIDDEN: Duration = Duration::from_secs(25);

#[tokio::test]
async fn a_node_is_drained_and_comes_back() -> anyhow::Result<()> {
    Row::run("a node is drained and comes back", async |row| {
        let victim = row.nodes().with_operator().await?;
        let others = row.nodes().others(&victim);
        let home = others.first().context("there is one node only")?;
        let load = row.store_under_load(home).await?;
        let pod = row.storage_pod_on(&victim).await?;

        row.nodes().drain(&victim, LIMIT).await?;
        waits_for_its_node(row, &pod).await?;
        ensure!(
            row.nodes().with_operator().await? != victim,
            "the operator stayed on a drained node"
        );
        load.goes_on(100).await?;

        row.nodes().kubectl(&["uncordon", &victim]).await?;
        row.namespace().store_is_whole(3, LIMIT).await?;
        load.is_intact().await
    })
    .await
}

#[tokio::test]
async fn of_two_nodes_drained_in_a_row_the_second_waits_for_the_first() -> anyhow::Result<()> {
    Row::run(
        "of two nodes drained in a row the second waits for the first",
        async |row| {
            let home = row.nodes().with_operator().await?;
            let others = row.nodes().others(&home);
            let [first, second] = others.as_slice() else {
                anyhow::bail!("this row needs three nodes");
            };
            let load = row.store_under_load(&home).await?;
            let (one, two) = (
                row.storage_pod_on(first).await?,
                row.storage_pod_on(second).await?,
            );

            row.nodes().drain(first, LIMIT).await?;
            waits_for_its_node(row, &one).await?;
            let before = row.namespace().storage_uids().await?;
            let refusal = row.nodes().drain(second, FORBIDDEN).await;
            let refusal = refusal.err().context("two of three copies were evicted")?;
            ensure!(
                format!("{refusal:#}").contains("disruption budget"),
                "{refusal:#}"
            );
            let after = row.namespace().storage_uids().await?;
            ensure!(
                before.get(&two) == after.get(&two),
                "{two} was evicted: {before:?} became {after:?}"
            );
            load.goes_on(100).await?;

            // Once the first copy is whole, the second drain is let through.
            row.nodes().kubectl(&["uncordon", first]).await?;
            row.nodes().drain(second, LIMIT).await?;
            waits_for_its_node(row, &two).await?;
            load.goes_on(100).await?;
            row.nodes().kubectl(&["uncordon", second]).await?;
            row.namespace().store_is_whole(3, LIMIT).await?;
            load.is_intact().await
        },
    )
    .await
}

#[tokio::test]
async fn a_rolling_change_waits_at_a_cordoned_node() -> anyhow::Result<()> {
    Row::run("a rolling change waits at a cordoned node", async |row| {
        let home = row.nodes().with_operator().await?;
        let others = row.nodes().others(&home);
        let closed = others.first().context("there is one node only")?;
        let load = row.store_under_load(&home).await?;
        let pod = row.storage_pod_on(closed).await?;

        row.nodes().kubectl(&["cordon", closed]).await?;
        load.goes_on(50).await?;
        // What runs there stays until it is replaced.
        let before = row.namespace().storage_uids().await?;
        let change = json!({"pod": {"resources": {"requests": {"cpu": "11m"}}}});
        row.namespace().change_store(&change).await?;
        let roll = row.namespace().storage_pods_are_replaced(&before, LIMIT);
        let reopen = async {
            waits_for_its_node(row, &pod).await?;
            load.goes_on(100).await?;
            row.nodes().kubectl(&["uncordon", closed]).await?;
            anyhow::Ok(())
        };
        // The whole time at most one pod is away.
        tokio::try_join!(roll, reopen)?;
        row.namespace().store_is_whole(3, LIMIT).await?;
        load.is_intact().await
    })
    .await
}

/// The pod cannot run anywhere but where its volume is.
async fn waits_for_its_node(row: &Row, name: &str) -> anyhow::Result<()> {
    let what = format!("{name} waits for its node");
    until(&what, LIMIT, async || {
        let pods = row.namespace().storage_pods().await?;
        let is_waiting = pods
            .iter()
            .filter(|pod| pod.metadata.name.as_deref() == Some(name))
            .filter(|pod| pod.metadata.deletion_timestamp.is_none())
            .flat_map(|pod| pod.status.iter().flat_map(|status| &status.conditions))
            .flatten()
            .any(|seen| {
                let is_unschedulable = seen.reason.as_deref() == Some("Unschedulable");
                seen.type_ == "PodScheduled" && is_unschedulable
            });
        Ok(is_waiting.then_some(()))
    })
    .await
}
