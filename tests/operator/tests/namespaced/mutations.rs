//! Specifications changed at random, chained, by what the schemas of the CRDs say: each change is
//! refused, or the operator looks at it and says what it makes of it; nobody else is disturbed, and
//! the first specification brings back the first state.
//!
//! `ATOMIX_MUTATION_SEED=7` repeats a run, `ATOMIX_MUTATIONS=2000` makes it longer.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use atomix_operator_tests::resources::{self, conditions, expect_condition};
use atomix_operator_tests::schema::{self, Leaf};
use atomix_operator_tests::supervised::Supervised;
use atomix_operator_tests::test_bed::TestBed;
use atomix_operator_tests::wait::until;
use atomix_operator_tests::workload::{self, LIMIT};
use atomix_operator_tests::{counter, samples};
use k8s_openapi::api::apps::v1::StatefulSet;
use kube::Api;
use kube::api::{DynamicObject, PostParams};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

const SEED_VARIABLE: &str = "ATOMIX_MUTATION_SEED";
const COUNT_VARIABLE: &str = "ATOMIX_MUTATIONS";
const DEFAULT_COUNT: usize = 510;
/// How long the operator may take for one change.
const PATIENCE: Duration = Duration::from_secs(20);
/// Below these are types of Kubernetes.
const WHOLE: [&str; 1] = ["multiRaft.pod"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_specification_converges_or_is_refused_and_disturbs_nobody() -> Result<()> {
    let number = |variable: &str, default: u64| match std::env::var(variable) {
        Ok(text) => text.parse().with_context(|| variable.to_owned()),
        Err(_) => Ok(default),
    };
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let seed = number(SEED_VARIABLE, clock.as_secs())?;
    let count = usize::try_from(number(COUNT_VARIABLE, DEFAULT_COUNT as u64)?)?;
    println!("seed {seed}: repeat it with {SEED_VARIABLE}={seed}");
    let run = workload::run("mutations", None, async |bed, operator| {
        live(bed, operator, seed, count).await
    });
    run.await
        .with_context(|| format!("{SEED_VARIABLE}={seed}"))?;
    Ok(())
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
        chain(bed.stores(), "stores", "tulip", seed ^ 1, of_store),
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
    Ok(serde_json::to_value(sets.get("tulip").await?.spec)?)
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
    leaves.retain(|leaf| leaf.path != "multiRaft.pod.image");
    let first = api.get(name).await?;
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
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
            mutate(&mut object.data["spec"], &leaves, &mut random)
        };
        history.push(change);
        let recent = || history.iter().rev().take(12).cloned().collect::<Vec<_>>();
        match api.replace(name, &PostParams::default(), &object).await {
            Ok(changed) => {
                tally.accepted += 1;
                let judged = judged(&api, name, changed.metadata.generation).await;
                let is_stalled = judged.with_context(|| {
                    format!("{plural} {name}, the newest first: {:#?}", recent())
                })?;
                tally.stalled += usize::from(is_stalled);
            }
            // The status was written in between: nothing was judged.
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(kube::Error::Api(status)) if [400, 422].contains(&status.code) => {
                tally.refused += 1;
                ensure!(
                    !status.message.is_empty(),
                    "refused without a word: {:#?}",
                    recent()
                );
            }
            Err(error) => bail!("{error}: {:#?}", recent()),
        }
    }
    until(
        "the first specification to be taken",
        PATIENCE,
        async || {
            let mut object = api.get(name).await?;
            object.data["spec"] = back_to(&first, &object);
            let back = api.replace(name, &PostParams::default(), &object).await?;
            judged(&api, name, back.metadata.generation).await?;
            Ok(())
        },
    )
    .await?;
    Ok(tally)
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

/// Waits until the operator has said what it makes of a specification; whether a person must act.
async fn judged(api: &Api<DynamicObject>, name: &str, generation: Option<i64>) -> Result<bool> {
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
        let found = conditions(&object)?;
        let stalled = found.iter().find(|condition| condition.type_ == "Stalled");
        let stalled = stalled.context("no condition Stalled")?;
        let is_stalled = stalled.status == "True";
        ensure!(
            !is_stalled || !stalled.message.is_empty(),
            "stalled without a word"
        );
        Ok(is_stalled)
    })
    .await
}

/// Changes one field; returns what was changed to what.
fn mutate(spec: &mut Value, leaves: &[Leaf], random: &mut Random) -> String {
    let leaf = random.pick(leaves);
    let value = value(leaf, random);
    let shown = match &value {
        Some(value) => value.to_string().chars().take(200).collect(),
        None => "absent".to_owned(),
    };
    let path: Vec<&str> = leaf.path.split('.').collect();
    put(spec, &path, value, random);
    format!("{} = {shown}", leaf.path)
}

/// Sets the field, in an object or in the items of a list; what is not there is made.
fn put(parent: &mut Value, path: &[&str], value: Option<Value>, random: &mut Random) {
    let Some((name, below)) = path.split_first() else {
        return;
    };
    if let Value::Array(items) = parent {
        if items.is_empty() || random.below(4) == 0 {
            items.push(json!({}));
        }
        let index = random.below(items.len());
        return put(&mut items[index], path, value, random);
    }
    if !parent.is_object() {
        *parent = Value::Object(Map::new());
    }
    let Some(fields) = parent.as_object_mut() else {
        return;
    };
    if below.is_empty() {
        match value {
            Some(value) => fields.insert((*name).to_owned(), value),
            None => fields.remove(*name),
        };
        return;
    }
    let is_list = ["configFrom", "matchExpressions"].contains(name);
    let inner = fields
        .entry((*name).to_owned())
        .or_insert_with(|| if is_list { json!([]) } else { json!({}) });
    put(inner, below, value, random);
}

/// A value for a field: often one that its schema allows, else any; `None` = the field goes.
fn value(leaf: &Leaf, random: &mut Random) -> Option<Value> {
    match random.below(10) {
        0 => None,
        1 => Some(Value::Null),
        2 | 3 => Some(any_value(random)),
        _ => Some(allowed_value(leaf, random)),
    }
}

fn any_value(random: &mut Random) -> Value {
    let values = [
        json!(0),
        json!(-1),
        json!(7),
        json!(1_000_000_007),
        json!(1.5),
        json!(true),
        json!(""),
        json!("*"),
        json!("a"),
        json!("A b\n☃"),
        json!("x".repeat(300)),
        json!("10Gi"),
        json!([]),
        json!({}),
        json!([null]),
        json!({"": {"a": [1, {"b": null}]}}),
        json!(["a", "a"]),
    ];
    random.pick(&values).clone()
}

fn allowed_value(leaf: &Leaf, random: &mut Random) -> Value {
    let schema = &leaf.schema;
    // More would only start more processes.
    if leaf.path == "multiRaft.replicas" {
        return json!(1 + random.below(3));
    }
    if let Some(values) = schema.get("enum").and_then(Value::as_array) {
        return random.pick(values).clone();
    }
    let words = [
        "a",
        "lily",
        "rose",
        "tulip",
        "timeouts.connect",
        "5s",
        "300ms",
        "1Gi",
        "honey*",
    ];
    if schema.get("x-kubernetes-int-or-string").is_some() {
        let sizes = [json!(134_217_728), json!("128Mi"), json!("64Mi"), json!(1)];
        return random.pick(&sizes).clone();
    }
    match schema.get("type").and_then(Value::as_str) {
        Some("boolean") => json!(random.below(2) == 0),
        Some("integer") => json!(1 + random.below(5)),
        Some("string") => json!(*random.pick(&words)),
        Some("array") => json!([*random.pick(&words)]),
        Some("object") => {
            let objects = [
                json!({}),
                json!({"app": "nobody"}),
                json!({"timeouts": {"connect": "5s"}}),
                json!({"timeouts": {"session": 5}}),
                json!({"colour": "red"}),
            ];
            random.pick(&objects).clone()
        }
        _ => json!(*random.pick(&words)),
    }
}

/// A small generator whose runs can be repeated: xorshift64*.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(number).map_or(0, |number| number % limit.max(1))
    }

    fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}
