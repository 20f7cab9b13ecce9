//! A Store is bootstrapped once, ever, wherever the operator crashes.

use anyhow::Result;
use atomix_operator_tests::fault::Disturbance;
use atomix_operator_tests::matrix::{Outcome, crash_at_every_call};
use atomix_operator_tests::samples::StoreSize;
use atomix_operator_tests::workload;

const SIZE: StoreSize = StoreSize {
    replicas: 3,
    partitions: 4,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn store_bootstrap_survives_a_crash_at_every_call() -> Result<()> {
    crash_at_every_call("store_bootstrap_survives_a_crash_at_every_call", run).await
}

async fn run(disturbance: Option<Disturbance>) -> Result<Outcome> {
    workload::run("bootstrap", disturbance, async |bed, operator| {
        workload::bootstrap(bed, operator, "tulip", SIZE).await
    })
    .await
}
