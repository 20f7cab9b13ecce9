//! What goes waits for what needs it, but never for ever.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use atomix_operator::session::SessionOptions;
use atomix_operator_tests::fault::Disturbance;
use atomix_operator_tests::frozen::Frozen;
use atomix_operator_tests::matrix::{Outcome, disturb_sampled_calls};
use atomix_operator_tests::namespace::TestNamespace;
use atomix_operator_tests::operator_under_test::Settings;
use atomix_operator_tests::resources::{self, expect_condition};
use atomix_operator_tests::samples::{self, StoreSize};
use atomix_operator_tests::supervised::Supervised;
use atomix_operator_tests::test_bed::TestBed;
use atomix_operator_tests::workload::{self, LIMIT};
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::{DeleteParams, ListParams};
use serde_json::{Value, json};

/// How long a Session waits for its pods here.
const WAIT: Duration = Duration::from_secs(8);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deletions_wait_for_what_needs_them_but_not_for_ever() -> Result<()> {
    let bed = TestBed::create("deletion").await?;
    let settings = Settings {
        sessions: SessionOptions { longest_wait: WAIT },
        ..bed.settings()
    };
    workload::run_with(bed, settings, live).await
}

async fn live(bed: &TestBed, operator: &mut Supervised<'_>) -> Result<()> {
    resources::create(&bed.stores(), samples::store_of_driver("rose", "memory")).await?;
    connect(bed, operator, "bees", "rose").await?;
    another_namespace(bed, operator).await?;

    // The Store waits for its Session, and says so.
    bed.stores()
        .delete("rose", &DeleteParams::default())
        .await?;
    operator
        .until_settled("the Store to wait for its Session", LIMIT, async || {
            let store = bed.stores().get("rose").await?;
            let stalled = expect_condition(&store, "Stalled", "True")?;
            ensure!(
                stalled.reason == "InUse" && stalled.message.contains("bees; delete"),
                "{stalled:?}"
            );
            resources::expect_one_warning(bed.client(), bed.namespace(), "rose", "InUse").await?;
            let session = bed.sessions().get("bees").await?;
            let ready = expect_condition(&session, "Ready", "False")?;
            ensure!(ready.reason == "StoreDeleted", "{ready:?}");
            Ok(())
        })
        .await?;

    // The Session does not wait for ever for a pod that does not answer, and the Store goes then.
    Frozen::stop(bed, "hive-0").await?;
    bed.sessions()
        .delete("bees", &DeleteParams::default())
        .await?;
    operator
        .until("both to be gone", LIMIT, async || {
            for (api, name) in [(bed.sessions(), "bees"), (bed.stores(), "rose")] {
                if let Some(left) = api.get_opt(name).await? {
                    let status = left.data.get("status").unwrap_or(&Value::Null);
                    bail!("{name} is still there: {status}");
                }
            }
            let (client, namespace) = (bed.client(), bed.namespace());
            resources::expect_one_warning(client, namespace, "bees", "DisconnectTimedOut").await
        })
        .await
}

async fn connect(
    bed: &TestBed,
    operator: &mut Supervised<'_>,
    session: &str,
    store: &str,
) -> Result<()> {
    bed.create_pod(samples::application_pod("hive-0", "hive"))
        .await?;
    resources::create(&bed.sessions(), samples::session(session, store, "hive")).await?;
    operator
        .until("the Session to be connected", LIMIT, async || {
            let session = bed.sessions().get(session).await?;
            let ready = expect_condition(&session, "Ready", "True")?;
            ensure!(ready.reason == "Connected", "{ready:?}");
            Ok(())
        })
        .await
}

async fn another_namespace(bed: &TestBed, operator: &mut Supervised<'_>) -> Result<()> {
    let mut session = samples::session("wasps", "rose", "nest");
    if let Some(store) = session.pointer_mut("/spec/store") {
        *store = json!({"name": "rose", "namespace": "another"});
    }
    resources::create(&bed.sessions(), session).await?;
    operator
        .until("the Session to name its trouble", LIMIT, async || {
            let session = bed.sessions().get("wasps").await?;
            let stalled = expect_condition(&session, "Stalled", "True")?;
            ensure!(stalled.reason == "StoreNamespaceNotServed", "{stalled:?}");
            Ok(())
        })
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_its_session_has_left_is_unused_and_can_go() -> Result<()> {
    workload::run("left", None, leave).await?;
    Ok(())
}

async fn leave(bed: &TestBed, operator: &mut Supervised<'_>) -> Result<()> {
    let size = StoreSize {
        replicas: 1,
        partitions: 1,
    };
    workload::bootstrap(bed, operator, "tulip", size).await?;
    resources::create(&bed.stores(), samples::store_of_driver("rose", "memory")).await?;
    connect(bed, operator, "bees", "tulip").await?;
    for (store, is_used) in [("tulip", true), ("rose", false), ("tulip", true)] {
        let to_store = json!({"spec": {"store": {"name": store}}});
        resources::change(&bed.sessions(), "bees", to_store).await?;
        operator
            .until("the Store to say whether it is used", LIMIT, async || {
                let store = bed.stores().get("tulip").await?;
                let in_use = store.data.pointer("/status/inUse");
                ensure!(in_use == Some(&json!(is_used)), "inUse is {in_use:?}");
                Ok(())
            })
            .await?;
    }

    // The last one leaves when the Store waits for it.
    bed.stores()
        .delete("tulip", &DeleteParams::default())
        .await?;
    operator
        .until("the Store to wait for its Session", LIMIT, async || {
            let store = bed.stores().get("tulip").await?;
            let stalled = expect_condition(&store, "Stalled", "True")?;
            ensure!(stalled.reason == "InUse", "{stalled:?}");
            Ok(())
        })
        .await?;
    let to_rose = json!({"spec": {"store": {"name": "rose"}}});
    resources::change(&bed.sessions(), "bees", to_rose).await?;
    operator
        .until_settled("the Store to be gone", LIMIT, async || {
            ensure!(bed.stores().get_opt("tulip").await?.is_none());
            let session = bed.sessions().get("bees").await?;
            expect_condition(&session, "Ready", "True")?;
            Ok(())
        })
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleting_a_store_in_use_survives_crash_and_trouble() -> Result<()> {
    let test = "deleting_a_store_in_use_survives_crash_and_trouble";
    disturb_sampled_calls(test, delete_in_use).await
}

async fn delete_in_use(disturbance: Option<Disturbance>) -> Result<Outcome> {
    workload::run("in-use", None, async |bed, operator| {
        let size = StoreSize {
            replicas: 1,
            partitions: 1,
        };
        workload::bootstrap(bed, operator, "tulip", size).await?;
        connect(bed, operator, "bees", "tulip").await?;
        operator.arm(disturbance)?;
        bed.stores()
            .delete("tulip", &DeleteParams::default())
            .await?;
        operator
            .until_settled("the Store to wait for its Session", LIMIT, async || {
                let store = bed.stores().get("tulip").await?;
                let stalled = expect_condition(&store, "Stalled", "True")?;
                ensure!(stalled.reason == "InUse", "{stalled:?}");
                // What it is made of serves for as long as it is used.
                ensure!(bed.runner().address("tulip-0").is_some(), "its pod ended");
                Ok(())
            })
            .await?;
        workload::replace_pod(bed, operator, "tulip-0").await?;
        bed.sessions()
            .delete("bees", &DeleteParams::default())
            .await?;
        operator
            .until_settled("both to be gone, and the pod", LIMIT, async || {
                for (api, name) in [(bed.sessions(), "bees"), (bed.stores(), "tulip")] {
                    ensure!(api.get_opt(name).await?.is_none(), "{name} is there");
                }
                let pods = bed.pods().list(&ListParams::default()).await?;
                ensure!(pods.items.len() == 1, "{} pods", pods.items.len());
                Ok(())
            })
            .await
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_holds_a_namespace_that_is_deleted() -> Result<()> {
    let bed = TestBed::create("ending").await?;
    // The lease must not go with the namespace.
    let elsewhere = TestNamespace::create(bed.server(), "lease").await?;
    let settings = Settings {
        lease_namespace: elsewhere.name().to_owned(),
        ..bed.settings()
    };
    workload::run_with(bed, settings, end).await?;
    elsewhere.remove().await
}

async fn end(bed: &TestBed, operator: &mut Supervised<'_>) -> Result<()> {
    let size = StoreSize {
        replicas: 1,
        partitions: 1,
    };
    workload::bootstrap(bed, operator, "rose", size).await?;
    connect(bed, operator, "bees", "rose").await?;
    let namespaces: Api<Namespace> = Api::all(bed.client().clone());
    namespaces
        .delete(bed.namespace(), &DeleteParams::default())
        .await?;
    operator
        .until("the namespace to be gone", LIMIT, async || match namespaces
            .get_opt(bed.namespace())
            .await?
        {
            None => Ok(()),
            Some(left) => bail!(
                "it is still there: {}",
                serde_json::to_value(left.status).unwrap_or(Value::Null)
            ),
        })
        .await
}
