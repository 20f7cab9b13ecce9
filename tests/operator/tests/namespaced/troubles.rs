//! Calls that fail once, watches that end in the middle and views of the past change nothing about
//! where an operator ends.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use atomix_operator_tests::end_state::end_state;
use atomix_operator_tests::fault::{ASKED_TO_WAIT, Disturbance, Faults, Recorded, Trouble};
use atomix_operator_tests::matrix::{Outcome, trouble_at_every_call};
use atomix_operator_tests::resources::{self, expect_condition};
use atomix_operator_tests::runtime_pods;
use atomix_operator_tests::samples::{self, StoreSize};
use atomix_operator_tests::supervised::Supervised;
use atomix_operator_tests::test_bed::TestBed;
use atomix_operator_tests::wait::until;
use atomix_operator_tests::workload::{self, LIMIT};
use kube::api::ListParams;
use tokio::time::Instant;

const SIZE: StoreSize = StoreSize {
    replicas: 1,
    partitions: 2,
};
const STORE: &str = "tulip";
const SESSION: &str = "bees";
const PODS: [&str; 2] = ["hive-0", "hive-1"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_may_fail_once() -> Result<()> {
    trouble_at_every_call("every_call_may_fail_once", run).await
}

async fn run(disturbance: Option<Disturbance>) -> Result<Outcome> {
    workload::run("trouble", disturbance, async |bed, operator| {
        workload::bootstrap(bed, operator, STORE, SIZE).await?;
        connect(bed, operator).await?;
        workload::delete_and_wait(operator, &bed.sessions(), SESSION).await
    })
    .await
}

async fn connect(bed: &TestBed, operator: &mut Supervised<'_>) -> Result<()> {
    for pod in PODS {
        bed.create_pod(samples::application_pod(pod, "hive"))
            .await?;
    }
    resources::create(&bed.sessions(), samples::session(SESSION, STORE, "hive")).await?;
    operator
        .until_settled("the Session to be connected", LIMIT, async || {
            let session = bed.sessions().get(SESSION).await?;
            expect_condition(&session, "Ready", "True")?;
            let connected = session.data.pointer("/status/pods/connected");
            let connected = connected.and_then(serde_json::Value::as_u64);
            ensure!(connected == Some(2), "{connected:?} pods are connected");
            Ok(())
        })
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_overloaded_api_server_is_left_alone_for_as_long_as_it_asks() -> Result<()> {
    let bed = TestBed::create("overload").await?;
    let operator = bed.operator(None);
    let serve = async |store: &str| {
        resources::create(&bed.stores(), samples::store_of_driver(store, "memory")).await?;
        until("the Store to be ready", LIMIT, async || {
            expect_condition(&bed.stores().get(store).await?, "Ready", "True")?;
            Ok(())
        })
        .await
    };
    // The watches are open, and the lease is held.
    serve("rose").await?;
    let faults = Faults {
        trouble: Trouble::Overload,
        share: 0,
        of: 1,
    };
    operator.gate().arm(Some(faults.into()));
    serve(STORE).await?;

    // Of the first call only: what a later one comes after may change the Store, and so be looked at
    // at once.
    let calls = operator.gate().calls();
    let is_of_store = |call: &Recorded| call.call.name == STORE && call.call.verb.is_mutating();
    let first = calls.iter().find(|call| is_of_store(call));
    let first = first.context("the operator wrote nothing")?;
    let mut attempts = calls.iter().filter(|call| call.call == first.call);
    let attempts = (attempts.next(), attempts.next());
    let (Some(refused), Some(again)) = attempts else {
        anyhow::bail!("{} was not refused once", first.name());
    };
    let waited = again.at - refused.at;
    ensure!(
        waited >= ASKED_TO_WAIT,
        "{} was tried again after {waited:?}",
        first.name()
    );
    drop(operator);
    bed.remove().await
}

/// For how long an operator that starts with an old view hears nothing newer.
const HOLD: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_that_starts_with_an_old_view_does_no_harm() -> Result<()> {
    let bed = TestBed::create("past").await?;
    let versions = live(&bed).await?;
    let expected = end_state(bed.client(), bed.namespace()).await?;
    let counts = bed.observer().counts();
    for version in versions {
        let trouble = Trouble::Past {
            version: version.clone(),
            hold: HOLD,
        };
        let mut settings = bed.settings();
        let faults = Faults {
            trouble,
            share: 0,
            of: 1,
        };
        settings.disturbance = Some(faults.into());
        let mut operator = Supervised::start_with(&bed, settings);
        let started = Instant::now();
        operator
            .until_settled("the old view to be over", LIMIT, async || {
                ensure!(started.elapsed() > HOLD, "nothing newer is heard yet");
                expect_disconnected(&bed).await
            })
            .await
            .with_context(|| format!("with the view of {version}"))?;
    }
    let found = end_state(bed.client(), bed.namespace()).await?;
    ensure!(found == expected, "{found:#?}\n instead of\n{expected:#?}");
    ensure!(
        bed.observer().counts() == counts,
        "something was made or deleted"
    );
    bed.remove().await
}

/// Lets a Store begin and a Session come and go; the versions at which a later operator may believe
/// that it is.
async fn live(bed: &TestBed) -> Result<Vec<String>> {
    let mut operator = Supervised::start(bed, None);
    resources::create(&bed.stores(), samples::store(STORE, SIZE)).await?;
    let mut versions = vec![version(bed).await?];
    operator
        .until_settled("the Store to be ready", LIMIT, async || {
            workload::store_is_ready(bed, STORE).await
        })
        .await?;
    versions.push(version(bed).await?);
    connect(bed, &mut operator).await?;
    versions.push(version(bed).await?);
    workload::delete_and_wait(&mut operator, &bed.sessions(), SESSION).await?;
    expect_disconnected(bed).await?;
    Ok(versions)
}

async fn version(bed: &TestBed) -> Result<String> {
    let stores = bed.stores().list(&ListParams::default()).await?;
    stores
        .metadata
        .resource_version
        .context("a list without version")
}

async fn expect_disconnected(bed: &TestBed) -> Result<()> {
    for pod in PODS {
        let address = bed.runner().address(pod).context("the pod does not run")?;
        let status = runtime_pods::status(address).await?;
        ensure!(
            status.connections.is_empty(),
            "{pod} is connected: {status:?}"
        );
    }
    Ok(())
}
