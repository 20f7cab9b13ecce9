//! The injection webhook, asked by the real API server: what becomes of pods.
#![allow(
    clippy::indexing_slicing,
    reason = "a missing field of a JSON value is null, it does not panic"
)]

use anyhow::{Context as _, Result, ensure};
use atomix_operator::certificates::Lifetimes;
use atomix_operator_tests::frozen::Frozen;
use atomix_operator_tests::operator_under_test::Settings;
use atomix_operator_tests::resources::{self, expect_condition};
use atomix_operator_tests::samples::{self, StoreSize};
use atomix_operator_tests::supervised::Supervised;
use atomix_operator_tests::test_bed::TestBed;
use atomix_operator_tests::wait::until;
use atomix_operator_tests::webhook::TestWebhook;
use atomix_operator_tests::workload::{self, LIMIT};
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use kube::api::DeleteParams;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_asks_gets_a_sidecar_that_connects_and_opens_its_gate() -> Result<()> {
    let bed = TestBed::create("inject").await?;
    let webhook = TestWebhook::create(&bed, Lifetimes::default()).await?;
    let operator = webhook.operator(&bed)?;
    until("the webhook to answer", LIMIT, async || {
        webhook.injects().await
    })
    .await?;

    what_is_refused_says_why(&webhook).await?;
    let mut silent = samples::asking_pod("wasp", "hive");
    silent["metadata"]["labels"]["atomix.io/inject"] = "false".into();
    let spec = webhook.try_out(silent).await?.spec.context("no spec")?;
    ensure!(
        spec.init_containers.is_none(),
        "it got {:?}",
        spec.init_containers
    );

    // Without a Session the gate stays shut, with one it opens, and its end does not shut it.
    bed.create_pod(samples::asking_pod("bee", "hive")).await?;
    let pod = bed.pods().get("bee").await?;
    let labels = pod.metadata.labels.unwrap_or_default();
    ensure!(
        labels
            .get("atomix.io/runtime")
            .is_some_and(|value| value == "true")
    );
    let injected = pod.spec.and_then(|spec| spec.init_containers);
    let injected = injected.context("no init container")?;
    let first = injected.first().map(|container| container.name.as_str());
    ensure!(first == Some("atomix-runtime"), "the first is {first:?}");
    gate(&bed, "bee", "False", "NoSession").await?;
    resources::create(&bed.stores(), samples::store_of_driver("rose", "memory")).await?;
    until("the Store to be ready", LIMIT, async || {
        expect_condition(&bed.stores().get("rose").await?, "Ready", "True")
    })
    .await?;
    resources::create(&bed.sessions(), samples::session("nectar", "rose", "hive")).await?;
    let opened = gate(&bed, "bee", "True", "Connected").await?;
    let parameters = DeleteParams::default();
    bed.sessions().delete("nectar", &parameters).await?;
    until("the Session to be gone", LIMIT, async || {
        ensure!(bed.sessions().get_opt("nectar").await?.is_none());
        Ok(())
    })
    .await?;
    // A pod that comes afterwards is looked at afterwards.
    bed.create_pod(samples::asking_pod("later", "hive")).await?;
    gate(&bed, "later", "False", "NoSession").await?;
    let kept = gate(&bed, "bee", "True", "Connected").await?;
    ensure!(
        kept == opened,
        "it was written again: {kept:?} after {opened:?}"
    );

    let writes = operator.gate().calls().into_iter();
    let writes = writes.filter(|call| call.call.to_string() == "patch pods/status bee");
    ensure!(
        writes.count() == 2,
        "the gate is written on difference only"
    );
    operator.terminate()?;
    bed.remove().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gate_opens_again_when_the_store_that_was_lost_is_wanted_no_longer() -> Result<()> {
    let bed = TestBed::create("lost").await?;
    let webhook = TestWebhook::create(&bed, Lifetimes::default()).await?;
    let mut operator = Supervised::start_with(
        &bed,
        Settings {
            webhook: Some(webhook.served()?),
            ..bed.settings()
        },
    );
    let size = StoreSize {
        replicas: 1,
        partitions: 1,
    };
    workload::bootstrap(&bed, &mut operator, "tulip", size).await?;
    webhook.injects().await?;
    bed.create_pod(samples::asking_pod("bee", "hive")).await?;
    resources::create(&bed.sessions(), samples::session("nectar", "tulip", "hive")).await?;
    gate(&bed, "bee", "True", "Connected").await?;
    Frozen::stop(&bed, "tulip-0").await?;
    let shut = gate(&bed, "bee", "False", "Disconnected").await?;
    let message = shut.message.unwrap_or_default();
    ensure!(message.contains("tulip"), "{message}");
    workload::delete_and_wait(&mut operator, &bed.sessions(), "nectar").await?;
    gate(&bed, "bee", "True", "Connected").await?;
    drop(operator);
    bed.remove().await
}

async fn what_is_refused_says_why(webhook: &TestWebhook) -> Result<()> {
    let mut on_host = samples::asking_pod("bee", "hive");
    on_host["spec"]["hostNetwork"] = true.into();
    let Err(refused) = webhook.try_out(on_host).await else {
        anyhow::bail!("a pod on the host's network was let through");
    };
    let refused = refused.to_string();
    ensure!(refused.contains("remove hostNetwork"), "{refused}");
    Ok(())
}

async fn gate(bed: &TestBed, pod: &str, status: &str, reason: &str) -> Result<PodCondition> {
    let what = format!("the gate of {pod} to be {status} {reason}");
    until(&what, LIMIT, async || {
        let found = condition(&bed.pods().get(pod).await?)?;
        let is_wanted = found.status == status && found.reason.as_deref() == Some(reason);
        ensure!(is_wanted, "{found:?}");
        Ok(found)
    })
    .await
}

fn condition(pod: &Pod) -> Result<PodCondition> {
    let conditions = pod
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    let mut conditions = conditions.filter(|condition| condition.type_ == "atomix.io/connected");
    let found = conditions.next().cloned();
    found.with_context(|| format!("no condition in {:?}", pod.status))
}
