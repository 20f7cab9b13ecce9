//! The operator is killed with SIGKILL in each phase of a Store's life, at steps that show from
//! outside; tests/operator does it at every single call, without kubelets.

use anyhow::{Context as _, ensure};
use atomix_e2e::cluster::Namespace;
use atomix_e2e::load::Load;
use atomix_e2e::operator::kill_operator;
use atomix_e2e::rows::{LIMIT, Row, spread_store};
use atomix_e2e::stores::STORE;
use atomix_e2e::wait::{until, until_at_once};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, ResourceExt as _};
use serde_json::json;

#[tokio::test]
async fn the_operator_is_killed_when_the_nodes_are_made() -> anyhow::Result<()> {
    Row::run("operator killed: bootstrap, nodes made", async |row| {
        bootstrap(row, async |row| {
            let sets: Api<StatefulSet> = api(row.namespace());
            Ok(sets.get_opt(STORE).await?.map(|_| ()))
        })
        .await
    })
    .await
}

#[tokio::test]
async fn the_operator_is_killed_when_the_plan_is_stored() -> anyhow::Result<()> {
    Row::run("operator killed: bootstrap, plan stored", async |row| {
        bootstrap(row, async |row| {
            Ok(row_plan(row.namespace()).await?.map(|_| ()))
        })
        .await
    })
    .await
}

#[tokio::test]
async fn the_operator_is_killed_when_the_plan_is_carried_out() -> anyhow::Result<()> {
    Row::run(
        "operator killed: bootstrap, plan carried out",
        async |row| {
            bootstrap(row, async |row| {
                let plan = row_plan(row.namespace()).await?;
                let mark = plan.and_then(|plan| plan.data?.remove("bootstrapped"));
                Ok((mark.as_deref() == Some("true")).then_some(()))
            })
            .await
        },
    )
    .await
}

async fn bootstrap(
    row: &Row,
    step: impl AsyncFn(&Row) -> anyhow::Result<Option<()>>,
) -> anyhow::Result<()> {
    let namespace = row.namespace();
    let home = row.nodes().with_operator().await?;
    namespace.apply(&spread_store(row.cluster())?).await?;
    let load = Load::apply(namespace, "visits", &home).await;
    until_at_once("the step is reached", LIMIT, async || step(row).await).await?;
    kill_operator(row.cluster()).await?;
    let load = load?.begins().await?;
    namespace.store_is_whole(3, LIMIT).await?;
    let store = namespace.get("Store", STORE).await?;
    let store = store.context("the Store is gone")?;
    ensure!(store["status"]["incarnation"] == 1, "{:#}", store["status"]);
    load.is_intact().await
}

#[tokio::test]
async fn the_operator_is_killed_while_a_store_grows_and_shrinks() -> anyhow::Result<()> {
    Row::run("operator killed: scaling 3 to 5 to 3", async |row| {
        let namespace = row.namespace();
        let home = row.nodes().with_operator().await?;
        let load = row.store_under_load(&home).await?;

        namespace.scale_store(5).await?;
        pods_are(namespace, |pods| pods > 3).await?;
        kill_operator(row.cluster()).await?;
        members_lie_on(namespace, "counts-3").await?;
        kill_operator(row.cluster()).await?;
        namespace.store_is_whole(5, LIMIT).await?;
        load.goes_on(50).await?;

        namespace.scale_store(3).await?;
        kill_operator(row.cluster()).await?;
        pods_are(namespace, |pods| pods < 5).await?;
        kill_operator(row.cluster()).await?;
        namespace.store_is_whole(3, LIMIT).await?;
        load.is_intact().await
    })
    .await
}

#[tokio::test]
async fn the_operator_is_killed_while_the_number_of_copies_changes() -> anyhow::Result<()> {
    Row::run("operator killed: copies 3 to 1 to 3", async |row| {
        let namespace = row.namespace();
        let home = row.nodes().with_operator().await?;
        let load = row.store_under_load(&home).await?;

        for copies in [1, 3] {
            let change = json!({"replicationFactor": copies});
            namespace.change_store(&change).await?;
            kill_operator(row.cluster()).await?;
            until_at_once("the change is begun", LIMIT, async || {
                let store = namespace.get("Store", STORE).await?;
                let store = store.context("the Store is gone")?;
                let is_seen =
                    store["status"]["observedGeneration"] == store["metadata"]["generation"];
                Ok(is_seen.then_some(()))
            })
            .await?;
            kill_operator(row.cluster()).await?;
            namespace.store_is_whole(3, LIMIT).await?;
            load.goes_on(50).await?;
        }
        load.is_intact().await
    })
    .await
}

#[tokio::test]
async fn the_operator_is_killed_at_each_pod_of_a_rolling_change() -> anyhow::Result<()> {
    Row::run("operator killed: rolling change", async |row| {
        let namespace = row.namespace();
        let home = row.nodes().with_operator().await?;
        let load = row.store_under_load(&home).await?;
        let before = namespace.storage_uids().await?;
        let change = json!({"pod": {"resources": {"requests": {"cpu": "11m"}}}});
        namespace.change_store(&change).await?;
        let kills = async {
            for replaced in 1..=before.len() {
                let what = format!("{replaced} pods are replaced");
                until_at_once(&what, LIMIT, async || {
                    let now = namespace.storage_uids().await?;
                    let kept = before
                        .iter()
                        .filter(|(pod, uid)| now.get(*pod) == Some(*uid));
                    Ok((before.len() - kept.count() >= replaced).then_some(()))
                })
                .await?;
                kill_operator(row.cluster()).await?;
            }
            anyhow::Ok(())
        };
        let roll = namespace.storage_pods_are_replaced(&before, 2 * LIMIT);
        tokio::try_join!(kills, roll)?;
        namespace.store_is_whole(3, LIMIT).await?;
        load.is_intact().await
    })
    .await
}

#[tokio::test]
async fn the_operator_is_killed_while_a_lost_disk_is_replaced() -> anyhow::Result<()> {
    Row::run("operator killed: replacement of a lost disk", async |row| {
        let namespace = row.namespace();
        let home = row.nodes().with_operator().await?;
        let load = row.store_under_load(&home).await?;
        let old = namespace.disk_of("counts-1").await?;

        namespace.kubectl_atomix(&["store", "replace-node", STORE, "counts-1", "--yes"])?;
        kill_operator(row.cluster()).await?;
        namespace.another_disk("counts-1", old).await?;
        kill_operator(row.cluster()).await?;
        until("the node with the new disk runs", LIMIT, async || {
            let pods = namespace.storage_pods().await?;
            let runs = pods.iter().any(|pod| {
                let phase = pod
                    .status
                    .as_ref()
                    .and_then(|status| status.phase.as_deref());
                pod.name_any() == "counts-1" && phase == Some("Running")
            });
            Ok(runs.then_some(()))
        })
        .await?;
        kill_operator(row.cluster()).await?;
        namespace.store_is_whole(3, LIMIT).await?;
        load.is_intact().await
    })
    .await
}

#[tokio::test]
async fn the_operator_is_killed_while_a_lost_majority_is_recovered() -> anyhow::Result<()> {
    Row::run(
        "operator killed: recovery of a lost majority",
        async |row| {
            let namespace = row.namespace();
            let home = row.nodes().with_operator().await?;
            let load = row.store_under_load(&home).await?;
            namespace.done(&["counter", "set", "by-hand", "42"]).await?;
            // Copies are milliseconds behind.
            load.goes_on(50).await?;

            namespace.lose_majority().await?;
            kill_operator(row.cluster()).await?;
            let store = namespace.get("Store", STORE).await?;
            let store = store.context("the Store is gone")?;
            let partitions = store["spec"]["multiRaft"]["partitions"].as_u64();
            for partition in 1..=partitions.context("it has partitions")? {
                recover_beside_a_kill(row, partition).await?;
            }
            namespace.store_is_whole(3, LIMIT).await?;
            // Not `is_intact`: what only the two lost copies had is given up.
            load.goes_on(50).await?;
            let value = namespace.done(&["counter", "get", "by-hand"]).await?;
            ensure!(value.trim() == "42", "the counter shows {value}");
            Ok(())
        },
    )
    .await
}

/// Recovers a partition by the command line, and kills the operator when that has asked it.
async fn recover_beside_a_kill(row: &Row, partition: u64) -> anyhow::Result<()> {
    let namespace = row.namespace().clone();
    let partition = partition.to_string();
    let recover = move |namespace: &Namespace| {
        let command = ["store", "recover", STORE, "--yes", "--partition"];
        namespace.kubectl_atomix(&[command.as_slice(), &[partition.as_str()]].concat())
    };
    let first = tokio::task::spawn_blocking({
        let (namespace, recover) = (namespace.clone(), recover.clone());
        move || recover(&namespace)
    });
    until_at_once("the recovery is asked for, or over", LIMIT, async || {
        let store = namespace.get("Store", STORE).await?;
        let annotations =
            store.context("the Store is gone")?["metadata"]["annotations"].to_string();
        let is_asked_for = annotations.contains("recover.atomix.io");
        Ok((is_asked_for || first.is_finished()).then_some(()))
    })
    .await?;
    kill_operator(row.cluster()).await?;
    // Whether it was told of the end or not, it may be run again.
    let _told = first.await?;
    until(
        "the partition is recovered",
        LIMIT,
        async || match recover(&namespace) {
            Err(error) if error.to_string().contains("has a leader") => Ok(Some(())),
            said => Ok(Some(said.map(|_| ())?)),
        },
    )
    .await
}

#[tokio::test]
async fn the_operator_is_killed_while_a_store_and_its_session_go() -> anyhow::Result<()> {
    Row::run("operator killed: deletion", async |row| {
        let namespace = row.namespace();
        let home = row.nodes().with_operator().await?;
        let load = row.store_under_load(&home).await?;

        namespace.delete_object("Store", STORE).await?;
        kill_operator(row.cluster()).await?;
        namespace.delete_object("Session", "visits").await?;
        kill_operator(row.cluster()).await?;
        until("Store and Session are gone", LIMIT, async || {
            let store = namespace.get("Store", STORE).await?;
            let session = namespace.get("Session", "visits").await?;
            Ok((store.is_none() && session.is_none()).then_some(()))
        })
        .await?;
        kill_operator(row.cluster()).await?;

        // Its disks are left, so it goes on where it was.
        namespace.apply(&spread_store(row.cluster())?).await?;
        load.connect_again().await?;
        namespace.store_is_whole(3, LIMIT).await?;
        load.is_intact().await
    })
    .await
}

async fn pods_are(namespace: &Namespace, enough: impl Fn(usize) -> bool) -> anyhow::Result<()> {
    until_at_once("the number of pods changes", LIMIT, async || {
        Ok(enough(namespace.storage_pods().await?.len()).then_some(()))
    })
    .await
}

/// Waits until the first members have moved to this node.
async fn members_lie_on(namespace: &Namespace, node: &str) -> anyhow::Result<()> {
    let what = format!("members lie on {node}");
    until(&what, LIMIT, async || {
        let shown = namespace.kubectl_atomix(&["status", STORE])?;
        // Once in the list of nodes, then with each partition.
        Ok((shown.matches(node).count() > 1).then_some(()))
    })
    .await
}

async fn row_plan(namespace: &Namespace) -> anyhow::Result<Option<ConfigMap>> {
    let plans: Api<ConfigMap> = api(namespace);
    Ok(plans.get_opt(&format!("{STORE}-bootstrap")).await?)
}

fn api<K>(namespace: &Namespace) -> Api<K>
where
    K: kube::Resource<Scope = kube::core::NamespaceResourceScope>,
    <K as kube::Resource>::DynamicType: Default,
{
    Api::namespaced(namespace.cluster().client(), namespace.name())
}
