//! The operator on a real cluster: a Store until Ready next to a bare StatefulSet of the same image,
//! what a Store costs the API server, and what the operator costs at rest.
//!
//! Needs a cluster in which the chart is installed and the images are loaded.

use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::bed::{Bed, is_ready};
use crate::installed::Installed;
use crate::metrics::{Metrics, shown};
use crate::report::{self, median};

const LIMIT: Duration = Duration::from_secs(180);
/// The operator makes no requests for so long: it rests.
const QUIET: Duration = Duration::from_secs(5);
const SYSTEM_NAMESPACE: &str = "atomix-system";

/// Which cluster, and how often.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    cluster: Installed,
    /// Alternating runs of the Store and the bare StatefulSet.
    #[arg(long, default_value_t = 3)]
    runs: usize,
}

struct Bench<'a> {
    bed: Bed,
    cluster: &'a Installed,
}

pub(crate) async fn run(options: &Options) -> anyhow::Result<()> {
    let bench = Bench {
        bed: Bed::make(&options.cluster.kubeconfig, "bench").await?,
        cluster: &options.cluster,
    };
    let outcome = bench.measure(options).await;
    let removed = bench.bed.remove().await;
    outcome.and(removed)
}

impl Bench<'_> {
    async fn measure(&self, options: &Options) -> anyhow::Result<()> {
        println!("| what | median | all |");
        println!("|---|---|---|");
        let mut stores = Vec::new();
        let mut bare = Vec::new();
        for run in 0..options.runs {
            eprintln!("run {}: Store, then bare StatefulSet", run + 1);
            stores.push(self.store_until_ready(run).await?);
            bare.push(self.bare_until_ready(run).await?);
        }
        let ratio = median(&stores) / median(&bare);
        report::row(
            "Store of 3 nodes, 8 partitions: apply to Ready",
            "s",
            &stores,
        );
        report::row(
            "bare StatefulSet of 3, same image: apply to Ready",
            "s",
            &bare,
        );
        println!("| ratio of the medians | {ratio:.2} | |");

        eprintln!("one more Store, for its requests");
        self.requests_for_a_store().await?;
        self.operator_at_rest().await
    }

    async fn store_until_ready(&self, run: usize) -> anyhow::Result<f64> {
        let name = format!("store-{run}");
        let stores = self.bed.ours("Store");
        let asked = self.bed.create(&stores, store(&name)).await?;
        self.bed.until(&stores, &name, LIMIT, is_ready).await?;
        let ready = asked.elapsed().as_secs_f64();
        stores.delete(&name, &DeleteParams::default()).await?;
        let pods = format!("atomix.io/store={name}");
        self.bed.until_no_pods(&pods, LIMIT).await?;
        Ok(ready)
    }

    async fn bare_until_ready(&self, run: usize) -> anyhow::Result<f64> {
        let name = format!("bare-{run}");
        let sets = self.bed.api("apps", "v1", "StatefulSet");
        let labels = json!({"app": name});
        let set = json!({
            "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": name},
            "spec": {
                "replicas": 3, "serviceName": name, "podManagementPolicy": "Parallel",
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {
                        "securityContext": {"runAsUser": 65532, "fsGroup": 65532},
                        "containers": [{
                            "name": "node",
                            "image": self.cluster.image("atomix-node"),
                            "args": ["--data-dir=/var/lib/atomix"],
                            "readinessProbe": {
                                "httpGet": {"path": "/readyz", "port": 9090}, "periodSeconds": 1,
                            },
                            "volumeMounts": [{"name": "data", "mountPath": "/var/lib/atomix"}],
                        }],
                    },
                },
                "volumeClaimTemplates": [{
                    "metadata": {"name": "data"},
                    "spec": {
                        "accessModes": ["ReadWriteOnce"],
                        "resources": {"requests": {"storage": "64Mi"}},
                    },
                }],
            },
        });
        let asked = self.bed.create(&sets, set).await?;
        let are_ready = |set: &Value| set["status"]["readyReplicas"] == 3;
        self.bed.until(&sets, &name, LIMIT, are_ready).await?;
        let ready = asked.elapsed().as_secs_f64();
        sets.delete(&name, &DeleteParams::default()).await?;
        self.bed
            .until_no_pods(&format!("app={name}"), LIMIT)
            .await?;
        Ok(ready)
    }

    /// What one more Store costs the API server, until the operator rests again.
    async fn requests_for_a_store(&self) -> anyhow::Result<()> {
        let name = "counted";
        let stores = self.bed.ours("Store");
        let operator = self.operator().await?.name_any();
        let before = self.metrics(&operator).await?;
        self.bed.create(&stores, store(name)).await?;
        self.bed.until(&stores, name, LIMIT, is_ready).await?;
        let deadline = Instant::now() + LIMIT;
        let mut last = self.metrics(&operator).await?;
        let mut changed = Instant::now();
        while changed.elapsed() < QUIET {
            if Instant::now() > deadline {
                bail!("the operator does not come to rest within {LIMIT:?}");
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
            let now = self.metrics(&operator).await?;
            if now.requests != last.requests {
                changed = Instant::now();
            }
            last = now;
        }
        let work = last.since(&before);
        println!(
            "| Store of 3 nodes: reconciles until it rests | {} | {} |",
            work.reconciles.values().sum::<u64>(),
            shown(&work.reconciles)
        );
        println!(
            "| its requests to the API server | {} | {} |",
            work.requests.values().sum::<u64>(),
            shown(&work.requests)
        );
        println!("| per reconcile | | {} |", work.requests_per_reconcile());
        Ok(())
    }

    async fn metrics(&self, operator: &str) -> anyhow::Result<Metrics> {
        let path =
            format!("/api/v1/namespaces/{SYSTEM_NAMESPACE}/pods/{operator}:9090/proxy/metrics");
        let request = http::Request::get(path).body(Vec::new())?;
        Metrics::read(&self.bed.client.request_text(request).await?)
    }

    async fn operator(&self) -> anyhow::Result<Pod> {
        let pods: Api<Pod> = Api::namespaced(self.bed.client.clone(), SYSTEM_NAMESPACE);
        let operators = ListParams::default().labels("app.kubernetes.io/name=atomix-operator");
        let found = pods.list(&operators).await?;
        found.items.into_iter().next().context("no operator runs")
    }

    async fn operator_at_rest(&self) -> anyhow::Result<()> {
        let operator = self.operator().await?;
        let node = operator
            .spec
            .as_ref()
            .and_then(|spec| spec.node_name.clone())
            .context("the operator's pod has no node")?;
        // The kubelet's figures are averages over its own sampling period; two samples a minute
        // apart give the CPU time between them.
        let before = self.usage(&node, &operator.name_any()).await?;
        tokio::time::sleep(Duration::from_secs(60)).await;
        let after = self.usage(&node, &operator.name_any()).await?;
        println!(
            "| operator, resident memory | {:.0} MiB | |",
            after.memory_bytes / 1024.0 / 1024.0
        );
        println!(
            "| operator, CPU at rest | {:.2} % of a core | |",
            (after.cpu_seconds - before.cpu_seconds) / 60.0 * 100.0
        );
        Ok(())
    }

    async fn usage(&self, node: &str, pod: &str) -> anyhow::Result<Usage> {
        let path = format!("/api/v1/nodes/{node}/proxy/stats/summary");
        let summary: Value = self
            .bed
            .client
            .request(http::Request::get(path).body(Vec::new())?)
            .await?;
        let container = summary["pods"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|entry| entry["podRef"]["name"] == pod)
            .map(|entry| entry["containers"][0].clone())
            .with_context(|| format!("the kubelet of {node} has no figures of pod {pod}"))?;
        Ok(Usage {
            cpu_seconds: container["cpu"]["usageCoreNanoSeconds"]
                .as_f64()
                .unwrap_or_default()
                / 1e9,
            memory_bytes: container["memory"]["rssBytes"].as_f64().unwrap_or_default(),
        })
    }
}

struct Usage {
    cpu_seconds: f64,
    memory_bytes: f64,
}

fn store(name: &str) -> Value {
    json!({
        "apiVersion": "atomix.io/v1beta1", "kind": "Store", "metadata": {"name": name},
        "spec": {
            "driver": {"name": "multi-raft"},
            "multiRaft": {"replicas": 3, "partitions": 8, "storage": {"size": "64Mi"}},
        },
    })
}
