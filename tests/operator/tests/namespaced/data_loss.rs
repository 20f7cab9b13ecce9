//! An ephemeral Store that lost everything begins again, and says for ever that data was lost,
//! whatever disturbs the operator on the way.

use anyhow::{Result, ensure};
use atomix_operator_tests::fault::{Disturbance, Faults, Trouble};
use atomix_operator_tests::matrix::{Outcome, disturb_sampled_calls};
use atomix_operator_tests::resources::{self, expect_condition};
use atomix_operator_tests::samples::{self, StoreSize};
use atomix_operator_tests::supervised::Supervised;
use atomix_operator_tests::test_bed::TestBed;
use atomix_operator_tests::workload;
use futures::future::try_join_all;
use serde_json::json;
use tonic::Code;

const SIZE: StoreSize = StoreSize {
    replicas: 1,
    partitions: 2,
};
const STORE: &str = "tulip";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loss_of_every_ephemeral_disk_is_told_after_crash_and_trouble() -> Result<()> {
    disturb_sampled_calls(
        "loss_of_every_ephemeral_disk_is_told_after_crash_and_trouble",
        run,
    )
    .await
}

async fn run(disturbance: Option<Disturbance>) -> Result<Outcome> {
    // Disturbed from when the Store is there.
    workload::run("loss", None, async |bed, operator| {
        live(bed, operator, disturbance).await
    })
    .await
}

async fn live(
    bed: &TestBed,
    operator: &mut Supervised<'_>,
    disturbance: Option<Disturbance>,
) -> Result<()> {
    let store = samples::ephemeral_store(STORE, SIZE);
    workload::bootstrap_of(bed, operator, store, STORE, SIZE).await?;
    operator.arm(disturbance)?;

    // The disk goes with the pod.
    let pod = format!("{STORE}-0");
    bed.pods().delete(&pod, &Default::default()).await?;
    operator
        .until_settled(
            "the Store to begin again without its data",
            workload::LIMIT,
            async || {
                let store = workload::store_is_ready(bed, STORE).await?;
                let lost = expect_condition(&store, "DataLost", "True")?;
                ensure!(lost.message.contains("data of incarnation 1"), "{lost:?}");
                let incarnation = store.data.pointer("/status/incarnation");
                ensure!(incarnation == Some(&json!(2)), "{incarnation:?}");
                Ok(())
            },
        )
        .await?;

    // What only its runtimes wait for changes nothing of what is known.
    let wrong = json!({"spec": {"config": {"colour": "red"}}});
    resources::change(&bed.stores(), STORE, wrong).await?;
    operator
        .until_settled("the Store to be invalid", workload::LIMIT, async || {
            let store = bed.stores().get(STORE).await?;
            let stalled = expect_condition(&store, "Stalled", "True")?;
            ensure!(stalled.reason == "InvalidSpec", "{stalled:?}");
            expect_condition(&store, "DataLost", "True")?;
            Ok(())
        })
        .await
}

/// A node's stream goes on when it refuses a question, so that no event leads back to it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_that_a_node_refuses_is_asked_again() -> Result<()> {
    // Which of the calls asks whether all data is gone depends on when pods and streams are seen.
    let shares = 0..3;
    try_join_all(shares.map(|share| {
        let trouble = Trouble::PeerRefusal(Code::AlreadyExists);
        run(Some(Disturbance::Trouble(Faults {
            trouble,
            share,
            of: 3,
        })))
    }))
    .await?;
    Ok(())
}
