//! Does a kubelet's work for the pods of one namespace: processes for containers, an address, the
//! pod's status with its readiness gates, restarts, and an orderly end when the pod is deleted.
//!
//! Only for pods that no machine can take; a pod that a real kubelet runs is left alone.

use std::collections::HashMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, ResourceExt as _};
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::addresses;
use crate::identity;
use crate::mounts::Mounts;
use crate::pod_process::{self, Folders};
use crate::pod_status::{ContainerState, PodState, gates_hold};
use crate::probe;
use crate::processes::Process;
use crate::wait::until;

/// Image tag of containers whose image "cannot be pulled".
pub const MISSING_IMAGE_TAG: &str = ":missing";

/// Between two looks at a pod's processes and probes.
const PERIOD: Duration = Duration::from_millis(150);

/// Runs the pods of a namespace until it is dropped.
#[derive(Debug)]
pub struct PodRunner {
    shared: Arc<Shared>,
    watch: JoinHandle<()>,
    mounts: JoinHandle<()>,
    /// Removed with the runner.
    _folder: tempfile::TempDir,
}

struct Shared {
    client: Client,
    namespace: String,
    folders: Folders,
    pods: Mutex<HashMap<String, RunningPod>>,
    /// Pods that are gone for the API server while their processes end in order.
    ending: Mutex<HashMap<String, JoinHandle<()>>>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Shared")
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct RunningPod {
    uid: String,
    address: Ipv4Addr,
    /// Names under which DNS would list the pod.
    host_names: Vec<String>,
    /// The conditions of its readiness gates hold.
    gates_hold: Arc<AtomicBool>,
    /// Cancelled when its processes are to end in order.
    stop: CancellationToken,
    /// Ends with it, and its processes; taken when they end in order.
    task: Option<JoinHandle<()>>,
}

impl RunningPod {
    /// Begins the orderly end.
    fn end(mut self) -> Option<JoinHandle<()>> {
        self.stop.cancel();
        self.task.take()
    }
}

impl Drop for RunningPod {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
        identity::unregister(self.address);
    }
}

impl Drop for PodRunner {
    fn drop(&mut self) {
        self.watch.abort();
        self.mounts.abort();
        self.shared.pods.lock().clear();
        for (_, ending) in self.shared.ending.lock().drain() {
            ending.abort();
        }
    }
}

impl PodRunner {
    /// Runs the pods that the namespace has and gets.
    ///
    /// # Errors
    /// When no folder can be made for them.
    pub fn start(client: Client, namespace: &str) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("atomix-operator-tests-")
            .tempdir()
            .context("cannot make a folder for the pods")?;
        let folders = Folders {
            root: folder.path().to_owned(),
            hosts: folder.path().join("hosts"),
            mounts: Mounts::default(),
        };
        std::fs::write(&folders.hosts, "")?;
        let shared = Arc::new(Shared {
            client,
            namespace: namespace.to_owned(),
            folders,
            pods: Mutex::default(),
            ending: Mutex::default(),
        });
        let watch = tokio::spawn(follow(Arc::clone(&shared)));
        let followed = shared.folders.mounts.clone();
        let mounts = tokio::spawn(followed.follow(shared.client.clone(), namespace.to_owned()));
        Ok(Self {
            shared,
            watch,
            mounts,
            _folder: folder,
        })
    }

    /// The address of a pod that runs.
    pub fn address(&self, pod: &str) -> Option<Ipv4Addr> {
        self.shared.pods.lock().get(pod).map(|pod| pod.address)
    }

    /// Lists the names of the pods that run, by address.
    pub fn names_handle(&self) -> impl Fn() -> HashMap<Ipv4Addr, String> + Send + Sync + 'static {
        let shared = Arc::clone(&self.shared);
        move || {
            let pods = shared.pods.lock();
            pods.iter()
                .map(|(name, pod)| (pod.address, name.clone()))
                .collect()
        }
    }

    /// The end of each pod's log, for the report of a failure.
    pub fn logs(&self) -> String {
        let mut text = String::new();
        let Ok(entries) = std::fs::read_dir(&self.shared.folders.root) else {
            return text;
        };
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths.iter().filter(|path| has_extension(path, "log")) {
            let log = std::fs::read_to_string(path).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let end = lines.iter().skip(lines.len().saturating_sub(25));
            text.push_str(&format!("--- {}\n", path.display()));
            for line in end {
                text.push_str(line);
                text.push('\n');
            }
        }
        text
    }
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found == extension)
}

async fn follow(shared: Arc<Shared>) {
    let pods: Api<Pod> = Api::namespaced(shared.client.clone(), &shared.namespace);
    let mut events = watcher(pods, watcher::Config::default())
        .default_backoff()
        .boxed();
    let mut listed: Vec<String> = Vec::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Apply(pod)) => shared.keep(&pod),
            Ok(watcher::Event::Delete(pod)) => shared.end(&pod.name_any()),
            Ok(watcher::Event::Init) => listed.clear(),
            Ok(watcher::Event::InitApply(pod)) => {
                listed.push(pod.name_any());
                shared.keep(&pod);
            }
            Ok(watcher::Event::InitDone) => {
                shared.pods.lock().retain(|name, _| listed.contains(name));
                shared.write_hosts();
            }
            Err(error) => tracing::debug!(%error, "the watch of pods was interrupted"),
        }
    }
}

impl Shared {
    fn keep(self: &Arc<Self>, pod: &Pod) {
        let (name, uid) = (pod.name_any(), pod.uid().unwrap_or_default());
        let spec = pod.spec.as_ref();
        let is_bound = spec.is_some_and(|spec| spec.node_name.is_some());
        if is_bound || pod.metadata.deletion_timestamp.is_some() {
            return;
        }
        let mut pods = self.pods.lock();
        if let Some(known) = pods.get(&name).filter(|known| known.uid == uid) {
            known.gates_hold.store(gates_hold(pod), Ordering::Relaxed);
            return;
        }
        // The process of a pod that this one takes the place of ends first: it holds the disk.
        let mut ending = self.ending.lock();
        let replaced = pods.remove(&name).and_then(RunningPod::end);
        let predecessor = replaced.or_else(|| ending.remove(&name));
        drop(ending);
        let address = addresses::next_free();
        identity::register(address, &self.namespace, pod);
        let (hold, stop) = (
            Arc::new(AtomicBool::new(gates_hold(pod))),
            CancellationToken::new(),
        );
        let told = Told {
            gates_hold: Arc::clone(&hold),
            stop: stop.clone(),
        };
        let run = run_pod(Arc::clone(self), pod.clone(), address, told);
        let task = tokio::spawn(async move {
            if let Some(predecessor) = predecessor {
                // It may have been aborted.
                let _ended = predecessor.await;
            }
            run.await;
        });
        let running = RunningPod {
            uid,
            address,
            host_names: self.host_names(pod),
            gates_hold: hold,
            stop,
            task: Some(task),
        };
        pods.insert(name, running);
        drop(pods);
        self.write_hosts();
    }

    fn end(&self, name: &str) {
        let ended = self.pods.lock().remove(name);
        if let Some(task) = ended.and_then(RunningPod::end) {
            self.ending.lock().insert(name.to_owned(), task);
        }
        self.write_hosts();
    }

    fn host_names(&self, pod: &Pod) -> Vec<String> {
        let spec = pod.spec.as_ref();
        let Some(service) = spec.and_then(|spec| spec.subdomain.as_ref()) else {
            return Vec::new();
        };
        let service = format!("{service}.{}.svc", self.namespace);
        let mut names = vec![service.clone(), format!("{service}.cluster.local")];
        if let Some(host) = spec.and_then(|spec| spec.hostname.as_ref()) {
            names.push(format!("{host}.{service}"));
            names.push(format!("{host}.{service}.cluster.local"));
        }
        names
    }

    /// Writes the file that stands for DNS, at once for its readers.
    fn write_hosts(&self) {
        let mut text = String::new();
        for pod in self.pods.lock().values() {
            for name in &pod.host_names {
                text.push_str(&format!("{name} {}\n", pod.address));
            }
        }
        let next = self.folders.hosts.with_extension("next");
        let written =
            std::fs::write(&next, text).and_then(|()| std::fs::rename(&next, &self.folders.hosts));
        if let Err(error) = written {
            tracing::error!(%error, "cannot write the hosts file");
        }
    }
}

/// One container of a pod with its process.
struct Running {
    container: Container,
    process: Option<Process>,
}

/// What a pod that runs is told from outside.
struct Told {
    gates_hold: Arc<AtomicBool>,
    stop: CancellationToken,
}

async fn run_pod(shared: Arc<Shared>, pod: Pod, address: Ipv4Addr, told: Told) {
    let name = pod.name_any();
    if let Err(error) = try_run_pod(&shared, &pod, address, &told).await {
        eprintln!("pod {}/{name} cannot be run: {error:#}", shared.namespace);
    }
}

async fn try_run_pod(shared: &Shared, pod: &Pod, address: Ipv4Addr, told: &Told) -> Result<()> {
    let mut containers: Vec<Running> = Vec::new();
    let ran = tokio::select! {
        ran = keep_running(shared, pod, address, told, &mut containers) => ran,
        () = told.stop.cancelled() => Ok(()),
    };
    let grace = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.termination_grace_period_seconds);
    let grace = grace.and_then(|seconds| u64::try_from(seconds).ok());
    end_in_order(&mut containers, Duration::from_secs(grace.unwrap_or(30))).await;
    ran
}

/// Asks all processes to end; those that do not in time are killed with their pod.
async fn end_in_order(containers: &mut [Running], grace: Duration) {
    let processes = || {
        containers
            .iter()
            .filter_map(|running| running.process.as_ref())
    };
    processes().for_each(Process::terminate);
    let all_ended = async {
        let mut period = tokio::time::interval(PERIOD / 5);
        for process in containers
            .iter_mut()
            .filter_map(|running| running.process.as_mut())
        {
            while process.ended().is_none() {
                period.tick().await;
            }
        }
    };
    // Whoever runs on is killed as it is dropped.
    let _ended = tokio::time::timeout(grace, all_ended).await;
}

async fn keep_running(
    shared: &Shared,
    pod: &Pod,
    address: Ipv4Addr,
    told: &Told,
    containers: &mut Vec<Running>,
) -> Result<()> {
    let spec = pod.spec.as_ref().context("the pod has no specification")?;
    let all = spec
        .init_containers
        .iter()
        .flatten()
        .chain(&spec.containers);
    for container in all {
        let process = start(shared, pod, container, address).await?;
        containers.push(Running {
            container: container.clone(),
            process,
        });
    }
    let mut restarts = 0;
    let mut started_at = Timestamp::now();
    let mut written: Option<PodState> = None;
    let mut period = tokio::time::interval(PERIOD);
    loop {
        period.tick().await;
        let mut states = Vec::new();
        for running in &mut *containers {
            let state = look(running, written.as_ref(), address).await;
            if matches!(state, ContainerState::Ended { .. }) {
                restarts += 1;
                started_at = Timestamp::now();
                running.process = start(shared, pod, &running.container, address).await?;
            }
            states.push((running.container.name.clone(), state));
        }
        let state = PodState {
            containers: states,
            restarts,
            started_at,
            gates_hold: told.gates_hold.load(Ordering::Relaxed),
        };
        if written.as_ref() == Some(&state) {
            continue;
        }
        if write_status(shared, pod, &state, address).await? {
            written = Some(state);
        } else {
            return Ok(());
        }
    }
}

async fn start(
    shared: &Shared,
    pod: &Pod,
    container: &Container,
    address: Ipv4Addr,
) -> Result<Option<Process>> {
    if !pod_process::runs_a_program(container) || image_is_missing(container) {
        return Ok(None);
    }
    let program = until("the pod's volumes", Duration::from_secs(60), async || {
        pod_process::program(&shared.client, pod, container, address, &shared.folders).await
    })
    .await?;
    Ok(Some(Process::start(program)?))
}

fn image_is_missing(container: &Container) -> bool {
    let image = container.image.as_deref().unwrap_or_default();
    image.ends_with(MISSING_IMAGE_TAG)
}

async fn look(
    running: &mut Running,
    written: Option<&PodState>,
    address: Ipv4Addr,
) -> ContainerState {
    let container = &running.container;
    if image_is_missing(container) {
        return ContainerState::ImageMissing;
    }
    if let Some(ended) = running.process.as_mut().and_then(Process::ended) {
        return ContainerState::Ended {
            code: ended.code().unwrap_or(137),
        };
    }
    let was_started = written.is_some_and(|state| {
        state.containers.iter().any(|(name, state)| {
            *name == container.name
                && matches!(state, ContainerState::Running { started: true, .. })
        })
    });
    let started =
        was_started || probe::succeeds(container.startup_probe.as_ref(), container, address).await;
    let ready =
        started && probe::succeeds(container.readiness_probe.as_ref(), container, address).await;
    let id = match &running.process {
        Some(process) => format!("process://{}", process.id()),
        None => "process://none".to_owned(),
    };
    ContainerState::Running { id, started, ready }
}

/// Writes the status; false when the pod is gone.
async fn write_status(
    shared: &Shared,
    pod: &Pod,
    state: &PodState,
    address: Ipv4Addr,
) -> Result<bool> {
    let pods: Api<Pod> = Api::namespaced(shared.client.clone(), &shared.namespace);
    let mut patch = state.patch(pod, address);
    // With the uid, the status of a pod of the same name is left alone.
    if let Some(object) = patch.as_object_mut() {
        object.insert("metadata".to_owned(), serde_json::json!({"uid": pod.uid()}));
    }
    let patch = Patch::Strategic(patch);
    let answer = until(
        "the API server to take a pod's status",
        Duration::from_secs(30),
        async || {
            let answer = pods
                .patch_status(&pod.name_any(), &PatchParams::default(), &patch)
                .await;
            match answer {
                Ok(_) => Ok(true),
                Err(kube::Error::Api(status)) if [404, 409].contains(&status.code) => Ok(false),
                Err(error) => Err(error.into()),
            }
        },
    );
    answer.await
}
