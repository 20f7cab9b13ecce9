//! Values of Secrets and ConfigMaps in a driver's configuration: what is missing is named and heals,
//! a change reaches the runtimes whatever disturbs the operator, and no value is ever shown.

use anyhow::{Context as _, Result, ensure};
use atomix_operator_tests::fault::Disturbance;
use atomix_operator_tests::matrix::{Outcome, disturb_sampled_calls};
use atomix_operator_tests::resources::{self, Condition, expect_condition};
use atomix_operator_tests::samples::{self, StoreSize};
use atomix_operator_tests::supervised::Supervised;
use atomix_operator_tests::test_bed::TestBed;
use atomix_operator_tests::workload::{self, LIMIT};
use atomix_operator_tests::{counter, runtime_pods};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Api;
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams,
};
use kube::core::GroupVersionKind;
use serde_json::{Value, json};

const SIZE: StoreSize = StoreSize {
    replicas: 1,
    partitions: 1,
};
const STORE: &str = "tulip";
const SECRET: &str = "pollen";
const CONFIG_MAP: &str = "weather";
const POD: &str = "hive-0";
/// Each can be told from everything else that is written.
const REFUSED: &str = "s3cr3t-soon";
const FIRST: &str = "41417ms";
const SECOND: &str = "43439ms";
const THIRD: &str = "47441ms";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_configuration_lacks_is_named_and_heals_and_no_value_is_shown() -> Result<()> {
    workload::run("configfrom", None, heal).await?;
    Ok(())
}

async fn heal(bed: &TestBed, operator: &mut Supervised<'_>) -> Result<()> {
    let secret = json!({"metadata": {"name": SECRET}, "stringData": {"other": "x"}});
    secrets(bed)
        .create(&PostParams::default(), &serde_json::from_value(secret)?)
        .await?;
    create_config_map(bed).await?;
    resources::create(&bed.stores(), store()).await?;
    resources::create(&bed.sessions(), samples::session("bees", STORE, "hive")).await?;
    bed.create_pod(samples::application_pod(POD, "hive"))
        .await?;

    // Not labelled: nothing of it is read. The nodes begin nevertheless.
    let named = stalled(
        bed,
        operator,
        "ConfigSourceNotFound",
        &["Secret pollen", "add the label"],
    );
    named.await?;
    operator
        .until("the nodes to begin", LIMIT, async || {
            let store = bed.stores().get(STORE).await?;
            ensure!(store.data.pointer("/status/bootstrapped") == Some(&json!(true)));
            Ok(())
        })
        .await?;
    let session = operator
        .until("the Session to name the cause", LIMIT, async || {
            let session = bed.sessions().get("bees").await?;
            expect_condition(&session, "Stalled", "True")
        })
        .await?;
    ensure!(session.reason == "ConfigSourceNotFound", "{session:?}");

    label(bed, Some("true")).await?;
    stalled(bed, operator, "ConfigValueInvalid", &["no key session"]).await?;
    write(bed, REFUSED).await?;
    let refused = [
        "timeouts.session",
        "from Secret pollen, key session",
        "a whole number",
    ];
    stalled(bed, operator, "InvalidSpec", &refused).await?;
    write(bed, FIRST).await?;
    connected(bed, operator).await?;
    ensure!(increment(bed).await? == 1);

    // A change reaches the runtime, which keeps its connection.
    let before = digest(bed).await?;
    write(bed, SECOND).await?;
    configured_anew(bed, operator, &before).await?;
    operator
        .until("the pod's events to tell", LIMIT, async || {
            expect_event(bed, "Connected").await?;
            expect_event(bed, "Configured").await
        })
        .await?;
    ensure!(increment(bed).await? == 2);

    // What is refused disconnects nobody, and neither does what has gone.
    let before = digest(bed).await?;
    write(bed, REFUSED).await?;
    stalled(bed, operator, "InvalidSpec", &refused).await?;
    operator
        .until("the Session to name the cause", LIMIT, async || {
            let session = bed.sessions().get("bees").await?;
            let ready = expect_condition(&session, "Ready", "False")?;
            ensure!(ready.reason == "StoreInvalid", "{ready:?}");
            Ok(())
        })
        .await?;
    ensure!(digest(bed).await? == before);
    // The nodes are kept all the same.
    workload::replace_pod(bed, operator, "tulip-0").await?;
    ensure!(increment(bed).await? == 3);
    write(bed, SECOND).await?;
    connected(bed, operator).await?;

    for gone in ["deleted", "no longer labelled"] {
        let before = digest(bed).await?;
        if gone == "deleted" {
            secrets(bed)
                .delete(SECRET, &DeleteParams::default())
                .await?;
        } else {
            label(bed, None).await?;
        }
        stalled(bed, operator, "ConfigSourceNotFound", &["Secret pollen"]).await?;
        let count = increment(bed).await?;
        ensure!(digest(bed).await? == before, "{gone}");
        if gone == "deleted" {
            create_secret(bed, THIRD).await?;
            configured_anew(bed, operator, &before).await?;
        } else {
            label(bed, Some("true")).await?;
        }
        connected(bed, operator).await?;
        ensure!(increment(bed).await? == count + 1, "{gone}");
    }
    expect_no_value_shown(bed).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn config_from_change_survives_crash_and_trouble() -> Result<()> {
    disturb_sampled_calls("config_from_change_survives_crash_and_trouble", run).await
}

async fn run(disturbance: Option<Disturbance>) -> Result<Outcome> {
    workload::run("reconfigured", None, async |bed, operator| {
        create_secret(bed, FIRST).await?;
        create_config_map(bed).await?;
        bed.create_pod(samples::application_pod(POD, "hive"))
            .await?;
        resources::create(&bed.stores(), store()).await?;
        resources::create(&bed.sessions(), samples::session("bees", STORE, "hive")).await?;
        connected(bed, operator).await?;
        operator
            .until_settled("the operator to rest", LIMIT, async || Ok(()))
            .await?;
        ensure!(increment(bed).await? == 1);
        let before = digest(bed).await?;

        operator.arm(disturbance)?;
        write(bed, SECOND).await?;
        configured_anew(bed, operator, &before).await?;
        operator
            .until_settled("the runtime to be connected", LIMIT, async || {
                ensure!(digest(bed).await? != before);
                expect_connected(bed).await
            })
            .await?;
        ensure!(increment(bed).await? == 2);
        expect_no_value_shown(bed).await
    })
    .await
}

/// A Store that takes a timeout from a Secret, and another one from a ConfigMap.
fn store() -> Value {
    let mut store = samples::store(STORE, SIZE);
    store["spec"]["configFrom"] = json!([
        {"secretRef": {"name": SECRET}, "key": "session", "path": "timeouts.session"},
        {"configMapRef": {"name": CONFIG_MAP}, "key": "connect", "path": "timeouts.connect"},
    ]);
    store
}

fn secrets(bed: &TestBed) -> Api<Secret> {
    Api::namespaced(bed.client().clone(), bed.namespace())
}

async fn create_secret(bed: &TestBed, session: &str) -> Result<()> {
    let secret = json!({
        "metadata": {"name": SECRET, "labels": {"atomix.io/config": "true"}},
        "stringData": {"session": session},
    });
    let secret = serde_json::from_value(secret)?;
    let created = secrets(bed).create(&PostParams::default(), &secret).await;
    created.context("cannot create a Secret")?;
    Ok(())
}

async fn create_config_map(bed: &TestBed) -> Result<()> {
    let config_maps: Api<ConfigMap> = Api::namespaced(bed.client().clone(), bed.namespace());
    let config_map = json!({
        "metadata": {"name": CONFIG_MAP, "labels": {"atomix.io/config": "true"}},
        "data": {"connect": "1500ms"},
    });
    let config_map = serde_json::from_value(config_map)?;
    let created = config_maps
        .create(&PostParams::default(), &config_map)
        .await;
    created.context("cannot create a ConfigMap")?;
    Ok(())
}

async fn write(bed: &TestBed, session: &str) -> Result<()> {
    change_secret(bed, json!({"stringData": {"session": session}})).await
}

async fn label(bed: &TestBed, value: Option<&str>) -> Result<()> {
    change_secret(
        bed,
        json!({"metadata": {"labels": {"atomix.io/config": value}}}),
    )
    .await
}

async fn change_secret(bed: &TestBed, change: Value) -> Result<()> {
    let change = Patch::Merge(change);
    let changed = secrets(bed)
        .patch(SECRET, &PatchParams::default(), &change)
        .await;
    changed.context("cannot change the Secret")?;
    Ok(())
}

/// Waits until the Store says that only a person can go on, and why, and an event tells of it.
async fn stalled(
    bed: &TestBed,
    operator: &mut Supervised<'_>,
    reason: &str,
    words: &[&str],
) -> Result<Condition> {
    operator
        .until("the Store to name its trouble", LIMIT, async || {
            let store = bed.stores().get(STORE).await?;
            let stalled = expect_condition(&store, "Stalled", "True")?;
            expect_condition(&store, "Ready", "False")?;
            ensure!(
                stalled.reason == reason && words.iter().all(|word| stalled.message.contains(word)),
                "{stalled:?}"
            );
            let warnings = resources::warnings(bed.client(), bed.namespace(), STORE).await?;
            ensure!(
                warnings.contains_key(reason),
                "no event: {:?}",
                warnings.keys()
            );
            Ok(stalled)
        })
        .await
}

/// Waits until Store and Session are ready and the runtime has what the Store's status says.
async fn connected(bed: &TestBed, operator: &mut Supervised<'_>) -> Result<()> {
    operator
        .until("the runtime to be connected", LIMIT, async || {
            expect_connected(bed).await
        })
        .await
}

async fn expect_connected(bed: &TestBed) -> Result<()> {
    let store = bed.stores().get(STORE).await?;
    expect_condition(&store, "Ready", "True")?;
    expect_condition(&store, "Stalled", "False")?;
    let session = bed.sessions().get("bees").await?;
    let ready = expect_condition(&session, "Ready", "True")?;
    ensure!(ready.reason == "Connected", "{ready:?}");
    let wanted = store.data.pointer("/status/configDigest");
    let wanted = wanted.and_then(Value::as_str).context("no digest")?;
    ensure!(digest(bed).await? == wanted, "another configuration");
    Ok(())
}

async fn configured_anew(bed: &TestBed, operator: &mut Supervised<'_>, before: &str) -> Result<()> {
    operator
        .until("the runtime to be configured anew", LIMIT, async || {
            ensure!(
                digest(bed).await? != before,
                "still the former configuration"
            );
            Ok(())
        })
        .await
}

/// What the runtime says of its one connection.
async fn digest(bed: &TestBed) -> Result<String> {
    let address = bed.runner().address(POD).context("the pod does not run")?;
    let status = runtime_pods::status(address).await?;
    let [connection] = status.connections.as_slice() else {
        anyhow::bail!("other connections than one: {status:?}");
    };
    Ok(connection.config_digest.clone())
}

async fn increment(bed: &TestBed) -> Result<i64> {
    let address = bed.runner().address(POD).context("the pod does not run")?;
    counter::increment(address, "honey", 1).await
}

async fn expect_event(bed: &TestBed, reason: &str) -> Result<()> {
    let told = resources::events(bed.client(), bed.namespace(), POD).await?;
    ensure!(told.contains(reason), "{reason} is not among {told:?}");
    Ok(())
}

/// Looks through all that is written where people can read it.
async fn expect_no_value_shown(bed: &TestBed) -> Result<()> {
    let logs = bed.runner().logs();
    for value in [REFUSED, FIRST, SECOND, THIRD] {
        ensure!(!logs.contains(value), "{value} is in a log: {logs}");
    }
    for (group, version, kind, plural) in [
        ("", "v1", "ConfigMap", "configmaps"),
        ("", "v1", "Pod", "pods"),
        ("", "v1", "Service", "services"),
        ("apps", "v1", "StatefulSet", "statefulsets"),
        ("apps", "v1", "ControllerRevision", "controllerrevisions"),
        ("events.k8s.io", "v1", "Event", "events"),
        ("atomix.io", "v1beta1", "Store", "stores"),
        ("atomix.io", "v1beta1", "Session", "sessions"),
    ] {
        let objects = list(bed, group, version, kind, plural).await?;
        ensure!(!objects.is_empty(), "no {plural} to look at");
        for object in objects {
            let text = serde_json::to_string(&object)?;
            for value in [REFUSED, FIRST, SECOND, THIRD] {
                ensure!(!text.contains(value), "{value} is shown: {text}");
            }
        }
    }
    Ok(())
}

async fn list(
    bed: &TestBed,
    group: &str,
    version: &str,
    kind: &str,
    plural: &str,
) -> Result<Vec<DynamicObject>> {
    let kind = GroupVersionKind::gvk(group, version, kind);
    let resource = ApiResource::from_gvk_with_plural(&kind, plural);
    let api: Api<DynamicObject> =
        Api::namespaced_with(bed.client().clone(), bed.namespace(), &resource);
    Ok(api.list(&ListParams::default()).await?.items)
}
