//! Objects that the operator cannot read, as after its roll-back: the CRDs know more than it does.

use std::time::Duration;

use anyhow::{Result, ensure};
use atomix_operator_tests::fault::{Recorded, Verb};
use atomix_operator_tests::resources::{self, expect_condition};
use atomix_operator_tests::supervised::Supervised;
use atomix_operator_tests::test_bed::TestBed;
use atomix_operator_tests::workload::{self, LIMIT};
use atomix_operator_tests::{counter, crds, samples};
use kube::api::DeleteParams;
use serde_json::json;
use tokio::time::Instant;

use super::{ALONE, address, connections, runtime_status};

/// How long the operator is watched doing nothing.
const REST: Duration = Duration::from_secs(20);

/// They are reported, stall nobody else, cost nothing and can be deleted.
pub(super) async fn stall_nobody(bed: &TestBed, operator: &mut Supervised<'_>) -> Result<()> {
    crds::teach_a_newer_version(bed.client()).await?;
    let drivers = resources::drivers(bed.client());
    for (api, object) in [
        (bed.stores(), crds::newer_store("odd")),
        (bed.sessions(), crds::newer_session("odd", "rose")),
        (drivers.clone(), crds::newer_driver("odd")),
    ] {
        crds::create_newer(&api, &object).await?;
    }
    for api in [bed.stores(), bed.sessions(), drivers.clone()] {
        operator
            .until("an undecodable object to be reported", LIMIT, async || {
                let odd = api.get("odd").await?;
                expect_condition(&odd, "Ready", "False")?;
                expect_condition(&odd, "Stalled", "True")?;
                Ok(())
            })
            .await?;
    }

    // Nobody else is stalled: what comes later is served.
    resources::create(&bed.stores(), samples::store_of_driver("rose", "memory")).await?;
    bed.create_pod(samples::application_pod("hive-0", "hive"))
        .await?;
    resources::create(&bed.sessions(), samples::session("bees", "rose", "hive")).await?;
    operator
        .until("the other Session to be connected", LIMIT, async || {
            let session = bed.sessions().get("bees").await?;
            expect_condition(&session, "Ready", "True")?;
            let connected = session.data.pointer("/status/pods/connected");
            ensure!(
                connected == Some(&json!(1)),
                "{connected:?} pods are connected"
            );
            Ok(())
        })
        .await?;

    for odd in [("Store", "odd"), ("Session", "odd")] {
        operator
            .until("events to tell of undecodable objects", LIMIT, async || {
                expect_told_once(bed, odd).await
            })
            .await?;
    }
    rest(operator).await?;

    // They can be deleted, and nothing holds them for ever.
    workload::delete_and_wait(operator, &drivers, "odd").await?;
    workload::delete_and_wait(operator, &bed.sessions(), "odd").await?;
    workload::delete_and_wait(operator, &bed.stores(), "odd").await?;
    workload::delete_and_wait(operator, &bed.sessions(), "bees").await?;
    workload::delete_and_wait(operator, &bed.stores(), "rose").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_session_connected_outlives_an_operator_that_cannot_read_it() -> Result<()> {
    let _alone = ALONE.lock().await;
    let bed = TestBed::create("unreadable").await?;
    crds::teach_a_newer_version(bed.client()).await?;
    let result = outlive(&bed).await;
    crds::restore(bed.client()).await?;
    result?;
    bed.remove().await
}

/// Two Sessions of one pod; a newer version changes one of them and is rolled back.
async fn outlive(bed: &TestBed) -> Result<()> {
    let mut operator = Supervised::start(bed, None);
    bed.create_pod(samples::application_pod("hive-0", "hive"))
        .await?;
    for (session, store, primitive) in [("bees", "rose", "honey*"), ("wasps", "lily", "wax*")] {
        resources::create(&bed.stores(), samples::store_of_driver(store, "memory")).await?;
        let mut session = samples::session(session, store, "hive");
        session["spec"]["primitive"] = json!(primitive);
        resources::create(&bed.sessions(), session).await?;
    }
    operator
        .until_settled("both Sessions to be connected", LIMIT, async || {
            connected(bed, "bees").await?;
            connected(bed, "wasps").await
        })
        .await?;
    ensure!(increment(bed, "honey").await? == 1 && increment(bed, "wax").await? == 1);
    let before = runtime_status(bed).await?;

    let mut operator = rolled_back(bed, operator).await?;
    connected(bed, "wasps").await?;
    let now = runtime_status(bed).await?;
    ensure!(now.connections == before.connections && now.routes == before.routes);
    ensure!(increment(bed, "honey").await? == 2 && increment(bed, "wax").await? == 2);
    // The other Session goes on, and one that is new too.
    let rename = json!({"spec": {"primitive": "resin*"}});
    resources::change(&bed.sessions(), "wasps", rename).await?;
    let mut ants = samples::session("ants", "lily", "hive");
    ants["spec"]["primitive"] = json!("leaf*");
    resources::create(&bed.sessions(), ants).await?;
    operator
        .until_settled("the others to go on", LIMIT, async || {
            connected(bed, "ants").await?;
            connected(bed, "wasps").await?;
            ensure!(increment(bed, "leaf").await? >= 1);
            ensure!(increment(bed, "resin").await? >= 1);
            Ok(())
        })
        .await?;
    ensure!(increment(bed, "honey").await? == 3);

    // It is corrected: what was kept for it alone goes, and it goes on itself.
    let correct = json!({"spec": {"selector": {"matchExpressions": null}}});
    resources::change(&bed.sessions(), "bees", correct).await?;
    operator
        .until_settled("the Session to be connected again", LIMIT, async || {
            connected(bed, "bees").await?;
            ensure!(increment(bed, "wax").await.is_err(), "a former route stays");
            Ok(())
        })
        .await?;
    ensure!(increment(bed, "honey").await? == 4);

    // It ends though no operator that runs has ever read it.
    let mut operator = rolled_back(bed, operator).await?;
    ensure!(increment(bed, "honey").await? == 5);
    // Until then nobody can say that it does not use the Store.
    let parameters = DeleteParams::default();
    bed.stores().delete("rose", &parameters).await?;
    operator
        .until("the Store to wait", LIMIT, async || {
            let store = bed.stores().get("rose").await?;
            let stalled = expect_condition(&store, "Stalled", "True")?;
            let is_named = stalled.message.contains("bees (which cannot be read");
            ensure!(stalled.reason == "InUse" && is_named, "{stalled:?}");
            Ok(())
        })
        .await?;
    ensure!(increment(bed, "honey").await? == 6);
    workload::delete_and_wait(&mut operator, &bed.sessions(), "bees").await?;
    operator
        .until("the Store to go", LIMIT, async || {
            ensure!(bed.stores().get_opt("rose").await?.is_none());
            Ok(())
        })
        .await?;
    operator
        .until("its Store to be disconnected", LIMIT, async || {
            let found = connections(bed).await?;
            ensure!(found == 1, "{found} Stores are connected");
            ensure!(increment(bed, "honey").await.is_err());
            Ok(())
        })
        .await
}

/// Makes a Session one of a newer version, and starts another operator of this one.
async fn rolled_back<'a>(bed: &'a TestBed, mut operator: Supervised<'a>) -> Result<Supervised<'a>> {
    operator
        .until("the Session to be reported", LIMIT, async || {
            // The API server may not know the newer version yet.
            let newer =
                json!({"spec": {"selector": {"matchExpressions": crds::newer_expressions()}}});
            resources::change(&bed.sessions(), "bees", newer).await?;
            unreadable(bed).await
        })
        .await?;
    drop(operator);
    let mut operator = Supervised::start(bed, None);
    let gate = operator.gate();
    operator
        .until_settled("the operator to look at the pod", LIMIT, async || {
            let calls = gate.calls();
            let mut asked = calls.iter().filter(|call| call.call.what == "GetStatus");
            ensure!(asked.any(|call| call.call.name.starts_with("hive-0")));
            unreadable(bed).await
        })
        .await?;
    Ok(operator)
}

async fn unreadable(bed: &TestBed) -> Result<()> {
    let session = bed.sessions().get("bees").await?;
    let stalled = expect_condition(&session, "Stalled", "True")?;
    let is_told = stalled.message.contains("takes none from any pod");
    ensure!(stalled.reason == "Undecodable" && is_told, "{stalled:?}");
    Ok(())
}

async fn connected(bed: &TestBed, session: &str) -> Result<()> {
    let session = bed.sessions().get(session).await?;
    let ready = expect_condition(&session, "Ready", "True")?;
    ensure!(ready.reason == "Connected", "{ready:?}");
    let pods = session.data.pointer("/status/pods/connected");
    ensure!(pods == Some(&json!(1)), "{pods:?} pods are connected");
    Ok(())
}

async fn increment(bed: &TestBed, name: &str) -> Result<i64> {
    counter::increment(address(bed)?, name, 1).await
}

async fn expect_told_once(bed: &TestBed, (kind, name): (&str, &str)) -> Result<()> {
    let found = resources::warnings(bed.client(), bed.namespace(), name).await?;
    let told = found
        .get("Undecodable")
        .map(Vec::as_slice)
        .unwrap_or_default();
    let about = told.iter().filter(|event| {
        let regarding = event.regarding.as_ref();
        regarding.and_then(|object| object.kind.as_deref()) == Some(kind)
    });
    let times = about.count();
    ensure!(times == 1, "{kind} {name} has {times} events: {found:?}");
    Ok(())
}

/// Drivers, what uses them and what cannot be read cost nothing while nothing changes.
async fn rest(operator: &mut Supervised<'_>) -> Result<()> {
    operator
        .until_settled("the operator to have nothing to do", LIMIT, async || Ok(()))
        .await?;
    let before = operator.calls().len();
    let begin = Instant::now();
    operator
        .until("the time of rest to pass", LIMIT, async || {
            ensure!(begin.elapsed() >= REST, "{:?} have passed", begin.elapsed());
            Ok(())
        })
        .await?;
    let calls = operator.calls();
    let resting = calls.get(before..).unwrap_or_default();
    let unwanted: Vec<String> = resting
        .iter()
        .filter(|call| call.call.what != "leases" && call.call.verb != Verb::Watch)
        .map(Recorded::name)
        .collect();
    ensure!(
        unwanted.is_empty(),
        "at rest the operator made the calls {unwanted:?}"
    );
    Ok(())
}
