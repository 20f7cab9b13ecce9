//! A Store that grows and shrinks: members move before any pod goes, nothing that was acknowledged
//! is lost, whatever disturbs the operator, and also if users change their minds.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use atomix_operator_tests::fault::Disturbance;
use atomix_operator_tests::groups;
use atomix_operator_tests::load::Pace;
use atomix_operator_tests::matrix::{Outcome, disturb_sampled_calls};
use atomix_operator_tests::resources::{self, expect_condition};
use atomix_operator_tests::samples::{self, StoreSize};
use atomix_operator_tests::supervised::Supervised;
use atomix_operator_tests::test_bed::TestBed;
use atomix_operator_tests::workload::{self, LIMIT};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;

const STORE: &str = "tulip";
const PARTITIONS: u32 = 4;

fn size(replicas: u32) -> StoreSize {
    StoreSize {
        replicas,
        partitions: PARTITIONS,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_grows_and_shrinks_under_load_and_loses_nothing() -> Result<()> {
    workload::run("scale", None, grow_and_shrink).await?;
    Ok(())
}

async fn grow_and_shrink(bed: &TestBed, operator: &mut Supervised<'_>) -> Result<()> {
    workload::bootstrap(bed, operator, STORE, size(3)).await?;
    let load = workload::start_load(bed, operator, STORE, Pace::Busy).await?;
    for replicas in [5, 3] {
        scale(bed, replicas).await?;
        settle(bed, operator, replicas).await?;
        load.goes_on(20).await?;
    }
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(bed.client().clone(), bed.namespace());
    let claims = claims.list(&ListParams::default()).await?;
    ensure!(
        claims.items.len() == 5,
        "volumes of pods that went are kept"
    );
    let (acknowledged, unknown) = load.check().await?;
    println!("{acknowledged} increments were acknowledged, {unknown} failed");
    ensure!(
        unknown * 20 <= acknowledged,
        "{unknown} increments failed while {acknowledged} succeeded"
    );
    Ok(())
}

/// Where the machine of each pod is.
const ZONES: [&str; 5] = ["a", "a", "b", "b", "c"];
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_grows_puts_the_copies_of_a_partition_into_zones_of_their_own() -> Result<()> {
    workload::run("zones", None, spread_over_zones).await?;
    Ok(())
}

async fn spread_over_zones(bed: &TestBed, operator: &mut Supervised<'_>) -> Result<()> {
    workload::bootstrap(bed, operator, STORE, size(3)).await?;
    scale(bed, 5).await?;
    operator
        .until_settled("the copies to lie in three zones", LIMIT * 2, async || {
            tell_zones(bed).await?;
            is_settled(bed, size(5)).await?;
            let mut zones: BTreeMap<u32, Vec<&str>> = BTreeMap::new();
            for (ordinal, zone) in ZONES.iter().enumerate() {
                let pod = format!("{STORE}-{ordinal}");
                let address = bed.runner().address(&pod).context("it does not run")?;
                for group in groups::status(address).await?.groups {
                    zones.entry(group.partition_id).or_default().push(zone);
                }
            }
            let is_spread = zones.values().all(|zones| *zones == ["a", "b", "c"]);
            ensure!(is_spread, "the copies are in {zones:?}");
            Ok(())
        })
        .await
}

/// As the API server does when a pod gets a machine.
async fn tell_zones(bed: &TestBed) -> Result<()> {
    for (ordinal, zone) in ZONES.iter().enumerate() {
        let pod = bed.pods().get_opt(&format!("{STORE}-{ordinal}")).await?;
        let Some(pod) = pod.filter(|pod| !pod.labels().contains_key(ZONE_LABEL)) else {
            continue;
        };
        let labels = Patch::Merge(json!({"metadata": {"labels": {ZONE_LABEL: zone}}}));
        bed.pods()
            .patch(&pod.name_any(), &PatchParams::default(), &labels)
            .await?;
    }
    Ok(())
}

/// As `kubectl scale` and autoscalers do it.
async fn scale(bed: &TestBed, replicas: u32) -> Result<()> {
    let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
    let scaled = bed
        .stores()
        .patch_scale(STORE, &PatchParams::default(), &patch)
        .await?;
    let wanted = scaled.spec.and_then(|spec| spec.replicas);
    ensure!(wanted == i32::try_from(replicas).ok(), "{wanted:?}");
    Ok(())
}

/// Waits until so many pods hold all members, evenly, and the Store says that it is done.
async fn settle(bed: &TestBed, operator: &mut Supervised<'_>, replicas: u32) -> Result<()> {
    operator
        .until_settled("the members to lie as wanted", LIMIT * 2, async || {
            is_settled(bed, size(replicas)).await
        })
        .await
}

async fn is_settled(bed: &TestBed, size: StoreSize) -> Result<()> {
    let store = workload::store_is_ready(bed, STORE).await?;
    expect_condition(&store, "Degraded", "False")?;
    let progressing = expect_condition(&store, "Progressing", "False")?;
    ensure!(progressing.reason == "AsSpecified", "{progressing:?}");
    let pods = store.data.pointer("/status/replicas");
    ensure!(pods == Some(&json!(size.replicas)), "{pods:?} pods");
    workload::groups_are_whole(bed, STORE, size).await
}

/// Waits until the Store says that members move.
async fn until_moving(bed: &TestBed, operator: &mut Supervised<'_>) -> Result<()> {
    operator
        .until("members to move", LIMIT, async || {
            let store = bed.stores().get(STORE).await?;
            let progressing = expect_condition(&store, "Progressing", "True")?;
            ensure!(progressing.reason == "MovingMembers", "{progressing:?}");
            Ok(())
        })
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scaling_that_is_reverted_half_way_ends_where_it_began() -> Result<()> {
    workload::run("revert", None, revert).await?;
    Ok(())
}

async fn revert(bed: &TestBed, operator: &mut Supervised<'_>) -> Result<()> {
    workload::bootstrap(bed, operator, STORE, size(3)).await?;
    scale(bed, 5).await?;
    until_moving(bed, operator).await?;
    scale(bed, 3).await?;
    settle(bed, operator, 3).await?;
    // And down, then up again while members leave.
    scale(bed, 4).await?;
    settle(bed, operator, 4).await?;
    scale(bed, 3).await?;
    until_moving(bed, operator).await?;
    scale(bed, 4).await?;
    settle(bed, operator, 4).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scaling_that_is_paused_half_way_stands_still_and_goes_on() -> Result<()> {
    workload::run("pausing", None, pause).await?;
    Ok(())
}

async fn pause(bed: &TestBed, operator: &mut Supervised<'_>) -> Result<()> {
    workload::bootstrap(bed, operator, STORE, size(3)).await?;
    scale(bed, 5).await?;
    until_moving(bed, operator).await?;
    let pausing = json!({"spec": {"paused": true}});
    resources::change(&bed.stores(), STORE, pausing).await?;
    operator
        .until_settled("the Store to say that it is paused", LIMIT, async || {
            let store = bed.stores().get(STORE).await?;
            let progressing = expect_condition(&store, "Progressing", "False")?;
            ensure!(progressing.reason == "Paused", "{progressing:?}");
            Ok(())
        })
        .await?;
    ensure!(
        is_settled(bed, size(5)).await.is_err(),
        "all members had moved before the pause"
    );
    let tells = |operator: &Supervised<'_>| {
        let calls = operator.calls().into_iter();
        let told = calls.filter(|call| ["Join", "Leave"].contains(&call.call.what.as_str()));
        told.count()
    };
    let before = tells(operator);
    // A new look at the Store changes nothing, nor does the end of what a node had begun.
    let touching = json!({"metadata": {"annotations": {"touched": "yes"}}});
    resources::change(&bed.stores(), STORE, touching).await?;
    operator
        .until_settled("the pause to hold", LIMIT, async || {
            let store = bed.stores().get(STORE).await?;
            expect_condition(&store, "Progressing", "False")?;
            Ok(())
        })
        .await?;
    ensure!(
        tells(operator) == before,
        "members were changed in the pause"
    );
    resources::change(&bed.stores(), STORE, json!({"spec": {"paused": null}})).await?;
    settle(bed, operator, 5).await
}

/// Small, but a member that moves is one of three.
const SMALL: StoreSize = StoreSize {
    replicas: 3,
    partitions: 2,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scaling_survives_crash_and_trouble() -> Result<()> {
    disturb_sampled_calls("scaling_survives_crash_and_trouble", disturbed).await
}

async fn disturbed(disturbance: Option<Disturbance>) -> Result<Outcome> {
    workload::run("scale-crash", None, async |bed, operator| {
        grow_and_shrink_once(bed, operator, disturbance).await
    })
    .await
}

async fn grow_and_shrink_once(
    bed: &TestBed,
    operator: &mut Supervised<'_>,
    disturbance: Option<Disturbance>,
) -> Result<()> {
    workload::bootstrap(bed, operator, STORE, SMALL).await?;
    let load = workload::start_load(bed, operator, STORE, Pace::Calm).await?;
    operator.arm(disturbance)?;
    for replicas in [4, 3] {
        scale(bed, replicas).await?;
        operator
            .until_settled("the members to lie as wanted", LIMIT, async || {
                is_settled(bed, StoreSize { replicas, ..SMALL }).await
            })
            .await?;
    }
    workload::check_load(bed, operator, load).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_number_of_copies_grows_and_shrinks() -> Result<()> {
    workload::run("copies", None, async |bed, operator| {
        change_copies(bed, operator, None).await
    })
    .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_the_number_of_copies_survives_crash_and_trouble() -> Result<()> {
    let test = "a_change_of_the_number_of_copies_survives_crash_and_trouble";
    disturb_sampled_calls(test, |disturbance| {
        workload::run("copies-crash", None, async move |bed, operator| {
            change_copies(bed, operator, disturbance.clone()).await
        })
    })
    .await
}

async fn change_copies(
    bed: &TestBed,
    operator: &mut Supervised<'_>,
    disturbance: Option<Disturbance>,
) -> Result<()> {
    let store = samples::patient_store(STORE, size(3));
    workload::bootstrap_of(bed, operator, store, STORE, size(3)).await?;
    let load = workload::start_load(bed, operator, STORE, Pace::Calm).await?;
    operator.arm(disturbance)?;
    for copies in [1, 3] {
        let change = json!({"spec": {"multiRaft": {"replicationFactor": copies}}});
        resources::change(&bed.stores(), STORE, change).await?;
        operator
            .until_settled("the copies to be as wanted", LIMIT * 2, async || {
                let store = workload::store_is_ready(bed, STORE).await?;
                expect_condition(&store, "Progressing", "False")?;
                workload::groups_have(bed, STORE, size(3), copies).await
            })
            .await?;
    }
    workload::check_load(bed, operator, load).await
}
