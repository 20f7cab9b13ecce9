//! A load that outlives what goes wrong: two replicas of the sample application on one node. They keep
//! their count in memory, so a load whose processes were restarted proves nothing, and fails.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::ensure;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};

use crate::cluster::Namespace;
use crate::manifests::{edited, sample, session};
use crate::stores::STORE;
use crate::wait::until;

const LIMIT: Duration = Duration::from_secs(240);
/// Longer than any election.
const STANDSTILL: Duration = Duration::from_secs(5);

/// A running load.
#[derive(Debug)]
pub struct Load {
    namespace: Namespace,
    app: String,
    /// Pods and the restarts of their application, as it began.
    replicas: BTreeMap<String, i32>,
}

impl Load {
    /// Applies the load and its Session; it counts once [`Load::begins`] returns.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn apply(namespace: &Namespace, app: &str, node: &str) -> anyhow::Result<Self> {
        let application = sample(namespace.cluster(), "injected-application")?;
        let application = edited(&application, |deployment| {
            deployment["metadata"]["name"] = app.into();
            deployment["spec"]["selector"]["matchLabels"]["app"] = app.into();
            let template = &mut deployment["spec"]["template"];
            template["metadata"]["labels"]["app"] = app.into();
            template["spec"]["nodeSelector"]["kubernetes.io/hostname"] = node.into();
            template["spec"]["containers"][0]["env"][0]["value"] = app.into();
        })?;
        namespace.apply(&session(app, STORE, app)).await?;
        namespace.apply(&application).await?;
        Ok(Self {
            namespace: namespace.clone(),
            app: app.to_owned(),
            replicas: BTreeMap::new(),
        })
    }

    /// Waits until both replicas count.
    ///
    /// # Errors
    /// When they do not.
    pub async fn begins(mut self) -> anyhow::Result<Self> {
        until("two replicas of the load count", LIMIT, async || {
            let tally = self.namespace.tally(&self.app).await?;
            Ok((tally.replicas == 2 && tally.acknowledged > 50).then_some(()))
        })
        .await?;
        self.replicas = self.seen().await?;
        Ok(self)
    }

    /// Makes its Session again after that was deleted.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn connect_again(&self) -> anyhow::Result<()> {
        let session = session(&self.app, STORE, &self.app);
        self.namespace.apply(&session).await
    }

    /// Waits until so many more increments are acknowledged, from a moment when the load answers.
    ///
    /// # Errors
    /// When they are not.
    pub async fn goes_on(&self, more: i64) -> anyhow::Result<()> {
        let now = self.namespace.counts_beyond(&self.app, -1, LIMIT).await?;
        self.namespace
            .counts_beyond(&self.app, now.acknowledged + more, LIMIT)
            .await?;
        Ok(())
    }

    /// Waits until nothing is acknowledged for a while.
    ///
    /// # Errors
    /// When it goes on.
    pub async fn stands_still(&self) -> anyhow::Result<()> {
        let what = format!("the load {} stands still", self.app);
        until(&what, LIMIT, async || {
            let before = self.namespace.tally(&self.app).await?;
            tokio::time::sleep(STANDSTILL).await;
            let after = self.namespace.tally(&self.app).await?;
            Ok((before.acknowledged == after.acknowledged).then_some(()))
        })
        .await
    }

    /// Checks that the load goes on, was never restarted, and that nothing it counted was lost or
    /// counted twice.
    ///
    /// # Errors
    /// When one of these is not so.
    pub async fn is_intact(&self) -> anyhow::Result<()> {
        self.goes_on(50).await?;
        self.namespace.nothing_lost(&self.app).await?;
        let now = self.seen().await?;
        ensure!(
            now == self.replicas,
            "the load {} was restarted, so its count proves nothing: {:?} became {now:?}",
            self.app,
            self.replicas
        );
        Ok(())
    }

    async fn seen(&self) -> anyhow::Result<BTreeMap<String, i32>> {
        let client = self.namespace.cluster().client();
        let pods: Api<Pod> = Api::namespaced(client, self.namespace.name());
        let ours = ListParams::default().labels(&format!("app={}", self.app));
        let pods = pods.list(&ours).await?;
        let restarts = |pod: &Pod| {
            let status = pod.status.as_ref();
            let containers = status.and_then(|status| status.container_statuses.as_ref());
            let restarts = containers.into_iter().flatten();
            restarts.map(|container| container.restart_count).sum()
        };
        let replicas = pods.iter().map(|pod| (pod.name_any(), restarts(pod)));
        Ok(replicas.collect())
    }
}
