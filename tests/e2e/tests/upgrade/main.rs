//! An upgrade of the release from an earlier version, while an application counts.
//!
//! `ATOMIX_TEST_OLD_SOURCE` is the source of that version, `ATOMIX_TEST_OLD_IMAGE_TAG` the tag of its
//! images: `make chaos-operator PART=upgrade` makes both from the first slice's commit.

#![allow(
    clippy::large_futures,
    reason = "a test is awaited once, as one long story"
)]

use std::collections::BTreeMap;
use std::env;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use atomix_e2e::cluster::{Cluster, Namespace};
use atomix_e2e::manifests::sample;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};

const SOON: Duration = Duration::from_secs(120);
/// All storage pods are replaced one after the other.
const ROLLED: Duration = Duration::from_secs(300);
const APPLICATION: &str = "visits";

#[tokio::test]
async fn data_and_connections_outlive_the_upgrade() -> Result<()> {
    let new = Cluster::connect().await?;
    let variable = |name: &str| env::var(name).with_context(|| format!("{name} is not set"));
    let source = variable("ATOMIX_TEST_OLD_SOURCE")?;
    let old = new.of_version(source.into(), variable("ATOMIX_TEST_OLD_IMAGE_TAG")?);
    old.install_chart().await?;
    let namespace = old.namespace("upgrade").await?;
    namespace
        .clone()
        .run(async {
            for name in ["store", "session", "application"] {
                namespace.apply(&sample(&old, name)?).await?;
            }
            let counted = namespace.counts_beyond(APPLICATION, 50, SOON).await?;
            let before = applications(&namespace).await?;

            new.install_chart().await?;
            new.test_chart()?;
            namespace.store_is_whole(3, ROLLED).await?;
            for pod in namespace.storage_pods().await? {
                let spec = pod.spec.clone().unwrap_or_default();
                let mut images = spec
                    .containers
                    .iter()
                    .flat_map(|container| &container.image);
                ensure!(
                    images.all(|image| *image == new.image("atomix-node")),
                    "{} still has an old image",
                    pod.name_any()
                );
            }
            namespace
                .condition("Session", APPLICATION, "Ready", "True", None, SOON)
                .await?;
            let counted = counted.acknowledged;
            namespace
                .counts_beyond(APPLICATION, counted + 100, SOON)
                .await?;
            namespace.nothing_lost(APPLICATION).await?;
            let after = applications(&namespace).await?;
            ensure!(
                before == after,
                "application pods were touched: {before:?} became {after:?}"
            );
            Ok(())
        })
        .await
}

/// Name, uid and restarts of the application's pods: connections live in them.
async fn applications(namespace: &Namespace) -> Result<BTreeMap<String, (Option<String>, i32)>> {
    let pods: Api<Pod> = Api::namespaced(namespace.cluster().client(), namespace.name());
    let selected = ListParams::default().labels(&format!("app={APPLICATION}"));
    let found = pods.list(&selected).await?;
    let told = found.iter().map(|pod| {
        let status = pod.status.clone().unwrap_or_default();
        let all = status.container_statuses.into_iter().flatten();
        let all = all.chain(status.init_container_statuses.into_iter().flatten());
        let restarts = all.map(|container| container.restart_count).sum();
        (pod.name_any(), (pod.uid(), restarts))
    });
    Ok(told.collect())
}
