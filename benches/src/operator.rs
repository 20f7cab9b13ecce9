//! The operator on a real cluster: a Store until Ready next to a bare StatefulSet of the same image,
//! a sidecar's start until its store is connected, and what the operator costs at rest.
//!
//! Needs a cluster in which the chart is installed and the images are loaded.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, DynamicObject, ListParams, LogParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::bed::Bed;
use crate::report::{self, median};

const LIMIT: Duration = Duration::from_secs(180);
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);
const SYSTEM_NAMESPACE: &str = "atomix-system";

/// Which cluster and images.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[arg(long)]
    kubeconfig: PathBuf,
    /// <registry>/atomix-node:<tag> and so on are the images.
    #[arg(long)]
    registry: String,
    #[arg(long)]
    tag: String,
    /// Alternating runs of the Store and the bare StatefulSet.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Application pods whose connection is timed, one at a time and then as many at once.
    #[arg(long, default_value_t = 10)]
    pods: usize,
}

struct Bench {
    bed: Bed,
    registry: String,
    tag: String,
}

pub(crate) async fn run(options: &Options) -> anyhow::Result<()> {
    let bed = Bed::make(&options.kubeconfig, "bench").await?;
    let bench = Bench {
        bed,
        registry: options.registry.clone(),
        tag: options.tag.clone(),
    };
    let outcome = bench.measure(options).await;
    let removed = bench.bed.remove().await;
    outcome.and(removed)
}

impl Bench {
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

        eprintln!("{} application pods", options.pods);
        self.sidecars_until_connected(options.pods).await?;
        self.operator_at_rest().await
    }

    async fn create(&self, api: &Api<DynamicObject>, object: Value) -> anyhow::Result<Instant> {
        let object: DynamicObject = serde_json::from_value(object)?;
        let asked = Instant::now();
        api.create(&PostParams::default(), &object).await?;
        Ok(asked)
    }

    async fn store_until_ready(&self, run: usize) -> anyhow::Result<f64> {
        let name = format!("store-{run}");
        let stores = self.bed.ours("Store");
        let store = json!({
            "apiVersion": "atomix.io/v1beta1", "kind": "Store", "metadata": {"name": name},
            "spec": {
                "driver": {"name": "multi-raft"},
                "multiRaft": {"replicas": 3, "partitions": 8, "storage": {"size": "64Mi"}},
            },
        });
        let asked = self.create(&stores, store).await?;
        let ready = until_ready(asked, &stores, &name, is_condition_true).await?;
        stores.delete(&name, &DeleteParams::default()).await?;
        self.until_no_pods(&format!("atomix.io/store={name}"))
            .await?;
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
                            "image": format!("{}/atomix-node:{}", self.registry, self.tag),
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
        let asked = self.create(&sets, set).await?;
        let ready = until_ready(asked, &sets, &name, |object| {
            object["status"]["readyReplicas"] == 3
        })
        .await?;
        sets.delete(&name, &DeleteParams::default()).await?;
        self.until_no_pods(&format!("app={name}")).await?;
        Ok(ready)
    }

    async fn until_no_pods(&self, labels: &str) -> anyhow::Result<()> {
        let pods: Api<Pod> = Api::namespaced(self.bed.client.clone(), &self.bed.namespace);
        let deadline = Instant::now() + LIMIT;
        while !pods
            .list(&ListParams::default().labels(labels))
            .await?
            .items
            .is_empty()
        {
            if Instant::now() > deadline {
                bail!("pods with {labels} do not go away");
            }
            tokio::time::sleep(BETWEEN_LOOKS).await;
        }
        Ok(())
    }

    /// One pod after the other; then as many at once, whose containers start side by side.
    async fn sidecars_until_connected(&self, count: usize) -> anyhow::Result<()> {
        self.connected_store().await?;
        let mut single = Vec::new();
        for index in 0..count {
            let name = format!("single-{index}");
            self.create_application(&name).await?;
            single.push(self.connection_time(&name).await?);
        }
        report::row(
            "sidecar started to Session connected, one at a time",
            "ms",
            &single,
        );
        let names: Vec<String> = (0..count).map(|index| format!("many-{index}")).collect();
        for name in &names {
            self.create_application(name).await?;
        }
        let mut many = Vec::new();
        for name in &names {
            many.push(self.connection_time(name).await?);
        }
        let what = format!("the same, {count} at once");
        report::row(&what, "ms", &many);
        Ok(())
    }

    /// A Store of one node, and a Session for all application pods.
    async fn connected_store(&self) -> anyhow::Result<()> {
        let stores = self.bed.ours("Store");
        let store = json!({
            "apiVersion": "atomix.io/v1beta1", "kind": "Store", "metadata": {"name": "connected"},
            "spec": {
                "driver": {"name": "multi-raft"},
                "multiRaft": {"replicas": 1, "partitions": 1, "storage": {"ephemeral": {}}},
            },
        });
        let asked = self.create(&stores, store).await?;
        until_ready(asked, &stores, "connected", is_condition_true).await?;
        let session = json!({
            "apiVersion": "atomix.io/v1beta1", "kind": "Session", "metadata": {"name": "connected"},
            "spec": {
                "store": {"name": "connected"}, "kind": "*",
                "selector": {"matchLabels": {"app": "connected"}},
            },
        });
        self.create(&self.bed.ours("Session"), session).await?;
        Ok(())
    }

    /// An application pod whose sidecar is to be connected.
    async fn create_application(&self, name: &str) -> anyhow::Result<()> {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": name,
                "labels": {"app": "connected", "atomix.io/runtime": "true"},
            },
            "spec": {
                "terminationGracePeriodSeconds": 1,
                "containers": [{
                    "name": "atomix-runtime",
                    "image": format!("{}/atomix-runtime:{}", self.registry, self.tag),
                    "args": ["--state-dir=/var/lib/atomix-runtime"],
                    "ports": [{"name": "atomix-control", "containerPort": 5679}],
                    "volumeMounts": [
                        {"name": "state", "mountPath": "/var/lib/atomix-runtime"},
                    ],
                    "readinessProbe": {
                        "httpGet": {"path": "/readyz", "port": 5677}, "periodSeconds": 1,
                    },
                }],
                "volumes": [{"name": "state", "emptyDir": {"medium": "Memory"}}],
            },
        });
        self.create(&self.bed.api("", "v1", "Pod"), pod).await?;
        Ok(())
    }

    /// Milliseconds from the sidecar's first log line to the line that says it is connected.
    async fn connection_time(&self, pod: &str) -> anyhow::Result<f64> {
        let pods: Api<Pod> = Api::namespaced(self.bed.client.clone(), &self.bed.namespace);
        let with_time = LogParams {
            timestamps: true,
            ..LogParams::default()
        };
        let deadline = Instant::now() + LIMIT;
        loop {
            let log = pods.logs(pod, &with_time).await.unwrap_or_default();
            let first = log.lines().next();
            let connected = log
                .lines()
                .find(|line| line.contains(" reached ") && !line.contains("not reached"));
            if let (Some(first), Some(connected)) = (first, connected) {
                return Ok((moment(connected)? - moment(first)?) * 1e3);
            }
            if Instant::now() > deadline {
                bail!("sidecar {pod} did not connect; its log:\n{log}");
            }
            tokio::time::sleep(BETWEEN_LOOKS).await;
        }
    }

    async fn operator_at_rest(&self) -> anyhow::Result<()> {
        let pods: Api<Pod> = Api::namespaced(self.bed.client.clone(), SYSTEM_NAMESPACE);
        let operators = ListParams::default().labels("app.kubernetes.io/name=atomix-operator");
        let operator = pods
            .list(&operators)
            .await?
            .items
            .into_iter()
            .next()
            .context("no operator runs")?;
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

async fn until_ready(
    asked: Instant,
    api: &Api<DynamicObject>,
    name: &str,
    ready: impl Fn(&Value) -> bool,
) -> anyhow::Result<f64> {
    loop {
        let object = serde_json::to_value(api.get(name).await?)?;
        let passed = Instant::now().saturating_duration_since(asked);
        if ready(&object) {
            return Ok(passed.as_secs_f64());
        }
        if passed > LIMIT {
            bail!(
                "{name} is not ready within {LIMIT:?}: {:#}",
                object["status"]
            );
        }
        tokio::time::sleep(BETWEEN_LOOKS).await;
    }
}

fn is_condition_true(object: &Value) -> bool {
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

/// Seconds of the day of a log line that begins with an RFC 3339 time.
fn moment(line: &str) -> anyhow::Result<f64> {
    let time = line
        .split(['T', 'Z', '+'])
        .nth(1)
        .with_context(|| format!("a log line without time: {line}"))?;
    let mut seconds = 0.0;
    for part in time.split(':') {
        seconds = seconds * 60.0 + part.parse::<f64>()?;
    }
    Ok(seconds)
}
