//! A row of the tests on real nodes: one thing goes wrong, while a load counts.
//!
//! Rows share the nodes and the operator, so they take turns. Each leaves all nodes as it found them,
//! also when it fails, and is written into the file that `ATOMIX_ROWS_FILE` names, for the report.

use std::env;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::cluster::{Cluster, Namespace};
use crate::load::Load;
use crate::manifests::{edited, sample};
use crate::nodes::Nodes;
use crate::stores::STORE;

/// How long anything may take to be well again: nodes share one busy machine, and what was away for a
/// while is asked again in growing intervals.
pub const LIMIT: Duration = Duration::from_secs(240);

/// Variable that names the file for results.
pub const ROWS_VARIABLE: &str = "ATOMIX_ROWS_FILE";

static TURN: Mutex<()> = Mutex::const_new(());

/// Where a row happens.
#[derive(Debug)]
pub struct Row {
    cluster: Cluster,
    namespace: Namespace,
    nodes: Nodes,
}

impl Row {
    /// Runs a row in a namespace of its own.
    ///
    /// # Errors
    /// What the row found, with what the cluster showed then.
    pub async fn run(
        name: &str,
        body: impl AsyncFnOnce(&Self) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let _alone = TURN.lock().await;
        let begin = Instant::now();
        println!("\nrow: {name}");
        let outcome = Self::play(body).await;
        let seconds = begin.elapsed().as_secs();
        let result = if outcome.is_ok() { "ok" } else { "FAILED" };
        println!("\nrow: {name}: {result} in {seconds} s");
        if let Ok(path) = env::var(ROWS_VARIABLE) {
            let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
            writeln!(file, "{name}\t{result}\t{seconds}")
                .with_context(|| format!("cannot write {path}"))?;
        }
        outcome.with_context(|| format!("row: {name}"))
    }

    async fn play(body: impl AsyncFnOnce(&Self) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let cluster = Cluster::with_chart().await?;
        let nodes = Nodes::of(&cluster).await?;
        nodes.restore().await?;
        let row = Self {
            namespace: cluster.namespace("chaos").await?,
            cluster,
            nodes,
        };
        let run = row.namespace.clone().run(async {
            let outcome = body(&row).await;
            // Before anything is restored.
            let outcome =
                outcome.map_err(|error| error.context(row.cluster.describe(row.namespace.name())));
            let restored = row.nodes.restore().await;
            outcome.and(restored)
        });
        run.await
    }

    /// The cluster.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The row's own namespace.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The cluster's nodes.
    #[must_use]
    pub fn nodes(&self) -> &Nodes {
        &self.nodes
    }

    /// A Store with a storage node on every node and a load on `home`, once both work.
    ///
    /// # Errors
    /// When they do not.
    pub async fn store_under_load(&self, home: &str) -> anyhow::Result<Load> {
        self.namespace.apply(&spread_store(&self.cluster)?).await?;
        let load = Load::apply(&self.namespace, "visits", home).await?;
        self.namespace.store_is_whole(3, LIMIT).await?;
        load.begins().await
    }

    /// The storage pod on this node.
    ///
    /// # Errors
    /// When there is not exactly one.
    pub async fn storage_pod_on(&self, node: &str) -> anyhow::Result<String> {
        let pods = self.namespace.storage_pods().await?;
        let there: Vec<String> = pods
            .into_iter()
            .filter(|pod| {
                let place = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
                place == Some(node)
            })
            .filter_map(|pod| pod.metadata.name)
            .collect();
        let [one] = there.as_slice() else {
            anyhow::bail!("{there:?} are on {node}, instead of one storage pod");
        };
        Ok(one.clone())
    }
}

/// The sample's Store, one pod on each node; the operator's own default only prefers that.
///
/// # Errors
/// When there is no sample.
pub fn spread_store(cluster: &Cluster) -> anyhow::Result<String> {
    let text = edited(&sample(cluster, "store")?, |store| {
        store["spec"]["multiRaft"]["pod"]["topologySpreadConstraints"] = serde_json::json!([{
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchLabels": {"atomix.io/store": STORE}},
        }]);
    })?;
    ensure!(text.contains(STORE), "the sample's Store is not {STORE}");
    Ok(text)
}
