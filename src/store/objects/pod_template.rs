//! The pods of a Store. Pure.

use k8s_openapi::api::core::v1::{
    Capabilities, Container, ContainerPort, EmptyDirVolumeSource, EnvVar, HTTPGetAction,
    PodReadinessGate, PodSecurityContext, PodSpec, PodTemplateSpec, Probe, SeccompProfile,
    SecurityContext, TopologySpreadConstraint, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::store::names;
use crate::store::objects::build::Owner;
use crate::store::objects::tls;
use crate::store::spec::validate::{Cluster, ClusterStorage};
use atomix_resources::labels;
use atomix_resources::storage_pod::{ImagePullPolicy, StoragePod};

/// The user and group that nodes run as.
const NODE_USER: i64 = 65532;

/// Time for a node to write what it has accepted and stop, in seconds.
const GRACE_SECONDS: i64 = 30;

/// The template of the StatefulSet.
pub(super) fn pod_template(
    owner: &Owner,
    cluster: &Cluster,
    default_image: &str,
    tls: bool,
) -> PodTemplateSpec {
    let pod = &cluster.pod;
    let mut container = container(cluster, default_image);
    let mut volumes = volumes(&cluster.storage).unwrap_or_default();
    if tls {
        tls::add(owner, &mut container, &mut volumes);
    }
    let mut labels = pod.labels.clone().unwrap_or_default();
    labels.extend(names::child_labels(&owner.name));
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(labels),
            annotations: pod.annotations.clone(),
            ..ObjectMeta::default()
        }),
        spec: Some(PodSpec {
            containers: vec![container],
            volumes: Some(volumes).filter(|volumes| !volumes.is_empty()),
            affinity: pod.affinity.clone(),
            topology_spread_constraints: Some(spread(owner, pod)),
            node_selector: pod.node_selector.clone(),
            tolerations: pod.tolerations.clone(),
            priority_class_name: pod.priority_class_name.clone(),
            service_account_name: Some(service_account(pod)),
            image_pull_secrets: pod.image_pull_secrets.clone(),
            security_context: Some(pod_security(pod)),
            termination_grace_period_seconds: Some(GRACE_SECONDS),
            // Nodes never talk to the API server.
            automount_service_account_token: Some(false),
            readiness_gates: Some(vec![PodReadinessGate {
                condition_type: labels::REPLICATED.to_owned(),
            }]),
            enable_service_links: Some(false),
            ..PodSpec::default()
        }),
    }
}

/// Always named: the API server writes a deprecated twin of this field, and would restore from it a
/// name that is no longer applied.
fn service_account(pod: &StoragePod) -> String {
    let named = pod.service_account_name.clone();
    named.unwrap_or_else(|| "default".to_owned())
}

fn container(cluster: &Cluster, default_image: &str) -> Container {
    let pod = &cluster.pod;
    let image = pod
        .image
        .clone()
        .unwrap_or_else(|| default_image.to_owned());
    Container {
        name: names::CONTAINER.to_owned(),
        image: Some(image),
        image_pull_policy: pod
            .image_pull_policy
            .map(ImagePullPolicy::as_str)
            .map(str::to_owned),
        args: Some(vec![
            format!("--data-dir={}", names::DATA_DIRECTORY),
            format!("--control-addr=0.0.0.0:{}", names::CONTROL_PORT),
            format!("--peer-addr=0.0.0.0:{}", names::PEER_PORT),
            format!("--admin-addr=0.0.0.0:{}", names::ADMIN_PORT),
        ]),
        env: Some(env(cluster)),
        ports: Some(vec![
            port("control", names::CONTROL_PORT),
            port("peer", names::PEER_PORT),
            port("admin", names::ADMIN_PORT),
        ]),
        resources: pod.resources.clone(),
        readiness_probe: Some(probe("/readyz", 1, 3)),
        liveness_probe: Some(probe("/livez", 10, 6)),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            capabilities: Some(Capabilities {
                drop: Some(vec!["ALL".to_owned()]),
                add: None,
            }),
            read_only_root_filesystem: Some(true),
            ..SecurityContext::default()
        }),
        volume_mounts: Some(vec![VolumeMount {
            name: names::DATA_VOLUME.to_owned(),
            mount_path: names::DATA_DIRECTORY.to_owned(),
            ..VolumeMount::default()
        }]),
        ..Container::default()
    }
}

/// Raft's settings, by variables since older images know no such arguments: a change of them makes
/// another template, so it takes effect as the pods are replaced. What the user gives comes before.
fn env(cluster: &Cluster) -> Vec<EnvVar> {
    let timings = &cluster.timings;
    let own = [
        (
            "ATOMIX_ELECTION_TIMEOUT_MILLIS",
            timings.election_timeout.as_millis().to_string(),
        ),
        (
            "ATOMIX_SNAPSHOT_ENTRY_THRESHOLD",
            timings.snapshot_entry_threshold.to_string(),
        ),
    ];
    let given = cluster.pod.env.clone().unwrap_or_default();
    let is_given = |name: &str| given.iter().any(|variable| variable.name == name);
    let own = own.into_iter().filter(|(name, _)| !is_given(name));
    let own: Vec<EnvVar> = own
        .map(|(name, value)| EnvVar {
            name: name.to_owned(),
            value: Some(value),
            ..EnvVar::default()
        })
        .collect();
    own.into_iter().chain(given).collect()
}

fn port(name: &str, number: u16) -> ContainerPort {
    ContainerPort {
        name: Some(name.to_owned()),
        container_port: i32::from(number),
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    }
}

/// Plain HTTP on the admin port: kubelet's gRPC probe cannot do TLS.
fn probe(path: &str, period_seconds: i32, failure_threshold: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::Int(i32::from(names::ADMIN_PORT)),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period_seconds),
        timeout_seconds: Some(5.min(period_seconds.max(2))),
        failure_threshold: Some(failure_threshold),
        ..Probe::default()
    }
}

fn volumes(storage: &ClusterStorage) -> Option<Vec<Volume>> {
    match storage {
        ClusterStorage::Ephemeral => Some(vec![Volume {
            name: names::DATA_VOLUME.to_owned(),
            empty_dir: Some(EmptyDirVolumeSource::default()),
            ..Volume::default()
        }]),
        // The claim template makes the volume.
        ClusterStorage::Volumes { .. } => None,
    }
}

/// As the user says, else softly over hosts and zones: a small cluster must still run it.
fn spread(owner: &Owner, pod: &StoragePod) -> Vec<TopologySpreadConstraint> {
    if let Some(constraints) = &pod.topology_spread_constraints {
        return constraints.clone();
    }
    ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]
        .into_iter()
        .map(|key| TopologySpreadConstraint {
            max_skew: 1,
            topology_key: key.to_owned(),
            when_unsatisfiable: "ScheduleAnyway".to_owned(),
            label_selector: Some(LabelSelector {
                match_labels: Some(names::selector(&owner.name)),
                ..LabelSelector::default()
            }),
            ..TopologySpreadConstraint::default()
        })
        .collect()
}

/// The user's context over the restricted one, field by field.
fn pod_security(pod: &StoragePod) -> PodSecurityContext {
    let given = pod.security_context.clone().unwrap_or_default();
    PodSecurityContext {
        run_as_non_root: given.run_as_non_root.or(Some(true)),
        run_as_user: given.run_as_user.or(Some(NODE_USER)),
        run_as_group: given.run_as_group.or(Some(NODE_USER)),
        fs_group: given.fs_group.or(Some(NODE_USER)),
        fs_group_change_policy: given
            .fs_group_change_policy
            .or_else(|| Some("OnRootMismatch".to_owned())),
        seccomp_profile: given.seccomp_profile.or_else(|| {
            Some(SeccompProfile {
                type_: "RuntimeDefault".to_owned(),
                localhost_profile: None,
            })
        }),
        ..given
    }
}
