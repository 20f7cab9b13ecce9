//! The workloads whose every call is a crash point, and the looks at their ends.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, DynamicObject};
use kube::{Api, ResourceExt as _};
use serde_json::Value;

use crate::end_state::end_state;
use crate::fault::Disturbance;
use crate::groups;
use crate::load::{Load, Pace};
use crate::matrix::Outcome;
use crate::operator_under_test::Settings;
use crate::resources::{self, expect_condition};
use crate::samples::{self, StoreSize};
use crate::supervised::Supervised;
use crate::test_bed::TestBed;

/// For how long anything is waited for: also for a dead operator's lease, on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(90);

/// Creates a Store and waits until it is ready and its nodes say so too.
///
/// # Errors
/// When it does not become ready.
pub async fn bootstrap(
    bed: &TestBed,
    operator: &mut Supervised<'_>,
    name: &str,
    size: StoreSize,
) -> Result<()> {
    bootstrap_of(bed, operator, samples::store(name, size), name, size).await
}

/// As [`bootstrap`], of a Store that the caller has made up.
///
/// # Errors
/// When it does not become ready.
pub async fn bootstrap_of(
    bed: &TestBed,
    operator: &mut Supervised<'_>,
    store: Value,
    name: &str,
    size: StoreSize,
) -> Result<()> {
    resources::create(&bed.stores(), store).await?;
    operator
        .until_settled("the Store to be ready", LIMIT, async || {
            let store = store_is_ready(bed, name).await?;
            expect_condition(&store, "Progressing", "False")?;
            groups_are_whole(bed, name, size).await
        })
        .await
}

/// Checks that a Store says that it is ready, and that all its pods are: a pod counts as ready only
/// after its partitions may be, and both are part of the end state.
///
/// # Errors
/// When it does not.
pub async fn store_is_ready(bed: &TestBed, name: &str) -> Result<DynamicObject> {
    let store = bed.stores().get(name).await?;
    expect_condition(&store, "Ready", "True")?;
    let status = |field: &str| store.data.pointer(&format!("/status/{field}"));
    ensure!(
        status("readyReplicas") == status("replicas"),
        "{:?} of {:?} storage pods are ready",
        status("readyReplicas"),
        status("replicas")
    );
    Ok(store)
}

/// Deletes a storage pod, and waits until the next one counts.
///
/// # Errors
/// When its gate does not open in time.
pub async fn replace_pod(bed: &TestBed, operator: &mut Supervised<'_>, name: &str) -> Result<()> {
    let before = bed.pods().get(name).await?.uid();
    bed.pods().delete(name, &DeleteParams::default()).await?;
    operator
        .until("the gate of the next pod to open", LIMIT, async || {
            let pod = bed.pods().get(name).await?;
            ensure!(pod.uid() != before, "it is the former pod");
            let conditions = pod.status.and_then(|status| status.conditions);
            let mut conditions = conditions.into_iter().flatten();
            let gate = conditions.find(|condition| condition.type_ == "atomix.io/replicated");
            let is_open = gate.as_ref().is_some_and(|gate| gate.status == "True");
            ensure!(is_open, "the gate is {gate:?}");
            Ok(())
        })
        .await
}

/// Checks that the nodes hold exactly the groups of the one stored plan.
///
/// # Errors
/// What is not so.
pub async fn groups_are_whole(bed: &TestBed, store: &str, size: StoreSize) -> Result<()> {
    let found = bed.stores().get(store).await?;
    let factor = found.data.pointer("/status/replicationFactor");
    let members = factor.and_then(Value::as_u64).unwrap_or_default();
    groups_have(bed, store, size, usize::try_from(members)?).await
}

/// As [`groups_are_whole`], with so many members of each group.
///
/// # Errors
/// What is not so.
pub async fn groups_have(
    bed: &TestBed,
    store: &str,
    size: StoreSize,
    members: usize,
) -> Result<()> {
    let nodes: Vec<Ipv4Addr> = (0..size.replicas)
        .filter_map(|ordinal| bed.runner().address(&format!("{store}-{ordinal}")))
        .collect();
    ensure!(
        nodes.len() == usize::try_from(size.replicas)?,
        "only {} storage pods run",
        nodes.len()
    );
    let partitions = usize::try_from(size.partitions)?;
    groups::expect_bootstrapped(&nodes, partitions, members, 1).await?;

    let plans: Api<ConfigMap> = Api::namespaced(bed.client().clone(), bed.namespace());
    let plan = plans.get(&format!("{store}-bootstrap")).await?;
    let texts = plan.data.iter().flatten().map(|(_, text)| text);
    let plan = texts
        .filter_map(|text| serde_json::from_str::<Value>(text).ok())
        .find(Value::is_object)
        .context("the plan's ConfigMap holds no JSON object")?;
    let status = groups::status(*nodes.first().context("the Store has no nodes")?).await?;
    let planned = plan.get("storeUid").and_then(Value::as_str);
    ensure!(
        planned == Some(status.store_uid.as_str()),
        "the plan is for {planned:?}, the nodes hold {}",
        status.store_uid
    );
    Ok(())
}

/// The pod whose application makes a [`Load`], and its Session.
const APPLICATION: &str = "hive";
const SESSION: &str = "bees";

/// Starts a pod, connects it with a Store, and begins to increment counters through it.
///
/// # Errors
/// When it is not connected in time, or no increment is acknowledged.
pub async fn start_load(
    bed: &TestBed,
    operator: &mut Supervised<'_>,
    store: &str,
    pace: Pace,
) -> Result<Load> {
    let pod = format!("{APPLICATION}-0");
    bed.create_pod(samples::application_pod(&pod, APPLICATION))
        .await?;
    connect_load(bed, operator, store).await?;
    let address = bed.runner().address(&pod).context("its pod runs")?;
    let load = Load::start(address, pace);
    load.goes_on(5).await?;
    Ok(load)
}

/// Makes the Session of a load, and waits until it is connected.
///
/// # Errors
/// When it is not in time.
pub async fn connect_load(bed: &TestBed, operator: &mut Supervised<'_>, store: &str) -> Result<()> {
    let session = samples::session(SESSION, store, APPLICATION);
    resources::create(&bed.sessions(), session).await?;
    operator
        .until("the load's Session to be connected", LIMIT, async || {
            load_is_connected(bed).await
        })
        .await
}

async fn load_is_connected(bed: &TestBed) -> Result<()> {
    let session = bed.sessions().get(SESSION).await?;
    let ready = expect_condition(&session, "Ready", "True")?;
    ensure!(ready.reason == "Connected", "{ready:?}");
    Ok(())
}

/// Deletes the Session of a load, which has to rest, and waits until it is gone.
///
/// # Errors
/// When it stays.
pub async fn disconnect_load(bed: &TestBed, operator: &mut Supervised<'_>) -> Result<()> {
    delete_and_wait(operator, &bed.sessions(), SESSION).await
}

/// Waits until a load goes on and its Session is connected, and checks what was acknowledged.
///
/// # Errors
/// When it does not go on, or anything that was acknowledged is missing.
pub async fn check_load(bed: &TestBed, operator: &mut Supervised<'_>, load: Load) -> Result<()> {
    load.goes_on(5).await?;
    operator
        .until_settled("the load's Session to be connected", LIMIT, async || {
            load_is_connected(bed).await
        })
        .await?;
    load.check().await?;
    Ok(())
}

/// What a run ended with in the namespace of a test bed.
///
/// # Errors
/// When it cannot be read.
pub async fn outcome(bed: &TestBed, operator: &Supervised<'_>) -> Result<Outcome> {
    Ok(Outcome {
        calls: operator.calls(),
        events: operator.events(),
        crashed_at: operator.crashed_at().map(ToOwned::to_owned),
        end_state: end_state(bed.client(), bed.namespace()).await?,
        counts: bed.observer().counts(),
        troubled: operator.troubled(),
        has_setup: operator.has_setup(),
    })
}

/// Deletes an object of ours and waits until it is gone.
///
/// # Errors
/// When it stays.
pub async fn delete_and_wait(
    operator: &mut Supervised<'_>,
    api: &Api<DynamicObject>,
    name: &str,
) -> Result<()> {
    api.delete(name, &DeleteParams::default()).await?;
    operator
        .until_settled("an object to be gone", LIMIT, async || {
            match api.get_opt(name).await? {
                None => Ok(()),
                Some(left) => anyhow::bail!(
                    "{name} is still there with the finalizers {:?}: {}",
                    left.finalizers(),
                    left.data.get("status").unwrap_or(&Value::Null)
                ),
            }
        })
        .await
}

/// Runs a workload in a place of its own, with an operator of its own that has to live through
/// `disturbance` from the start on (later: [`Supervised::arm`]), and cleans up.
///
/// # Errors
/// What the workload failed with, and what its processes did.
pub async fn run<L>(purpose: &str, disturbance: Option<Disturbance>, live: L) -> Result<Outcome>
where
    L: AsyncFnOnce(&TestBed, &mut Supervised<'_>) -> Result<()>,
{
    run_in(TestBed::create(purpose).await?, disturbance, live).await
}

/// As [`run`], in a place that the caller has made.
///
/// # Errors
/// As [`run`].
pub async fn run_in<L>(bed: TestBed, disturbance: Option<Disturbance>, live: L) -> Result<Outcome>
where
    L: AsyncFnOnce(&TestBed, &mut Supervised<'_>) -> Result<()>,
{
    run_as(bed, |settings| settings, disturbance, live).await
}

/// As [`run_in`], with operators whose settings the caller changes.
///
/// # Errors
/// As [`run`].
pub async fn run_as<S, L>(
    bed: TestBed,
    settings: S,
    disturbance: Option<Disturbance>,
    live: L,
) -> Result<Outcome>
where
    S: Fn(Settings) -> Settings + Send,
    L: AsyncFnOnce(&TestBed, &mut Supervised<'_>) -> Result<()>,
{
    let place = &bed;
    let settings = move |disturbance| {
        settings(Settings {
            disturbance,
            ..place.settings()
        })
    };
    let mut operator = Supervised::start_as(settings, disturbance);
    let lived = Box::pin(live(&bed, &mut operator)).await;
    explain(lived, &bed, &operator)?;
    let ended = operator.end_pause(LIMIT).await;
    explain(ended, &bed, &operator)?;
    let outcome = outcome(&bed, &operator).await?;
    drop(operator);
    Box::pin(bed.remove()).await?;
    Ok(outcome)
}

/// As [`run`], in a place and with settings that the caller has made, and without a disturbance.
///
/// # Errors
/// As [`run`].
pub async fn run_with<L>(bed: TestBed, settings: Settings, live: L) -> Result<()>
where
    L: AsyncFnOnce(&TestBed, &mut Supervised<'_>) -> Result<()>,
{
    let mut operator = Supervised::start_with(&bed, settings);
    let lived = Box::pin(live(&bed, &mut operator)).await;
    explain(lived, &bed, &operator)?;
    drop(operator);
    Box::pin(bed.remove()).await
}

/// Adds what the processes and operators did to the error of a run.
///
/// # Errors
/// That of the run, if it failed.
pub fn explain<T>(result: Result<T>, bed: &TestBed, operator: &Supervised<'_>) -> Result<T> {
    result.with_context(|| {
        let calls = operator.calls();
        let writes = calls.iter().filter(|call| call.call.verb.is_mutating());
        let writes: Vec<String> = writes.map(|call| call.name()).collect();
        format!(
            "in namespace {}, crashed at {:?}, with the mutating calls {writes:#?}\n{}",
            bed.namespace(),
            operator.crashed_at(),
            bed.runner().logs()
        )
    })
}
