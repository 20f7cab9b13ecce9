//! A pod's status as a kubelet would write it. Not for deciding it; that is the pod runner's.

use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

/// What is known of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContainerState {
    /// Its image cannot be had.
    ImageMissing,
    /// It runs.
    Running {
        /// Another one for each start.
        id: String,
        /// Its startup probe has succeeded.
        started: bool,
        /// Its readiness probe succeeds.
        ready: bool,
    },
    /// It has ended with this code and will be started again.
    Ended {
        /// Exit code; 137 for a kill.
        code: i32,
    },
}

/// What is known of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodState {
    /// State of each container by name: sidecars first, then the others.
    pub containers: Vec<(String, ContainerState)>,
    /// How often containers were started again.
    pub restarts: i32,
    /// When the processes that run now were started.
    pub started_at: Timestamp,
    /// The conditions of all readiness gates hold.
    pub gates_hold: bool,
}

/// Whether the conditions of all readiness gates of a pod hold, as others wrote them.
pub fn gates_hold(pod: &Pod) -> bool {
    let gates = pod.spec.iter().flat_map(|spec| &spec.readiness_gates);
    let conditions = || pod.status.iter().flat_map(|status| &status.conditions);
    gates.flatten().all(|gate| {
        let mut conditions = conditions().flatten();
        conditions.any(|seen| seen.type_ == gate.condition_type && seen.status == "True")
    })
}

impl PodState {
    /// Whether every container is ready.
    pub fn is_ready(&self) -> bool {
        self.containers
            .iter()
            .all(|(_, state)| matches!(state, ContainerState::Running { ready: true, .. }))
    }

    /// The patch of the pod's status subresource.
    pub fn patch(&self, pod: &Pod, address: Ipv4Addr) -> Value {
        let spec = pod.spec.as_ref();
        let statuses = |containers: Option<&Vec<Container>>| -> Vec<Value> {
            containers
                .into_iter()
                .flatten()
                .map(|container| self.container_status(container))
                .collect()
        };
        let sidecars = statuses(spec.and_then(|spec| spec.init_containers.as_ref()));
        let containers = statuses(spec.map(|spec| &spec.containers));
        let image_is_missing = self
            .containers
            .iter()
            .any(|(_, state)| *state == ContainerState::ImageMissing);
        let phase = if image_is_missing {
            "Pending"
        } else {
            "Running"
        };
        let condition = |type_: &str, holds: bool| {
            json!({
                "type": type_,
                "status": if holds { "True" } else { "False" },
                "lastTransitionTime": self.started_at.to_string(),
            })
        };
        json!({"status": {
            "phase": phase,
            "podIP": address.to_string(),
            "podIPs": [{"ip": address.to_string()}],
            "startTime": self.started_at.to_string(),
            "conditions": [
                condition("PodScheduled", true),
                condition("Initialized", true),
                condition("ContainersReady", self.is_ready()),
                condition("Ready", self.is_ready() && self.gates_hold),
            ],
            "initContainerStatuses": sidecars,
            "containerStatuses": containers,
        }})
    }

    fn container_status(&self, container: &Container) -> Value {
        let state = self
            .containers
            .iter()
            .find(|(name, _)| *name == container.name)
            .map(|(_, state)| state);
        let (id, started, ready) = match state {
            Some(ContainerState::Running { id, started, ready }) => (id.as_str(), *started, *ready),
            _ => ("", false, false),
        };
        let shown = match state {
            Some(ContainerState::Running { .. }) => {
                json!({"running": {"startedAt": self.started_at.to_string()}})
            }
            Some(ContainerState::Ended { code }) => json!({"terminated": {
                "exitCode": code,
                "reason": "Error",
                "finishedAt": self.started_at.to_string(),
            }}),
            Some(ContainerState::ImageMissing) | None => json!({"waiting": {
                "reason": "ImagePullBackOff",
                "message": "the image is not there",
            }}),
        };
        json!({
            "name": container.name,
            "image": container.image.clone().unwrap_or_default(),
            "imageID": container.image.clone().unwrap_or_default(),
            "containerID": id,
            "ready": ready,
            "started": started,
            "restartCount": self.restarts,
            "state": shown,
        })
    }
}
