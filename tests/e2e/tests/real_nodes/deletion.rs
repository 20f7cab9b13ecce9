//! A Store is deleted under load: it waits for its Sessions, also where the API server would delete its
//! pods first, and what it kept is there when it is made again.

use anyhow::ensure;
use atomix_e2e::rows::{LIMIT, Row, spread_store};
use atomix_e2e::stores::STORE;
use atomix_e2e::wait::until;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::Api;
use kube::api::{DeleteParams, ListParams};

#[tokio::test]
async fn a_store_is_deleted_in_the_background_under_load() -> anyhow::Result<()> {
    Row::run("background deletion under load", async |row| {
        let namespace = row.namespace();
        let home = row.nodes().with_operator().await?;
        let load = row.store_under_load(&home).await?;
        let background = DeleteParams::background();
        namespace.delete_with("Store", STORE, &background).await?;
        namespace
            .condition("Store", STORE, "Stalled", "True", Some("InUse"), LIMIT)
            .await?;
        load.goes_on(100).await?;
        load.is_intact().await?;
        ensure!(
            namespace.storage_pods().await?.len() == 3,
            "a pod went before the Session"
        );

        namespace.delete_object("Session", "visits").await?;
        is_gone_and_comes_back(row).await?;
        load.connect_again().await?;
        namespace.store_is_whole(3, LIMIT).await?;
        load.is_intact().await
    })
    .await
}

#[tokio::test]
async fn a_store_is_deleted_in_the_foreground_under_load() -> anyhow::Result<()> {
    Row::run("foreground deletion under load", async |row| {
        let namespace = row.namespace();
        let home = row.nodes().with_operator().await?;
        let load = row.store_under_load(&home).await?;
        let foreground = DeleteParams::foreground();
        let refusal = namespace.delete_with("Store", STORE, &foreground).await;
        let refusal = format!("{:#}", refusal.err().unwrap_or(anyhow::anyhow!("accepted")));
        ensure!(refusal.contains("delete the Sessions first"), "{refusal}");
        load.goes_on(100).await?;
        load.is_intact().await?;

        namespace.delete_object("Session", "visits").await?;
        until("the Store can be deleted", LIMIT, async || {
            namespace.delete_with("Store", STORE, &foreground).await?;
            Ok(Some(()))
        })
        .await?;
        is_gone_and_comes_back(row).await?;
        load.connect_again().await?;
        namespace.store_is_whole(3, LIMIT).await?;
        load.is_intact().await
    })
    .await
}

async fn is_gone_and_comes_back(row: &Row) -> anyhow::Result<()> {
    let namespace = row.namespace();
    until("the Store and its pods are gone", LIMIT, async || {
        let store = namespace.get("Store", STORE).await?;
        let pods = namespace.storage_pods().await?;
        Ok((store.is_none() && pods.is_empty()).then_some(()))
    })
    .await?;
    let claims: Api<PersistentVolumeClaim> =
        Api::namespaced(row.cluster().client(), namespace.name());
    let left = claims.list(&ListParams::default()).await?.items.len();
    ensure!(left == 3, "three disks were made, and {left} are left");
    namespace.apply(&spread_store(row.cluster())?).await
}
