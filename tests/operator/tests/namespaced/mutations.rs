//! Specifications changed at random, chained, by what the schemas of the CRDs say: each change is
//! refused, or the operator looks at it and says what it makes of it; nobody else is disturbed, what is
//! left is what a new object of the same specification would have, and the first specification brings
//! back the first state.
//!
//! `ATOMIX_MUTATION_SEED=7` repeats a run, `ATOMIX_MUTATIONS=2000` makes it longer.

mod fresh;
mod running;
mod values;

use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use atomix_operator_tests::end_state::remove_empty;
use atomix_operator_tests::resources::{self, Condition, conditions, expect_condition};
use atomix_operator_tests::schema::{self, Leaf};
use atomix_operator_tests::supervised::Supervised;
use atomix_operator_tests::test_bed::TestBed;
use atomix_operator_tests::wait::until;
use atomix_operator_tests::workload::{self, LIMIT};
use atomix_operator_tests::{counter, samples};
use k8s_openapi::api::apps::v1::StatefulSet;
use kube::Api;
use kube::api::{DynamicObject, PostParams};
use serde_json::{Value, json};
use tokio::time::Instant;

use values::Random;

const SEED_VARIABLE: &str = "ATOMIX_MUTATION_SEED";
const COUNT_VARIABLE: &str = "ATOMIX_MUTATIONS";
const DEFAULT_COUNT: usize = 510;
/// How long the operator may take for one change.
const PATIENCE: Duration = Duration::from_secs(20);
/// Below these are types of Kubernetes.
const WHOLE: [&str; 1] = ["multiRaft.pod"];
/// Of the storage nodes.
const IMAGE: &str = "multiRaft.pod.image";
/// So many changes that are carried out lie one on the other when the whole is compared.
const COMPARED_AFTER: usize = 12;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_specification_converges_or_is_refused_and_disturbs_nobody() -> Result<()> {
    let (seed, count) = (seed()?, count()?);
    let run = workload::run("mutations", None, async |bed, operator| {
        live(bed, operator, seed, count).await
    });
    run.await
        .with_context(|| format!("{SEED_VARIABLE}={seed}"))?;
    Ok(())
}

/// How many changes are made.
fn count() -> Result<usize> {
    match std::env::var(COUNT_VARIABLE) {
        Ok(text) => text.parse().context(COUNT_VARIABLE),
        Err(_) => Ok(DEFAULT_COUNT),
    }
}

/// The same for all tests of this run.
fn seed() -> Result<u64> {
    static SEED: OnceLock<u64> = OnceLock::new();
    let given = match std::env::var(SEED_VARIABLE) {
        Ok(text) => text.parse().context(SEED_VARIABLE)?,
        Err(_) => SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
    };
    Ok(*SEED.get_or_init(|| {
        println!("seed {given}: repeat it with {SEED_VARIABLE}={given}");
        given
    }))
}

async fn live(bed: &TestBed, operator: &mut Supervised<'_>, seed: u64, count: usize) -> Result<()> {
    // Whom nobody may disturb.
    resources::create(&bed.stores(), samples::store_of_driver("rose", "memory")).await?;
    bed.create_pod(samples::application_pod("hive-0", "hive"))
        .await?;
    resources::create(&bed.sessions(), samples::session("bees", "rose", "hive")).await?;
    for object in [
        (bed.stores(), samples::store_of_driver("lily", "memory")),
        (bed.stores(), cluster()),
        (bed.sessions(), samples::session("wasps", "lily", "nobody")),
    ] {
        resources::create(&object.0, object.1).await?;
    }
    operator
        .until("the Session to be connected", LIMIT, async || {
            let session = bed.sessions().get("bees").await?;
            let ready = expect_condition(&session, "Ready", "True")?;
            ensure!(ready.reason == "Connected", "{ready:?}");
            stateful_set(bed).await?;
            Ok(())
        })
        .await?;
    ensure!(increment(bed).await? == 1);
    let first = stateful_set(bed).await?;

    let begin = Instant::now();
    // The status of a Session is written once a second at most, so its changes take longest.
    let of_session = count.div_ceil(6);
    let of_store = (count - of_session).div_ceil(2);
    let (lily, tulip, wasps) = tokio::join!(
        chain(bed.stores(), "stores", "lily", seed, of_store),
        async {
            let tally = chain(bed.stores(), "stores", "tulip", seed ^ 1, of_store).await?;
            compare_with_a_fresh_one(bed, seed ^ 3).await?;
            anyhow::Ok(tally)
        },
        chain(bed.sessions(), "sessions", "wasps", seed ^ 2, of_session),
    );
    let tallies = [lily?, tulip?, wasps?];
    let sum = |number: fn(&Tally) -> usize| tallies.iter().map(number).sum::<usize>();
    let (accepted, refused) = (sum(|tally| tally.accepted), sum(|tally| tally.refused));
    println!(
        "{count} changes in {:?}: {accepted} accepted, {refused} refused, of the accepted {} \
         reported as wrong",
        begin.elapsed(),
        sum(|tally| tally.stalled),
    );
    ensure!(accepted + refused >= count, "too few changes");
    ensure!(
        accepted * 20 >= count && refused * 20 >= count,
        "the changes are all alike"
    );

    operator
        .until_settled("the first state to be back", LIMIT, async || {
            let now = stateful_set(bed).await?;
            ensure!(
                now == first,
                "another StatefulSet: {now} instead of {first}"
            );
            for (api, name) in [(bed.stores(), "lily"), (bed.sessions(), "wasps")] {
                expect_condition(&api.get(name).await?, "Ready", "True")?;
            }
            Ok(())
        })
        .await?;
    // The memory driver forgets everything when it is disconnected.
    ensure!(increment(bed).await? == 2, "the Session bees was disturbed");
    Ok(())
}

/// A Store whose nodes never start: their image is not to be had.
fn cluster() -> Value {
    let size = samples::StoreSize {
        replicas: 1,
        partitions: 1,
    };
    let mut store = samples::store("tulip", size);
    store["spec"]["multiRaft"]["pod"]["image"] = json!("atomix-node:missing");
    // The way back must not hang on a factor that the status has kept.
    store["spec"]["multiRaft"]["replicationFactor"] = json!(1);
    store
}

async fn stateful_set(bed: &TestBed) -> Result<Value> {
    let sets: Api<StatefulSet> = Api::namespaced(bed.client().clone(), bed.namespace());
    let mut spec = serde_json::to_value(sets.get("tulip").await?.spec)?;
    remove_empty(&mut spec);
    Ok(spec)
}

async fn increment(bed: &TestBed) -> Result<i64> {
    let address = bed
        .runner()
        .address("hive-0")
        .context("the pod does not run")?;
    counter::increment(address, "honey", 1).await
}

#[derive(Default)]
struct Tally {
    accepted: usize,
    refused: usize,
    stalled: usize,
}

/// Makes changes one after the other, each on what the last left, and goes back at the end.
async fn chain(
    api: Api<DynamicObject>,
    plural: &str,
    name: &str,
    seed: u64,
    count: usize,
) -> Result<Tally> {
    let mut leaves = schema::leaves(&schema::spec_of(plural)?, &WHOLE);
    // With an image that can be had, nodes would begin, and the way back would be another one.
    leaves.retain(|leaf| leaf.path != IMAGE);
    let first = api.get(name).await?;
    let mut random = Random::new(seed);
    let mut tally = Tally::default();
    let mut history: Vec<String> = Vec::new();
    while tally.accepted + tally.refused < count {
        let number = tally.accepted + tally.refused;
        let mut object = api.get(name).await?;
        // Now and then back to the start, so that not all ends in one corner.
        let change = if number % 12 == 11 {
            object.data["spec"] = back_to(&first, &object);
            "back to the first".to_owned()
        } else {
            values::mutate(&mut object.data["spec"], &leaves, &mut random)
        };
        history.push(change);
        match replaced(&api, name, &object).await {
            Ok(Replaced::By(changed)) => {
                tally.accepted += 1;
                let judged = judged(&api, name, changed.metadata.generation).await;
                let judged =
                    judged.with_context(|| format!("{plural} {name}, {}", recent(&history)))?;
                tally.stalled += usize::from(is_stalled(&judged)?);
            }
            // The status was written in between: nothing was judged.
            Ok(Replaced::Outdated) => {}
            Ok(Replaced::Refused) => tally.refused += 1,
            Err(error) => return Err(error.context(recent(&history))),
        }
    }
    go_back(&api, name, &first).await?;
    Ok(tally)
}

/// What the API server makes of a changed object.
enum Replaced {
    By(Box<DynamicObject>),
    /// Somebody was first.
    Outdated,
    /// With a word why.
    Refused,
}

async fn replaced(
    api: &Api<DynamicObject>,
    name: &str,
    object: &DynamicObject,
) -> Result<Replaced> {
    match api.replace(name, &PostParams::default(), object).await {
        Ok(changed) => Ok(Replaced::By(Box::new(changed))),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(Replaced::Outdated),
        Err(kube::Error::Api(status)) if [400, 422].contains(&status.code) => {
            ensure!(!status.message.is_empty(), "refused without a word");
            Ok(Replaced::Refused)
        }
        Err(error) => Err(error.into()),
    }
}

fn recent(history: &[String]) -> String {
    let newest: Vec<&String> = history.iter().rev().take(12).collect();
    format!("the newest first: {newest:#?}")
}

/// Sets an earlier specification again, until the operator has looked at it.
async fn go_back(api: &Api<DynamicObject>, name: &str, to: &DynamicObject) -> Result<()> {
    let taken = until("a former specification to be taken", PATIENCE, async || {
        judged(api, name, set_back(api, name, to).await?).await
    });
    taken.await?;
    Ok(())
}

/// Sets an earlier specification again; the generation that it has now.
async fn set_back(api: &Api<DynamicObject>, name: &str, to: &DynamicObject) -> Result<Option<i64>> {
    let mut object = api.get(name).await?;
    object.data["spec"] = back_to(to, &object);
    let back = api.replace(name, &PostParams::default(), &object).await?;
    Ok(back.metadata.generation)
}

/// Piles changes on the Store whose nodes never start, compares what is left, and goes back.
async fn compare_with_a_fresh_one(bed: &TestBed, seed: u64) -> Result<()> {
    let (api, name) = (bed.stores(), "tulip");
    let first = api.get(name).await?;
    let mut leaves = reasonable_leaves()?;
    leaves.retain(|leaf| leaf.path != IMAGE);
    let settle = async |generation| is_carried_out(&judged(&api, name, generation).await?);
    let mut random = Random::new(seed);
    let history = pile_up(&api, name, &leaves, &mut random, COMPARED_AFTER, settle).await?;
    let compared = fresh::expect_alike(bed, name).await;
    compared.with_context(|| recent(&history))?;
    go_back(&api, name, &first).await
}

/// The fields of Stores of which values are known with which they run.
fn reasonable_leaves() -> Result<Vec<Leaf>> {
    let mut leaves = schema::leaves(&schema::spec_of("stores")?, &WHOLE);
    leaves.retain(|leaf| !values::real_values(&leaf.path).is_empty());
    Ok(leaves)
}

/// Makes so many changes that are carried out, each on what the last left, and takes those back that
/// are not; what it did. `settle` waits until a generation is dealt with, and says whether it is
/// carried out.
async fn pile_up(
    api: &Api<DynamicObject>,
    name: &str,
    leaves: &[Leaf],
    random: &mut Random,
    count: usize,
    mut settle: impl AsyncFnMut(Option<i64>) -> Result<bool>,
) -> Result<Vec<String>> {
    let mut history = Vec::new();
    let mut carried_out = 0;
    while carried_out < count {
        let before = api.get(name).await?;
        let mut object = before.clone();
        let change = values::mutate_in_reason(&mut object.data["spec"], leaves, random);
        let Replaced::By(changed) = replaced(api, name, &object).await? else {
            continue;
        };
        if changed.metadata.generation == before.metadata.generation {
            continue;
        }
        history.push(change);
        let settled = settle(changed.metadata.generation).await;
        if settled.with_context(|| recent(&history))? {
            carried_out += 1;
            continue;
        }
        history.push("taken back".to_owned());
        let generation = until("a change to be taken back", PATIENCE, async || {
            set_back(api, name, &before).await
        });
        let settled = settle(generation.await?).await;
        ensure!(
            settled.with_context(|| recent(&history))?,
            "what was carried out before a change is not any more after it: {}",
            recent(&history)
        );
    }
    Ok(history)
}

/// The first specification, but for volumes, which only grow.
fn back_to(first: &DynamicObject, now: &DynamicObject) -> Value {
    let mut spec = first.data["spec"].clone();
    let size = "/multiRaft/storage/size";
    let grown = now.data["spec"].pointer(size);
    if let (Some(grown), Some(size)) = (grown, spec.pointer_mut(size)) {
        *size = grown.clone();
    }
    spec
}

/// Waits until the operator has said what it makes of a specification; what it says.
async fn judged(
    api: &Api<DynamicObject>,
    name: &str,
    generation: Option<i64>,
) -> Result<DynamicObject> {
    until("the operator to look at it", PATIENCE, async || {
        let object = api.get(name).await?;
        ensure!(
            object.metadata.generation == generation,
            "it was changed by another"
        );
        let observed = object.data.pointer("/status/observedGeneration");
        ensure!(
            observed.and_then(Value::as_i64) == generation,
            "observed {observed:?}"
        );
        is_stalled(&object)?;
        Ok(object)
    })
    .await
}

/// Whether a person must act, who is told so.
fn is_stalled(object: &DynamicObject) -> Result<bool> {
    let stalled = condition(object, "Stalled")?;
    let is_stalled = stalled.status == "True";
    ensure!(
        !is_stalled || !stalled.message.is_empty(),
        "stalled without a word"
    );
    Ok(is_stalled)
}

/// Nobody must act: neither the operator nor the API server refuses what follows from it.
fn is_carried_out(object: &DynamicObject) -> Result<bool> {
    let progressing = condition(object, "Progressing")?;
    Ok(!is_stalled(object)? && progressing.reason != "Rejected")
}

fn condition(object: &DynamicObject, type_: &str) -> Result<Condition> {
    let mut found = conditions(object)?.into_iter();
    let found = found.find(|condition| condition.type_ == type_);
    found.with_context(|| format!("no condition {type_}"))
}
