//! When nothing changes, the operator renews its lease and does nothing else, also when the API
//! server ends every watch.
//!
//! Lasts 600 s, in which each watch ends by the operator's own request; with
//! `ATOMIX_REST_SECONDS=60` it lasts that long, and watches are asked to end after a third of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use atomix_operator::certificates::Lifetimes;
use atomix_operator::identities;
use atomix_operator_tests::fault::{Recorded, Verb};
use atomix_operator_tests::operator_under_test::Settings;
use atomix_operator_tests::resources::{self, expect_condition};
use atomix_operator_tests::samples::{self, StoreSize};
use atomix_operator_tests::supervised::Supervised;
use atomix_operator_tests::test_bed::TestBed;
use atomix_operator_tests::webhook::TestWebhook;
use atomix_operator_tests::workload;
use serde_json::{Value, json};
use tokio::time::Instant;

const REST_VARIABLE: &str = "ATOMIX_REST_SECONDS";
const DEFAULT_REST: u64 = 600;
/// How often one node or runtime may be asked for its status in all that time: after a pod event of
/// a busy machine, but never by the clock.
const MOST_QUESTIONS: usize = 2;
const SIZE: StoreSize = StoreSize {
    replicas: 3,
    partitions: 4,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_rest_the_operator_writes_its_lease_and_lists_nothing() -> Result<()> {
    let seconds = match std::env::var(REST_VARIABLE) {
        Ok(text) => text.parse().context(REST_VARIABLE)?,
        Err(_) => DEFAULT_REST,
    };
    // With everything that the chart turns on, and certificates that are not due while it rests.
    let bed = TestBed::create_unqueued("rest").await?;
    let bed = bed.secured(identities::Lifetimes::default());
    let webhook = TestWebhook::create(&bed, Lifetimes::default()).await?;
    let settings = Settings {
        short_lease: false,
        webhook: Some(webhook.served()?),
        watch_timeout: (seconds < DEFAULT_REST).then_some(seconds / 3),
        ..bed.settings()
    };
    let length = Duration::from_secs(seconds);
    workload::run_with(bed, settings, async |bed, operator| {
        rest(bed, operator, length).await
    })
    .await
}

async fn rest(bed: &TestBed, operator: &mut Supervised<'_>, length: Duration) -> Result<()> {
    let mut store = samples::store("tulip", SIZE);
    // A node of a busy machine that misses a second's heartbeats changes leaders, and that is no
    // rest: the Store rightly says so.
    if let Some(Value::Object(multi_raft)) = store.pointer_mut("/spec/multiRaft") {
        multi_raft.insert("raft".to_owned(), json!({"electionTimeout": "10s"}));
    }
    workload::bootstrap_of(bed, operator, store, "tulip", SIZE).await?;
    bed.create_pod(samples::secured_pod("hive-0", "hive"))
        .await?;
    // With a sidecar and a readiness gate by the webhook.
    let asking = samples::asking_pod("hive-1", "hive");
    operator
        .until("the webhook to answer", workload::LIMIT, async || {
            bed.create_pod(asking.clone()).await
        })
        .await?;
    resources::create(&bed.sessions(), samples::session("bees", "tulip", "hive")).await?;
    let is_connected = async || {
        let session = bed.sessions().get("bees").await?;
        expect_condition(&session, "Ready", "True")?;
        let connected = session.data.pointer("/status/pods/connected");
        let connected = connected.and_then(Value::as_u64);
        ensure!(connected == Some(2), "{connected:?} pods are connected");
        Ok(())
    };
    operator
        .until_settled("the Session to be connected", workload::LIMIT, is_connected)
        .await?;

    let before = operator.calls();
    let begin = Instant::now();
    let what = "the time of rest to pass";
    let margin = Duration::from_secs(60);
    operator
        .until(what, length + margin, async || {
            ensure!(
                begin.elapsed() >= length,
                "{:?} have passed",
                begin.elapsed()
            );
            Ok(())
        })
        .await?;
    let after = operator.calls();
    is_connected().await?;
    workload::store_is_ready(bed, "tulip").await?;

    let resting = after.get(before.len()..).unwrap_or_default();
    expect_only_the_lease(resting)?;
    expect_every_watch_again(&before, resting)
}

fn expect_only_the_lease(calls: &[Recorded]) -> Result<()> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for call in calls {
        *counts.entry(call.call.to_string()).or_default() += 1;
    }
    println!("at rest: {counts:#?}");
    // Nodes and runtimes tell of changes; nobody is asked again and again.
    for (call, times) in &counts {
        let is_question = calls
            .iter()
            .any(|asked| asked.call.verb == Verb::Ask && asked.call.to_string() == *call);
        ensure!(
            !is_question || *times <= MOST_QUESTIONS,
            "at rest the operator made the call {call} {times} times: it polls"
        );
    }
    let is_lease = |call: &&Recorded| call.call.what == "leases";
    let unwanted: Vec<String> = calls
        .iter()
        .filter(|call| !is_lease(call))
        .filter(|call| call.call.verb.is_mutating() || call.call.verb == Verb::List)
        .map(Recorded::name)
        .collect();
    ensure!(
        unwanted.is_empty(),
        "at rest the operator made the calls {unwanted:?}"
    );
    let renewals = calls.iter().filter(is_lease).count();
    ensure!(renewals > 0, "the lease was not renewed");
    Ok(())
}

/// The API server has ended each watch at least once, and it was opened again.
fn expect_every_watch_again(before: &[Recorded], resting: &[Recorded]) -> Result<()> {
    let watches = |calls: &[Recorded]| -> BTreeSet<String> {
        let watches = calls.iter().filter(|call| call.call.verb == Verb::Watch);
        watches.map(|call| call.call.to_string()).collect()
    };
    let (opened, again) = (watches(before), watches(resting));
    ensure!(!opened.is_empty(), "the operator watches nothing");
    let never: Vec<&String> = opened.difference(&again).collect();
    ensure!(never.is_empty(), "these watches did not end: {never:?}");
    Ok(())
}
