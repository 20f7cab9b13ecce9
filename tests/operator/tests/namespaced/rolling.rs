//! A change of the pods goes through them one at a time, under load, whatever happens meanwhile.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail, ensure};
use atomix_operator_tests::fault::Disturbance;
use atomix_operator_tests::frozen::Frozen;
use atomix_operator_tests::groups;
use atomix_operator_tests::load::Pace;
use atomix_operator_tests::matrix::{Outcome, disturb_sampled_calls};
use atomix_operator_tests::resources::{self, expect_condition};
use atomix_operator_tests::samples::{self, StoreSize};
use atomix_operator_tests::supervised::Supervised;
use atomix_operator_tests::test_bed::TestBed;
use atomix_operator_tests::wait::until;
use atomix_operator_tests::workload::{self, LIMIT};
use atomix_proto::multiraft::v1::RaftTimings;
use atomix_proto::multiraft::v1::group_status::Role;
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::{EvictParams, ListParams};
use kube::runtime::watcher;
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};
use tokio::sync::watch;

const STORE: &str = "tulip";
const SIZE: StoreSize = StoreSize {
    replicas: 3,
    partitions: 4,
};

async fn bootstrap(bed: &TestBed, operator: &mut Supervised<'_>) -> Result<()> {
    workload::bootstrap_of(
        bed,
        operator,
        samples::patient_store(STORE, SIZE),
        STORE,
        SIZE,
    )
    .await
}

/// With its own variable, so that the pods of a change can be told apart.
fn pod_settings(image: &str, colour: &str) -> Value {
    json!({"spec": {"multiRaft": {"pod": {
        "image": image,
        "env": [{"name": "COLOUR", "value": colour}],
    }}}})
}

async fn paint(bed: &TestBed, colour: &str) -> Result<()> {
    let settings = pod_settings("atomix-node:test", colour);
    resources::change(&bed.stores(), STORE, settings).await?;
    Ok(())
}

async fn storage_pods(bed: &TestBed) -> Result<Vec<Pod>> {
    let pods: Api<Pod> = Api::namespaced(bed.client().clone(), bed.namespace());
    let ours = ListParams::default().labels("atomix.io/store=tulip");
    Ok(pods.list(&ours).await?.items)
}

/// The value of the variable by pod.
async fn colours(bed: &TestBed) -> Result<BTreeMap<String, String>> {
    let pods = storage_pods(bed).await?;
    let colour = |pod: &Pod| {
        let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
        let mut variables = containers.flat_map(|node| node.env.iter().flatten());
        let found = variables.find(|variable| variable.name == "COLOUR")?;
        found.value.clone()
    };
    let colours = pods
        .iter()
        .map(|pod| (pod.name_any(), colour(pod).unwrap_or_default()));
    Ok(colours.collect())
}

/// All pods have this colour, everything is at full strength, and the Store says that it is done.
async fn is_painted(bed: &TestBed, colour: &str, size: StoreSize) -> Result<()> {
    let colours = colours(bed).await?;
    ensure!(
        colours.values().all(|found| found == colour),
        "not all of {colours:?} are {colour}"
    );
    let store = workload::store_is_ready(bed, STORE).await?;
    expect_condition(&store, "Degraded", "False")?;
    expect_condition(&store, "Stalled", "False")?;
    let progressing = expect_condition(&store, "Progressing", "False")?;
    ensure!(progressing.reason == "AsSpecified", "{progressing:?}");
    let updated = store.data.pointer("/status/updatedReplicas");
    ensure!(
        updated == Some(&json!(size.replicas)),
        "{updated:?} are updated"
    );
    workload::groups_are_whole(bed, STORE, size).await
}

async fn until_painted(bed: &TestBed, operator: &mut Supervised<'_>, colour: &str) -> Result<()> {
    operator
        .until_settled("all pods to be replaced", LIMIT * 2, async || {
            is_painted(bed, colour, SIZE).await
        })
        .await
}

/// Waits until one pod has been replaced, and others have not.
async fn until_half_way(bed: &TestBed, operator: &mut Supervised<'_>, colour: &str) -> Result<()> {
    operator
        .until("the first pod to be replaced", LIMIT, async || {
            let colours = colours(bed).await?;
            ensure!(
                colours.values().any(|found| found == colour),
                "none of {colours:?} is {colour}"
            );
            Ok(())
        })
        .await
}

/// How often each storage pod was deleted.
fn deletions(bed: &TestBed) -> BTreeMap<String, usize> {
    let deleted = bed.observer().counts().deleted;
    let pods = deleted
        .into_iter()
        .filter(|(name, _)| name.starts_with("Pod/tulip-"));
    pods.collect()
}

fn each(times: usize) -> BTreeMap<String, usize> {
    let pods = (0..SIZE.replicas).map(|ordinal| (format!("Pod/{STORE}-{ordinal}"), times));
    pods.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_goes_through_all_pods_under_load_and_loses_nothing() -> Result<()> {
    workload::run("roll", None, roll).await?;
    Ok(())
}

async fn roll(bed: &TestBed, operator: &mut Supervised<'_>) -> Result<()> {
    bootstrap(bed, operator).await?;
    let load = workload::start_load(bed, operator, STORE, Pace::Busy).await?;
    paint(bed, "red").await?;
    until_painted(bed, operator, "red").await?;
    ensure!(deletions(bed) == each(1), "{:?}", deletions(bed));
    load.goes_on(20).await?;
    expect_spread_leaders(bed, operator).await?;

    // Raft's settings reach the groups that run.
    let raft = json!({"electionTimeout": "7s", "snapshotEntryThreshold": 5000});
    let raft = json!({"spec": {"multiRaft": {"raft": raft}}});
    resources::change(&bed.stores(), STORE, raft).await?;
    operator
        .until_settled("the settings to be in force", LIMIT * 2, async || {
            for raft in raft_settings(bed).await? {
                let timeout = raft.election_timeout.map(|timeout| timeout.seconds);
                let is_new = timeout == Some(7) && raft.snapshot_entry_threshold == 5000;
                ensure!(is_new, "a group runs with {raft:?}");
            }
            is_painted(bed, "red", SIZE).await
        })
        .await?;
    ensure!(deletions(bed) == each(2), "{:?}", deletions(bed));
    load.goes_on(20).await?;
    let (acknowledged, unknown) = load.check().await?;
    println!("{acknowledged} increments were acknowledged, {unknown} failed");
    ensure!(
        unknown * 20 <= acknowledged,
        "{unknown} increments failed while {acknowledged} succeeded"
    );
    Ok(())
}

async fn raft_settings(bed: &TestBed) -> Result<Vec<RaftTimings>> {
    let mut settings = Vec::new();
    for ordinal in 0..SIZE.replicas {
        let pod = format!("{STORE}-{ordinal}");
        let address = bed.runner().address(&pod).context("it does not run")?;
        for group in groups::status(address).await?.groups {
            settings.push(group.raft.context("a group tells no settings")?);
        }
    }
    Ok(settings)
}

/// No node leads two groups more than another.
async fn expect_spread_leaders(bed: &TestBed, operator: &mut Supervised<'_>) -> Result<()> {
    operator
        .until_settled("the leaders to be spread", LIMIT, async || {
            let mut counts = Vec::new();
            for ordinal in 0..SIZE.replicas {
                let pod = format!("{STORE}-{ordinal}");
                let address = bed.runner().address(&pod).context("it does not run")?;
                let groups = groups::status(address).await?.groups;
                let led = groups.iter().filter(|group| group.role() == Role::Leader);
                counts.push(led.count());
            }
            let (most, least) = (counts.iter().max(), counts.iter().min());
            let is_even = most
                .zip(least)
                .is_some_and(|(most, least)| most - least <= 1);
            ensure!(is_even, "the nodes lead {counts:?} groups");
            Ok(())
        })
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_is_ready_when_its_disk_counts_and_a_budget_guards_the_others() -> Result<()> {
    workload::run("gate", None, guard).await?;
    Ok(())
}

async fn guard(bed: &TestBed, operator: &mut Supervised<'_>) -> Result<()> {
    bootstrap(bed, operator).await?;
    for pod in storage_pods(bed).await? {
        let name = pod.name_any();
        ensure!(
            gate(&pod).as_deref() == Some("True"),
            "{name}: {:?}",
            gate(&pod)
        );
    }
    let budgets: Api<PodDisruptionBudget> = Api::namespaced(bed.client().clone(), bed.namespace());
    let spec = budgets.get(STORE).await?.spec.context("it is empty")?;
    let spec = serde_json::to_value(spec)?;
    ensure!(spec["maxUnavailable"] == json!(1), "{spec}");
    ensure!(
        spec["selector"]["matchLabels"]["atomix.io/store"] == json!(STORE),
        "{spec}"
    );
    // With one copy a budget would forbid every drain.
    let one = json!({"spec": {"multiRaft": {"replicationFactor": 1}}});
    resources::change(&bed.stores(), STORE, one).await?;
    operator
        .until_settled("the budget to be gone", LIMIT * 2, async || {
            ensure!(budgets.get_opt(STORE).await?.is_none(), "it is there");
            let store = workload::store_is_ready(bed, STORE).await?;
            let ready = expect_condition(&store, "Ready", "True")?;
            ensure!(ready.message.contains("drains are allowed"), "{ready:?}");
            expect_condition(&store, "Progressing", "False")?;
            Ok(())
        })
        .await?;
    // While copies are made again no drain may take the only one.
    let allowed = follow_what_is_allowed(budgets.clone());
    let three = json!({"spec": {"multiRaft": {"replicationFactor": 3}}});
    resources::change(&bed.stores(), STORE, three).await?;
    operator
        .until_settled("the budget to allow one", LIMIT * 2, async || {
            let allowed = allowed.borrow().clone();
            ensure!(allowed == [Some(0), Some(1)], "{allowed:?}");
            let store = workload::store_is_ready(bed, STORE).await?;
            expect_condition(&store, "Progressing", "False")?;
            workload::groups_have(bed, STORE, SIZE, 3).await
        })
        .await
}

/// What the budget allowed, one after the other; `None` = it was deleted.
fn follow_what_is_allowed(budgets: Api<PodDisruptionBudget>) -> watch::Receiver<Vec<Option<i32>>> {
    let (sender, receiver) = watch::channel(Vec::new());
    tokio::spawn(async move {
        let mut events = watcher(budgets, watcher::Config::default()).boxed();
        while let Some(event) = events.next().await {
            let allowed = match event {
                Ok(watcher::Event::Apply(budget) | watcher::Event::InitApply(budget)) => {
                    match budget.spec.and_then(|spec| spec.max_unavailable) {
                        Some(IntOrString::Int(number)) => Some(number),
                        Some(IntOrString::String(_)) | None => None,
                    }
                }
                Ok(watcher::Event::Delete(_)) => None,
                Ok(watcher::Event::Init | watcher::Event::InitDone) | Err(_) => continue,
            };
            sender.send_modify(|seen: &mut Vec<Option<i32>>| {
                if seen.last() != Some(&allowed) {
                    seen.push(allowed);
                }
            });
            if sender.is_closed() {
                return;
            }
        }
    });
    receiver
}

fn gate(pod: &Pod) -> Option<String> {
    let conditions = pod.status.iter().flat_map(|status| &status.conditions);
    let mut conditions = conditions.flatten();
    let gate = conditions.find(|condition| condition.type_ == "atomix.io/replicated")?;
    Some(gate.status.clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_an_operator_only_the_first_of_two_drains_goes_through() -> Result<()> {
    let bed = TestBed::create("drains").await?;
    let mut operator = Supervised::start(&bed, None);
    bootstrap(&bed, &mut operator).await?;
    drop(operator);
    let [first, second] = [0, 1].map(|ordinal| format!("{STORE}-{ordinal}"));
    let before = bed.pods().get(&first).await?.uid();
    until("the first drain to be allowed", LIMIT, async || {
        evict(&bed, &first).await
    })
    .await?;
    until("another pod to serve", LIMIT, async || {
        let pod = bed.pods().get(&first).await?;
        ensure!(pod.uid() != before, "it is the former one");
        let address = bed.runner().address(&first).context("it does not run")?;
        groups::status(address).await?;
        ensure!(gate(&pod).as_deref() != Some("True"), "nobody has looked");
        Ok(())
    })
    .await?;
    let Err(refused) = evict(&bed, &second).await else {
        bail!("a second copy went, and nobody knows that the first one counts");
    };
    let code = refused.downcast_ref().and_then(|error| match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    });
    ensure!(code == Some(429), "{refused:#}");

    let mut operator = Supervised::start(&bed, None);
    operator
        .until("the second drain to be allowed", LIMIT, async || {
            evict(&bed, &second).await
        })
        .await?;
    operator
        .until_settled("all pods to count", LIMIT, async || {
            workload::store_is_ready(&bed, STORE).await?;
            workload::groups_are_whole(&bed, STORE, SIZE).await
        })
        .await?;
    drop(operator);
    bed.remove().await
}

/// As `kubectl drain` does.
async fn evict(bed: &TestBed, pod: &str) -> Result<()> {
    bed.pods().evict(pod, &EvictParams::default()).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_is_paused_half_way_stands_still_and_goes_on() -> Result<()> {
    workload::run("roll-pause", None, pause).await?;
    Ok(())
}

async fn pause(bed: &TestBed, operator: &mut Supervised<'_>) -> Result<()> {
    bootstrap(bed, operator).await?;
    paint(bed, "red").await?;
    until_half_way(bed, operator, "red").await?;
    resources::change(&bed.stores(), STORE, json!({"spec": {"paused": true}})).await?;
    operator
        .until_settled(
            "the Store to say that it is paused",
            LIMIT * 2,
            async || {
                let store = bed.stores().get(STORE).await?;
                let progressing = expect_condition(&store, "Progressing", "False")?;
                ensure!(progressing.reason == "Paused", "{progressing:?}");
                workload::groups_are_whole(bed, STORE, SIZE).await
            },
        )
        .await?;
    let before = deletions(bed);
    ensure!(before.len() < 3, "all pods were replaced before the pause");
    let touching = json!({"metadata": {"annotations": {"touched": "yes"}}});
    resources::change(&bed.stores(), STORE, touching).await?;
    operator
        .until_settled("the pause to hold", LIMIT, async || {
            workload::store_is_ready(bed, STORE).await?;
            Ok(())
        })
        .await?;
    ensure!(deletions(bed) == before, "pods were replaced in the pause");
    resources::change(&bed.stores(), STORE, json!({"spec": {"paused": null}})).await?;
    until_painted(bed, operator, "red").await?;
    ensure!(deletions(bed) == each(1), "{:?}", deletions(bed));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_is_reverted_half_way_rolls_back_what_it_had_changed() -> Result<()> {
    workload::run("roll-back", None, revert).await?;
    Ok(())
}

async fn revert(bed: &TestBed, operator: &mut Supervised<'_>) -> Result<()> {
    let mut store = samples::patient_store(STORE, SIZE);
    let first = pod_settings("atomix-node:test", "red");
    if let Some(Value::Object(pod)) = store.pointer_mut("/spec/multiRaft/pod") {
        let env = first.pointer("/spec/multiRaft/pod/env").cloned();
        pod.insert("env".to_owned(), env.unwrap_or_default());
    }
    workload::bootstrap_of(bed, operator, store, STORE, SIZE).await?;
    paint(bed, "blue").await?;
    until_half_way(bed, operator, "blue").await?;
    paint(bed, "red").await?;
    until_painted(bed, operator, "red").await?;
    let deleted = deletions(bed);
    // One or two were on their way; each of these came back, and no other was touched.
    ensure!(deleted.values().all(|times| *times == 2), "{deleted:?}");
    ensure!(deleted.len() < 3, "all pods were replaced: {deleted:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_does_not_come_back_stops_the_change_until_its_image_is_corrected() -> Result<()>
{
    workload::run("roll-stop", None, stop).await?;
    Ok(())
}

async fn stop(bed: &TestBed, operator: &mut Supervised<'_>) -> Result<()> {
    bootstrap(bed, operator).await?;
    let load = workload::start_load(bed, operator, STORE, Pace::Busy).await?;
    let missing = pod_settings("atomix-node:missing", "red");
    resources::change(&bed.stores(), STORE, missing).await?;
    operator
        .until_settled("the change to stop", LIMIT, async || {
            let store = bed.stores().get(STORE).await?;
            let progressing = expect_condition(&store, "Progressing", "True")?;
            ensure!(progressing.reason == "RollStopped", "{progressing:?}");
            ensure!(
                progressing.message.contains("1 of 3 pods")
                    && progressing
                        .message
                        .contains("cannot pull image atomix-node:missing"),
                "{progressing:?}"
            );
            expect_condition(&store, "Ready", "True")?;
            expect_condition(&store, "Degraded", "True")?;
            Ok(())
        })
        .await?;
    ensure!(deletions(bed).len() == 1, "{:?}", deletions(bed));
    load.goes_on(20).await?;

    paint(bed, "blue").await?;
    until_painted(bed, operator, "blue").await?;
    let deleted = deletions(bed);
    let total: usize = deleted.values().sum();
    ensure!(deleted.len() == 3 && total == 4, "{deleted:?}");
    load.goes_on(20).await?;
    load.check().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_hangs_holds_a_change_up_until_it_answers() -> Result<()> {
    workload::run("roll-hang", None, hang).await?;
    Ok(())
}

async fn hang(bed: &TestBed, operator: &mut Supervised<'_>) -> Result<()> {
    bootstrap(bed, operator).await?;
    let frozen = Frozen::stop(bed, "tulip-1").await?;
    paint(bed, "red").await?;
    operator
        .until_settled(
            "the gate of the hanging node to be shut",
            LIMIT,
            async || {
                for pod in storage_pods(bed).await? {
                    let expected = if pod.name_any() == "tulip-1" {
                        "False"
                    } else {
                        "True"
                    };
                    let gate = gate(&pod);
                    ensure!(
                        gate.as_deref() == Some(expected),
                        "{}: {gate:?}",
                        pod.name_any()
                    );
                }
                let store = bed.stores().get(STORE).await?;
                let progressing = expect_condition(&store, "Progressing", "True")?;
                ensure!(progressing.message.contains("tulip-1"), "{progressing:?}");
                Ok(())
            },
        )
        .await?;
    ensure!(deletions(bed).is_empty(), "{:?}", deletions(bed));
    frozen.go_on()?;
    until_painted(bed, operator, "red").await?;
    ensure!(deletions(bed) == each(1), "{:?}", deletions(bed));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_would_lose_the_only_copy_is_refused_until_that_is_allowed() -> Result<()> {
    workload::run("roll-loss", None, lose).await?;
    Ok(())
}

async fn lose(bed: &TestBed, operator: &mut Supervised<'_>) -> Result<()> {
    let size = StoreSize {
        replicas: 2,
        partitions: 2,
    };
    let store = samples::ephemeral_store(STORE, size);
    workload::bootstrap_of(bed, operator, store, STORE, size).await?;
    paint(bed, "red").await?;
    operator
        .until_settled("the change to be refused", LIMIT, async || {
            let store = workload::store_is_ready(bed, STORE).await?;
            let stalled = expect_condition(&store, "Stalled", "True")?;
            ensure!(
                stalled.reason == "DataLossNotAllowed"
                    && stalled
                        .message
                        .contains("spec.updateStrategy.allowDataLoss"),
                "{stalled:?}"
            );
            Ok(())
        })
        .await?;
    ensure!(deletions(bed).is_empty(), "{:?}", deletions(bed));
    let allowed = json!({"spec": {"updateStrategy": {"allowDataLoss": true}}});
    resources::change(&bed.stores(), STORE, allowed).await?;
    operator
        .until_settled("the Store to begin anew", LIMIT * 2, async || {
            let colours = colours(bed).await?;
            ensure!(colours.values().all(|found| found == "red"), "{colours:?}");
            let store = workload::store_is_ready(bed, STORE).await?;
            expect_condition(&store, "Stalled", "False")?;
            expect_condition(&store, "Progressing", "False")?;
            expect_condition(&store, "DataLost", "True")?;
            let incarnation = store.data.pointer("/status/incarnation");
            ensure!(incarnation == Some(&json!(2)), "{incarnation:?}");
            Ok(())
        })
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_the_pods_survives_crash_and_trouble() -> Result<()> {
    disturb_sampled_calls("a_change_of_the_pods_survives_crash_and_trouble", disturbed).await
}

async fn disturbed(disturbance: Option<Disturbance>) -> Result<Outcome> {
    workload::run("roll-crash", None, async |bed, operator| {
        roll_once(bed, operator, disturbance).await
    })
    .await
}

async fn roll_once(
    bed: &TestBed,
    operator: &mut Supervised<'_>,
    disturbance: Option<Disturbance>,
) -> Result<()> {
    let size = StoreSize {
        replicas: 3,
        partitions: 1,
    };
    workload::bootstrap_of(
        bed,
        operator,
        samples::patient_store(STORE, size),
        STORE,
        size,
    )
    .await?;
    let load = workload::start_load(bed, operator, STORE, Pace::Calm).await?;
    operator.arm(disturbance)?;
    paint(bed, "red").await?;
    operator
        .until_settled("all pods to be replaced", LIMIT * 2, async || {
            is_painted(bed, "red", size).await
        })
        .await?;
    workload::check_load(bed, operator, load).await
}
