//! Two of three disks are lost: the Store says which partitions stopped and what to do, recovers
//! them from the one that is left when a person says so, and makes the other copies again.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};
use atomix_operator_tests::fault::Disturbance;
use atomix_operator_tests::frozen::Frozen;
use atomix_operator_tests::groups;
use atomix_operator_tests::load::Pace;
use atomix_operator_tests::matrix::disturb_sampled_calls;
use atomix_operator_tests::resources::{self, expect_condition};
use atomix_operator_tests::samples::StoreSize;
use atomix_operator_tests::supervised::Supervised;
use atomix_operator_tests::test_bed::TestBed;
use atomix_operator_tests::workload::{self, LIMIT};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::Api;
use kube::api::DeleteParams;
use serde_json::{Value, json};

const STORE: &str = "tulip";
const SIZE: StoreSize = StoreSize {
    replicas: 3,
    partitions: 2,
};

const LOST: [&str; 2] = ["tulip-1", "tulip-2"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_lost_two_of_three_disks_is_recovered_by_a_persons_word() -> Result<()> {
    workload::run("recover", None, async |bed, operator| {
        recover(bed, operator, None).await
    })
    .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recovery_survives_crash_and_trouble() -> Result<()> {
    disturb_sampled_calls("a_recovery_survives_crash_and_trouble", |disturbance| {
        workload::run("recover-crash", None, async move |bed, operator| {
            recover(bed, operator, disturbance.clone()).await
        })
    })
    .await
}

const FIVE: StoreSize = StoreSize {
    replicas: 5,
    partitions: 5,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_that_kept_their_majority_go_on_and_are_repaired() -> Result<()> {
    workload::run("some-lost", None, lose_some).await?;
    Ok(())
}

async fn lose_some(bed: &TestBed, operator: &mut Supervised<'_>) -> Result<()> {
    workload::bootstrap(bed, operator, STORE, FIVE).await?;
    let copies = copies(bed).await?;
    let lost = |pods: &BTreeMap<String, u64>| {
        let lost = LOST.iter().filter(|pod| pods.contains_key(**pod));
        lost.count() > 1
    };
    let (stopped, living): (BTreeMap<_, _>, BTreeMap<_, _>) =
        copies.into_iter().partition(|(_, pods)| lost(pods));
    ensure!(
        !stopped.is_empty() && !living.is_empty(),
        "{stopped:?} and {living:?}"
    );
    lose_disks(bed).await?;

    // The Store names those that stopped, and the others get their third copies again.
    operator
        .until("the living ones to be whole again", LIMIT * 2, async || {
            let store = bed.stores().get(STORE).await?;
            let ready = expect_condition(&store, "Ready", "False")?;
            ensure!(ready.reason == "QuorumLost", "{ready:?}");
            let status = store.data.get("status").context("no status")?;
            let count = status.pointer("/partitions/ready").and_then(Value::as_u64);
            ensure!(
                count == u64::try_from(living.len()).ok(),
                "{count:?} are ready"
            );
            let named = status.pointer("/unhealthyPartitions");
            let named = named.and_then(Value::as_array).into_iter().flatten();
            let named = named.filter(|problem| problem.get("reason") == Some(&json!("QuorumLost")));
            let named = named.filter_map(|problem| problem.get("partition")?.as_u64());
            let named: BTreeSet<u64> = named.collect();
            let expected: BTreeSet<u64> = stopped.keys().map(|id| u64::from(*id)).collect();
            ensure!(
                named == expected,
                "{named:?} are named, {expected:?} stopped"
            );
            for (partition, pods) in self::copies(bed).await? {
                let is_whole = pods.len() == 3 || stopped.contains_key(&partition);
                ensure!(is_whole, "partition {partition} is on {pods:?}");
            }
            Ok(())
        })
        .await?;

    let wishes: serde_json::Map<String, Value> = stopped
        .iter()
        .filter_map(|(partition, pods)| {
            let mut left = pods.iter().filter(|(pod, _)| !LOST.contains(&pod.as_str()));
            let (pod, member) = left.next()?;
            let key = format!("recover.atomix.io/partition-{partition}");
            Some((key, json!(format!("{pod} {member:016x}"))))
        })
        .collect();
    ensure!(wishes.len() == stopped.len(), "{wishes:?}");
    let wish = json!({"metadata": {"annotations": wishes}});
    resources::change(&bed.stores(), STORE, wish).await?;
    operator
        .until_settled("all copies to be there again", LIMIT * 2, async || {
            let store = workload::store_is_ready(bed, STORE).await?;
            expect_condition(&store, "Progressing", "False")?;
            expect_condition(&store, "Degraded", "False")?;
            workload::groups_are_whole(bed, STORE, FIVE).await
        })
        .await
}

/// The member of each partition by pod, of the pods that run.
async fn copies(bed: &TestBed) -> Result<BTreeMap<u32, BTreeMap<String, u64>>> {
    let mut copies = BTreeMap::<u32, BTreeMap<String, u64>>::new();
    for pod in (0..FIVE.replicas).map(|ordinal| format!("{STORE}-{ordinal}")) {
        let Some(address) = bed.runner().address(&pod) else {
            continue;
        };
        for group in groups::status(address).await?.groups {
            let pods = copies.entry(group.partition_id).or_default();
            pods.insert(pod.clone(), group.member_id);
        }
    }
    Ok(copies)
}

/// Both at once: while one of them serves, the groups replace the other's members.
async fn lose_disks(bed: &TestBed) -> Result<()> {
    let mut nodes = Vec::new();
    for pod in LOST {
        nodes.push(Frozen::stop(bed, pod).await?);
    }
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(bed.client().clone(), bed.namespace());
    let parameters = DeleteParams::default();
    for pod in LOST {
        claims.delete(&format!("data-{pod}"), &parameters).await?;
        bed.pods().delete(pod, &parameters).await?;
    }
    nodes.into_iter().try_for_each(Frozen::kill)
}

async fn recover(
    bed: &TestBed,
    operator: &mut Supervised<'_>,
    disturbance: Option<Disturbance>,
) -> Result<()> {
    workload::bootstrap(bed, operator, STORE, SIZE).await?;
    let load = workload::start_load(bed, operator, STORE, Pace::Calm).await?;
    // The copy that is left need not have what the two others acknowledged.
    let rest = load.rest().await;
    until_even(bed, operator).await?;
    lose_disks(bed).await?;
    operator
        .until("the Store to say what is lost", LIMIT, async || {
            let store = bed.stores().get(STORE).await?;
            let ready = expect_condition(&store, "Ready", "False")?;
            ensure!(ready.reason == "QuorumLost", "{ready:?}");
            for part in LOST.iter().chain(&["store recover tulip --partition 1"]) {
                ensure!(ready.message.contains(part), "{ready:?}");
            }
            // Whoever waits for it learns that waiting does not help.
            let stalled = expect_condition(&store, "Stalled", "True")?;
            ensure!(stalled.reason == "QuorumLost", "{stalled:?}");
            expect_condition(&store, "Progressing", "False")?;
            Ok(())
        })
        .await?;

    let survivor = bed.runner().address("tulip-0").context("tulip-0 runs")?;
    let groups = groups::status(survivor).await?.groups;
    let wishes: serde_json::Map<String, Value> = groups
        .iter()
        .map(|group| {
            let key = format!("recover.atomix.io/partition-{}", group.partition_id);
            (key, json!(format!("tulip-0 {:016x}", group.member_id)))
        })
        .collect();
    let former: Vec<u64> = groups.iter().map(|group| group.member_id).collect();
    operator.arm(disturbance)?;
    let wish = json!({"metadata": {"annotations": wishes}});
    resources::change(&bed.stores(), STORE, wish).await?;
    operator
        .until_settled("all copies to be there again", LIMIT * 2, async || {
            is_whole(bed).await
        })
        .await?;
    let recovered = groups::status(survivor).await?.groups;
    let is_new = |member: u64| !former.contains(&member);
    ensure!(
        recovered.iter().all(|group| is_new(group.member_id)),
        "the former ids stay used: {recovered:?}"
    );
    // The operator may ask again before it has seen the answer to its question: that does nothing.
    for (before, now) in groups.iter().zip(&recovered) {
        let partition = before.partition_id;
        let member = groups::recover(survivor, partition, before.member_id).await?;
        ensure!(
            (now.partition_id, now.member_id) == (partition, member),
            "the same wish again made {member:016x} of {now:?}"
        );
    }
    operator
        .until_settled("all to be well", LIMIT, async || is_whole(bed).await)
        .await?;
    drop(rest);
    workload::check_load(bed, operator, load).await
}

/// Waits until all copies hold the same.
async fn until_even(bed: &TestBed, operator: &mut Supervised<'_>) -> Result<()> {
    operator
        .until("all copies to be even", LIMIT, async || {
            let mut applied = BTreeMap::<u32, BTreeSet<u64>>::new();
            for ordinal in 0..SIZE.replicas {
                let pod = format!("{STORE}-{ordinal}");
                let address = bed.runner().address(&pod).context("it does not run")?;
                for group in groups::status(address).await?.groups {
                    let seen = applied.entry(group.partition_id).or_default();
                    seen.insert(group.applied);
                }
            }
            let is_even = applied.values().all(|seen| seen.len() == 1);
            ensure!(is_even, "applied, by partition: {applied:?}");
            Ok(())
        })
        .await
}

async fn is_whole(bed: &TestBed) -> Result<()> {
    let store = workload::store_is_ready(bed, STORE).await?;
    expect_condition(&store, "Progressing", "False")?;
    expect_condition(&store, "Degraded", "False")?;
    expect_condition(&store, "Stalled", "False")?;
    workload::groups_are_whole(bed, STORE, SIZE).await
}
