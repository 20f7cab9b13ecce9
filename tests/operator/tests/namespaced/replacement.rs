//! A node that lost its disk: its members are made again from the others, under load.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use atomix_operator_tests::fault::Disturbance;
use atomix_operator_tests::groups;
use atomix_operator_tests::load::Pace;
use atomix_operator_tests::matrix::{Outcome, disturb_sampled_calls};
use atomix_operator_tests::resources::{self, expect_condition};
use atomix_operator_tests::samples::StoreSize;
use atomix_operator_tests::supervised::Supervised;
use atomix_operator_tests::test_bed::TestBed;
use atomix_operator_tests::workload::{self, LIMIT};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::Api;
use kube::api::DeleteParams;

const STORE: &str = "tulip";
const SIZE: StoreSize = StoreSize {
    replicas: 3,
    partitions: 4,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_lost_its_disk_gets_its_members_again() -> Result<()> {
    workload::run("replace", None, replace).await?;
    Ok(())
}

async fn replace(bed: &TestBed, operator: &mut Supervised<'_>) -> Result<()> {
    workload::bootstrap(bed, operator, STORE, SIZE).await?;
    let load = workload::start_load(bed, operator, STORE, Pace::Busy).await?;

    let pod = format!("{STORE}-2");
    let lost = disk_of(bed, &pod).await?;
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(bed.client().clone(), bed.namespace());
    let parameters = DeleteParams::default();
    claims.delete(&format!("data-{pod}"), &parameters).await?;
    bed.pods().delete(&pod, &parameters).await?;
    operator
        .until_settled("every partition to be whole again", LIMIT * 2, async || {
            let disk = disk_of(bed, &pod).await?;
            ensure!(disk != lost, "{pod} has its old disk");
            let store = workload::store_is_ready(bed, STORE).await?;
            expect_condition(&store, "Degraded", "False")?;
            expect_condition(&store, "Progressing", "False")?;
            workload::groups_are_whole(bed, STORE, SIZE).await
        })
        .await?;
    // It was told while it lasted, and nobody had to do anything. Other trouble may have come in
    // between, so it may have been told again.
    operator
        .until(
            "a Warning of the lost disk",
            Duration::from_secs(30),
            async || {
                let warnings = resources::warnings(bed.client(), bed.namespace(), STORE).await?;
                ensure!(warnings.contains_key("DiskLost"), "{:?}", warnings.keys());
                Ok(())
            },
        )
        .await?;
    load.goes_on(20).await?;
    let (acknowledged, unknown) = load.check().await?;
    println!("{acknowledged} increments were acknowledged, {unknown} failed");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replacing_a_declared_disk_survives_crash_and_trouble() -> Result<()> {
    let test = "replacing_a_declared_disk_survives_crash_and_trouble";
    disturb_sampled_calls(test, disturbed).await
}

async fn disturbed(disturbance: Option<Disturbance>) -> Result<Outcome> {
    let one = StoreSize {
        partitions: 1,
        ..SIZE
    };
    workload::run("replace-crash", None, async move |bed, operator| {
        workload::bootstrap(bed, operator, STORE, one).await?;
        let pod = format!("{STORE}-2");
        let lost = disk_of(bed, &pod).await?;
        let load = workload::start_load(bed, operator, STORE, Pace::Calm).await?;
        operator.arm(disturbance.clone())?;
        // What `kubectl atomix store replace-node` does: the deletion of the claim declares it.
        let claims: Api<PersistentVolumeClaim> =
            Api::namespaced(bed.client().clone(), bed.namespace());
        let parameters = DeleteParams::default();
        claims.delete(&format!("data-{pod}"), &parameters).await?;
        bed.pods().delete(&pod, &parameters).await?;
        operator
            .until_settled("the partition to be whole again", LIMIT * 2, async || {
                ensure!(disk_of(bed, &pod).await? != lost, "{pod} has its old disk");
                let store = workload::store_is_ready(bed, STORE).await?;
                expect_condition(&store, "Degraded", "False")?;
                expect_condition(&store, "Progressing", "False")?;
                workload::groups_are_whole(bed, STORE, one).await
            })
            .await?;
        workload::check_load(bed, operator, load).await
    })
    .await
}

/// The id of a node's disk.
async fn disk_of(bed: &TestBed, pod: &str) -> Result<u64> {
    let address = bed.runner().address(pod).context("it does not run")?;
    Ok(groups::status(address).await?.node_id)
}
