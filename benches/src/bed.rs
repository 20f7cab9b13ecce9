//! A namespace of a cluster that one benchmark has to itself.

use std::path::Path;
use std::time::Duration;

use anyhow::bail;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, ResourceExt as _};
use serde_json::json;
use tokio::time::Instant;

/// Ten thousand pods go in minutes.
const GONE: Duration = Duration::from_secs(1200);

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
