//! What is wrong is named by a condition, disturbs nothing else, and heals when it is put right.

use anyhow::{Context as _, Result, ensure};
use atomix_operator_tests::resources::{self, Condition, expect_condition};
use atomix_operator_tests::samples::{self, StoreSize};
use atomix_operator_tests::supervised::Supervised;
use atomix_operator_tests::test_bed::TestBed;
use atomix_operator_tests::workload::{self, LIMIT};
use kube::Api;
use kube::api::{DynamicObject, Patch, PatchParams};
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

/// Well-formed for the operator, but not for the runtime's driver.
async fn refused_config(bed: &TestBed, operator: &mut Supervised<'_>) -> Result<()> {
    let mut store = samples::store_of_driver("iris", "memory");
    set(&mut store, "/spec", "config", json!({"colour": "red"}));
    resources::create(&bed.stores(), store).await?;
    bed.create_pod(samples::application_pod("swarm-0", "swarm"))
        .await?;
    resources::create(&bed.sessions(), samples::session("ants", "iris", "swarm")).await?;
    let named = wait_for_trouble(operator, &bed.sessions(), "ants").await?;
    ensure!(named.message.contains("colour"), "{named:?}");
    patch(
        &bed.stores(),
        "iris",
        json!({"spec": {"config": {"colour": null}}}),
    )
    .await?;
    operator
        .until("the Session ants to be connected", LIMIT, async || {
            let session = bed.sessions().get("ants").await?;
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
