//! A namespace is deleted with everything in it, at each of several steps. It must go, and a Store in
//! another namespace must not notice.

use anyhow::Context as _;
use atomix_e2e::cluster::Namespace;
use atomix_e2e::load::Load;
use atomix_e2e::rows::{LIMIT, Row, spread_store};
use atomix_e2e::stores::STORE;
use atomix_e2e::wait::until_at_once;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use serde_json::json;

/// Where a Store is when its namespace is deleted.
#[derive(Debug, Clone, Copy)]
enum Step {
    JustApplied,
    PlanStored,
    UnderLoad,
    Growing,
    Rolling,
    NodeLost,
    Deleted,
}

const STEPS: [Step; 7] = [
    Step::JustApplied,
    Step::PlanStored,
    Step::UnderLoad,
    Step::Growing,
    Step::Rolling,
    Step::NodeLost,
    Step::Deleted,
];

#[tokio::test]
async fn a_namespace_is_deleted_at_each_step() -> anyhow::Result<()> {
    Row::run(
        "a namespace is deleted at each of seven steps",
        async |row| {
            let home = row.nodes().with_operator().await?;
            let neighbour = row.store_under_load(&home).await?;
            for step in STEPS {
                println!("a namespace is deleted: {step:?}");
                let goes = row.cluster().namespace("goes").await?;
                let reached = reach(row, &goes, &home, step).await;
                // A node that is away is needed for the end of its pods.
                let deleted = goes.begin_deletion().await;
                row.nodes().restore().await?;
                let gone = goes.is_gone(LIMIT).await;
                reached
                    .and(deleted)
                    .and(gone)
                    .with_context(|| format!("at {step:?}"))?;
                neighbour.goes_on(50).await?;
            }
            row.namespace().store_is_whole(3, LIMIT).await?;
            neighbour.is_intact().await
        },
    )
    .await
}

async fn reach(row: &Row, goes: &Namespace, home: &str, step: Step) -> anyhow::Result<()> {
    goes.apply(&spread_store(row.cluster())?).await?;
    let load = Load::apply(goes, "visits", home).await?;
    match step {
        Step::JustApplied => return Ok(()),
        Step::PlanStored => {
            let plans: Api<ConfigMap> = Api::namespaced(row.cluster().client(), goes.name());
            let plan = format!("{STORE}-bootstrap");
            until_at_once("the plan is stored", LIMIT, async || {
                Ok(plans.get_opt(&plan).await?.map(|_| ()))
            })
            .await?;
            return Ok(());
        }
        Step::UnderLoad | Step::Growing | Step::Rolling | Step::NodeLost | Step::Deleted => {}
    }
    goes.store_is_whole(3, LIMIT).await?;
    let _load = load.begins().await?;
    match step {
        Step::JustApplied | Step::PlanStored | Step::UnderLoad => Ok(()),
        Step::Growing => {
            goes.scale_store(5).await?;
            until_at_once("it grows", LIMIT, async || {
                Ok((goes.storage_pods().await?.len() > 3).then_some(()))
            })
            .await
        }
        Step::Rolling => {
            let before = goes.storage_uids().await?;
            let change = json!({"pod": {"resources": {"requests": {"cpu": "11m"}}}});
            goes.change_store(&change).await?;
            until_at_once("a pod is replaced", LIMIT, async || {
                Ok((goes.storage_uids().await? != before).then_some(()))
            })
            .await
        }
        Step::NodeLost => {
            let others = row.nodes().others(home);
            let victim = others.first().context("there is one node only")?;
            row.nodes().happens(&["stop"], victim).await
        }
        Step::Deleted => {
            goes.delete_object("Store", STORE).await?;
            goes.condition("Store", STORE, "Stalled", "True", Some("InUse"), LIMIT)
                .await?;
            Ok(())
        }
    }
}
