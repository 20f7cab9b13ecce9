//! The disks of storage nodes, given up by a person's word.

use std::time::Duration;

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::{Api, ResourceExt as _};
use serde_json::json;

use crate::cluster::Namespace;
use crate::stores::STORE;
use crate::wait::until;

const SOON: Duration = Duration::from_secs(120);

impl Namespace {
    /// Which disk a storage pod has, if it has one.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn disk_of(&self, pod: &str) -> anyhow::Result<Option<String>> {
        let disks: Api<PersistentVolumeClaim> =
            Api::namespaced(self.cluster().client(), self.name());
        let disk = disks.get_opt(&format!("data-{pod}")).await?;
        Ok(disk.and_then(|disk| disk.uid()))
    }

    /// Waits until a storage pod has another disk than `before`.
    ///
    /// # Errors
    /// When it has not.
    pub async fn another_disk(&self, pod: &str, before: Option<String>) -> anyhow::Result<()> {
        until("another disk to take its place", SOON, async || {
            let now = self.disk_of(pod).await?;
            Ok((now.is_some() && now != before).then_some(()))
        })
        .await
    }

    /// Gives up two disks of three, so that every partition has lost its majority; returns what the
    /// Store says then.
    ///
    /// # Errors
    /// When one of them is not given up, or the Store does not say so.
    pub async fn lose_majority(&self) -> anyhow::Result<String> {
        // So that the operator does not heal the first loss before the second one.
        self.merge_into_store(&json!({"spec": {"paused": true}}))
            .await?;
        let before = self.disk_of("counts-1").await?;
        self.done(&["store", "replace-node", STORE, "1", "--yes"])
            .await?;
        self.another_disk("counts-1", before).await?;
        let second = ["store", "replace-node", STORE, "2", "--yes"];
        self.refused_command(&second, "--give-up").await?;
        self.done(&[second.as_slice(), &["--give-up"]].concat())
            .await?;
        self.merge_into_store(&json!({"spec": {"paused": false}}))
            .await?;
        let reason = Some("QuorumLost");
        self.condition("Store", STORE, "Ready", "False", reason, SOON)
            .await
    }
}
