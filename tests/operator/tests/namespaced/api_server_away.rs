//! The API server is away: an operator waits for it, ends when it cannot know any more that it holds its
//! lease, and finishes afterwards what was begun. Storage nodes and sidecars do not notice.
//!
//! It is away for the operator alone: whoever runs the pods reaches it.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use atomix_operator_tests::forwarder::Forwarder;
use atomix_operator_tests::load::Pace;
use atomix_operator_tests::operator_under_test::{OperatorUnderTest, Settings};
use atomix_operator_tests::resources::{self, expect_condition};
use atomix_operator_tests::samples::{self, StoreSize};
use atomix_operator_tests::supervised::Supervised;
use atomix_operator_tests::test_bed::TestBed;
use atomix_operator_tests::wait::until;
use atomix_operator_tests::workload::{self, LIMIT};
use atomix_operator_tests::{counter, http};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use serde_json::json;

const STORE: &str = "tulip";
const SIZE: StoreSize = StoreSize {
    replicas: 3,
    partitions: 2,
};
const SMALL: StoreSize = StoreSize {
    replicas: 1,
    partitions: 1,
};

/// So often an operator without a lease looks at it in vain: for longer than a lease lasts.
const LOOKS: usize = 30;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_that_starts_without_the_api_server_waits_for_it() -> Result<()> {
    let bed = TestBed::create("without").await?;
    let mut way = Forwarder::new(bed.server())?;
    let operator = OperatorUnderTest::start(Settings {
        server: bed.server().reached_at(way.address())?,
        ..bed.settings()
    });
    resources::create(&bed.stores(), samples::store(STORE, SMALL)).await?;
    bed.create_pod(samples::application_pod("hive-0", "hive"))
        .await?;
    resources::create(&bed.sessions(), samples::session("bees", STORE, "hive")).await?;
    until("the operator to look again and again", LIMIT, async || {
        let looks = lease_calls(&operator);
        ensure!(looks >= LOOKS, "it has looked {looks} times");
        Ok(())
    })
    .await?;
    let missed = ["cannot look at lease", "cannot read a CRD"];
    misses(&operator, &missed).await?;
    ensure!(!operator.has_ended(), "it did not wait");

    way.open().await?;
    until("the Session to be connected", LIMIT, async || {
        workload::store_is_ready(&bed, STORE).await?;
        let session = bed.sessions().get("bees").await?;
        let ready = expect_condition(&session, "Ready", "True")?;
        ensure!(ready.reason == "Connected", "{ready:?}");
        Ok(())
    })
    .await?;
    let address = bed.runner().address("hive-0").context("it does not run")?;
    ensure!(counter::increment(address, "honey", 1).await? == 1);
    operator.until_ready(LIMIT).await?;
    ensure!(!operator.has_ended(), "it did not live on");
    drop(operator);
    bed.remove().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bootstrap_outlasts_an_api_server_that_is_away_for_a_short_while() -> Result<()> {
    let bed = TestBed::create("shortly").await?;
    let mut way = Forwarder::new(bed.server())?;
    way.open().await?;
    let operator = OperatorUnderTest::start(Settings {
        server: bed.server().reached_at(way.address())?,
        // Its deadline is further away than anything here takes.
        short_lease: false,
        ..bed.settings()
    });
    resources::create(&bed.stores(), samples::store(STORE, SIZE)).await?;
    let sets: Api<StatefulSet> = Api::namespaced(bed.client().clone(), bed.namespace());
    until("the StatefulSet to be made", LIMIT, async || {
        Ok(sets.get(STORE).await?)
    })
    .await?;
    is_away_until_missed(&mut way, &operator).await?;
    let plans: Api<ConfigMap> = Api::namespaced(bed.client().clone(), bed.namespace());
    until("the plan to be stored", LIMIT, async || {
        Ok(plans.get(&format!("{STORE}-bootstrap")).await?)
    })
    .await?;
    is_away_until_missed(&mut way, &operator).await?;
    until("the Store to be ready", LIMIT, async || {
        workload::store_is_ready(&bed, STORE).await?;
        workload::groups_are_whole(&bed, STORE, SIZE).await
    })
    .await?;
    operator.until_ready(LIMIT).await?;
    ensure!(!operator.has_ended(), "another one would have gone on");
    drop(operator);
    bed.remove().await
}

/// For less than what a lease bears.
async fn is_away_until_missed(way: &mut Forwarder, operator: &OperatorUnderTest) -> Result<()> {
    let before = lease_calls(operator);
    way.close().await;
    until("the lease to be renewed in vain", LIMIT, async || {
        let attempts = lease_calls(operator) - before;
        ensure!(attempts >= 3, "there were {attempts} attempts");
        Ok(())
    })
    .await?;
    misses(operator, &["the watch of stores fails"]).await?;
    way.open().await
}

fn lease_calls(operator: &OperatorUnderTest) -> usize {
    let calls = operator.gate().calls();
    calls
        .iter()
        .filter(|call| call.call.what == "leases")
        .count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_ends_when_the_api_server_stays_away_and_the_next_one_finishes_its_work()
-> Result<()> {
    let bed = TestBed::create("away").await?;
    let mut way = Forwarder::new(bed.server())?;
    way.open().await?;
    let server = bed.server().reached_at(way.address())?;
    let settings = |disturbance| Settings {
        server: server.clone(),
        disturbance,
        ..bed.settings()
    };
    let mut operator = Supervised::start_as(settings, None);
    let lived = Box::pin(change_while_away(&bed, &mut operator, &mut way)).await;
    workload::explain(lived, &bed, &operator)?;
    drop(operator);
    bed.remove().await
}

async fn change_while_away(
    bed: &TestBed,
    operator: &mut Supervised<'_>,
    way: &mut Forwarder,
) -> Result<()> {
    let store = samples::patient_store(STORE, SIZE);
    workload::bootstrap_of(bed, operator, store, STORE, SIZE).await?;
    let load = workload::start_load(bed, operator, STORE, Pace::Calm).await?;
    let sidecar = processes(bed, "hive-0").await?;

    let red =
        json!({"spec": {"multiRaft": {"pod": {"env": [{"name": "COLOUR", "value": "red"}]}}}});
    resources::change(&bed.stores(), STORE, red).await?;
    operator
        .until("the first pod to be replaced", LIMIT, async || {
            ensure!(!deletions(bed).is_empty(), "none was");
            Ok(())
        })
        .await?;
    let ended = operator.unrenewed();
    let holder = operator.gate();
    way.close().await;
    operator
        .until("the holder to end", LIMIT, async || {
            ensure!(holder.ended().is_cancelled(), "it lives");
            Ok(())
        })
        .await?;
    ensure!(operator.unrenewed() > ended, "it ended for another reason");
    load.goes_on(20).await?;
    let replaced = deletions(bed);
    ensure!(
        replaced.len() == 1,
        "{replaced:?} is not half of the change"
    );
    ensure!(
        processes(bed, "hive-0").await? == sidecar,
        "the sidecar was disturbed"
    );

    way.open().await?;
    operator
        .until_settled("the change to be finished", LIMIT * 2, async || {
            let store = workload::store_is_ready(bed, STORE).await?;
            expect_condition(&store, "Degraded", "False")?;
            let progressing = expect_condition(&store, "Progressing", "False")?;
            ensure!(progressing.reason == "AsSpecified", "{progressing:?}");
            let updated = store.data.pointer("/status/updatedReplicas");
            ensure!(
                updated == Some(&json!(SIZE.replicas)),
                "{updated:?} are updated"
            );
            workload::groups_are_whole(bed, STORE, SIZE).await
        })
        .await?;
    let each_once = (0..SIZE.replicas).map(|ordinal| (format!("Pod/{STORE}-{ordinal}"), 1));
    ensure!(
        deletions(bed) == each_once.collect(),
        "{:?} were replaced",
        deletions(bed)
    );
    for ordinal in 0..SIZE.replicas {
        processes(bed, &format!("{STORE}-{ordinal}")).await?;
    }
    ensure!(
        processes(bed, "hive-0").await? == sidecar,
        "the sidecar was disturbed"
    );
    workload::check_load(bed, operator, load).await
}

/// How often each storage pod was deleted.
fn deletions(bed: &TestBed) -> BTreeMap<String, usize> {
    let deleted = bed.observer().counts().deleted.into_iter();
    let prefix = format!("Pod/{STORE}-");
    deleted
        .filter(|(name, _)| name.starts_with(&prefix))
        .collect()
}

/// The processes of a pod, of which none was started again.
async fn processes(bed: &TestBed, pod: &str) -> Result<Vec<Option<String>>> {
    let status = bed.pods().get(pod).await?.status.unwrap_or_default();
    let containers = [status.init_container_statuses, status.container_statuses];
    let mut processes = Vec::new();
    for container in containers.into_iter().flatten().flatten() {
        ensure!(container.restart_count == 0, "{pod}: {container:?}");
        processes.push(container.container_id);
    }
    Ok(processes)
}

/// It says so, and that it is not to be started again.
async fn misses(operator: &OperatorUnderTest, parts: &[&str]) -> Result<()> {
    until("the operator to miss the API server", LIMIT, async || {
        let (code, text) = http::get(operator.admin(), "/readyz").await?;
        let names_all = parts.iter().all(|part| text.contains(part));
        ensure!(code == 503 && names_all, "{code}: {text}");
        let (code, text) = http::get(operator.admin(), "/livez").await?;
        ensure!(code == 200, "{code}: {text}");
        Ok(())
    })
    .await
}
