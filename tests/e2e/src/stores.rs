//! A Store of storage nodes and its pods: changed as a user would, and waited for.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, Patch, PatchParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};

use crate::cluster::Namespace;
use crate::wait::until;

/// The Store of deploy/samples/store.yaml.
pub const STORE: &str = "counts";

impl Namespace {
    /// Sets the number of storage nodes by the scale subresource, as kubectl and autoscalers do.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn scale_store(&self, replicas: u32) -> anyhow::Result<()> {
        let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
        self.stores()
            .patch_scale(STORE, &PatchParams::default(), &patch)
            .await
            .with_context(|| format!("cannot scale the Store to {replicas}"))?;
        Ok(())
    }

    /// Merges a change into `spec.multiRaft` of the Store.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn change_store(&self, change: &Value) -> anyhow::Result<()> {
        self.merge_into_store(&json!({"spec": {"multiRaft": change}}))
            .await
    }

    /// Merges a change into the Store.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn merge_into_store(&self, change: &Value) -> anyhow::Result<()> {
        self.stores()
            .patch(STORE, &PatchParams::default(), &Patch::Merge(change))
            .await
            .with_context(|| format!("cannot change the Store by {change}"))?;
        Ok(())
    }

    /// The pods of the Store.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn storage_pods(&self) -> anyhow::Result<Vec<Pod>> {
        let pods: Api<Pod> = Api::namespaced(self.cluster().client(), self.name());
        let ours = ListParams::default().labels(&format!("atomix.io/store={STORE}"));
        Ok(pods.list(&ours).await?.items)
    }

    /// Which pod has which UID.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn storage_uids(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let pods = self.storage_pods().await?;
        let uids = pods
            .iter()
            .map(|pod| (pod.name_any(), pod.uid().unwrap_or_default()));
        Ok(uids.collect())
    }

    /// Waits until the Store is ready with so many nodes and rests, every partition is ready, every
    /// pod counts, and no other pod is left.
    ///
    /// # Errors
    /// When it is not within `limit`; the error shows the status.
    pub async fn store_is_whole(&self, replicas: u32, limit: Duration) -> anyhow::Result<()> {
        let what = format!("the Store has {replicas} nodes, all of its copies, and rests");
        let mut status = Value::Null;
        let whole = until(&what, limit, async || {
            let store = self.get("Store", STORE).await?;
            let store = store.context("the Store is gone")?;
            status = store["status"].clone();
            let pods = self.storage_pods().await?;
            let is_whole = status["readyReplicas"] == replicas
                && status["replicas"] == replicas
                && status["updatedReplicas"] == replicas
                && status["partitions"]["ready"] == store["spec"]["multiRaft"]["partitions"]
                && holds(&store, "Ready", "True")
                && holds(&store, "Progressing", "False")
                && pods.len() == usize::try_from(replicas)?
                && pods.iter().all(counts);
            Ok(is_whole.then_some(()))
        })
        .await;
        whole.with_context(|| format!("the status is {status:#}"))
    }

    /// Waits until every storage pod is another one and counts; at no look is more than one away.
    ///
    /// # Errors
    /// When they are not within `limit`, or two were away at once.
    pub async fn storage_pods_are_replaced(
        &self,
        before: &BTreeMap<String, String>,
        limit: Duration,
    ) -> anyhow::Result<()> {
        let old: BTreeSet<&String> = before.values().collect();
        let mut fewest = before.len();
        until(
            "every storage pod is replaced and counts",
            limit,
            async || {
                let pods = self.storage_pods().await?;
                let ready = pods.iter().filter(|pod| counts(pod)).count();
                // One list is one moment's truth.
                fewest = fewest.min(ready);
                let is_new = |pod: &Pod| pod.uid().is_some_and(|uid| !old.contains(&uid));
                let store = self.get("Store", STORE).await?;
                let store = store.context("the Store is gone")?;
                let is_done = holds(&store, "Progressing", "False")
                    && store["status"]["updatedReplicas"] == json!(before.len());
                let are_new = ready == before.len() && pods.iter().all(is_new);
                Ok((is_done && are_new).then_some(()))
            },
        )
        .await?;
        ensure!(
            fewest + 1 >= before.len(),
            "at some time only {fewest} of {} storage pods counted",
            before.len()
        );
        Ok(())
    }

    fn stores(&self) -> Api<DynamicObject> {
        let kind = GroupVersionKind::gvk("atomix.io", "v1beta1", "Store");
        let resource = ApiResource::from_gvk(&kind);
        Api::namespaced_with(self.cluster().client(), self.name(), &resource)
    }
}

/// Whether a condition that speaks of the present generation has this status.
fn holds(store: &Value, condition: &str, status: &str) -> bool {
    let conditions = store["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|seen| {
        seen["type"] == condition
            && seen["observedGeneration"] == store["metadata"]["generation"]
            && seen["status"] == status
    })
}

/// Whether a storage pod's gate is open and it is not going.
#[must_use]
pub fn counts(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| &status.conditions);
    let mut conditions = conditions.flatten();
    let is_open =
        conditions.any(|seen| seen.type_ == "atomix.io/replicated" && seen.status == "True");
    is_open && pod.metadata.deletion_timestamp.is_none()
}
