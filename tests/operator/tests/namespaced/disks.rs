//! Volumes: they grow, they are deleted where the Store says so and only when nothing is on them,
//! and a Store that is made again on kept ones goes on with their data.

use anyhow::{Context as _, Result, ensure};
use atomix_operator_tests::claims;
use atomix_operator_tests::fault::Disturbance;
use atomix_operator_tests::groups;
use atomix_operator_tests::load::Pace;
use atomix_operator_tests::matrix::disturb_sampled_calls;
use atomix_operator_tests::resources::{self, expect_condition};
use atomix_operator_tests::samples::{self, StoreSize};
use atomix_operator_tests::supervised::Supervised;
use atomix_operator_tests::test_bed::TestBed;
use atomix_operator_tests::workload::{self, LIMIT};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::ResourceExt as _;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

const STORE: &str = "tulip";
const THREE: StoreSize = StoreSize {
    replicas: 3,
    partitions: 3,
};
const SMALL: StoreSize = StoreSize {
    replicas: 1,
    partitions: 2,
};

fn config_maps(bed: &TestBed) -> Api<ConfigMap> {
    Api::namespaced(bed.client().clone(), bed.namespace())
}

/// A Store with these fields of storage beside the size.
fn store(size: StoreSize, storage: Value) -> Result<Value> {
    let mut store = samples::store(STORE, size);
    let fields = store
        .pointer_mut("/spec/multiRaft/storage")
        .and_then(Value::as_object_mut)
        .context("the sample has storage")?;
    fields.extend(storage.as_object().cloned().unwrap_or_default());
    Ok(store)
}

async fn scale(bed: &TestBed, replicas: u32) -> Result<()> {
    let change = json!({"spec": {"multiRaft": {"replicas": replicas}}});
    resources::change(&bed.stores(), STORE, change).await?;
    Ok(())
}

async fn settle(bed: &TestBed, operator: &mut Supervised<'_>, size: StoreSize) -> Result<()> {
    operator
        .until_settled("the members to lie as wanted", LIMIT * 2, async || {
            let store = workload::store_is_ready(bed, STORE).await?;
            expect_condition(&store, "Progressing", "False")?;
            workload::groups_are_whole(bed, STORE, size).await
        })
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn volumes_grow_where_their_class_lets_them_and_the_store_says_where_not() -> Result<()> {
    workload::run("growth", None, grow).await?;
    Ok(())
}

async fn grow(bed: &TestBed, operator: &mut Supervised<'_>) -> Result<()> {
    claims::with_class_that_grows(bed, async || grow_with(bed, operator).await).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn growing_volumes_survives_crash_and_trouble() -> Result<()> {
    disturb_sampled_calls(
        "growing_volumes_survives_crash_and_trouble",
        |disturbance| {
            workload::run("growth-crash", None, async move |bed, operator| {
                claims::with_class_that_grows(bed, async || {
                    let made = store(SMALL, json!({"storageClassName": bed.namespace()}))?;
                    workload::bootstrap_of(bed, operator, made, STORE, SMALL).await?;
                    claims::bind_all(bed).await?;
                    let load = workload::start_load(bed, operator, STORE, Pace::Calm).await?;
                    operator.arm(disturbance.clone())?;
                    let size = json!({"spec": {"multiRaft": {"storage": {"size": "128Mi"}}}});
                    resources::change(&bed.stores(), STORE, size).await?;
                    until_asked_for(bed, operator, 1, "128Mi").await?;
                    workload::check_load(bed, operator, load).await
                })
                .await
            })
        },
    )
    .await
}

async fn grow_with(bed: &TestBed, operator: &mut Supervised<'_>) -> Result<()> {
    let made = store(THREE, json!({"storageClassName": bed.namespace()}))?;
    workload::bootstrap_of(bed, operator, made, STORE, THREE).await?;
    let size = |size: &str| json!({"spec": {"multiRaft": {"storage": {"size": size}}}});
    resources::change(&bed.stores(), STORE, size("128Mi")).await?;
    // Nobody provisions here, so the claims are not bound, and the API server refuses.
    operator
        .until(
            "the Store to say that its volumes do not grow",
            LIMIT,
            async || {
                let store = bed.stores().get(STORE).await?;
                let progressing = expect_condition(&store, "Progressing", "True")?;
                ensure!(progressing.reason == "VolumesNotGrown", "{progressing:?}");
                ensure!(
                    progressing.message.contains("allowVolumeExpansion"),
                    "{progressing:?}"
                );
                expect_condition(&store, "Ready", "True")?;
                Ok(())
            },
        )
        .await?;
    // Nothing else waits for it.
    scale(bed, 4).await?;
    let four = StoreSize {
        replicas: 4,
        ..THREE
    };
    operator
        .until("the fourth node to hold members", LIMIT, async || {
            workload::groups_are_whole(bed, STORE, four).await
        })
        .await?;
    claims::bind_all(bed).await?;
    until_asked_for(bed, operator, 4, "128Mi").await?;
    let sets: Api<StatefulSet> = Api::namespaced(bed.client().clone(), bed.namespace());
    let set = sets.get(STORE).await?;
    ensure!(
        serde_json::to_string(&set)?.contains("64Mi"),
        "the template stays as it was made"
    );
    Ok(())
}

/// Waits until all claims ask for so much, and the Store says that it is done.
async fn until_asked_for(
    bed: &TestBed,
    operator: &mut Supervised<'_>,
    count: usize,
    size: &str,
) -> Result<()> {
    operator
        .until_settled("all claims to ask for more", LIMIT, async || {
            claims::ask_for(bed, count, size).await?;
            let store = workload::store_is_ready(bed, STORE).await?;
            let progressing = expect_condition(&store, "Progressing", "False")?;
            ensure!(progressing.reason == "AsSpecified", "{progressing:?}");
            Ok(())
        })
        .await
}

async fn shrink_and_delete(
    bed: &TestBed,
    operator: &mut Supervised<'_>,
    disturbance: Option<Disturbance>,
) -> Result<()> {
    let made = store(SMALL, json!({"retentionPolicy": "Delete"}))?;
    workload::bootstrap_of(bed, operator, made, STORE, SMALL).await?;
    let load = workload::start_load(bed, operator, STORE, Pace::Calm).await?;
    operator.arm(disturbance)?;
    for replicas in [2, 1] {
        scale(bed, replicas).await?;
        settle(bed, operator, StoreSize { replicas, ..SMALL }).await?;
        let expected: Vec<String> = (0..replicas)
            .map(|at| format!("data-{STORE}-{at}"))
            .collect();
        operator
            .until_settled("only used volumes to be there", LIMIT, async || {
                let found = claims::names(bed).await?;
                ensure!(found == expected, "{found:?}, not {expected:?}");
                Ok(())
            })
            .await?;
    }
    workload::check_load(bed, operator, load).await?;
    workload::disconnect_load(bed, operator).await?;
    workload::delete_and_wait(operator, &bed.stores(), STORE).await?;
    operator
        .until("all volumes to be gone", LIMIT, async || {
            let found = claims::of(bed).list(&ListParams::default()).await?;
            ensure!(found.items.is_empty(), "{} are left", found.items.len());
            Ok(())
        })
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn volumes_go_with_their_nodes_and_with_the_store_if_it_says_so() -> Result<()> {
    workload::run("retention", None, async |bed, operator| {
        shrink_and_delete(bed, operator, None).await
    })
    .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleting_volumes_survives_crash_and_trouble() -> Result<()> {
    disturb_sampled_calls(
        "deleting_volumes_survives_crash_and_trouble",
        |disturbance| {
            workload::run("retention-crash", None, async move |bed, operator| {
                shrink_and_delete(bed, operator, disturbance.clone()).await
            })
        },
    )
    .await
}

/// Deletes the Store, keeps its volumes, and waits until nothing else of it is left.
async fn delete_but_keep_data(bed: &TestBed, operator: &mut Supervised<'_>) -> Result<()> {
    workload::delete_and_wait(operator, &bed.stores(), STORE).await?;
    let maps = config_maps(bed);
    operator
        .until("pods and plan to be gone", LIMIT, async || {
            let pods = bed.pods().list(&ListParams::default()).await?;
            let names = pods.iter().map(kube::ResourceExt::name_any);
            let nodes: Vec<String> = names.filter(|name| name.starts_with(STORE)).collect();
            ensure!(nodes.is_empty(), "{nodes:?} are left");
            let plan = maps.get_opt(&format!("{STORE}-bootstrap")).await?;
            ensure!(plan.is_none(), "the plan is there");
            Ok(())
        })
        .await
}

/// The members by pod and partition, and whose data it is.
async fn members(bed: &TestBed, replicas: u32) -> Result<(String, Vec<(String, u32, u64)>)> {
    let mut members = Vec::new();
    let mut uid = String::new();
    for pod in (0..replicas).map(|ordinal| format!("{STORE}-{ordinal}")) {
        let address = bed.runner().address(&pod).context("it runs")?;
        let status = groups::status(address).await?;
        uid = status.store_uid;
        let held = status.groups.into_iter();
        members.extend(held.map(|group| (pod.clone(), group.partition_id, group.member_id)));
    }
    members.sort();
    Ok((uid, members))
}

async fn adopt(
    bed: &TestBed,
    operator: &mut Supervised<'_>,
    size: StoreSize,
    disturbance: Option<Disturbance>,
) -> Result<()> {
    workload::bootstrap(bed, operator, STORE, size).await?;
    let load = workload::start_load(bed, operator, STORE, Pace::Calm).await?;
    let rest = load.rest().await;
    workload::disconnect_load(bed, operator).await?;
    let before = members(bed, size.replicas).await?;
    delete_but_keep_data(bed, operator).await?;
    operator.arm(disturbance)?;
    workload::bootstrap(bed, operator, STORE, size).await?;
    let after = members(bed, size.replicas).await?;
    ensure!(before == after, "{before:?} became {after:?}");
    let store = bed.stores().get(STORE).await?;
    let kept = store.data.pointer("/status/storeUid");
    ensure!(kept == Some(&json!(before.0)), "{kept:?}");
    ensure!(
        store.uid().as_ref() != Some(&before.0),
        "it is another Store"
    );
    workload::connect_load(bed, operator, STORE).await?;
    drop(rest);
    workload::check_load(bed, operator, load).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_made_again_on_kept_volumes_goes_on_with_their_data() -> Result<()> {
    workload::run("adopt", None, async |bed, operator| {
        adopt(bed, operator, THREE, None).await?;
        // Frames and checks go on under the uid of the data: new members join.
        scale(bed, 4).await?;
        let four = StoreSize {
            replicas: 4,
            ..THREE
        };
        settle(bed, operator, four).await
    })
    .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_that_is_deleted_is_made_again_from_what_the_nodes_hold() -> Result<()> {
    workload::run("replan", None, async |bed, operator| {
        workload::bootstrap(bed, operator, STORE, THREE).await?;
        let before = members(bed, THREE.replicas).await?;
        operator.arm(None)?;
        let plan = format!("{STORE}-bootstrap");
        config_maps(bed)
            .delete(&plan, &DeleteParams::default())
            .await?;
        operator
            .until_settled("the plan to be there, marked", LIMIT, async || {
                let found = config_maps(bed).get(&plan).await?;
                let mark = found
                    .data
                    .and_then(|data| data.get("bootstrapped").cloned());
                ensure!(mark.as_deref() == Some("true"), "{mark:?}");
                workload::store_is_ready(bed, STORE).await?;
                workload::groups_are_whole(bed, STORE, THREE).await
            })
            .await?;
        let after = members(bed, THREE.replicas).await?;
        ensure!(before == after, "{before:?} became {after:?}");
        // At no moment was there a plan that could have been sent to a node.
        let calls = operator.calls().into_iter();
        let calls = calls.filter(|call| call.call.verb.is_mutating());
        let calls: Vec<String> = calls.map(|call| call.name()).collect();
        for never in ["tell Bootstrap", "update configmaps"] {
            let was_called = calls.iter().any(|call| call.starts_with(never));
            ensure!(!was_called, "{calls:?}");
        }
        Ok(())
    })
    .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_lost_before_the_mark_begins_the_store_anew_and_loses_no_data() -> Result<()> {
    let marking = "before update configmaps tulip-bootstrap #1".parse()?;
    workload::run("lost-early", Some(Disturbance::Crash(marking)), restart).await?;
    Ok(())
}

async fn restart(bed: &TestBed, operator: &mut Supervised<'_>) -> Result<()> {
    let ended = operator.gate().ended().clone();
    resources::create(&bed.stores(), samples::store(STORE, THREE)).await?;
    let waited = tokio::time::timeout(LIMIT, ended.cancelled()).await;
    waited.context("the plan was never to be marked")?;
    let (pod, parameters) = (format!("{STORE}-0"), DeleteParams::default());
    claims::of(bed)
        .delete(&format!("data-{pod}"), &parameters)
        .await?;
    bed.pods().delete(&pod, &parameters).await?;
    operator
        .until_settled("the Store to begin anew", LIMIT, async || {
            let store = workload::store_is_ready(bed, STORE).await?;
            let incarnation = store.data.pointer("/status/incarnation");
            ensure!(incarnation == Some(&json!(2)), "{incarnation:?}");
            // There was none.
            ensure!(expect_condition(&store, "DataLost", "True").is_err());
            let pods = (0..THREE.replicas).map(|ordinal| format!("{STORE}-{ordinal}"));
            let nodes = pods.filter_map(|pod| bed.runner().address(&pod));
            groups::expect_bootstrapped(&nodes.collect::<Vec<_>>(), 3, 3, 2).await
        })
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_made_again_waits_for_the_pods_of_the_earlier_one() -> Result<()> {
    workload::run("again", None, async |bed, operator| {
        workload::bootstrap(bed, operator, STORE, SMALL).await?;
        let pod = format!("{STORE}-0");
        hold(bed, &pod, true).await?;
        workload::delete_and_wait(operator, &bed.stores(), STORE).await?;
        let sets: Api<StatefulSet> = Api::namespaced(bed.client().clone(), bed.namespace());
        operator
            .until(
                "the StatefulSet to be gone and its pod to go",
                LIMIT,
                async || {
                    ensure!(sets.get_opt(STORE).await?.is_none(), "it is there");
                    let going = bed.pods().get(&pod).await?;
                    ensure!(going.metadata.deletion_timestamp.is_some(), "it stays");
                    Ok(())
                },
            )
            .await?;
        resources::create(&bed.stores(), samples::store(STORE, SMALL)).await?;
        operator
            .until("the new Store to wait", LIMIT, async || {
                let store = bed.stores().get(STORE).await?;
                let ready = expect_condition(&store, "Ready", "False")?;
                ensure!(ready.reason == "WaitingForNodes", "{ready:?}");
                Ok(())
            })
            .await?;
        ensure!(sets.get_opt(STORE).await?.is_none(), "it did not wait");
        hold(bed, &pod, false).await?;
        operator
            .until("the new Store to be ready", LIMIT, async || {
                workload::store_is_ready(bed, STORE).await?;
                Ok(())
            })
            .await
    })
    .await?;
    Ok(())
}

/// Keeps a pod that is deleted from going, or lets it go.
async fn hold(bed: &TestBed, pod: &str, is_held: bool) -> Result<()> {
    let held = is_held.then_some(["atomix.io/held-by-a-test"]);
    let patch = Patch::Merge(json!({"metadata": {"finalizers": held}}));
    bed.pods()
        .patch(pod, &PatchParams::default(), &patch)
        .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_of_another_shape_is_left_alone() -> Result<()> {
    workload::run("misfit", None, async |bed, operator| {
        workload::bootstrap(bed, operator, STORE, SMALL).await?;
        delete_but_keep_data(bed, operator).await?;
        let larger = StoreSize {
            partitions: 3,
            ..SMALL
        };
        resources::create(&bed.stores(), samples::store(STORE, larger)).await?;
        operator
            .until("the Store to say that it does not fit", LIMIT, async || {
                let store = bed.stores().get(STORE).await?;
                let stalled = expect_condition(&store, "Stalled", "True")?;
                ensure!(stalled.reason == "ExistingData", "{stalled:?}");
                ensure!(
                    stalled.message.contains("spec.multiRaft.partitions: 2"),
                    "{stalled:?}"
                );
                Ok(())
            })
            .await
    })
    .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn adoption_survives_crash_and_trouble() -> Result<()> {
    disturb_sampled_calls("adoption_survives_crash_and_trouble", |disturbance| {
        workload::run("adopt-crash", None, async move |bed, operator| {
            adopt(bed, operator, SMALL, disturbance.clone()).await
        })
    })
    .await
}
