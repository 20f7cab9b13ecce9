//! An operator's Deployment, and the machine of its pods with its kubelet, which this process plays: each
//! pod is an operator that gets SIGTERM when the pod is to end, and the pod is there until the operator has
//! ended.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use futures::StreamExt as _;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, ResourceExt as _};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::Instant;

use crate::namespace::TestNamespace;
use crate::operator_under_test::{OperatorUnderTest, Settings};
use crate::samples::NOWHERE;
use crate::supervised::is_quiet;
use crate::test_bed::TestBed;
use crate::wait::until;
use crate::workload::LIMIT;

/// Name of the Deployment.
pub const DEPLOYMENT: &str = "the-operator";

/// Between two looks whether operators run.
const PERIOD: Duration = Duration::from_millis(500);

/// Operators of a Deployment, in a namespace of its own.
#[derive(Debug)]
pub struct Deployed {
    /// Ends before the operators and the namespace do.
    _kubelet: JoinSet<()>,
    operators: Arc<Operators>,
    deployments: Api<Deployment>,
    namespace: TestNamespace,
}

#[derive(Debug, Default)]
struct Operators {
    /// Those that run, by their pod; `None` = it is about to end.
    running: Mutex<BTreeMap<String, Option<OperatorUnderTest>>>,
    last_ended: Mutex<Option<Instant>>,
    failures: Mutex<Vec<String>>,
}

impl Deployed {
    /// Makes a Deployment of so many operators, whose settings `change` makes of those of the test bed.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn create(
        bed: &TestBed,
        replicas: u32,
        change: impl FnOnce(Settings) -> Settings,
    ) -> Result<Self> {
        let namespace = TestNamespace::create(bed.server(), "operators").await?;
        let settings = change(Settings {
            lease_namespace: namespace.name().to_owned(),
            // They give it up when they end.
            short_lease: false,
            ..bed.settings()
        });
        let deployments: Api<Deployment> = Api::namespaced(bed.client().clone(), namespace.name());
        let pods: Api<Pod> = Api::namespaced(bed.client().clone(), namespace.name());
        let operators = Arc::new(Operators::default());
        let mut kubelet = JoinSet::new();
        kubelet.spawn(play_kubelet(pods, settings, Arc::clone(&operators)));
        let parameters = PostParams::default();
        let machine: Node = serde_json::from_value(machine(&namespace.object().await?))?;
        let machines: Api<Node> = Api::all(bed.client().clone());
        machines.create(&parameters, &machine).await?;
        let deployment = deployment(replicas, namespace.name());
        let deployment: Deployment = serde_json::from_value(deployment)?;
        deployments.create(&parameters, &deployment).await?;
        Ok(Self {
            _kubelet: kubelet,
            operators,
            deployments,
            namespace,
        })
    }

    /// Where the Deployment is.
    pub fn namespace(&self) -> &str {
        self.namespace.name()
    }

    /// How many operators the Deployment asks for.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn replicas(&self) -> Result<Option<i32>> {
        let deployment = self.deployments.get(DEPLOYMENT).await?;
        Ok(deployment.spec.and_then(|spec| spec.replicas))
    }

    /// Asks for so many operators.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn scale(&self, replicas: u32) -> Result<()> {
        let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
        let parameters = PatchParams::default();
        self.deployments
            .patch_scale(DEPLOYMENT, &parameters, &patch)
            .await?;
        Ok(())
    }

    /// When the last operator ended.
    ///
    /// # Errors
    /// When one runs, or none has.
    pub fn ended(&self) -> Result<Instant> {
        let running = self.operators.running.lock();
        ensure!(running.is_empty(), "operators run: {:?}", running.keys());
        let ended = *self.operators.last_ended.lock();
        ended.context("no operator has run")
    }

    /// Checks that one of the operators leads, and that none has had anything to write for a while.
    ///
    /// # Errors
    /// When that is not so, or one ended by itself.
    pub fn expect_quiet(&self) -> Result<()> {
        let failures = self.operators.failures.lock();
        if let Some(failure) = failures.first() {
            bail!("an operator failed: {failure}");
        }
        let running = self.operators.running.lock();
        let mut running = running.values().flatten();
        let quiet = running.any(|operator| is_quiet(operator.gate()));
        ensure!(quiet, "no operator leads and is quiet");
        Ok(())
    }

    /// Ends the operators and removes the namespace.
    ///
    /// # Errors
    /// When one failed, or the namespace is not gone in time.
    pub async fn remove(self) -> Result<()> {
        self.scale(0).await?;
        until("the operators to end", LIMIT, async || self.ended()).await?;
        let failures = std::mem::take(&mut *self.operators.failures.lock());
        ensure!(failures.is_empty(), "operators failed: {failures:#?}");
        self.namespace.remove().await
    }
}

async fn play_kubelet(pods: Api<Pod>, settings: Settings, operators: Arc<Operators>) {
    let events = watcher(pods.clone(), watcher::Config::default());
    let mut events = events.default_backoff().boxed();
    let mut looks = tokio::time::interval(PERIOD);
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            _ = looks.tick() => {
                operators.start_ended_again(&settings);
                continue;
            }
        };
        let Some(event) = event else { return };
        match event {
            Ok(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod)) => {
                if pod.metadata.deletion_timestamp.is_none() {
                    operators.start(&pod.name_any(), &settings);
                } else if let Err(error) = operators.end(&pods, &pod).await {
                    operators.failures.lock().push(format!("{error:#}"));
                }
            }
            Ok(watcher::Event::Init | watcher::Event::InitDone | watcher::Event::Delete(_)) => {}
            Err(error) => tracing::debug!(%error, "the watch of pods was interrupted"),
        }
    }
}

impl Operators {
    fn start(&self, pod: &str, settings: &Settings) {
        let mut running = self.running.lock();
        let operator = || Some(OperatorUnderTest::start(settings.again()));
        running.entry(pod.to_owned()).or_insert_with(operator);
    }

    /// On a machine that is too busy one may lose its lease.
    fn start_ended_again(&self, settings: &Settings) {
        for operator in self.running.lock().values_mut().flatten() {
            if let Err(error) = operator.check_alive_or_killed() {
                self.failures.lock().push(format!("{error:#}"));
            }
            if operator.has_ended() {
                *operator = OperatorUnderTest::start(settings.again());
            }
        }
    }

    async fn end(&self, pods: &Api<Pod>, pod: &Pod) -> Result<()> {
        let name = pod.name_any();
        let operator = self.running.lock().get_mut(&name).and_then(Option::take);
        if let Some(operator) = operator {
            if let Err(error) = spawn_blocking(|| operator.terminate()).await? {
                self.failures.lock().push(format!("{error:#}"));
            }
            *self.last_ended.lock() = Some(Instant::now());
            self.running.lock().remove(&name);
        }
        let at_once = DeleteParams::default().grace_period(0);
        match pods.delete(&name, &at_once).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// A machine for the pods: one that is on none is gone as soon as it is deleted. It goes with the
/// namespace, whose name it has.
fn machine(namespace: &Namespace) -> Value {
    json!({
        "metadata": {
            "name": namespace.name_any(),
            "ownerReferences": [{
                "apiVersion": "v1",
                "kind": "Namespace",
                "name": namespace.name_any(),
                "uid": namespace.uid(),
            }],
        },
        "spec": {"taints": [{"key": NOWHERE, "value": "true", "effect": "NoSchedule"}]},
    })
}

fn deployment(replicas: u32, machine: &str) -> Value {
    let labels = json!({"app": "operator"});
    json!({
        "metadata": {"name": DEPLOYMENT},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "nodeName": machine,
                    "containers": [{"name": "operator", "image": "operator:test"}],
                },
            },
        },
    })
}
