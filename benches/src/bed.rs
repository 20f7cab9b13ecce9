//! A namespace of a cluster that one benchmark has to itself.

use std::path::Path;
use std::time::Duration;

use anyhow::bail;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, PostParams,
};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, ResourceExt as _};
use serde_json::{Value, json};
use tokio::time::Instant;

/// Ten thousand pods go in minutes.
const GONE: Duration = Duration::from_secs(1200);
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

/// A namespace, and a client of its cluster.
pub(crate) struct Bed {
    pub(crate) client: Client,
    pub(crate) namespace: String,
}

impl Bed {
    /// Makes a namespace for what is measured.
    pub(crate) async fn make(kubeconfig: &Path, purpose: &str) -> anyhow::Result<Self> {
        let config = Config::from_custom_kubeconfig(
            Kubeconfig::read_from(kubeconfig)?,
            &KubeConfigOptions::default(),
        )
        .await?;
        let client = Client::try_from(config)?;
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let wanted = json!({"metadata": {"generateName": format!("atomix-{purpose}-")}});
        let created = namespaces
            .create(&PostParams::default(), &serde_json::from_value(wanted)?)
            .await?;
        Ok(Self {
            client,
            namespace: created.name_any(),
        })
    }

    /// Objects of one kind in the namespace.
    pub(crate) fn api(&self, group: &str, version: &str, kind: &str) -> Api<DynamicObject> {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        Api::namespaced_with(self.client.clone(), &self.namespace, &resource)
    }

    /// Objects of one of our kinds in the namespace.
    pub(crate) fn ours(&self, kind: &str) -> Api<DynamicObject> {
        self.api("atomix.io", "v1beta1", kind)
    }

    /// Pods in the namespace.
    pub(crate) fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Creates an object; returns when that was asked for.
    pub(crate) async fn create(
        &self,
        api: &Api<DynamicObject>,
        object: Value,
    ) -> anyhow::Result<Instant> {
        let object: DynamicObject = serde_json::from_value(object)?;
        let asked = Instant::now();
        api.create(&PostParams::default(), &object).await?;
        Ok(asked)
    }

    /// Waits until an object is as it should be.
    pub(crate) async fn until(
        &self,
        api: &Api<DynamicObject>,
        name: &str,
        limit: Duration,
        is_so: impl Fn(&Value) -> bool,
    ) -> anyhow::Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            let object = serde_json::to_value(api.get(name).await?)?;
            if is_so(&object) {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!(
                    "{name} is not ready within {limit:?}: {:#}",
                    object["status"]
                );
            }
            tokio::time::sleep(BETWEEN_LOOKS).await;
        }
    }

    /// Waits until there are no pods with these labels any more.
    pub(crate) async fn until_no_pods(&self, labels: &str, limit: Duration) -> anyhow::Result<()> {
        let pods = self.pods();
        let labelled = ListParams::default().labels(labels);
        let deadline = Instant::now() + limit;
        while !pods.list(&labelled).await?.items.is_empty() {
            if Instant::now() > deadline {
                bail!("pods with {labels} do not go away");
            }
            tokio::time::sleep(BETWEEN_LOOKS).await;
        }
        Ok(())
    }

    /// Deletes the namespace, and waits until its deletion costs the cluster nothing any more.
    pub(crate) async fn remove(self) -> anyhow::Result<()> {
        let namespaces: Api<Namespace> = Api::all(self.client);
        let params = DeleteParams::default();
        namespaces.delete(&self.namespace, &params).await?;
        let deadline = Instant::now() + GONE;
        while namespaces.get_opt(&self.namespace).await?.is_some() {
            if Instant::now() > deadline {
                bail!("namespace {} is not gone after {GONE:?}", self.namespace);
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        Ok(())
    }
}

/// Whether an object of ours has the condition Ready for what it asks for now.
pub(crate) fn is_ready(object: &Value) -> bool {
    object["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .any(|condition| {
            condition["type"] == "Ready"
                && condition["status"] == "True"
                && condition["observedGeneration"] == object["metadata"]["generation"]
        })
}
