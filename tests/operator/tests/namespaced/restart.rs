//! An operator that starts where another one ended finds everything as it should be, and says so by
//! writing nothing but what it cannot know without writing: one apply for each child.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use atomix_operator_tests::fault::Recorded;
use atomix_operator_tests::resources::{self, expect_condition};
use atomix_operator_tests::samples::{self, StoreSize};
use atomix_operator_tests::supervised::Supervised;
use atomix_operator_tests::test_bed::TestBed;
use atomix_operator_tests::workload::{self, LIMIT};

const SIZE: StoreSize = StoreSize {
    replicas: 1,
    partitions: 1,
};
const PODS: usize = 6;
const RESTARTS: usize = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_operator_writes_no_status_that_says_nothing_new() -> Result<()> {
    let bed = TestBed::create("restart").await?;
    let mut operator = Supervised::start(&bed, None);
    workload::bootstrap(&bed, &mut operator, "tulip", SIZE).await?;
    // One Session for each pod, so that each pod's first look matters.
    for number in 0..PODS {
        let app = format!("hive-{number}");
        bed.create_pod(samples::application_pod(&app, &app)).await?;
        let session = samples::session(&format!("bees-{number}"), "tulip", &app);
        resources::create(&bed.sessions(), session).await?;
    }
    let everything = async || -> Result<()> {
        workload::store_is_ready(&bed, "tulip").await?;
        for number in 0..PODS {
            let session = bed.sessions().get(&format!("bees-{number}")).await?;
            expect_condition(&session, "Ready", "True")?;
        }
        Ok(())
    };
    operator
        .until_settled("all Sessions to be connected", LIMIT, everything)
        .await?;
    drop(operator);

    for _ in 0..RESTARTS {
        let mut operator = Supervised::start(&bed, None);
        let gate = operator.gate();
        operator
            .until_settled("the operator to look at everything", LIMIT, async || {
                let calls = gate.calls();
                let asked = calls.iter().filter(|call| call.call.what == "GetStatus");
                let asked = asked.map(|call| call.call.name.as_str());
                let asked: BTreeSet<&str> = asked.filter(|pod| pod.starts_with("hive")).collect();
                ensure!(asked.len() == PODS, "only {asked:?} were looked at");
                everything().await
            })
            .await?;
        let calls = operator.calls();
        let unwanted: Vec<String> = calls
            .iter()
            .filter(|call| call.call.verb.is_mutating())
            .filter(|call| !is_expected(call))
            .map(Recorded::name)
            .collect();
        ensure!(unwanted.is_empty(), "a new operator wrote {unwanted:?}");
    }
    bed.remove().await
}

/// The lease, and one apply for each child.
fn is_expected(call: &Recorded) -> bool {
    let children = [
        "services",
        "configmaps",
        "statefulsets",
        "poddisruptionbudgets",
    ];
    call.call.what == "leases"
        || (children.contains(&call.call.what.as_str()) && call.occurrence == 1)
}
