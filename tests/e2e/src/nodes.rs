//! The cluster's nodes, and what happens to machines: power failures, cut cables, drains.
//!
//! Works on clusters of tests/cluster, whose `cluster node` commands do it.

use std::env;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::Node;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use tokio::process::Command;

use crate::cluster::{Cluster, repository_root};
use crate::operator::operator_pod;
use crate::wait::until;

/// A node counts as lost after fifty seconds of silence; a busy machine takes longer to come back.
const LIMIT: Duration = Duration::from_secs(240);

/// The zone of a machine, on its node, and on pods there.
pub const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// All nodes of a cluster of this machine.
#[derive(Debug, Clone)]
pub struct Nodes {
    cluster: Cluster,
    /// What tests/cluster calls the cluster.
    instance: String,
    names: Vec<String>,
}

impl Nodes {
    /// The nodes of the cluster that `CLUSTER_NAME` names to the cluster tool.
    ///
    /// # Errors
    /// When nothing is named, or it has fewer than three nodes.
    pub async fn of(cluster: &Cluster) -> anyhow::Result<Self> {
        let instance = env::var("CLUSTER_NAME").context(
            "CLUSTER_NAME names no cluster of tests/cluster, so its nodes cannot be stopped; run \
             `make chaos-operator PART=nodes`",
        )?;
        let nodes: Api<Node> = Api::all(cluster.client());
        let found = nodes.list(&ListParams::default()).await?;
        let mut names: Vec<String> = found.iter().map(ResourceExt::name_any).collect();
        names.sort();
        ensure!(
            names.len() >= 3,
            "these tests need three nodes, and there are {names:?}: `cluster up --nodes 3`"
        );
        Ok(Self {
            cluster: cluster.clone(),
            instance,
            names,
        })
    }

    /// Where the operator runs.
    ///
    /// # Errors
    /// When it runs nowhere.
    pub async fn with_operator(&self) -> anyhow::Result<String> {
        let pod = operator_pod(&self.cluster).await?;
        let node = pod.spec.and_then(|spec| spec.node_name);
        node.context("the operator runs on no node")
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> &[String] {
        &self.names
    }

    /// Puts a node into a zone.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn lies_in(&self, node: &str, zone: &str) -> anyhow::Result<()> {
        let label = format!("{ZONE_LABEL}={zone}");
        self.kubectl(&["label", "node", node, &label]).await?;
        Ok(())
    }

    /// The nodes but this one.
    #[must_use]
    pub fn others(&self, than: &str) -> Vec<String> {
        let others = self.names.iter().filter(|name| *name != than);
        others.cloned().collect()
    }

    /// `cluster node ACTION NODE`.
    ///
    /// # Errors
    /// When it fails, with what it says.
    pub async fn happens(&self, action: &[&str], node: &str) -> anyhow::Result<()> {
        let (verb, options) = action.split_first().context("nothing is to happen")?;
        let mut command = Command::new(repository_root().join("tests/cluster/cluster"));
        command
            .args(["node", verb, node, "--name", &self.instance])
            .args(options);
        succeed(&mut command).await?;
        Ok(())
    }

    /// kubectl, as an administrator.
    ///
    /// # Errors
    /// When it fails, with what it says.
    pub async fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new("kubectl");
        command.arg("--kubeconfig").arg(self.cluster.kubeconfig());
        succeed(command.args(arguments)).await
    }

    /// Evicts everything from a node, which stays closed to new pods.
    ///
    /// # Errors
    /// When a budget forbids it for so long.
    pub async fn drain(&self, node: &str, patience: Duration) -> anyhow::Result<()> {
        let timeout = format!("--timeout={}s", patience.as_secs());
        let arguments = [
            "drain",
            node,
            "--ignore-daemonsets",
            "--delete-emptydir-data",
        ];
        self.kubectl(&[&arguments[..], &[timeout.as_str()]].concat())
            .await?;
        Ok(())
    }

    /// Waits until the API server takes the node for ready, or not.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn is_ready(&self, node: &str, expected: bool) -> anyhow::Result<()> {
        let nodes: Api<Node> = Api::all(self.cluster.client());
        let what = format!("node {node} is {}ready", if expected { "" } else { "not " });
        until(&what, LIMIT, async || {
            let node = nodes.get(node).await?;
            let conditions = node.status.iter().flat_map(|status| &status.conditions);
            let mut ready = conditions.flatten().filter(|seen| seen.type_ == "Ready");
            let is_ready = ready.any(|seen| seen.status == "True");
            Ok((is_ready == expected).then_some(()))
        })
        .await
    }

    /// Undoes everything that can happen to nodes.
    ///
    /// # Errors
    /// When a node does not come back.
    pub async fn restore(&self) -> anyhow::Result<()> {
        for node in &self.names {
            self.happens(&["start"], node).await?;
            self.happens(&["heal"], node).await?;
        }
        for node in &self.names {
            // One that was taken out of the cluster comes back by itself.
            self.is_ready(node, true).await?;
            self.kubectl(&["uncordon", node]).await?;
            let no_zone = format!("{ZONE_LABEL}-");
            self.kubectl(&["label", "node", node, &no_zone]).await?;
        }
        Ok(())
    }
}

async fn succeed(command: &mut Command) -> anyhow::Result<String> {
    let output = command
        .output()
        .await
        .with_context(|| format!("cannot run {command:?}; is it on PATH?"))?;
    ensure!(
        output.status.success(),
        "{command:?} failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?)
}
