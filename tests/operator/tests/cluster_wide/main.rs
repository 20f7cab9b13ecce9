//! An operator that serves all namespaces: permissions between them, built-in Drivers, what it cannot read.
//!
//! A test program of its own: it runs when no operator of a single namespace does.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests"
)]

mod disturbed;
mod permissions;
mod undecodable;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use atomix_operator::Scope;
use atomix_operator::certificates::Lifetimes;
use atomix_operator_tests::operator_under_test::Settings;
use atomix_operator_tests::resources::{self, expect_condition};
use atomix_operator_tests::supervised::Supervised;
use atomix_operator_tests::test_bed::TestBed;
use atomix_operator_tests::webhook::TestWebhook;
use atomix_operator_tests::workload::{self, LIMIT};
use atomix_operator_tests::{crds, http, runtime_pods, samples};
use atomix_proto::runtime::v1::session_service_client::SessionServiceClient;
use atomix_proto::runtime::v1::{GetSessionRequest, GetStatusResponse, SessionId};
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;
use tokio::sync::Mutex;
use tonic::Code;
use tonic::transport::Endpoint;

/// Held by each test: two operators would serve the same namespaces.
static ALONE: Mutex<()> = Mutex::const_new(());

/// Within this a Session follows what its Store allows, also soon after the operator's start, when
/// what another operator wrote is kept for a minute where pods have not been looked at.
const AT_ONCE: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_is_used_from_another_namespace_while_it_allows_that() -> Result<()> {
    let _alone = ALONE.lock().await;
    let bed = TestBed::create("allowing").await?;
    let guest = TestBed::create("guest").await?;
    let drivers = resources::drivers(bed.client());
    let settings = Settings {
        scope: Scope::Cluster,
        names: Arc::new({
            let (own, guests) = (bed.runner().names_handle(), guest.runner().names_handle());
            move || own().into_iter().chain(guests()).collect()
        }),
        ..bed.settings()
    };
    workload::run_with(bed, settings, async |bed, operator| {
        share(bed, operator, &guest).await?;
        // Nothing of it waits for another namespace.
        guest.remove().await
    })
    .await?;
    remove_drivers(&drivers).await
}

async fn share(bed: &TestBed, operator: &mut Supervised<'_>, guest: &TestBed) -> Result<()> {
    resources::create(&bed.stores(), samples::store_of_driver("rose", "memory")).await?;
    guest
        .create_pod(samples::application_pod("hive-0", "hive"))
        .await?;
    let mut session = samples::session("bees", "rose", "hive");
    session["spec"]["store"]["namespace"] = json!(bed.namespace());
    resources::create(&guest.sessions(), session).await?;
    for round in ["first", "again"] {
        forbidden(operator, guest).await?;
        let allow = json!({"spec": {"allowedNamespaces": ["elsewhere", guest.namespace()]}});
        resources::change(&bed.stores(), "rose", allow).await?;
        operator
            .until("the Session to be connected", LIMIT, async || {
                let session = guest.sessions().get("bees").await?;
                let ready = expect_condition(&session, "Ready", "True")?;
                ensure!(ready.reason == "Connected", "{ready:?}");
                ensure!(
                    connections(guest).await? == 1,
                    "the runtime is not connected"
                );
                Ok(())
            })
            .await?;
        if round == "first" {
            let withdraw = json!({"spec": {"allowedNamespaces": ["elsewhere"]}});
            resources::change(&bed.stores(), "rose", withdraw).await?;
        }
    }
    ambiguous(bed, operator, guest).await?;
    // A Store waits for the Sessions of its own namespace only.
    workload::delete_and_wait(operator, &bed.stores(), "rose").await?;
    forbidden(operator, guest).await
}

/// Two namespaces have a Session of this name: which one is meant has to be said.
async fn ambiguous(bed: &TestBed, operator: &mut Supervised<'_>, guest: &TestBed) -> Result<()> {
    resources::create(&bed.sessions(), samples::session("bees", "rose", "nobody")).await?;
    let endpoint = Endpoint::from_shared(format!("http://{}", operator.api()))?;
    let service = SessionServiceClient::new(endpoint.connect().await?);
    let get = async |name: &str| {
        let request = GetSessionRequest {
            session_id: Some(SessionId {
                name: name.to_owned(),
                ..SessionId::default()
            }),
        };
        service.clone().get_session(request).await
    };
    let keys = [bed, guest].map(|bed| format!("{}/bees", bed.namespace()));
    operator
        .until("both Sessions to be known", LIMIT, async || {
            let Err(refused) = get("bees").await else {
                bail!("one of two was chosen");
            };
            let names_both = keys.iter().all(|key| refused.message().contains(key));
            ensure!(
                refused.code() == Code::InvalidArgument && names_both,
                "{refused}"
            );
            Ok(())
        })
        .await?;
    for key in &keys {
        let found = get(key).await?.into_inner().session;
        let id = found.and_then(|session| session.meta?.id);
        let name = id.map(|id| id.name);
        ensure!(name.as_ref() == Some(key), "{key} is {name:?}");
    }
    workload::delete_and_wait(operator, &bed.sessions(), "bees").await
}

/// The Session says what to do, and its pod has no connection.
async fn forbidden(operator: &mut Supervised<'_>, guest: &TestBed) -> Result<()> {
    operator
        .until("the Session to be forbidden", AT_ONCE, async || {
            let session = guest.sessions().get("bees").await?;
            let stalled = expect_condition(&session, "Stalled", "True")?;
            let advice = format!("add {} to its spec.allowedNamespaces", guest.namespace());
            ensure!(
                stalled.reason == "StoreForbidden" && stalled.message.contains(&advice),
                "{stalled:?}"
            );
            ensure!(connections(guest).await? == 0, "the runtime is connected");
            Ok(())
        })
        .await
}

async fn connections(bed: &TestBed) -> Result<usize> {
    Ok(runtime_status(bed).await?.connections.len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_waits_for_newer_crds_while_its_webhook_serves() -> Result<()> {
    let _alone = ALONE.lock().await;
    let bed = TestBed::create("older").await?;
    let webhook = TestWebhook::create(&bed, Lifetimes::default()).await?;
    let settings = Settings {
        scope: Scope::Cluster,
        webhook: Some(webhook.served()?),
        ..bed.settings()
    };
    crds::forget_a_field(bed.client()).await?;
    let drivers = resources::drivers(bed.client());
    let client = bed.client().clone();
    let waited = workload::run_with(bed, settings, async |bed, operator| {
        resources::create(&bed.stores(), samples::store_of_driver("rose", "memory")).await?;
        wait_for_crds(bed, operator, &webhook).await
    })
    .await;
    crds::restore(&client).await?;
    waited?;
    remove_drivers(&drivers).await
}

async fn wait_for_crds(
    bed: &TestBed,
    operator: &mut Supervised<'_>,
    webhook: &TestWebhook,
) -> Result<()> {
    let admin = operator.admin();
    operator
        .until("the operator to say what is missing", LIMIT, async || {
            let (code, text) = http::get(admin, "/readyz").await?;
            ensure!(
                code == 503 && text.contains(".spec.configFrom") && text.contains("kubectl apply"),
                "{code}: {text}"
            );
            Ok(())
        })
        .await?;
    operator
        .until("the webhook to serve", LIMIT, async || {
            let (code, text) = http::get(admin, "/readyz/webhook").await?;
            ensure!(code == 200, "{code}: {text}");
            webhook.injects().await
        })
        .await?;
    let store = bed.stores().get("rose").await?;
    ensure!(
        store.finalizers().is_empty() && store.data["status"]["observedGeneration"] == json!(-1),
        "the controllers did not wait: {store:?}"
    );
    crds::restore(bed.client()).await?;
    operator
        .until("the operator to go on", LIMIT, async || {
            let (code, text) = http::get(admin, "/readyz").await?;
            ensure!(code == 200, "{code}: {text}");
            expect_condition(&bed.stores().get("rose").await?, "Ready", "True")?;
            Ok(())
        })
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_waits_for_a_crd_that_is_not_there_yet() -> Result<()> {
    let _alone = ALONE.lock().await;
    let bed = TestBed::create("early").await?;
    let settings = Settings {
        scope: Scope::Cluster,
        ..bed.settings()
    };
    let drivers = resources::drivers(bed.client());
    let client = bed.client().clone();
    crds::remove_sessions(&client).await?;
    let waited = workload::run_with(bed, settings, async |bed, operator| {
        let waited = wait_for_a_crd(bed, operator).await;
        // Its namespace cannot be looked through without it.
        crds::restore(bed.client()).await?;
        waited?;
        workload::delete_and_wait(operator, &bed.sessions(), "bees").await?;
        workload::delete_and_wait(operator, &bed.stores(), "rose").await
    })
    .await;
    crds::restore(&client).await?;
    waited?;
    remove_drivers(&drivers).await
}

async fn wait_for_a_crd(bed: &TestBed, operator: &mut Supervised<'_>) -> Result<()> {
    resources::create(&bed.stores(), samples::store_of_driver("rose", "memory")).await?;
    bed.create_pod(samples::application_pod("hive-0", "hive"))
        .await?;
    let admin = operator.admin();
    operator
        .until("the operator to say what is missing", LIMIT, async || {
            let (code, text) = http::get(admin, "/readyz").await?;
            let missing = "the CRD sessions.atomix.io is not installed";
            ensure!(code == 503 && text.contains(missing), "{code}: {text}");
            Ok(())
        })
        .await?;
    let store = bed.stores().get("rose").await?;
    ensure!(
        store.finalizers().is_empty() && store.data["status"]["observedGeneration"] == json!(-1),
        "the controllers did not wait: {store:?}"
    );
    crds::restore(bed.client()).await?;
    operator
        .until("the API server to take Sessions", LIMIT, async || {
            resources::create(&bed.sessions(), samples::session("bees", "rose", "hive")).await?;
            Ok(())
        })
        .await?;
    operator
        .until("the operator to go on", LIMIT, async || {
            let (code, text) = http::get(admin, "/readyz").await?;
            ensure!(code == 200, "{code}: {text}");
            expect_condition(&bed.sessions().get("bees").await?, "Ready", "True")?;
            ensure!(connections(bed).await? == 1, "the runtime is not connected");
            Ok(())
        })
        .await?;
    ensure!(operator.admin() == admin, "it was started again");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drivers_are_guarded_and_undecodable_objects_stall_nobody() -> Result<()> {
    let _alone = ALONE.lock().await;
    let bed = TestBed::create("drivers").await?;
    let settings = Settings {
        scope: Scope::Cluster,
        ..bed.settings()
    };
    let drivers = resources::drivers(bed.client());
    workload::run_with(bed, settings, async |bed, operator| {
        built_in_drivers(bed, operator, &drivers).await?;
        let result = undecodable::stall_nobody(bed, operator).await;
        crds::restore(bed.client()).await?;
        result
    })
    .await?;
    remove_drivers(&drivers).await
}

async fn built_in_drivers(
    bed: &TestBed,
    operator: &mut Supervised<'_>,
    drivers: &Api<DynamicObject>,
) -> Result<()> {
    let mut uids = Vec::new();
    for name in ["memory", "multi-raft"] {
        let driver = operator
            .until("the built-in Drivers to be available", LIMIT, async || {
                let driver = drivers.get(name).await?;
                expect_condition(&driver, "Available", "True")?;
                expect_condition(&driver, "InUse", "False")?;
                Ok(driver)
            })
            .await?;
        uids.push(driver.uid());
    }

    // One that nobody uses can go, and comes back.
    drivers.delete("memory", &DeleteParams::default()).await?;
    operator
        .until("the deleted Driver to come back", LIMIT, async || {
            let driver = drivers.get("memory").await?;
            ensure!(!uids.contains(&driver.uid()), "the old one is still there");
            expect_condition(&driver, "Available", "True")?;
            Ok(())
        })
        .await?;

    // One that a Store uses stays until the Store is gone.
    resources::create(&bed.stores(), samples::store_of_driver("rose", "memory")).await?;
    let used = operator
        .until("the Driver to be in use", LIMIT, async || {
            let driver = drivers.get("memory").await?;
            expect_condition(&driver, "InUse", "True")?;
            ensure!(!driver.finalizers().is_empty(), "nothing holds the Driver");
            Ok(driver)
        })
        .await?;
    drivers.delete("memory", &DeleteParams::default()).await?;
    operator
        .until_settled("the Driver to be waiting for its end", LIMIT, async || {
            let driver = drivers.get("memory").await?;
            ensure!(driver.uid() == used.uid(), "the Driver in use was deleted");
            ensure!(
                driver.metadata.deletion_timestamp.is_some() && !driver.finalizers().is_empty(),
                "the Driver is not waiting"
            );
            Ok(())
        })
        .await?;
    workload::delete_and_wait(operator, &bed.stores(), "rose").await?;
    operator
        .until("the Driver to be made anew", LIMIT, async || {
            let driver = drivers.get("memory").await?;
            ensure!(
                driver.uid() != used.uid(),
                "the deleted Driver is still there"
            );
            expect_condition(&driver, "InUse", "False")?;
            Ok(())
        })
        .await
}

async fn runtime_status(bed: &TestBed) -> Result<GetStatusResponse> {
    runtime_pods::status(address(bed)?).await
}

fn address(bed: &TestBed) -> Result<Ipv4Addr> {
    bed.runner()
        .address("hive-0")
        .context("the pod does not run")
}

/// Without an operator nothing makes them anew.
async fn remove_drivers(drivers: &Api<DynamicObject>) -> Result<()> {
    for name in ["memory", "multi-raft", "odd"] {
        let Some(driver) = drivers.get_opt(name).await? else {
            continue;
        };
        if !driver.finalizers().is_empty() {
            let release = Patch::Merge(json!({"metadata": {"finalizers": null}}));
            drivers
                .patch(name, &PatchParams::default(), &release)
                .await?;
        }
        match drivers.delete(name, &DeleteParams::default()).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => bail!(error),
        }
    }
    let left = drivers
        .get_opt("memory")
        .await
        .context("cannot look for Drivers")?;
    ensure!(
        left.is_none_or(|driver| driver.metadata.deletion_timestamp.is_some()),
        "a Driver is left"
    );
    Ok(())
}
