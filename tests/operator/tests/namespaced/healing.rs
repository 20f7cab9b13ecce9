//! What is wrong is named by a condition, disturbs nothing else, and heals when it is put right.

use anyhow::{Context as _, Result, ensure};
use atomix_operator_tests::pod_status::{ContainerState, PodState};
use atomix_operator_tests::resources::{self, Condition, expect_condition};
use atomix_operator_tests::samples::{self, StoreSize};
use atomix_operator_tests::supervised::Supervised;
use atomix_operator_tests::test_bed::TestBed;
use atomix_operator_tests::workload::{self, LIMIT};
use atomix_operator_tests::{addresses, counter};
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};

const SMALL: StoreSize = StoreSize {
    replicas: 1,
    partitions: 1,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_is_named_and_heals_and_disturbs_nothing_else() -> Result<()> {
    workload::run("healing", None, heal).await?;
    Ok(())
}

async fn heal(bed: &TestBed, operator: &mut Supervised<'_>) -> Result<()> {
    // What must stay undisturbed.
    bed.create_pod(samples::application_pod("hive-0", "hive"))
        .await?;
    resources::create(&bed.stores(), samples::store_of_driver("rose", "memory")).await?;
    resources::create(&bed.sessions(), samples::session("bees", "rose", "hive")).await?;
    wait_for_ready(operator, &bed.sessions(), "bees").await?;
    let undisturbed = transition_of_ready(bed).await?;

    unknown_store(bed, operator).await?;
    unknown_driver_version(bed, operator).await?;
    unknown_driver(bed, operator).await?;
    refused_field(bed, operator).await?;
    refused_config(bed, operator).await?;
    unreachable_pod(bed, operator).await?;
    missing_image(bed, operator).await?;

    expect_condition(&bed.sessions().get("bees").await?, "Ready", "True")?;
    let now = transition_of_ready(bed).await?;
    ensure!(
        now == undisturbed,
        "the Session bees was disturbed: Ready since {now}, at first since {undisturbed}"
    );
    Ok(())
}

async fn unknown_store(bed: &TestBed, operator: &mut Supervised<'_>) -> Result<()> {
    resources::create(&bed.sessions(), samples::session("wasps", "lily", "nest")).await?;
    let named = wait_for_trouble(operator, &bed.sessions(), "wasps").await?;
    ensure!(named.reason == "StoreNotFound", "{named:?}");
    wait_for_warning(bed, operator, "wasps", "StoreNotFound").await?;
    resources::create(&bed.stores(), samples::store_of_driver("lily", "memory")).await?;
    wait_for_ready(operator, &bed.sessions(), "wasps").await
}

async fn unknown_driver_version(bed: &TestBed, operator: &mut Supervised<'_>) -> Result<()> {
    let mut store = samples::store_of_driver("daisy", "memory");
    set(&mut store, "/spec/driver", "version", json!("v0"));
    resources::create(&bed.stores(), store).await?;
    let named = wait_for_trouble(operator, &bed.stores(), "daisy").await?;
    ensure!(
        named.reason.contains("Driver") && named.message.contains("v0"),
        "{named:?}"
    );
    resources::create(&bed.sessions(), samples::session("flies", "daisy", "nest")).await?;
    let named = wait_for_trouble(operator, &bed.sessions(), "flies").await?;
    ensure!(
        named.reason.contains("Driver") && named.message.contains("v0"),
        "{named:?}"
    );
    patch(
        &bed.stores(),
        "daisy",
        json!({"spec": {"driver": {"version": null}}}),
    )
    .await?;
    wait_for_ready(operator, &bed.stores(), "daisy").await?;
    wait_for_ready(operator, &bed.sessions(), "flies").await
}

async fn unknown_driver(bed: &TestBed, operator: &mut Supervised<'_>) -> Result<()> {
    resources::create(&bed.stores(), samples::store_of_driver("thistle", "etcd")).await?;
    let named = wait_for_trouble(operator, &bed.stores(), "thistle").await?;
    ensure!(
        named.reason.contains("Driver") && named.message.contains("etcd"),
        "{named:?}"
    );
    // The name cannot be changed, as the API server says; a new Store heals what waited for it.
    let other_driver = json!({"spec": {"driver": {"name": "memory"}}});
    let refused = patch(&bed.stores(), "thistle", other_driver).await;
    ensure!(refused.is_err(), "the driver's name could be changed");
    resources::create(
        &bed.sessions(),
        samples::session("moths", "thistle", "nest"),
    )
    .await?;
    let named = wait_for_trouble(operator, &bed.sessions(), "moths").await?;
    ensure!(named.message.contains("etcd"), "{named:?}");
    workload::delete_and_wait(operator, &bed.sessions(), "moths").await?;
    workload::delete_and_wait(operator, &bed.stores(), "thistle").await?;
    resources::create(&bed.stores(), samples::store_of_driver("thistle", "memory")).await?;
    resources::create(
        &bed.sessions(),
        samples::session("moths", "thistle", "nest"),
    )
    .await?;
    wait_for_ready(operator, &bed.sessions(), "moths").await
}

/// Well-formed for the API server, but not for the operator.
async fn refused_field(bed: &TestBed, operator: &mut Supervised<'_>) -> Result<()> {
    let mut store = samples::store("poppy", SMALL);
    set(&mut store, "/spec", "config", json!({"colour": "red"}));
    resources::create(&bed.stores(), store).await?;
    let named = wait_for_trouble(operator, &bed.stores(), "poppy").await?;
    ensure!(named.message.contains("colour"), "{named:?}");
    expect_condition(&bed.stores().get("poppy").await?, "Stalled", "True")?;
    wait_for_warning(bed, operator, "poppy", "InvalidSpec").await?;
    // Another mistake of the same kind is told by the condition, not by an event more.
    let timeouts = json!({"colour": null, "timeouts": {"session": "1s", "connect": "soon"}});
    resources::change(
        &bed.stores(),
        "poppy",
        json!({"spec": {"config": timeouts}}),
    )
    .await?;
    operator
        .until("the Store poppy to name its timeout", LIMIT, async || {
            let store = bed.stores().get("poppy").await?;
            let named = expect_condition(&store, "Stalled", "True")?;
            ensure!(named.message.contains("timeouts.connect"), "{named:?}");
            Ok(())
        })
        .await?;
    wait_for_warning(bed, operator, "poppy", "InvalidSpec").await?;
    patch(&bed.stores(), "poppy", json!({"spec": {"config": null}})).await?;
    wait_for_ready(operator, &bed.stores(), "poppy").await
}

/// Well-formed for the operator, but not for the runtime's driver: first of a Store that is new, then
/// of one that is connected.
async fn refused_config(bed: &TestBed, operator: &mut Supervised<'_>) -> Result<()> {
    let mut store = samples::store_of_driver("iris", "memory");
    let red = json!({"colour": "red"});
    set(&mut store, "/spec", "config", red.clone());
    resources::create(&bed.stores(), store).await?;
    bed.create_pod(samples::application_pod("swarm-0", "swarm"))
        .await?;
    resources::create(&bed.sessions(), samples::session("ants", "iris", "swarm")).await?;
    let corrected = json!({"spec": {"config": {"colour": null}}});
    for event in ["ConnectFailed", "ConfigureFailed"] {
        let named = wait_for_trouble(operator, &bed.sessions(), "ants").await?;
        ensure!(named.message.contains("colour"), "{named:?}");
        operator
            .until("an event of the pod to tell", LIMIT, async || {
                let told = resources::events(bed.client(), bed.namespace(), "swarm-0").await?;
                ensure!(told.contains(event), "{event} is not among {told:?}");
                Ok(())
            })
            .await?;
        if event == "ConfigureFailed" {
            // It goes on with what it had.
            let pod = bed.runner().address("swarm-0").context("it runs")?;
            counter::increment(pod, "honey", 1).await?;
        }
        patch(&bed.stores(), "iris", corrected.clone()).await?;
        wait_for_connected(bed, operator, "ants").await?;
        if event == "ConnectFailed" {
            patch(&bed.stores(), "iris", json!({"spec": {"config": red}})).await?;
        }
    }
    Ok(())
}

/// A pod whose machine says that its runtime runs, while nothing answers at its address.
async fn unreachable_pod(bed: &TestBed, operator: &mut Supervised<'_>) -> Result<()> {
    let mut pod = samples::application_pod("cell-0", "cell");
    // The runner of pods leaves it to that machine.
    set(&mut pod, "/spec", "nodeName", json!("cut-off"));
    bed.create_pod(pod).await?;
    let pod = bed.pods().get("cell-0").await?;
    let address = addresses::next_free();
    let status = Patch::Merge(running().patch(&pod, address));
    bed.pods()
        .patch_status("cell-0", &PatchParams::default(), &status)
        .await?;

    resources::create(&bed.sessions(), samples::session("drones", "rose", "cell")).await?;
    operator
        .until("the Session drones to name its pod", LIMIT, async || {
            let session = bed.sessions().get("drones").await?;
            let named = expect_condition(&session, "Ready", "False")?;
            ensure!(
                named.reason == "PodUnreachable"
                    && named.message.contains("cell-0")
                    && named.message.contains(&address.to_string()),
                "{named:?}"
            );
            // It is tried again without anybody's doing.
            expect_condition(&session, "Stalled", "False")?;
            expect_condition(&session, "Progressing", "True")?;
            Ok(())
        })
        .await?;

    // The machine does not come back. Kubernetes deletes such a pod too, after a while.
    let at_once = DeleteParams::default().grace_period(0);
    match bed.pods().delete("cell-0", &at_once).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => {}
        deleted => drop(deleted?),
    }
    bed.create_pod(samples::application_pod("cell-0", "cell"))
        .await?;
    wait_for_connected(bed, operator, "drones").await
}

fn running() -> PodState {
    let runs = |name: &str| {
        let state = ContainerState::Running {
            id: format!("test://{name}"),
            started: true,
            ready: true,
        };
        (name.to_owned(), state)
    };
    PodState {
        containers: vec![runs("atomix-runtime"), runs("application")],
        restarts: 0,
        started_at: Timestamp::now(),
        gates_hold: true,
    }
}

/// An image that is not there heals with a corrected one: the pods that never ran are replaced.
async fn missing_image(bed: &TestBed, operator: &mut Supervised<'_>) -> Result<()> {
    let mut store = samples::store("aster", SMALL);
    set(
        &mut store,
        "/spec/multiRaft/pod",
        "image",
        json!("atomix-node:missing"),
    );
    resources::create(&bed.stores(), store).await?;
    operator
        .until(
            "the Store aster to name its pod's trouble",
            LIMIT,
            async || {
                let store = bed.stores().get("aster").await?;
                let named = expect_condition(&store, "Ready", "False")?;
                ensure!(named.reason.contains("Image"), "{named:?}");
                Ok(())
            },
        )
        .await?;
    let corrected = json!({"spec": {"multiRaft": {"pod": {"image": "atomix-node:test"}}}});
    patch(&bed.stores(), "aster", corrected).await?;
    wait_for_ready(operator, &bed.stores(), "aster").await
}

async fn wait_for_warning(
    bed: &TestBed,
    operator: &mut Supervised<'_>,
    object: &str,
    reason: &str,
) -> Result<()> {
    operator
        .until("one event to tell of it", LIMIT, async || {
            resources::expect_one_warning(bed.client(), bed.namespace(), object, reason).await
        })
        .await
}

async fn wait_for_ready(
    operator: &mut Supervised<'_>,
    api: &Api<DynamicObject>,
    name: &str,
) -> Result<()> {
    operator
        .until("an object to be ready", LIMIT, async || {
            expect_condition(&api.get(name).await?, "Ready", "True")?;
            Ok(())
        })
        .await
}

/// Waits until a Session is ready and connected at its one pod.
async fn wait_for_connected(
    bed: &TestBed,
    operator: &mut Supervised<'_>,
    session: &str,
) -> Result<()> {
    operator
        .until("a Session to be connected", LIMIT, async || {
            let session = bed.sessions().get(session).await?;
            expect_condition(&session, "Ready", "True")?;
            let connected = session.data.pointer("/status/pods/connected");
            ensure!(
                connected.and_then(Value::as_u64) == Some(1),
                "{connected:?} connected"
            );
            Ok(())
        })
        .await
}

/// Waits until an object says that it is not ready and only a person can go on.
async fn wait_for_trouble(
    operator: &mut Supervised<'_>,
    api: &Api<DynamicObject>,
    name: &str,
) -> Result<Condition> {
    operator
        .until("an object to name its trouble", LIMIT, async || {
            let object = api.get(name).await?;
            expect_condition(&object, "Stalled", "True")?;
            expect_condition(&object, "Ready", "False")
        })
        .await
}

async fn transition_of_ready(bed: &TestBed) -> Result<String> {
    let session = bed.sessions().get("bees").await?;
    let conditions = session.data.pointer("/status/conditions");
    let conditions = conditions
        .and_then(Value::as_array)
        .context("no conditions")?;
    let ready = conditions
        .iter()
        .find(|condition| condition.get("type").and_then(Value::as_str) == Some("Ready"))
        .context("no condition Ready")?;
    Ok(ready
        .get("lastTransitionTime")
        .map(ToString::to_string)
        .unwrap_or_default())
}

async fn patch(api: &Api<DynamicObject>, name: &str, change: Value) -> Result<()> {
    api.patch(name, &PatchParams::default(), &Patch::Merge(change))
        .await?;
    Ok(())
}

fn set(object: &mut Value, pointer: &str, field: &str, value: Value) {
    let parent = object.pointer_mut(pointer).and_then(Value::as_object_mut);
    parent
        .expect("the sample has this field")
        .insert(field.to_owned(), value);
}
