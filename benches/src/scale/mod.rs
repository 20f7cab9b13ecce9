//! The operator with many objects: Stores of the memory driver, and Sessions over as many pods, each
//! with a runtime of its own on a loopback address of its own. No kubelet: this program writes the
//! pods' statuses. Afterwards Stores with storage nodes are added whose pods nobody runs: what their
//! objects cost.
//!
//! The API server, its etcd, the operator, all runtimes and this program share the machine.

mod objects;
mod operator;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::api::{DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::bed::Bed;
use crate::metrics::{Metrics, as_float, shown};
use crate::runtimes::Runtimes;
use objects::{NODES, pod_name, session_name};
use operator::Operator;

/// Writes of this program that are on their way at a time; as many as the operator's Session
/// controller reconciles.
const CONCURRENCY: usize = 16;
const LIMIT: Duration = Duration::from_secs(900);
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
    /// Stores of three storage nodes, whose pods nobody runs.
    #[arg(long, default_value_t = 200)]
    stores_with_nodes: usize,
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
        self.create_all("Store", stores, objects::store).await?;
        let began = Instant::now();
        self.create_all("Session", sessions, |at| objects::session(at, stores))
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
        self.stores_with_nodes().await?;
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
        let metrics = operator.metrics().await?;
        println!(
            "| first start: all Sessions connected after | {:.1} s |",
            took.as_secs_f64()
        );
        println!("| its requests until then | {} |", shown(&metrics.requests));
        let writes = usize::try_from(metrics.writes())?;
        println!("| writes of the operator | {:.0}/s |", rate(writes, took));
        println!("| creations of Sessions by a client, blindly | {blind_creates:.0}/s |");
        operator.until_quiet().await?;
        let processor = operator.process.processor_time()?;
        println!(
            "| memory after it: resident, peak | {} |",
            operator.memory()?
        );
        println!(
            "| processor time until then | {:.1} s |",
            processor.as_secs_f64()
        );
        let rested = Instant::now();
        let before = operator.metrics().await?;
        show_work(&before);
        println!(
            "| events dropped, since too many waited | {} |",
            before.events_dropped
        );
        tokio::time::sleep(REST).await;
        let used = operator.process.processor_time()? - processor;
        let share = used.as_secs_f64() / rested.elapsed().as_secs_f64() * 100.0;
        println!("| processor at rest | {share:.2} % of a core |");
        let more = operator.metrics().await?.since(&before);
        println!(
            "| requests in {REST:?} at rest | {} |",
            shown(&more.requests)
        );
        println!(
            "| calls to runtimes in {REST:?} at rest | {} |",
            shown(&more.calls)
        );
        println!(
            "| memory after {REST:?} at rest: resident, peak | {} |",
            operator.memory()?
        );
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
        let metrics = operator.metrics().await?;
        println!("| its requests | {} |", shown(&metrics.requests));
        show_work(&metrics);
        println!("| memory: resident, peak | {} |", operator.memory()?);
        operator.end().await
    }

    /// Operators meet Stores with storage nodes beside all that: one makes their objects, and the next
    /// one applies each of these once.
    async fn stores_with_nodes(&self) -> anyhow::Result<()> {
        let count = self.options.stores_with_nodes;
        if count == 0 {
            return Ok(());
        }
        eprintln!("{count} Stores with storage nodes");
        self.create_all("Store", count, objects::store_with_nodes)
            .await?;
        let operator = self.start_operator("third").await?;
        self.until_pods_are_made(count * NODES).await?;
        operator.until_quiet().await?;
        println!("| then also Stores of {NODES} storage nodes, whose pods nobody runs | {count} |");
        let metrics = operator.metrics().await?;
        println!("| requests for them | {} |", shown(&metrics.requests));
        show_work(&metrics);
        println!("| memory: resident, peak | {} |", operator.memory()?);
        operator.end().await?;

        eprintln!("the operator starts once more");
        let operator = self.start_operator("fourth").await?;
        let took = operator.until_quiet().await?;
        let metrics = operator.metrics().await?;
        println!(
            "| start with them: converged after | {:.1} s |",
            took.as_secs_f64()
        );
        println!("| its requests | {} |", shown(&metrics.requests));
        let patches = metrics.requests.iter();
        let patches = patches.filter(|(request, _)| request.starts_with("patch "));
        let patches: u64 = patches.map(|(_, number)| number).sum();
        println!(
            "| its patches for each of these Stores: one for each object | {:.2} |",
            as_float(patches) / as_float(u64::try_from(count)?)
        );
        println!("| memory: resident, peak | {} |", operator.memory()?);
        operator.end().await
    }

    /// Waits for the controller of StatefulSets, whose pods would change what the operator sees.
    async fn until_pods_are_made(&self, wanted: usize) -> anyhow::Result<()> {
        let sets = self.bed.api("apps", "v1", "StatefulSet");
        let deadline = Instant::now() + LIMIT;
        loop {
            let sets = sets.list(&ListParams::default()).await?;
            let pods = sets.iter().filter_map(|set| {
                let replicas = set.data.pointer("/status/replicas")?.as_u64()?;
                usize::try_from(replicas).ok()
            });
            let made: usize = pods.sum();
            if made >= wanted {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("{made} of {wanted} pods of storage nodes were made within {LIMIT:?}");
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    async fn start_operator(&self, name: &str) -> anyhow::Result<Operator> {
        Operator::start(
            &self.options.operator,
            self.options.kubeconfig.as_os_str(),
            &self.bed.namespace,
            &self.logs.path().join(format!("{name}.log")),
        )
        .await
    }

    fn last_log(&self) -> String {
        let mut text = String::new();
        for name in ["first", "second", "third", "fourth"] {
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
                    let pod = serde_json::from_value(objects::pod(at))?;
                    pods.create(&PostParams::default(), &pod).await?;
                    let status = Patch::Merge(objects::pod_status(at));
                    pods.patch_status(&pod_name(at), &PatchParams::default(), &status)
                        .await?;
                    anyhow::Ok(())
                }
            })
            .buffer_unordered(CONCURRENCY)
            .try_collect::<()>()
            .await
    }

    /// Takes off the finalizers, since no operator runs any more.
    async fn release(&self, kind: &str) -> anyhow::Result<()> {
        let objects = self.bed.ours(kind);
        let params = ListParams::default();
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

/// Two rows: reconciles, and what they asked of the API server.
fn show_work(metrics: &Metrics) {
    println!("| reconciles | {} |", shown(&metrics.reconciles));
    println!(
        "| requests to the API server per reconcile | {} |",
        metrics.requests_per_reconcile()
    );
}

fn rate(count: usize, took: Duration) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "a few thousand")]
    let count = count as f64;
    count / took.as_secs_f64()
}
