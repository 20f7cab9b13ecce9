//! A Session connects the selected pods and disconnects them again, wherever the operator crashes.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result, ensure};
use atomix_operator::identities::Lifetimes;
use atomix_operator_tests::fault::Disturbance;
use atomix_operator_tests::matrix::{Outcome, crash_at_every_call, disturb_sampled_calls};
use atomix_operator_tests::resources::{self, expect_condition};
use atomix_operator_tests::samples::{self, StoreSize};
use atomix_operator_tests::supervised::Supervised;
use atomix_operator_tests::test_bed::TestBed;
use atomix_operator_tests::{counter, runtime_pods, workload};
use atomix_proto::digest::routes_digest;
use atomix_proto::runtime::v1::connection::State;
use serde_json::{Value, json};

const SIZE: StoreSize = StoreSize {
    replicas: 1,
    partitions: 2,
};
const STORE: &str = "tulip";
const SESSION: &str = "bees";
const PODS: [&str; 2] = ["hive-0", "hive-1"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn session_connect_and_disconnect_survive_a_crash_at_every_call() -> Result<()> {
    crash_at_every_call(
        "session_connect_and_disconnect_survive_a_crash_at_every_call",
        run,
    )
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn session_connect_by_mutual_tls_survives_crash_and_trouble() -> Result<()> {
    disturb_sampled_calls(
        "session_connect_by_mutual_tls_survives_crash_and_trouble",
        run_secured,
    )
    .await
}

async fn run(disturbance: Option<Disturbance>) -> Result<Outcome> {
    // Disturbed from when the Store is there.
    workload::run("session", None, async |bed, operator| {
        live(bed, operator, disturbance, samples::application_pod).await
    })
    .await
}

async fn run_secured(disturbance: Option<Disturbance>) -> Result<Outcome> {
    let bed = TestBed::create_secured("secured", Lifetimes::default()).await?;
    workload::run_in(bed, None, async |bed, operator| {
        live(bed, operator, disturbance, samples::secured_pod).await
    })
    .await
}

async fn live(
    bed: &TestBed,
    operator: &mut Supervised<'_>,
    disturbance: Option<Disturbance>,
    pod_of: fn(&str, &str) -> Value,
) -> Result<()> {
    workload::bootstrap(bed, operator, STORE, SIZE).await?;
    operator.arm(disturbance)?;

    for pod in PODS {
        bed.create_pod(pod_of(pod, "hive")).await?;
    }
    resources::create(&bed.sessions(), samples::session(SESSION, STORE, "hive")).await?;
    operator
        .until_settled("the Session to be connected", workload::LIMIT, async || {
            let session = bed.sessions().get(SESSION).await?;
            expect_condition(&session, "Ready", "True")?;
            let connected = session.data.pointer("/status/pods/connected");
            ensure!(
                connected.and_then(serde_json::Value::as_u64) == Some(2),
                "the Session has {connected:?} connected pods"
            );
            let state = session.data.pointer("/status/state");
            ensure!(
                state.and_then(serde_json::Value::as_str) == Some("OPENED"),
                "the Session is {state:?}"
            );
            for pod in PODS {
                expect_connected(address(bed, pod)?).await?;
            }
            Ok(())
        })
        .await?;

    // Both pods reach the same data.
    let [first, second] = PODS;
    counter::increment(address(bed, first)?, "honey", 5).await?;
    let seen = counter::increment(address(bed, second)?, "honey", 2).await?;
    ensure!(seen == 7, "the second pod counts to {seen}");

    workload::delete_and_wait(operator, &bed.sessions(), SESSION).await?;
    for pod in PODS {
        let status = runtime_pods::status(address(bed, pod)?).await?;
        ensure!(
            status.connections.is_empty(),
            "{pod} is still connected: {status:?}"
        );
        ensure!(
            status.routes_digest == routes_digest(&[]),
            "{pod} still has routes: {status:?}"
        );
    }
    operator
        .until_settled("the Store to be unused", workload::LIMIT, async || {
            let store = bed.stores().get(STORE).await?;
            let in_use = store.data.pointer("/status/inUse");
            ensure!(in_use == Some(&json!(false)), "inUse is {in_use:?}");
            Ok(())
        })
        .await
}

fn address(bed: &TestBed, pod: &str) -> Result<Ipv4Addr> {
    bed.runner()
        .address(pod)
        .with_context(|| format!("the pod {pod} does not run"))
}

async fn expect_connected(pod: Ipv4Addr) -> Result<()> {
    let status = runtime_pods::status(pod).await?;
    let [connection] = status.connections.as_slice() else {
        anyhow::bail!("the runtime has other connections than one: {status:?}");
    };
    ensure!(
        connection.state() == State::Connected,
        "the runtime is not connected: {connection:?}"
    );
    let store = connection
        .store_id
        .as_ref()
        .map(|store| store.name.as_str());
    ensure!(
        store == Some(STORE),
        "the runtime is connected with {store:?}"
    );
    ensure!(
        status.routes_digest != routes_digest(&[]),
        "the runtime has no routes"
    );
    Ok(())
}
