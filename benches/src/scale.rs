//! The operator with many objects: Stores of the memory driver, and Sessions over as many pods, each
//! with a runtime of its own on a loopback address of its own. No kubelet: this program writes the
//! pods' statuses.
//!
//! The API server, its etcd, the operator, all runtimes and this program share the machine.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::bed::Bed;
use crate::process::Process;
use crate::runtimes::{Runtimes, address};

/// Writes of this program that are on their way at a time; as many as the operator's Session
/// controller reconciles.
const CONCURRENCY: usize = 16;
const LIMIT: Duration = Duration::from_secs(900);
/// Nothing changed for so long: the operator has converged.
const QUIET: Duration = Duration::from_secs(5);
const REST: Duration = Duration::from_secs(30);

/// How many objects, and where.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// A control plane; kubelets are not needed.
    #[arg(long)]
    kubeconfig: PathBuf,
    /// The program atomix-operator.
    #[arg(long)]
    operator: PathBuf,
    /// Stores of the memory driver.
    #[arg(long, default_value_t = 1_000)]
    stores: usize,
    /// Sessions, and as many pods, one for each.
    #[arg(long, default_value_t = 10_000)]
    sessions: usize,
}

pub(crate) async fn run(options: &Options) -> anyhow::Result<()> {
    let bed = Bed::make(&options.kubeconfig, "scale").await?;
    let scale = Scale {
        bed,
        options,
        logs: tempfile::tempdir()?,
    };
    let outcome = scale.measure().await;
    if let Err(error) = &outcome {
        // Said now: what cannot be released keeps the namespace for long.
        eprintln!("{}\nfailed: {error:#}", scale.last_log());
    }
    eprintln!("the namespace goes");
    let sessions = scale.release("Session").await;
    let stores = scale.release("Store").await;
    let removed = scale.bed.remove().await;
    outcome.and(sessions).and(stores).and(removed)
}

struct Scale<'a> {
    bed: Bed,
    options: &'a Options,
    logs: tempfile::TempDir,
}

impl Scale<'_> {
    async fn measure(&self) -> anyhow::Result<()> {
        let (stores, sessions) = (self.options.stores, self.options.sessions);
        eprintln!("{sessions} runtimes");
        let runtimes = Runtimes::start(sessions).await?;

        self.wait_for_service_account().await?;
        eprintln!("{sessions} pods, {stores} Stores, {sessions} Sessions");
        self.create_pods().await?;
        let store_of = |at: usize| self.store(at);
        self.create_all("Store", stores, store_of).await?;
        let began = Instant::now();
        self.create_all("Session", sessions, |at| self.session(at))
            .await?;
        let blind_creates = rate(sessions, began.elapsed());

        println!("| what | value |");
        println!("|---|---|");
        println!(
            "| Stores, Sessions, pods with a runtime each | {stores}, {sessions}, {sessions} |"
        );
        self.first_start(blind_creates).await?;
        self.blind_writes().await?;
        self.second_start().await?;
        drop(runtimes);
        Ok(())
    }

    /// An operator meets everything unreconciled.
    async fn first_start(&self, blind_creates: f64) -> anyhow::Result<()> {
        eprintln!("the operator starts for the first time");
        let began = Instant::now();
        let operator = self.start_operator("first").await?;
        self.until_all_opened().await?;
        let took = began.elapsed();
        let requests = operator.requests().await?;
        println!(
            "| first start: all Sessions connected after | {:.1} s |",
            took.as_secs_f64()
        );
        println!("| its requests until then | {} |", shown(&requests));
        let writes = requests.iter().filter(|(name, _)| is_write(name));
        let total: u64 = writes.map(|(_, number)| number).sum();
        let total = usize::try_from(total)?;
        println!("| writes of the operator | {:.0}/s |", rate(total, took));
        println!("| creations of Sessions by a client, blindly | {blind_creates:.0}/s |");
        operator.until_quiet().await?;
        let processor = operator.process.processor_time()?;
        println!(
            "| memory after it: resident, peak | {} MiB, {} MiB |",
            operator.process.resident_mib()?,
            operator.process.peak_mib()?
        );
        println!(
            "| processor time until then | {:.1} s |",
            processor.as_secs_f64()
        );
        let rested = Instant::now();
        let before = operator.requests().await?;
        tokio::time::sleep(REST).await;
        let used = operator.process.processor_time()? - processor;
        let share = used.as_secs_f64() / rested.elapsed().as_secs_f64() * 100.0;
        println!("| processor at rest | {share:.2} % of a core |");
        let more: BTreeMap<String, u64> = difference(&operator.requests().await?, &before);
        println!("| requests in {REST:?} at rest | {} |", shown(&more));
        operator.end().await
    }

    /// The same kind of write, by a client that knows nothing.
    async fn blind_writes(&self) -> anyhow::Result<()> {
        eprintln!("blind writes");
        let sessions = self.bed.ours("Session");
        let began = Instant::now();
        let patches = (0..self.options.sessions).map(|at| {
            let sessions = sessions.clone();
            async move {
                let patch = Patch::Merge(json!({"metadata": {"annotations": {"blind": "true"}}}));
                sessions
                    .patch(&session_name(at), &PatchParams::default(), &patch)
                    .await
            }
        });
        futures::stream::iter(patches)
            .buffer_unordered(CONCURRENCY)
            .try_for_each(|_| async { Ok(()) })
            .await?;
        let blind = rate(self.options.sessions, began.elapsed());
        println!("| patches of Sessions by a client, blindly | {blind:.0}/s |");
        Ok(())
    }

    /// An operator meets everything reconciled.
    async fn second_start(&self) -> anyhow::Result<()> {
        eprintln!("the operator starts again");
        let operator = self.start_operator("second").await?;
        let took = operator.until_quiet().await?;
        println!(
            "| second start: converged after | {:.1} s |",
            took.as_secs_f64()
        );
        println!("| its requests | {} |", shown(&operator.requests().await?));
        println!(
            "| memory: resident, peak | {} MiB, {} MiB |",
            operator.process.resident_mib()?,
            operator.process.peak_mib()?
        );
        operator.end().await
    }

    async fn start_operator(&self, name: &str) -> anyhow::Result<Operator> {
        let admin = crate::servers::free_port()?;
        let log = self.logs.path().join(format!("{name}.log"));
        let api = crate::servers::free_port()?;
        let process = Process::start(
            &self.options.operator,
            &[
                format!("--namespace={}", self.bed.namespace),
                format!("--admin-addr=127.0.0.1:{admin}"),
                format!("--api-addr=127.0.0.1:{api}"),
            ],
            &[("KUBECONFIG", self.options.kubeconfig.as_os_str())],
            &log,
        )?;
        let address = format!("127.0.0.1:{admin}");
        crate::servers::listening(&address).await?;
        Ok(Operator { process, address })
    }

    fn last_log(&self) -> String {
        let mut text = String::new();
        for name in ["first", "second"] {
            let log = std::fs::read_to_string(self.logs.path().join(format!("{name}.log")));
            let log = log.unwrap_or_default();
            let lines: Vec<&str> = log.lines().rev().take(20).collect();
            text.push_str(&lines.into_iter().rev().collect::<Vec<_>>().join("\n"));
        }
        text
    }

    async fn until_all_opened(&self) -> anyhow::Result<()> {
        let wanted = self.options.sessions;
        let mut opened = std::collections::HashSet::new();
        let sessions = self.bed.ours("Session");
        let mut events = watcher(sessions, watcher::Config::default().page_size(500))
            .default_backoff()
            .applied_objects()
            .boxed();
        let deadline = Instant::now() + LIMIT;
        while opened.len() < wanted {
            let event = tokio::time::timeout_at(deadline, events.next()).await;
            let Ok(Some(session)) = event else {
                bail!(
                    "{} of {wanted} Sessions were opened within {LIMIT:?}",
                    opened.len()
                );
            };
            let session = session?;
            let state = session
                .data
                .pointer("/status/state")
                .and_then(Value::as_str);
            if state == Some("OPENED") && opened.insert(session.name_any()) {
                let done = opened.len();
                if done.is_multiple_of(1_000) {
                    eprintln!("{done} Sessions are opened");
                }
            }
        }
        Ok(())
    }

    async fn wait_for_service_account(&self) -> anyhow::Result<()> {
        let accounts: Api<ServiceAccount> =
            Api::namespaced(self.bed.client.clone(), &self.bed.namespace);
        let deadline = Instant::now() + Duration::from_secs(60);
        while accounts.get_opt("default").await?.is_none() {
            if Instant::now() > deadline {
                bail!("the default ServiceAccount does not appear");
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    async fn create_all(
        &self,
        kind: &str,
        count: usize,
        object: impl Fn(usize) -> Value,
    ) -> anyhow::Result<()> {
        let api = self.bed.ours(kind);
        let objects: Vec<DynamicObject> = (0..count)
            .map(|at| serde_json::from_value(object(at)))
            .collect::<Result<_, _>>()?;
        let params = PostParams::default();
        futures::stream::iter(&objects)
            .map(|object| api.create(&params, object))
            .buffer_unordered(CONCURRENCY)
            .try_for_each(|_| async { Ok(()) })
            .await?;
        Ok(())
    }

    async fn create_pods(&self) -> anyhow::Result<()> {
        let pods: Api<Pod> = Api::namespaced(self.bed.client.clone(), &self.bed.namespace);
        futures::stream::iter(0..self.options.sessions)
            .map(|at| {
                let pods = pods.clone();
                async move {
                    let pod = serde_json::from_value(pod(at))?;
                    pods.create(&PostParams::default(), &pod).await?;
                    let status = Patch::Merge(pod_status(at));
                    pods.patch_status(&pod_name(at), &PatchParams::default(), &status)
                        .await?;
                    anyhow::Ok(())
                }
            })
            .buffer_unordered(CONCURRENCY)
            .try_collect::<()>()
            .await
    }

    fn store(&self, at: usize) -> Value {
        json!({
            "apiVersion": "atomix.io/v1beta1", "kind": "Store",
            "metadata": {"name": store_name(at)},
            "spec": {"driver": {"name": "memory"}},
        })
    }

    fn session(&self, at: usize) -> Value {
        json!({
            "apiVersion": "atomix.io/v1beta1", "kind": "Session",
            "metadata": {"name": session_name(at)},
            "spec": {
                "store": {"name": store_name(at % self.options.stores)},
                "selector": {"matchLabels": {"app": pod_name(at)}},
                "kind": "counter",
            },
        })
    }

    /// Takes off the finalizers, since no operator runs any more.
    async fn release(&self, kind: &str) -> anyhow::Result<()> {
        let objects = self.bed.ours(kind);
        let params = kube::api::ListParams::default();
        let names: Vec<String> = objects
            .list_metadata(&params)
            .await?
            .iter()
            .map(kube::ResourceExt::name_any)
            .collect();
        let release = PatchParams::default();
        let patch = Patch::Merge(json!({"metadata": {"finalizers": null}}));
        futures::stream::iter(&names)
            .map(|name| objects.patch_metadata(name, &release, &patch))
            .buffer_unordered(CONCURRENCY)
            .try_for_each(|_| async { Ok(()) })
            .await?;
        Ok(())
    }
}

/// A running operator.
struct Operator {
    process: Process,
    address: String,
}

impl Operator {
    /// Requests to the API server by verb and resource, without the lease's.
    async fn requests(&self) -> anyhow::Result<BTreeMap<String, u64>> {
        let text = crate::process::get(&self.address, "/metrics").await?;
        let mut requests = BTreeMap::new();
        for line in text.lines() {
            let Some(rest) = line.strip_prefix("atomix_operator_api_requests_total{") else {
                continue;
            };
            let (labels, value) = rest.split_once("} ").context("a metric without value")?;
            let label = |name: &str| {
                let begin = format!("{name}=\"");
                let value = labels.split(&begin).nth(1)?;
                value.split('"').next()
            };
            let (verb, resource) = (label("verb"), label("resource"));
            let (verb, resource) = verb.zip(resource).context("a request without labels")?;
            if resource != "leases" {
                requests.insert(format!("{verb} {resource}"), value.parse()?);
            }
        }
        Ok(requests)
    }

    /// Waits until there are no requests any more; the time from the start to the last one.
    async fn until_quiet(&self) -> anyhow::Result<Duration> {
        let deadline = Instant::now() + LIMIT;
        let mut last = self.requests().await?;
        let mut changed = Instant::now();
        while changed.elapsed() < QUIET {
            if Instant::now() > deadline {
                bail!("the operator does not come to rest within {LIMIT:?}");
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
            let now = self.requests().await?;
            if now != last {
                (last, changed) = (now, Instant::now());
            }
        }
        Ok(changed - self.process.started())
    }

    async fn end(self) -> anyhow::Result<()> {
        self.process.terminate().await
    }
}

fn pod_name(at: usize) -> String {
    format!("pod-{at}")
}

fn store_name(at: usize) -> String {
    format!("store-{at}")
}

fn session_name(at: usize) -> String {
    format!("session-{at}")
}

fn pod(at: usize) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": pod_name(at),
            "labels": {"app": pod_name(at), "atomix.io/runtime": "true"},
        },
        "spec": {
            "nodeSelector": {"atomix.io/bench-nowhere": "true"},
            "automountServiceAccountToken": false,
            "initContainers": [{
                "name": "atomix-runtime",
                "image": "atomix-runtime:bench",
                "restartPolicy": "Always",
                "ports": [{"name": "atomix-control", "containerPort": 5679}],
            }],
            "containers": [{"name": "application", "image": "application:bench"}],
        },
    })
}

fn pod_status(at: usize) -> Value {
    let container = |name: &str| {
        json!({
            "name": name, "image": "", "imageID": "", "containerID": format!("bench://{name}-{at}"),
            "ready": true, "started": true, "restartCount": 0,
            "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
        })
    };
    let condition = |name: &str| json!({"type": name, "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let ip = address(at).to_string();
    let conditions = ["PodScheduled", "Initialized", "ContainersReady", "Ready"].map(condition);
    json!({"status": {
        "phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
        "startTime": "2026-01-01T00:00:00Z",
        "conditions": conditions,
        "initContainerStatuses": [container("atomix-runtime")],
        "containerStatuses": [container("application")],
    }})
}

fn is_write(request: &str) -> bool {
    let verb = request.split(' ').next().unwrap_or_default();
    !["get", "list", "watch"].contains(&verb)
}

fn rate(count: usize, took: Duration) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "a few thousand")]
    let count = count as f64;
    count / took.as_secs_f64()
}

fn difference(
    now: &BTreeMap<String, u64>,
    before: &BTreeMap<String, u64>,
) -> BTreeMap<String, u64> {
    let of = |name: &String| before.get(name).copied().unwrap_or_default();
    now.iter()
        .map(|(name, count)| (name.clone(), count - of(name)))
        .filter(|(_, count)| *count > 0)
        .collect()
}

fn shown(requests: &BTreeMap<String, u64>) -> String {
    if requests.is_empty() {
        return "none".to_owned();
    }
    let lines = requests
        .iter()
        .map(|(name, count)| format!("{count} {name}"));
    lines.collect::<Vec<_>>().join(", ")
}
