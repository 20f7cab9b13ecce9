//! Drivers, and a Session that uses the Store of another namespace, while it may, whatever disturbs the
//! operator; and the end of it all, whatever disturbs the uninstaller.

use std::sync::Arc;

use anyhow::{Result, ensure};
use atomix_operator::Scope;
use atomix_operator_tests::api_server::ApiServer;
use atomix_operator_tests::crds;
use atomix_operator_tests::end_state::end_state;
use atomix_operator_tests::fault::Disturbance;
use atomix_operator_tests::matrix::{Outcome, disturb_one_at_a_time, disturb_only_at_length};
use atomix_operator_tests::operator_under_test::Settings;
use atomix_operator_tests::resources::{self, expect_condition};
use atomix_operator_tests::samples;
use atomix_operator_tests::supervised::Supervised;
use atomix_operator_tests::test_bed::TestBed;
use atomix_operator_tests::uninstalling::{Extent, uninstall_and_install};
use atomix_operator_tests::workload::{self, LIMIT};
use kube::api::DeleteParams;
use serde_json::json;

use super::{ALONE, connections, remove_drivers};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drivers_and_permissions_survive_crash_and_trouble() -> Result<()> {
    let _alone = ALONE.lock().await;
    let test = "drivers_and_permissions_survive_crash_and_trouble";
    disturb_one_at_a_time(test, |disturbance| Box::pin(disturbed(disturbance))).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uninstalling_from_all_namespaces_survives_crash_and_trouble() -> Result<()> {
    let _alone = ALONE.lock().await;
    let test = "uninstalling_from_all_namespaces_survives_crash_and_trouble";
    let server = ApiServer::connect().await?;
    crds::teach_a_newer_version(&server.client()).await?;
    let disturbed =
        disturb_only_at_length(test, |disturbance| Box::pin(uninstall(disturbance))).await;
    crds::restore(&server.client()).await?;
    disturbed
}

async fn uninstall(disturbance: Option<Disturbance>) -> Result<Outcome> {
    let drivers = resources::drivers(&ApiServer::connect().await?.client());
    let outcome = Box::pin(uninstall_and_install(Extent::AllNamespaces, disturbance)).await;
    let removed = remove_drivers(&drivers).await;
    let outcome = outcome?;
    removed?;
    Ok(outcome)
}

async fn disturbed(disturbance: Option<Disturbance>) -> Result<Outcome> {
    let bed = TestBed::create("permits").await?;
    let guest = TestBed::create("guest").await?;
    let names: Arc<dyn Fn() -> _ + Send + Sync> = Arc::new({
        let (own, guests) = (bed.runner().names_handle(), guest.runner().names_handle());
        move || own().into_iter().chain(guests()).collect()
    });
    let settings = |disturbance| Settings {
        scope: Scope::Cluster,
        names: Arc::clone(&names),
        disturbance,
        ..bed.settings()
    };
    let mut operator = Supervised::start_as(settings, disturbance);
    let lived = live(&bed, &guest, &mut operator).await;
    workload::explain(lived, &bed, &operator)?;
    let ended = operator.end_pause(LIMIT).await;
    workload::explain(ended, &bed, &operator)?;
    let mut outcome = workload::outcome(&bed, &operator).await?;
    let guests = end_state(guest.client(), guest.namespace()).await?;
    outcome.end_state.extend(guests);
    drop(operator);
    let drivers = resources::drivers(bed.client());
    bed.remove().await?;
    guest.remove().await?;
    remove_drivers(&drivers).await?;
    Ok(outcome)
}

async fn live(bed: &TestBed, guest: &TestBed, operator: &mut Supervised<'_>) -> Result<()> {
    resources::create(&bed.stores(), samples::store_of_driver("rose", "memory")).await?;
    guest
        .create_pod(samples::application_pod("hive-0", "hive"))
        .await?;
    let mut session = samples::session("bees", "rose", "hive");
    session["spec"]["store"]["namespace"] = json!(bed.namespace());
    resources::create(&guest.sessions(), session).await?;
    for (allowed, count) in [(vec![guest.namespace()], 1), (Vec::new(), 0)] {
        let allow = json!({"spec": {"allowedNamespaces": allowed}});
        resources::change(&bed.stores(), "rose", allow).await?;
        operator
            .until_settled("the permission to be followed", LIMIT, async || {
                let session = guest.sessions().get("bees").await?;
                let status = if count == 1 { "True" } else { "False" };
                expect_condition(&session, "Ready", status)?;
                let found = connections(guest).await?;
                ensure!(found == count, "{found} connections");
                Ok(())
            })
            .await?;
    }

    // A Driver in use waits for its Store, and the built-in one is made again.
    let drivers = resources::drivers(bed.client());
    let used = operator
        .until("the Driver to be in use", LIMIT, async || {
            let driver = drivers.get("memory").await?;
            expect_condition(&driver, "InUse", "True")?;
            Ok(driver)
        })
        .await?;
    drivers.delete("memory", &DeleteParams::default()).await?;
    workload::delete_and_wait(operator, &guest.sessions(), "bees").await?;
    workload::delete_and_wait(operator, &bed.stores(), "rose").await?;
    operator
        .until_settled("the Driver to be made anew", LIMIT, async || {
            let driver = drivers.get("memory").await?;
            let is_another = driver.metadata.uid != used.metadata.uid;
            ensure!(is_another, "the deleted one is there");
            expect_condition(&driver, "Available", "True")?;
            expect_condition(&driver, "InUse", "False")?;
            Ok(())
        })
        .await
}
