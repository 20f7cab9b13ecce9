//! Changes of a Store that runs, under load: each is carried out or taken back, and no count is lost.

use anyhow::{Context as _, Result, ensure};
use atomix_operator_tests::load::Pace;
use atomix_operator_tests::resources::expect_condition;
use atomix_operator_tests::samples::StoreSize;
use atomix_operator_tests::schema;
use atomix_operator_tests::supervised::Supervised;
use atomix_operator_tests::test_bed::TestBed;
use atomix_operator_tests::workload::{self, LIMIT};
use serde_json::{Value, json};

use super::values::{self, Random};
use super::{DEFAULT_COUNT, SEED_VARIABLE, WHOLE, fresh, is_stalled, pile_up, recent};

const STORE: &str = "tulip";
const SIZE: StoreSize = StoreSize {
    replicas: 3,
    partitions: 2,
};

/// How many changes are carried out, each of which may replace all pods; and where there is time.
const FEW: usize = 2;
const MANY: usize = 30;

/// Fields that are not changed here: nodes would not run any more, or the API server refuses.
const FIXED: [&str; 12] = [
    "configFrom.configMapRef.name",
    "configFrom.key",
    "configFrom.path",
    "configFrom.secretRef.name",
    "driver.name",
    "driver.version",
    "multiRaft.partitions",
    // Keeps the pods from machines.
    "multiRaft.pod.nodeSelector",
    "multiRaft.storage.ephemeral",
    // Nobody makes volumes here.
    "multiRaft.storage.size",
    "multiRaft.storage.storageClassName",
    "paused",
];

#[test]
fn every_other_field_is_changed() -> Result<()> {
    let leaves = schema::leaves(&schema::spec_of("stores")?, &WHOLE);
    let mut fixed: Vec<&str> = leaves
        .iter()
        .map(|leaf| leaf.path.as_str())
        .filter(|path| values::real_values(path).is_empty())
        .collect();
    fixed.sort_unstable();
    ensure!(fixed == FIXED, "{fixed:#?} are not changed");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_specification_of_a_running_store_keeps_what_was_counted() -> Result<()> {
    let seed = super::seed()?;
    let count = if super::count()? > DEFAULT_COUNT {
        MANY
    } else {
        FEW
    };
    let run = workload::run("running", None, async |bed, operator| {
        live(bed, operator, seed, count).await
    });
    run.await
        .with_context(|| format!("{SEED_VARIABLE}={seed}"))?;
    Ok(())
}

async fn live(bed: &TestBed, operator: &mut Supervised<'_>, seed: u64, count: usize) -> Result<()> {
    workload::bootstrap(bed, operator, STORE, SIZE).await?;
    let load = workload::start_load(bed, operator, STORE, Pace::Calm).await?;
    let stores = bed.stores();
    let leaves = super::reasonable_leaves()?;
    let settle = async |generation| {
        let is_carried_out = settled(bed, operator, generation).await?;
        load.goes_on(5).await?;
        anyhow::Ok(is_carried_out)
    };
    let mut random = Random::new(seed);
    let history = pile_up(&stores, STORE, &leaves, &mut random, count, settle).await?;
    println!("a running Store went through {history:#?}");
    let compared = fresh::expect_alike(bed, STORE).await;
    compared.with_context(|| recent(&history))?;
    workload::check_load(bed, operator, load).await
}

/// Waits until everything is as this generation says, or the Store says that a person must act; whether
/// it is.
async fn settled(
    bed: &TestBed,
    operator: &mut Supervised<'_>,
    generation: Option<i64>,
) -> Result<bool> {
    let what = "a change to be carried out";
    operator
        .until_settled(what, LIMIT * 2, async || {
            let store = bed.stores().get(STORE).await?;
            ensure!(store.metadata.generation == generation, "it was changed");
            if is_stalled(&store)? {
                return Ok(false);
            }
            workload::store_is_ready(bed, STORE).await?;
            expect_condition(&store, "Degraded", "False")?;
            let progressing = expect_condition(&store, "Progressing", "False")?;
            ensure!(progressing.reason == "AsSpecified", "{progressing:?}");
            let replicas = store.data.pointer("/spec/multiRaft/replicas");
            let replicas = replicas.and_then(Value::as_u64).context("no replicas")?;
            for count in ["replicas", "updatedReplicas"] {
                let found = store.data.pointer(&format!("/status/{count}"));
                ensure!(found == Some(&json!(replicas)), "{count}: {found:?}");
            }
            let size = StoreSize {
                replicas: u32::try_from(replicas)?,
                ..SIZE
            };
            workload::groups_are_whole(bed, STORE, size).await?;
            Ok(true)
        })
        .await
}
