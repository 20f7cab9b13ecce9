//! Storage pods as the operator reads them. Pure; what is wrong with one is said in `pod_trouble`.

use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::Deserialize;

use crate::identities::NODES_SECRET;
use crate::store::names;
use atomix_controller::dialer::Destination;
use atomix_resources::labels;
use atomix_tls::Identity;

/// The conditions that are read.
const KEPT_CONDITIONS: [&str; 3] = ["Ready", "PodScheduled", labels::REPLICATED];

/// The fields of a Pod that are read; everything else is dropped while decoding.
#[derive(Debug, Clone, PartialEq, Deserialize, Resource)]
#[resource(inherit = "Pod")]
pub struct StoragePodView {
    /// Standard metadata.
    pub metadata: ObjectMeta,
    /// Where it should run.
    #[serde(default)]
    pub spec: PodSpecView,
    /// What became of it.
    #[serde(default)]
    pub status: PodStatusView,
}

/// See [`StoragePodView`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodSpecView {
    /// The machine.
    pub node_name: Option<String>,
    /// For naming the image that cannot be pulled.
    #[serde(default)]
    pub containers: Vec<ContainerView>,
    /// For seeing whether it mounts certificates, and a disk.
    #[serde(default)]
    pub volumes: Vec<VolumeView>,
    /// Conditions that must hold before it counts as ready.
    #[serde(default)]
    pub readiness_gates: Vec<ReadinessGateView>,
}

/// See [`StoragePodView`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeView {
    /// The Secret, if it is one.
    pub secret: Option<SecretVolumeView>,
    /// The claim, if it is one.
    pub persistent_volume_claim: Option<ClaimVolumeView>,
}

/// See [`StoragePodView`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretVolumeView {
    /// Its name.
    pub secret_name: Option<String>,
}

/// See [`StoragePodView`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClaimVolumeView {}

/// See [`StoragePodView`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReadinessGateView {
    /// The type of the condition.
    pub condition_type: String,
}

/// See [`StoragePodView`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerView {
    /// Its name.
    pub name: String,
    /// Its image.
    pub image: Option<String>,
}

/// See [`StoragePodView`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodStatusView {
    /// Pending, Running, Succeeded or Failed.
    pub phase: Option<String>,
    /// Why it failed as a whole, such as Evicted.
    pub reason: Option<String>,
    /// The longer text.
    pub message: Option<String>,
    /// Its address, once it has one.
    #[serde(rename = "podIP")]
    pub pod_ip: Option<String>,
    /// PodScheduled, Ready …
    #[serde(default)]
    pub conditions: Vec<PodConditionView>,
    /// One for each container, once the kubelet knows it.
    #[serde(default)]
    pub container_statuses: Vec<ContainerStatusView>,
}

/// See [`StoragePodView`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodConditionView {
    /// Its type.
    #[serde(rename = "type")]
    pub type_: String,
    /// True, False or Unknown.
    pub status: String,
    /// Why.
    pub reason: Option<String>,
    /// Why, for people.
    pub message: Option<String>,
}

/// See [`StoragePodView`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerStatusView {
    /// The container.
    pub name: String,
    /// How often it was started again.
    #[serde(default)]
    pub restart_count: u32,
    /// What it does now.
    #[serde(default)]
    pub state: ContainerStateView,
    /// What it did before.
    #[serde(default)]
    pub last_state: ContainerStateView,
}

/// See [`StoragePodView`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerStateView {
    /// It is not running, and will be.
    pub waiting: Option<ReasonView>,
    /// It runs.
    pub running: Option<RunningView>,
    /// It ended.
    pub terminated: Option<ReasonView>,
}

/// See [`StoragePodView`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunningView {}

/// See [`StoragePodView`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReasonView {
    /// CamelCase.
    pub reason: Option<String>,
    /// For people.
    pub message: Option<String>,
    /// Of a container that ended.
    pub exit_code: Option<i32>,
}

impl StoragePodView {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    /// The revision of the StatefulSet that made it.
    #[must_use]
    pub fn revision(&self) -> Option<&str> {
        let labels = self.metadata.labels.as_ref()?;
        labels.get(names::REVISION_LABEL).map(String::as_str)
    }

    /// The zone of its machine, if the API server has copied the machine's label.
    #[must_use]
    pub fn zone(&self) -> Option<&str> {
        let labels = self.metadata.labels.as_ref()?;
        labels.get(names::ZONE_LABEL).map(String::as_str)
    }

    /// It is being deleted.
    #[must_use]
    pub fn is_terminating(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }

    /// Its address, while its container may serve.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        let is_over = matches!(self.status.phase.as_deref(), Some("Succeeded" | "Failed"));
        if is_over {
            return None;
        }
        self.status.pod_ip.as_deref()?.parse().ok()
    }

    /// Where its node serves the operator, while its container may serve, and who must answer: a node
    /// of the Store whose StatefulSet gave the pod its name.
    #[must_use]
    pub fn control(&self) -> Option<Destination> {
        let (store, _ordinal) = self.name().rsplit_once('-')?;
        let address = SocketAddr::new(self.address()?, names::CONTROL_PORT);
        let identity = self.speaks_tls().then(|| Identity::Node {
            namespace: self.metadata.namespace.clone().unwrap_or_default(),
            store: store.to_owned(),
        });
        Some(Destination { address, identity })
    }

    /// Whether it mounts a certificate: a pod made before the operator had an authority does not.
    fn speaks_tls(&self) -> bool {
        let secrets = self.spec.volumes.iter().flat_map(|volume| &volume.secret);
        let mut names = secrets.filter_map(|secret| secret.secret_name.as_deref());
        names.any(|name| name == NODES_SECRET)
    }

    /// Kubernetes counts it as ready.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        !self.is_terminating()
            && self
                .condition("Ready")
                .is_some_and(|ready| ready.status == "True")
    }

    /// The node's container has never run in this pod.
    #[must_use]
    pub fn never_started(&self) -> bool {
        self.container().is_none_or(|container| {
            container.restart_count == 0
                && container.state.running.is_none()
                && container.state.terminated.is_none()
                && container.last_state.terminated.is_none()
                && container.last_state.running.is_none()
        })
    }

    /// The node's container does not run, as the kubelet says.
    #[must_use]
    pub fn is_down(&self) -> bool {
        self.address().is_none()
            || self
                .container()
                .is_none_or(|container| container.state.running.is_none())
    }

    /// The scheduler says that no machine takes it, so its node has never run.
    #[must_use]
    pub fn is_unschedulable(&self) -> bool {
        self.spec.node_name.is_none()
            && self
                .condition("PodScheduled")
                .is_some_and(|scheduled| scheduled.status == "False")
    }

    /// Its data is on a volume.
    #[must_use]
    pub fn has_volume(&self) -> bool {
        let mut volumes = self.spec.volumes.iter();
        volumes.any(|volume| volume.persistent_volume_claim.is_some())
    }

    /// The operator says whether its disk counts.
    #[must_use]
    pub fn has_gate(&self) -> bool {
        let mut gates = self.spec.readiness_gates.iter();
        gates.any(|gate| gate.condition_type == labels::REPLICATED)
    }

    /// What the kubelet says of the node's container.
    #[must_use]
    pub fn container(&self) -> Option<&ContainerStatusView> {
        let mut statuses = self.status.container_statuses.iter();
        statuses.find(|status| status.name == names::CONTAINER)
    }

    /// The condition of this type.
    #[must_use]
    pub fn condition(&self, type_: &str) -> Option<&PodConditionView> {
        self.status
            .conditions
            .iter()
            .find(|condition| condition.type_ == type_)
    }

    /// The image of the node's container.
    #[must_use]
    pub fn image(&self) -> &str {
        let mut containers = self.spec.containers.iter();
        let node = containers.find(|container| container.name == names::CONTAINER);
        node.and_then(|container| container.image.as_deref())
            .unwrap_or("unknown image")
    }
}

/// Drops what is not read.
pub fn prune(pod: &mut StoragePodView) {
    let meta = &mut pod.metadata;
    meta.managed_fields = None;
    meta.annotations = None;
    meta.owner_references = None;
    pod.spec
        .containers
        .retain(|container| container.name == names::CONTAINER);
    pod.status
        .container_statuses
        .retain(|status| status.name == names::CONTAINER);
    pod.status
        .conditions
        .retain(|condition| KEPT_CONDITIONS.contains(&condition.type_.as_str()));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use serde_json::{Value, json};

    use super::*;

    fn pod(status: Value) -> StoragePodView {
        serde_json::from_value(json!({
            "metadata": {"name": "tulip-1"},
            "spec": {"containers": [{"name": "node", "image": "garden/node:9"}]},
            "status": status,
        }))
        .unwrap()
    }

    fn container(state: Value, last_state: Value, restarts: u32) -> Value {
        json!({"phase": "Pending", "containerStatuses": [
            {"name": "other", "restartCount": 7, "state": {"running": {}}},
            {"name": "node", "restartCount": restarts, "state": state, "lastState": last_state},
        ]})
    }

    #[test]
    fn a_pod_whose_node_ran_once_has_started() {
        let waiting = |reason: &str| json!({"waiting": {"reason": reason}});
        let crashed = json!({"terminated": {"exitCode": 101, "reason": "Error"}});
        for (status, never_started) in [
            (json!({}), true),
            (container(waiting("ImagePullBackOff"), json!({}), 0), true),
            (
                container(waiting("CrashLoopBackOff"), crashed.clone(), 3),
                false,
            ),
            (container(crashed, json!({}), 0), false),
            (container(json!({"running": {}}), json!({}), 0), false),
            (json!({"phase": "Failed", "reason": "Evicted"}), true),
        ] {
            assert_eq!(
                pod(status.clone()).never_started(),
                never_started,
                "{status}"
            );
        }
    }

    #[test]
    fn a_pod_is_unschedulable_only_when_the_scheduler_says_so() {
        let scheduled = |status: &str| {
            let condition = json!({"type": "PodScheduled", "status": status});
            pod(json!({"phase": "Pending", "conditions": [condition]}))
        };
        assert!(scheduled("False").is_unschedulable());
        assert!(!scheduled("True").is_unschedulable());
        assert!(!pod(json!({"phase": "Pending"})).is_unschedulable());
        let mut bound = scheduled("False");
        bound.spec.node_name = Some("machine-1".to_owned());
        assert!(!bound.is_unschedulable());
    }

    #[test]
    fn a_pod_has_an_address_until_it_is_over() {
        let running = pod(json!({"phase": "Running", "podIP": "127.3.0.9"}));
        assert_eq!(running.address(), Some("127.3.0.9".parse().unwrap()));
        assert_eq!(
            pod(json!({"phase": "Failed", "podIP": "127.3.0.9"})).address(),
            None
        );
    }
}
