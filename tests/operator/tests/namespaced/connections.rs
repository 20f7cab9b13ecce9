//! Several Sessions share the connections of a pod; one that changes or moves disturbs no other.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use atomix_operator_tests::fault::{Disturbance, Recorded, Verb};
use atomix_operator_tests::matrix::{Outcome, disturb_sampled_calls};
use atomix_operator_tests::resources::{self, expect_condition};
use atomix_operator_tests::samples;
use atomix_operator_tests::supervised::Supervised;
use atomix_operator_tests::test_bed::TestBed;
use atomix_operator_tests::workload::{self, LIMIT};
use atomix_operator_tests::{counter, runtime_pods};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

const POD: &str = "hive-0";
const GATE: &str = "atomix.io/connected";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn session_move_survives_crash_and_trouble() -> Result<()> {
    disturb_sampled_calls("session_move_survives_crash_and_trouble", moved).await
}

/// Two Sessions share the Store rose; one of them moves to the Store lily.
async fn moved(disturbance: Option<Disturbance>) -> Result<Outcome> {
    workload::run("moved", None, async |bed, operator| {
        two_sessions(bed, operator).await?;
        ensure!(increment(bed, "honey").await? == 1);
        ensure!(increment(bed, "wax").await? == 1);

        operator.arm(disturbance)?;
        let to_lily = json!({"spec": {"store": {"name": "lily"}}});
        resources::change(&bed.sessions(), "bees", to_lily).await?;
        operator
            .until_settled("the Session to have moved", LIMIT, async || {
                ready(bed, "bees", 1).await?;
                ready(bed, "wasps", 1).await?;
                expect_connections(bed, &["lily", "rose"]).await
            })
            .await?;
        // The memory driver forgets everything when it is disconnected: the other Session was not.
        ensure!(increment(bed, "wax").await? == 2);
        ensure!(increment(bed, "honey").await? == 1);
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_of_routes_and_selections_survive_crash_and_trouble() -> Result<()> {
    let test = "changes_of_routes_and_selections_survive_crash_and_trouble";
    disturb_sampled_calls(test, rerouted).await
}

/// Two Sessions share a pod whose gate they open: one takes another route and goes, the other loses
/// the pod and gets it again.
async fn rerouted(disturbance: Option<Disturbance>) -> Result<Outcome> {
    workload::run("rerouted", None, async |bed, operator| {
        two_sessions(bed, operator).await?;
        gate_is(bed, "True").await?;
        operator.arm(disturbance)?;
        let rename = json!({"spec": {"primitive": "nectar*"}});
        resources::change(&bed.sessions(), "bees", rename).await?;
        operator
            .until_settled("the route to be another", LIMIT, async || {
                ready(bed, "bees", 1).await?;
                increment(bed, "nectar").await?;
                ensure!(increment(bed, "honey").await.is_err(), "the former serves");
                Ok(())
            })
            .await?;
        workload::delete_and_wait(operator, &bed.sessions(), "bees").await?;
        for (app, pods) in [("elsewhere", 0), ("hive", 1)] {
            relabel(bed, app).await?;
            operator
                .until_settled("the selection to be followed", LIMIT, async || {
                    ready(bed, "wasps", pods).await?;
                    let stores = ["rose"].get(..usize::try_from(pods)?);
                    expect_connections(bed, stores.unwrap_or_default()).await?;
                    // A pod that nothing selects waits for nothing.
                    gate_is(bed, "True").await
                })
                .await?;
        }
        ensure!(increment(bed, "nectar").await.is_err(), "it has its route");
        increment(bed, "wax").await?;
        Ok(())
    })
    .await
}

/// Checks the gate that lets the pod count as ready.
async fn gate_is(bed: &TestBed, wanted: &str) -> Result<()> {
    let status = bed.pods().get(POD).await?.status.unwrap_or_default();
    let mut conditions = status.conditions.into_iter().flatten();
    let gate = conditions.find(|condition| condition.type_ == GATE);
    let gate = gate.with_context(|| format!("{POD} has no condition {GATE}"))?;
    ensure!(gate.status == wanted, "{gate:?}");
    Ok(())
}

async fn two_sessions(bed: &TestBed, operator: &mut Supervised<'_>) -> Result<()> {
    for store in ["rose", "lily"] {
        resources::create(&bed.stores(), samples::store_of_driver(store, "memory")).await?;
    }
    let mut pod = samples::application_pod(POD, "hive");
    pod["spec"]["readinessGates"] = json!([{"conditionType": GATE}]);
    bed.create_pod(pod).await?;
    for (session, primitive) in [("bees", "honey*"), ("wasps", "wax*")] {
        let mut session = samples::session(session, "rose", "hive");
        session["spec"]["primitive"] = json!(primitive);
        resources::create(&bed.sessions(), session).await?;
    }
    operator
        .until_settled("both Sessions to be connected", LIMIT, async || {
            ready(bed, "bees", 1).await?;
            ready(bed, "wasps", 1).await?;
            expect_connections(bed, &["rose"]).await
        })
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_share_a_connection_and_change_their_routes_live() -> Result<()> {
    workload::run("shared", None, share).await?;
    Ok(())
}

async fn share(bed: &TestBed, operator: &mut Supervised<'_>) -> Result<()> {
    two_sessions(bed, operator).await?;
    ensure!(increment(bed, "honey").await? == 1);
    ensure!(increment(bed, "wax").await? == 1);
    let process = sidecar(bed).await?;

    // Another name: the same connection serves it at once, and the former name no longer.
    let rename = json!({"spec": {"primitive": "nectar*"}});
    resources::change(&bed.sessions(), "bees", rename).await?;
    operator
        .until("the route to be another", LIMIT, async || {
            ensure!(increment(bed, "nectar").await? >= 1);
            Ok(())
        })
        .await?;
    let refused = increment(bed, "honey-2").await;
    ensure!(refused.is_err(), "the former route still leads somewhere");
    ensure!(increment(bed, "wax").await? == 2);

    // The first Session goes: the other keeps the connection.
    workload::delete_and_wait(operator, &bed.sessions(), "bees").await?;
    ensure!(increment(bed, "nectar-2").await.is_err());
    ensure!(increment(bed, "wax").await? == 3);

    // The labels of the pod no longer match: disconnected. They do again: connected.
    relabel(bed, "elsewhere").await?;
    operator
        .until("the pod to be disconnected", LIMIT, async || {
            expect_connections(bed, &[]).await?;
            ready(bed, "wasps", 0).await
        })
        .await?;
    relabel(bed, "hive").await?;
    operator
        .until("the pod to be connected again", LIMIT, async || {
            expect_connections(bed, &["rose"]).await?;
            ready(bed, "wasps", 1).await
        })
        .await?;
    ensure!(
        increment(bed, "wax").await? == 1,
        "the memory driver forgets"
    );

    // All that without a restart.
    ensure!(sidecar(bed).await? == process, "the sidecar was restarted");
    operator
        .until("events to tell", LIMIT, async || {
            let told = resources::events(bed.client(), bed.namespace(), POD).await?;
            for reason in ["Connected", "Disconnected"] {
                ensure!(told.contains(reason), "{reason} is not among {told:?}");
            }
            Ok(())
        })
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_session_holds_up_no_other_one_of_its_pods() -> Result<()> {
    workload::run("paused-routes", None, pause).await?;
    Ok(())
}

async fn pause(bed: &TestBed, operator: &mut Supervised<'_>) -> Result<()> {
    two_sessions(bed, operator).await?;
    ensure!(increment(bed, "wax").await? == 1);
    let paused = json!({"spec": {"paused": true}});
    resources::change(&bed.sessions(), "wasps", paused).await?;
    operator
        .until("the Session to say that it is paused", LIMIT, async || {
            let session = bed.sessions().get("wasps").await?;
            let progressing = expect_condition(&session, "Progressing", "False")?;
            ensure!(progressing.reason == "Paused", "{progressing:?}");
            Ok(())
        })
        .await?;

    // The routes of the other one follow it, also while a pod is new.
    let rename = json!({"spec": {"primitive": "nectar*"}});
    resources::change(&bed.sessions(), "bees", rename).await?;
    operator
        .until("the route to be another", LIMIT, async || {
            ensure!(increment(bed, "nectar").await? >= 1);
            Ok(())
        })
        .await?;
    ensure!(increment(bed, "honey").await.is_err());
    bed.create_pod(samples::application_pod("hive-1", "hive"))
        .await?;
    operator
        .until("the new pod to be connected", LIMIT, async || {
            ready(bed, "bees", 2).await
        })
        .await?;
    let address = bed.runner().address("hive-1");
    let address = address.context("the new pod does not run")?;
    ensure!(counter::increment(address, "nectar", 1).await? == 1);

    // Its end takes its routes away; the paused Session keeps what it had.
    workload::delete_and_wait(operator, &bed.sessions(), "bees").await?;
    operator
        .until("the route to be gone", LIMIT, async || {
            ensure!(increment(bed, "nectar").await.is_err());
            Ok(())
        })
        .await?;
    ensure!(increment(bed, "wax").await? == 2, "it was disconnected");
    ready(bed, "wasps", 2).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_without_a_sidecar_are_found_once() -> Result<()> {
    workload::run("sidecars", None, find).await?;
    Ok(())
}

async fn find(bed: &TestBed, operator: &mut Supervised<'_>) -> Result<()> {
    for name in ["stray-0", "stray-1"] {
        let mut pod = samples::asking_pod(name, "stray");
        pod["metadata"]["labels"] = json!({"app": "stray", "tier": "web"});
        bed.create_pod(pod).await?;
    }
    resources::create(&bed.stores(), samples::store_of_driver("rose", "memory")).await?;
    let mut session = samples::session("ants", "rose", "stray");
    session["spec"]["selector"]["matchExpressions"] = json!([
        {"key": "tier", "operator": "In", "values": ["web", "db"]},
        {"key": "tier", "operator": "NotIn", "values": ["cache"]},
        {"key": "app", "operator": "Exists"},
        {"key": "colour", "operator": "DoesNotExist"},
    ]);
    resources::create(&bed.sessions(), session).await?;
    operator
        .until_settled("the Session to tell of them", LIMIT, async || {
            let session = bed.sessions().get("ants").await?;
            let stalled = expect_condition(&session, "Stalled", "True")?;
            ensure!(
                stalled.reason == "NotInjected"
                    && stalled.message.contains("2 are selected without one")
                    && stalled.message.contains("atomix.io/inject"),
                "{stalled:?}"
            );
            let (client, namespace) = (bed.client(), bed.namespace());
            resources::expect_one_warning(client, namespace, "ants", "NotInjected").await
        })
        .await?;

    // Once for a specification, whatever else happens.
    let labels = json!({"metadata": {"labels": {"colour": "red"}}});
    resources::change(&bed.sessions(), "ants", labels).await?;
    let paused = json!({"spec": {"paused": true}});
    resources::change(&bed.stores(), "rose", paused).await?;
    resources::change(&bed.stores(), "rose", json!({"spec": {"paused": null}})).await?;
    operator
        .until_settled("the operator to rest", LIMIT, async || Ok(()))
        .await?;
    let lists = |calls: &[Recorded]| {
        let lists = calls.iter().filter(|call| call.call.verb == Verb::List);
        lists
            .filter(|call| call.call.what.starts_with("pods"))
            .count()
    };
    // At its start it lists the pods of Stores and those with a sidecar.
    ensure!(lists(&operator.calls()) <= 3, "{:?}", operator.calls());

    // With a sidecar they count.
    bed.create_pod({
        let mut pod = samples::application_pod("stray-2", "stray");
        pod["metadata"]["labels"]["tier"] = json!("web");
        pod
    })
    .await?;
    operator
        .until("the Session to be connected", LIMIT, async || {
            ready(bed, "ants", 1).await?;
            let session = bed.sessions().get("ants").await?;
            let left = session.data.pointer("/status/pods/notInjected");
            ensure!(left.is_none(), "{left:?}");
            Ok(())
        })
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_status_of_a_session_is_written_at_most_once_a_second() -> Result<()> {
    workload::run("pace", None, keep_pace).await?;
    Ok(())
}

async fn keep_pace(bed: &TestBed, operator: &mut Supervised<'_>) -> Result<()> {
    resources::create(&bed.stores(), samples::store_of_driver("rose", "memory")).await?;
    resources::create(&bed.sessions(), samples::session("bees", "rose", "hive")).await?;
    for primitive in ["honey*", "nectar*", "wax*", "pollen*"] {
        let rename = json!({"spec": {"primitive": primitive}});
        resources::change(&bed.sessions(), "bees", rename).await?;
        // The status tells of each specification.
        operator
            .until("the change to be told", LIMIT, async || {
                ready(bed, "bees", 0).await
            })
            .await?;
    }
    let calls = operator.calls().into_iter();
    let writes = calls
        .filter(|call| call.call.to_string() == "patch sessions/status bees" && !call.is_refused);
    let times: Vec<_> = writes.map(|call| call.at).collect();
    ensure!(times.len() >= 4, "there were {} writes", times.len());
    for (one, next) in times.iter().zip(times.iter().skip(1)) {
        let gap = *next - *one;
        ensure!(gap >= Duration::from_secs(1), "written again after {gap:?}");
    }
    Ok(())
}

async fn ready(bed: &TestBed, session: &str, pods: u64) -> Result<()> {
    let session = bed.sessions().get(session).await?;
    expect_condition(&session, "Ready", "True")?;
    let connected = session.data.pointer("/status/pods/connected");
    ensure!(
        connected.and_then(Value::as_u64) == Some(pods),
        "{connected:?} connected"
    );
    Ok(())
}

fn address(bed: &TestBed) -> Result<Ipv4Addr> {
    bed.runner().address(POD).context("the pod does not run")
}

async fn expect_connections(bed: &TestBed, stores: &[&str]) -> Result<()> {
    let status = runtime_pods::status(address(bed)?).await?;
    let connected: BTreeSet<String> = status
        .connections
        .into_iter()
        .filter_map(|connection| Some(connection.store_id?.name))
        .collect();
    let wanted: BTreeSet<String> = stores.iter().map(ToString::to_string).collect();
    ensure!(connected == wanted, "connected with {connected:?}");
    Ok(())
}

async fn increment(bed: &TestBed, counter: &str) -> Result<i64> {
    counter::increment(address(bed)?, counter, 1).await
}

async fn relabel(bed: &TestBed, app: &str) -> Result<()> {
    let labels = Patch::Merge(json!({"metadata": {"labels": {"app": app}}}));
    bed.pods()
        .patch(POD, &PatchParams::default(), &labels)
        .await?;
    Ok(())
}

async fn sidecar(bed: &TestBed) -> Result<Option<String>> {
    let status = bed.pods().get(POD).await?.status.context("no status")?;
    let mut containers = status.init_container_statuses.into_iter().flatten();
    Ok(containers
        .next()
        .and_then(|container| container.container_id))
}
