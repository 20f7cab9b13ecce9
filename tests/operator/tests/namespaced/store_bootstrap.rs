//! A Store is bootstrapped once, ever, wherever the operator crashes.

use anyhow::Result;
use atomix_operator_tests::fault::CrashPoint;
use atomix_operator_tests::matrix::{Outcome, crash_at_every_call};
use atomix_operator_tests::samples::StoreSize;
use atomix_operator_tests::supervised::Supervised;
use atomix_operator_tests::test_bed::TestBed;
use atomix_operator_tests::workload;

const SIZE: StoreSize = StoreSize {
    replicas: 3,
    partitions: 4,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn store_bootstrap_survives_a_crash_at_every_call() -> Result<()> {
    crash_at_every_call("store_bootstrap_survives_a_crash_at_every_call", run).await
}

async fn run(crash: Option<CrashPoint>) -> Result<Outcome> {
    let bed = TestBed::create("bootstrap").await?;
    let mut operator = Supervised::start(&bed, crash);
    let bootstrapped = workload::bootstrap(&bed, &mut operator, "tulip", SIZE).await;
    workload::explain(bootstrapped, &bed, &operator)?;
    let outcome = workload::outcome(&bed, &operator).await?;
    drop(operator);
    bed.remove().await?;
    Ok(outcome)
}
