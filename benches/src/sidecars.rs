//! How long after its process's start an injected sidecar is connected with its Store: one pod at a
//! time, and many pods in batches whose containers start side by side.
//!
//! Needs a cluster on this machine in which the chart is installed and the images are loaded.

use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use kube::api::{DeleteParams, ListParams, LogParams, PostParams};
use serde_json::json;
use tokio::time::Instant;

use crate::bed::{Bed, is_ready};
use crate::containers::Starts;
use crate::installed::Installed;
use crate::report;

const LIMIT: Duration = Duration::from_secs(180);
/// The pods say themselves when they are connected; looks take time from containers that start.
const BETWEEN_LOOKS: Duration = Duration::from_millis(500);
const SIDECAR: &str = "atomix-runtime";
const STORE: &str = "connected";
const LABEL: &str = "app=connected";

/// Which cluster, and how many pods.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    cluster: Installed,
    /// Pods one at a time.
    #[arg(long, default_value_t = 10)]
    single: usize,
    /// Pods in batches.
    #[arg(long, default_value_t = 200)]
    pods: usize,
    /// Pods of a batch.
    #[arg(long, default_value_t = 10)]
    batch: usize,
    /// The chart was installed so that sidecars speak mutual TLS, which the rows say then.
    #[arg(long)]
    tls: bool,
}

pub(crate) async fn run(options: &Options) -> anyhow::Result<()> {
    ensure!(options.batch > 0, "a batch needs pods");
    let sidecars = Sidecars {
        bed: Bed::make(&options.cluster.kubeconfig, "sidecars").await?,
        options,
        starts: Starts::new()?,
    };
    let outcome = sidecars.measure().await;
    let removed = sidecars.bed.remove().await;
    outcome.and(removed)
}

struct Sidecars<'a> {
    bed: Bed,
    options: &'a Options,
    starts: Starts,
}

impl Sidecars<'_> {
    async fn measure(&self) -> anyhow::Result<()> {
        let Options {
            single, pods, tls, ..
        } = *self.options;
        self.connected_store().await?;
        println!("| sidecar's process started to Session connected | pods | p50 | p99 | all |");
        println!("|---|---|---|---|---|");
        let how = if tls { ", mutual TLS" } else { "" };
        if single > 0 {
            let times = self.times_of(single, 1).await?;
            report::row_of_many(&format!("one at a time{how}"), "ms", &times);
        }
        let batch = self.options.batch;
        let times = self.times_of(pods, batch).await?;
        report::row_of_many(&format!("{batch} at once{how}"), "ms", &times);
        Ok(())
    }

    /// A Store of one node, and a Session for all application pods.
    async fn connected_store(&self) -> anyhow::Result<()> {
        let stores = self.bed.ours("Store");
        let store = json!({
            "apiVersion": "atomix.io/v1beta1", "kind": "Store", "metadata": {"name": STORE},
            "spec": {
                "driver": {"name": "multi-raft"},
                "multiRaft": {"replicas": 1, "partitions": 1, "storage": {"ephemeral": {}}},
            },
        });
        self.bed.create(&stores, store).await?;
        self.bed.until(&stores, STORE, LIMIT, is_ready).await?;
        let session = json!({
            "apiVersion": "atomix.io/v1beta1", "kind": "Session", "metadata": {"name": STORE},
            "spec": {
                "store": {"name": STORE}, "kind": "*",
                "selector": {"matchLabels": {"app": "connected"}},
            },
        });
        self.bed.create(&self.bed.ours("Session"), session).await?;
        Ok(())
    }

    /// Milliseconds of `count` pods, of which so many are created at once.
    async fn times_of(&self, count: usize, batch: usize) -> anyhow::Result<Vec<f64>> {
        let mut times = Vec::new();
        while times.len() < count {
            let size = batch.min(count - times.len());
            let began = times.len();
            for index in began..began + size {
                self.create_application(&format!("application-{index}"))
                    .await?;
            }
            for pod in self.until_ready(size).await? {
                times.push(self.connection_time(&pod).await?);
            }
            self.bed
                .pods()
                .delete_collection(
                    &DeleteParams::default(),
                    &ListParams::default().labels(LABEL),
                )
                .await?;
            self.bed.until_no_pods(LABEL, LIMIT).await?;
            eprintln!("{} of {count} sidecars, {batch} at once", times.len());
        }
        Ok(times)
    }

    async fn create_application(&self, name: &str) -> anyhow::Result<()> {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": name,
                "labels": {"app": "connected", "atomix.io/inject": "true"},
            },
            "spec": {
                "terminationGracePeriodSeconds": 1,
                "securityContext": {"runAsUser": 65532, "fsGroup": 65532},
                "containers": [{
                    "name": "application",
                    "image": self.options.cluster.image("atomix-node"),
                    "args": ["--data-dir=/var/lib/atomix"],
                    "volumeMounts": [{"name": "data", "mountPath": "/var/lib/atomix"}],
                }],
                "volumes": [{"name": "data", "emptyDir": {}}],
            },
        });
        let pod = serde_json::from_value(pod)?;
        self.bed.pods().create(&PostParams::default(), &pod).await?;
        Ok(())
    }

    /// Waits for so many application pods, which are ready only once they are connected.
    async fn until_ready(&self, count: usize) -> anyhow::Result<Vec<Pod>> {
        let labels = ListParams::default().labels(LABEL);
        let deadline = Instant::now() + LIMIT;
        loop {
            let pods = self.bed.pods().list(&labels).await?.items;
            let ready = pods.iter().filter(|pod| is_pod_ready(pod)).count();
            if ready == count {
                return Ok(pods);
            }
            if Instant::now() > deadline {
                bail!("{ready} of {count} application pods are ready after {LIMIT:?}");
            }
            tokio::time::sleep(BETWEEN_LOOKS).await;
        }
    }

    /// Milliseconds from the start of the sidecar's process to the line of its log that says that it
    /// reaches the Store.
    async fn connection_time(&self, pod: &Pod) -> anyhow::Result<f64> {
        let name = pod.name_any();
        let status = pod.status.as_ref();
        let statuses = status.and_then(|status| status.init_container_statuses.as_ref());
        let mut sidecars = statuses
            .into_iter()
            .flatten()
            .filter(|container| container.name == SIDECAR);
        let container = sidecars
            .next()
            .and_then(|sidecar| sidecar.container_id.as_deref())
            .with_context(|| format!("pod {name} has no sidecar that runs: is it injected?"))?;
        let started = self.starts.of(SIDECAR, container)?;

        let params = LogParams {
            container: Some(SIDECAR.to_owned()),
            timestamps: true,
            ..LogParams::default()
        };
        let log = self.bed.pods().logs(&name, &params).await?;
        let connected = log
            .lines()
            .find(|line| line.contains(" reached ") && !line.contains("not reached"));
        let Some(connected) = connected else {
            bail!("sidecar {name} says nowhere that it reached its Store; its log:\n{log}");
        };
        let time = connected.split(' ').next().unwrap_or_default();
        let time: Timestamp = time.parse()?;
        let took = SystemTime::from(time).duration_since(started)?;
        Ok(took.as_secs_f64() * 1e3)
    }
}

fn is_pod_ready(pod: &Pod) -> bool {
    let status = pod.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_ref());
    let mut conditions = conditions.into_iter().flatten();
    conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
}
