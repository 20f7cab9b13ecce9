//! The few fields of a pod that connecting its runtime needs. Every field is optional, so no pod
//! fails to decode.

use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::Deserialize;

use super::gate::Condition;
use crate::identities::RUNTIME_SECRET;
use atomix_controller::dialer::Destination;
use atomix_resources::labels::CONNECTED;
use atomix_tls::Identity;

/// Port on which every runtime serves the operator.
pub const CONTROL_PORT: u16 = 5679;

/// An application pod with a runtime sidecar.
#[derive(Resource, Clone, Debug, Default, Deserialize)]
#[resource(inherit = Pod)]
#[serde(default, rename_all = "camelCase")]
pub struct RuntimePod {
    /// Name, labels, uid and deletion time; the rest is pruned.
    pub metadata: ObjectMeta,
    /// Its containers.
    pub spec: Option<RuntimePodSpec>,
    /// How they are.
    pub status: Option<RuntimePodStatus>,
}

/// The containers of a pod.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default, rename_all = "camelCase")]
pub struct RuntimePodSpec {
    /// Ordinary containers.
    pub containers: Option<Vec<Container>>,
    /// Init containers, native sidecars among them.
    pub init_containers: Option<Vec<Container>>,
    /// For seeing whether the sidecar has a certificate.
    pub volumes: Option<Vec<Volume>>,
    /// Conditions that must hold for the pod to be ready.
    pub readiness_gates: Option<Vec<ReadinessGate>>,
}

/// A volume.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default, rename_all = "camelCase")]
pub struct Volume {
    /// The Secret, if it is one.
    pub secret: Option<SecretVolume>,
}

/// A Secret that is mounted.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default, rename_all = "camelCase")]
pub struct SecretVolume {
    /// Its name.
    pub secret_name: Option<String>,
}

/// A condition that must hold for the pod to be ready.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default, rename_all = "camelCase")]
pub struct ReadinessGate {
    /// The condition's type.
    pub condition_type: String,
}

/// One container.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default, rename_all = "camelCase")]
pub struct Container {
    /// Its name.
    pub name: String,
    /// Its declared ports.
    pub ports: Option<Vec<ContainerPort>>,
}

/// A declared port.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default, rename_all = "camelCase")]
pub struct ContainerPort {
    /// The number.
    pub container_port: i32,
}

/// How a pod is.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default, rename_all = "camelCase")]
pub struct RuntimePodStatus {
    /// Pending, Running, Succeeded, Failed or Unknown.
    pub phase: Option<String>,
    /// Its address.
    #[serde(rename = "podIP")]
    pub pod_ip: Option<String>,
    /// Ordinary containers.
    pub container_statuses: Option<Vec<ContainerStatus>>,
    /// Init containers, native sidecars among them.
    pub init_container_statuses: Option<Vec<ContainerStatus>>,
    /// Its conditions; all but ours are pruned.
    pub conditions: Option<Vec<Condition>>,
}

/// How a container is.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default, rename_all = "camelCase")]
pub struct ContainerStatus {
    /// Its name.
    pub name: String,
    /// Changes with each start.
    #[serde(rename = "containerID")]
    pub container_id: Option<String>,
    /// Whether the startup probe has succeeded.
    pub started: Option<bool>,
    /// Whether the readiness probe succeeds.
    pub ready: bool,
    /// Only whether it runs.
    pub state: Option<ContainerState>,
}

/// What a container does.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub struct ContainerState {
    /// There while it runs.
    pub running: Option<Running>,
}

/// A container runs.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
pub struct Running {}

/// Whether a pod's runtime can be called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sidecar {
    /// It runs here.
    Running {
        /// Where it serves the operator, and who must answer.
        control: Destination,
        /// Its startup probe has succeeded; before that a refused call says nothing.
        has_started: bool,
    },
    /// Its container does not run yet, or no longer.
    NotRunning,
    /// No container of the pod declares the control port.
    Absent,
    /// The pod has ended or is ending: nothing is done to it, and nothing is expected of it.
    Ended,
}

impl RuntimePod {
    /// Removes what nobody reads.
    pub fn prune(&mut self) {
        let meta = std::mem::take(&mut self.metadata);
        self.metadata = ObjectMeta {
            name: meta.name,
            namespace: meta.namespace,
            uid: meta.uid,
            resource_version: meta.resource_version,
            labels: meta.labels,
            deletion_timestamp: meta.deletion_timestamp,
            ..ObjectMeta::default()
        };
        if let Some(spec) = &mut self.spec {
            keep(&mut spec.containers, Container::is_sidecar);
            keep(&mut spec.init_containers, Container::is_sidecar);
            keep(&mut spec.volumes, Volume::has_certificate);
            keep(&mut spec.readiness_gates, |gate| {
                gate.condition_type == CONNECTED
            });
        }
        if let Some(status) = &mut self.status {
            keep(&mut status.container_statuses, |_| true);
            keep(&mut status.init_container_statuses, |_| true);
            keep(&mut status.conditions, |condition| {
                condition.type_ == CONNECTED
            });
        }
    }

    /// Whether the pod waits for our condition to be ready.
    pub(super) fn has_gate(&self) -> bool {
        let spec = self.spec.as_ref();
        let gates = spec.and_then(|spec| spec.readiness_gates.as_ref());
        let mut gates = gates.into_iter().flatten();
        gates.any(|gate| gate.condition_type == CONNECTED)
    }

    /// Our condition, if it has been written.
    pub(super) fn connected_condition(&self) -> Option<&Condition> {
        let conditions = self.status.as_ref()?.conditions.as_ref()?;
        let mut conditions = conditions.iter();
        conditions.find(|condition| condition.type_ == CONNECTED)
    }

    /// Whether the pod's runtime can be called, and where.
    pub fn sidecar(&self) -> Sidecar {
        let status = self.status.clone().unwrap_or_default();
        let has_ended = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
        if has_ended || self.metadata.deletion_timestamp.is_some() {
            return Sidecar::Ended;
        }
        let Some(name) = self.sidecar_name() else {
            return Sidecar::Absent;
        };
        let statuses = [status.init_container_statuses, status.container_statuses];
        let container = statuses
            .into_iter()
            .flatten()
            .flatten()
            .find(|container| container.name == name);
        let address: Option<IpAddr> = status.pod_ip.and_then(|address| address.parse().ok());
        match (container, address) {
            (Some(container), Some(address)) if container.is_running() => Sidecar::Running {
                control: Destination {
                    address: SocketAddr::new(address, CONTROL_PORT),
                    identity: self.identity(),
                },
                has_started: container.started.unwrap_or(true),
            },
            _ => Sidecar::NotRunning,
        }
    }

    /// Of a runtime that has a certificate.
    fn identity(&self) -> Option<Identity> {
        let mut volumes = self.spec.as_ref()?.volumes.iter().flatten();
        let is_mounted = volumes.any(Volume::has_certificate);
        is_mounted.then(|| Identity::Runtime {
            namespace: self.metadata.namespace.clone().unwrap_or_default(),
        })
    }

    fn sidecar_name(&self) -> Option<&str> {
        let spec = self.spec.as_ref()?;
        let mut containers = spec
            .init_containers
            .iter()
            .chain(&spec.containers)
            .flatten();
        let sidecar = containers.find(|container| container.is_sidecar())?;
        Some(&sidecar.name)
    }

    /// Whether the runtime may be in another state than before: another place, another process,
    /// other wishes, or another readiness, by which a runtime tells of a lost connection. Our own
    /// condition tells nothing new of the runtime.
    pub fn differs_for_runtime(&self, before: &Self) -> bool {
        self.metadata.uid != before.metadata.uid
            || self.metadata.labels != before.metadata.labels
            || self.metadata.deletion_timestamp.is_some()
                != before.metadata.deletion_timestamp.is_some()
            || self.spec != before.spec
            || self.status.as_ref().map(RuntimePodStatus::of_runtime)
                != before.status.as_ref().map(RuntimePodStatus::of_runtime)
    }
}

/// Without what is not wanted, and without room to spare.
fn keep<T>(list: &mut Option<Vec<T>>, is_wanted: impl Fn(&T) -> bool) {
    if let Some(list) = list {
        list.retain(is_wanted);
        list.shrink_to_fit();
    }
}

impl Container {
    /// Whether it declares the port on which a runtime serves the operator.
    fn is_sidecar(&self) -> bool {
        let mut ports = self.ports.iter().flatten();
        ports.any(|port| port.container_port == i32::from(CONTROL_PORT))
    }
}

impl Volume {
    /// Whether it is the certificate of the namespace's runtimes.
    fn has_certificate(&self) -> bool {
        let secret = self.secret.as_ref();
        let name = secret.and_then(|secret| secret.secret_name.as_deref());
        name == Some(RUNTIME_SECRET)
    }
}

impl RuntimePodStatus {
    /// All but the conditions.
    fn of_runtime(&self) -> impl PartialEq + '_ {
        let Self {
            phase,
            pod_ip,
            container_statuses,
            init_container_statuses,
            conditions: _,
        } = self;
        (phase, pod_ip, container_statuses, init_container_statuses)
    }
}

impl ContainerStatus {
    fn is_running(&self) -> bool {
        self.state
            .as_ref()
            .is_some_and(|state| state.running.is_some())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use serde_json::{Value, json};

    use super::*;

    fn pod(status: Value) -> RuntimePod {
        serde_json::from_value(json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "shop-1", "namespace": "garden"},
            "spec": {
                "initContainers": [
                    {"name": "setup", "ports": []},
                    {"name": "helper", "ports": [{"containerPort": 5678}, {"containerPort": 5679}]},
                ],
                "containers": [{"name": "shop"}],
            },
            "status": status,
        }))
        .unwrap()
    }

    #[test]
    fn a_runtime_can_be_called_as_soon_as_its_container_runs() {
        let running = json!({"startedAt": "2026-01-01T00:00:00Z"});
        let at = |started: bool| Sidecar::Running {
            control: Destination::plain("10.0.0.7:5679".parse().unwrap()),
            has_started: started,
        };
        for (status, expected) in [
            (json!({}), Sidecar::NotRunning),
            (json!({"podIP": "10.0.0.7"}), Sidecar::NotRunning),
            (
                json!({"podIP": "10.0.0.7", "initContainerStatuses": [
                    {"name": "helper", "started": false, "state": {"running": running}}]}),
                at(false),
            ),
            (
                json!({"podIP": "10.0.0.7", "phase": "Pending", "initContainerStatuses": [
                    {"name": "helper", "started": true, "state": {"running": running}}]}),
                at(true),
            ),
            (
                json!({"podIP": "10.0.0.7", "initContainerStatuses": [
                    {"name": "helper", "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}),
                Sidecar::NotRunning,
            ),
            (
                json!({"podIP": "10.0.0.7", "containerStatuses": [
                    {"name": "shop", "started": true, "state": {"running": running}}]}),
                Sidecar::NotRunning,
            ),
            (json!({"phase": "Succeeded"}), Sidecar::Ended),
            (json!({"phase": "Failed"}), Sidecar::Ended),
        ] {
            assert_eq!(pod(status.clone()).sidecar(), expected, "{status}");
        }
        let mut without = pod(json!({}));
        without.spec = None;
        assert_eq!(without.sidecar(), Sidecar::Absent);
    }

    #[test]
    fn a_pod_without_what_nobody_reads_says_the_same() {
        let mut pod = pod(json!({
            "podIP": "10.0.0.7",
            "initContainerStatuses": [{"name": "helper", "state": {"running": {}}}],
            "conditions": [{"type": "Ready", "status": "True"}, {"type": CONNECTED, "status": "True"}],
        }));
        let spec = pod.spec.as_mut().unwrap();
        spec.volumes = serde_json::from_value(json!([
            {"emptyDir": {}},
            {"secret": {"secretName": RUNTIME_SECRET}},
        ]))
        .unwrap();
        spec.readiness_gates =
            serde_json::from_value(json!([{"conditionType": CONNECTED}])).unwrap();
        let facts = |pod: &RuntimePod| {
            let condition = pod.connected_condition().cloned();
            (pod.sidecar(), pod.has_gate(), condition)
        };
        let before = facts(&pod);
        assert!(matches!(
            &before,
            (Sidecar::Running { control, .. }, true, Some(_)) if control.identity.is_some()
        ));
        pod.prune();
        assert_eq!(facts(&pod), before);
        let spec = pod.spec.unwrap();
        assert_eq!(spec.init_containers.map(|found| found.len()), Some(1));
        assert_eq!(spec.containers.map(|found| found.len()), Some(0));
        assert_eq!(spec.volumes.map(|found| found.len()), Some(1));
    }

    #[test]
    fn any_pod_decodes() {
        for text in [
            "{}",
            r#"{"spec":null,"status":null}"#,
            r#"{"status":{"podIP":"x"}}"#,
        ] {
            let pod: RuntimePod = serde_json::from_str(text).unwrap();
            assert!(!matches!(pod.sidecar(), Sidecar::Running { .. }), "{text}");
        }
    }
}
