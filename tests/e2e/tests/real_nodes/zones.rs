//! Machines lie in zones, of which any may go as a whole.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, ensure};
use atomix_e2e::load::Load;
use atomix_e2e::manifests::edited;
use atomix_e2e::nodes::ZONE_LABEL;
use atomix_e2e::rows::{LIMIT, Row, spread_store};
use atomix_e2e::stores::STORE;
use kube::ResourceExt as _;

const ZONES: [&str; 3] = ["a", "b", "c"];

#[tokio::test]
async fn a_zone_with_several_storage_nodes_is_lost_and_comes_back() -> anyhow::Result<()> {
    Row::run("a zone with two storage nodes is lost", async |row| {
        let (namespace, nodes) = (row.namespace(), row.nodes());
        let home = nodes.with_operator().await?;
        for (node, zone) in nodes.all().iter().zip(ZONES) {
            nodes.lies_in(node, zone).await?;
        }
        let store = edited(&spread_store(row.cluster())?, |store| {
            store["spec"]["multiRaft"]["replicas"] = 5.into();
        })?;
        namespace.apply(&store).await?;
        let load = Load::apply(namespace, "visits", &home).await?;
        namespace.store_is_whole(5, LIMIT).await?;
        let load = load.begins().await?;

        let zone_of = zones_of_pods(row).await?;
        let shown = namespace.kubectl_atomix(&["status", STORE])?;
        let partitions = members(&shown);
        ensure!(partitions.len() == 4, "{shown}");
        for pods in partitions {
            let zones: BTreeSet<_> = pods.iter().map(|pod| zone_of.get(pod)).collect();
            ensure!(
                pods.len() == 3 && zones.len() == 3,
                "{pods:?} of {zone_of:?}"
            );
        }

        let crowded = nodes.others(&home).into_iter().rev();
        let mut crowded =
            crowded.filter(|node| zone_of.values().filter(|at| at.1 == *node).count() == 2);
        let victim = crowded.next().context("no machine has two storage nodes")?;
        nodes.happens(&["stop"], &victim).await?;
        nodes.is_ready(&victim, false).await?;
        load.goes_on(100).await?;
        let ready = namespace.get("Store", STORE).await?;
        let ready = ready.context("the Store is gone")?["status"]["partitions"]["ready"].clone();
        ensure!(ready == 4, "{ready} partitions are ready");
        nodes.happens(&["start"], &victim).await?;
        nodes.is_ready(&victim, true).await?;
        namespace.store_is_whole(5, LIMIT).await?;
        load.is_intact().await
    })
    .await
}

/// The zone and the machine of each storage pod, as the API server has told the pod.
async fn zones_of_pods(row: &Row) -> anyhow::Result<BTreeMap<String, (String, String)>> {
    let mut zones = BTreeMap::new();
    for pod in row.namespace().storage_pods().await? {
        let zone = pod.labels().get(ZONE_LABEL).cloned();
        let zone = zone.context("the API server has not told the pod its zone")?;
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
        let node = node.context("it runs on no machine")?;
        let place = row.nodes().all().iter().position(|name| *name == node);
        ensure!(place.and_then(|place| ZONES.get(place)) == Some(&zone.as_str()));
        zones.insert(pod.name_any(), (zone, node));
    }
    Ok(zones)
}

/// The pods of each partition, as `PARTITION LEADER TERM MEMBERS` shows them.
fn members(shown: &str) -> Vec<BTreeSet<String>> {
    let lines = shown.lines().map(str::split_whitespace);
    let rows = lines.filter_map(|mut words| {
        words.next()?.parse::<u32>().ok()?;
        Some(words.skip(2).map(ToOwned::to_owned).collect())
    });
    rows.collect()
}
