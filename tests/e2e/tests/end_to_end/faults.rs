//! What fails is brought back, and nothing is lost or done twice.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use atomix_e2e::cluster::Cluster;
use atomix_e2e::manifests::{sample, session, store};
use atomix_e2e::operator::{kill_operator, operator_pod};
use atomix_e2e::processes::kill_in_pod;
use atomix_e2e::wait::{until, until_at_once};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::sync::Mutex;

const SOON: Duration = Duration::from_secs(120);
/// Tries to kill the operator between the plan and its mark.
const ATTEMPTS: usize = 8;
/// Moments of a Store's and a Session's beginning at which the operator is killed.
const RANDOM_MOMENTS: usize = 3;
/// By then, a Store of one node and its Session are usually ready.
const LATEST_MOMENT: Duration = Duration::from_millis(4000);

/// Held by a test while it kills the operator.
static OPERATOR: Mutex<()> = Mutex::const_new(());

#[tokio::test]
async fn an_operator_killed_half_way_through_a_bootstrap_finishes_it_from_the_stored_plan()
-> anyhow::Result<()> {
    let cluster = Cluster::with_chart().await?;
    let namespace = cluster.namespace("bootstrap").await?;
    let _alone = OPERATOR.lock().await;
    namespace
        .clone()
        .run(async {
            let plans: Api<ConfigMap> = Api::namespaced(cluster.client(), namespace.name());
            for attempt in 1..=ATTEMPTS {
                let name = format!("halfway-{attempt}");
                let plan_name = format!("{name}-bootstrap");
                namespace.apply(&store(&name, 3, 16)).await?;
                let plan = until_at_once("the plan is stored", SOON, async || {
                    Ok(plans.get_opt(&plan_name).await?)
                })
                .await?;
                let killed = kill_operator(&cluster).await?;
                let half_way = !is_carried_out(&plans.get(&plan_name).await?)?;

                namespace
                    .condition("Store", &name, "Ready", "True", None, SOON)
                    .await?;
                let after = plans.get(&plan_name).await?;
                ensure!(plan.uid() == after.uid(), "the plan was replaced");
                ensure!(is_carried_out(&after)?, "the plan is not marked as done");
                let store = namespace
                    .get("Store", &name)
                    .await?
                    .context("the Store is gone")?;
                ensure!(store["status"]["incarnation"] == 1, "{:#}", store["status"]);
                let again = operator_pod(&cluster).await?;
                ensure!(again.uid() != killed.uid(), "the killed operator runs on");
                if half_way {
                    return Ok(());
                }
                // The operator was faster than the kill: this run proved less.
                namespace.delete_object("Store", &name).await?;
            }
            bail!("the operator carried out {ATTEMPTS} plans before it could be killed");
        })
        .await
}

#[tokio::test]
async fn a_sidecar_that_is_killed_connects_again_and_the_application_goes_on() -> anyhow::Result<()>
{
    let cluster = Cluster::with_chart().await?;
    let namespace = cluster.namespace("sidecar").await?;
    namespace
        .clone()
        .run(async {
            namespace.apply(&store("counts", 1, 2)).await?;
            namespace
                .apply(&session("visits", "counts", "visits"))
                .await?;
            namespace.apply(&sample(&cluster, "application")?).await?;
            let before = namespace.counts_beyond("visits", 20, SOON).await?;

            let pods: Api<Pod> = Api::namespaced(cluster.client(), namespace.name());
            let victim = pods
                .list(&ListParams::default().labels("app=visits"))
                .await?
                .items
                .into_iter()
                .next()
                .context("the application has no pod")?;
            kill_in_pod(&victim, "atomix-runtime")?;
            until("the sidecar was started again", SOON, async || {
                let pod = pods.get(&victim.name_any()).await?;
                let restarted = pod
                    .status
                    .iter()
                    .flat_map(|status| status.init_container_statuses.iter().flatten())
                    .any(|container| container.restart_count > 0);
                Ok(restarted.then_some(()))
            })
            .await?;
            namespace
                .counts_beyond("visits", before.acknowledged + 100, SOON)
                .await?;
            namespace
                .condition("Session", "visits", "Ready", "True", None, SOON)
                .await?;
            namespace.nothing_lost("visits").await
        })
        .await
}

/// The crash points that tests/operator goes through one by one, a few of them on real pods. The
/// moments come from a seed, which is printed; ATOMIX_TEST_SEED repeats a run.
#[tokio::test]
async fn an_operator_killed_at_any_moment_brings_a_store_and_a_session_to_the_same_end()
-> anyhow::Result<()> {
    let seed = match std::env::var("ATOMIX_TEST_SEED") {
        Ok(seed) => seed.parse()?,
        Err(_) => rand::random(),
    };
    println!("ATOMIX_TEST_SEED={seed}");
    let mut moments = StdRng::seed_from_u64(seed);
    let cluster = Cluster::with_chart().await?;
    let namespace = cluster.namespace("moments").await?;
    let _alone = OPERATOR.lock().await;
    namespace
        .clone()
        .run(async {
            namespace.apply(&sample(&cluster, "application")?).await?;
            for round in 1..=RANDOM_MOMENTS {
                let name = format!("round-{round}");
                let moment = LATEST_MOMENT.mul_f64(moments.random::<f64>());
                println!("{name}: the operator is killed {moment:?} after apply");
                namespace.apply(&store(&name, 1, 2)).await?;
                namespace.apply(&session("visits", &name, "visits")).await?;
                tokio::time::sleep(moment).await;
                kill_operator(&cluster).await?;

                namespace
                    .condition("Store", &name, "Ready", "True", None, SOON)
                    .await?;
                namespace
                    .condition("Session", "visits", "Ready", "True", None, SOON)
                    .await?;
                let found = namespace
                    .get("Store", &name)
                    .await?
                    .context("the Store is gone")?;
                ensure!(found["status"]["incarnation"] == 1, "{:#}", found["status"]);
                let session = namespace
                    .get("Session", "visits")
                    .await?
                    .context("the Session is gone")?;
                ensure!(
                    session["status"]["pods"]["connected"] == 2,
                    "{:#}",
                    session["status"]
                );
                namespace.delete_object("Session", "visits").await?;
                until("the Session is gone", SOON, async || {
                    let session = namespace.get("Session", "visits").await?;
                    Ok(session.is_none().then_some(()))
                })
                .await?;
            }
            Ok(())
        })
        .await
}

/// Whether every partition of a stored plan was seen with a committed entry.
fn is_carried_out(plan: &ConfigMap) -> anyhow::Result<bool> {
    let mark = plan
        .data
        .as_ref()
        .and_then(|data| data.get("bootstrapped"))
        .context("the plan has no mark")?;
    Ok(mark == "true")
}
