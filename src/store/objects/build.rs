//! The Kubernetes objects that a Store should have. Pure.
//!
//! Values that change take effect or are refused at admission; none is only for creation.

use k8s_openapi::api::apps::v1::{
    StatefulSet, StatefulSetPersistentVolumeClaimRetentionPolicy, StatefulSetSpec,
    StatefulSetUpdateStrategy,
};
use k8s_openapi::api::core::v1::{
    ConfigMap, PersistentVolumeClaim, Service, ServicePort, ServiceSpec,
};
use k8s_openapi::api::core::v1::{PersistentVolumeClaimSpec, VolumeResourceRequirements};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::store::names;
use crate::store::objects::budget::budget;
use crate::store::objects::network_policy::network_policy;
use crate::store::objects::pod_template::pod_template;
use crate::store::spec::driver_config::DriverConfig;
use crate::store::spec::validate::{Cluster, ClusterStorage};

/// Everything that is applied for a Store. Taken apart without `..`, so that an object that is
/// added here cannot be forgotten there.
#[derive(Debug, Clone, PartialEq)]
pub struct StoreObjects {
    /// Names for the pods, also before they are ready.
    pub service: Service,
    /// The driver's configuration, for people and for programs that read it with `kubectl`.
    pub config_map: ConfigMap,
    /// Who reaches them over the network; `None` = everybody.
    pub network_policy: Option<NetworkPolicy>,
    /// The pods.
    pub stateful_set: StatefulSet,
    /// How many of them may be away; `None` = there is to be no such object.
    pub budget: Option<PodDisruptionBudget>,
}

/// Who the objects belong to.
#[derive(Debug, Clone, PartialEq)]
pub struct Owner {
    /// The Store's name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// The reference that the garbage collector follows.
    pub reference: OwnerReference,
}

impl Owner {
    /// Metadata of a child.
    #[must_use]
    pub fn child_meta(&self, name: &str) -> ObjectMeta {
        ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(self.namespace.clone()),
            labels: Some(names::child_labels(&self.name)),
            owner_references: Some(vec![self.reference.clone()]),
            ..ObjectMeta::default()
        }
    }
}

/// How a Store is protected.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Protection {
    /// Its nodes speak mutual TLS.
    pub tls: bool,
    /// Further namespaces whose runtimes they serve, by name.
    pub allowed_namespaces: Vec<String>,
    /// Where the operator runs, if the nodes get a NetworkPolicy.
    pub operator_namespace: Option<String>,
}

/// Builds everything. `default_image` is used when the Store names none; `pods` may be more than
/// the Store asks for, while those beyond hold members; `bearable` of them may be away.
#[must_use]
pub fn build(
    owner: &Owner,
    cluster: &Cluster,
    config: &DriverConfig,
    default_image: &str,
    pods: u32,
    protection: &Protection,
    bearable: u32,
) -> StoreObjects {
    StoreObjects {
        service: service(owner),
        config_map: config_map(owner, config, protection),
        network_policy: network_policy(owner, protection),
        stateful_set: stateful_set(owner, cluster, default_image, pods, protection.tls),
        budget: budget(owner, cluster.replication_factor, bearable),
    }
}

fn service(owner: &Owner) -> Service {
    let port = |name: &str, number: u16| ServicePort {
        name: Some(name.to_owned()),
        port: i32::from(number),
        target_port: Some(IntOrString::Int(i32::from(number))),
        protocol: Some("TCP".to_owned()),
        ..ServicePort::default()
    };
    Service {
        metadata: owner.child_meta(&owner.name),
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".to_owned()),
            // Nodes find each other, and drivers find nodes, before anything is ready.
            publish_not_ready_addresses: Some(true),
            selector: Some(names::selector(&owner.name)),
            ports: Some(vec![
                port("control", names::CONTROL_PORT),
                port("peer", names::PEER_PORT),
                port("admin", names::ADMIN_PORT),
            ]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

/// What runtimes connect with, where a person can see it, and the namespaces whose runtimes the
/// nodes serve, which they read. All else they are told by the bootstrap.
fn config_map(owner: &Owner, config: &DriverConfig, protection: &Protection) -> ConfigMap {
    let lines = protection.allowed_namespaces.iter();
    let allowed: String = lines.map(|name| format!("{name}\n")).collect();
    ConfigMap {
        metadata: owner.child_meta(&names::config_map(&owner.name)),
        data: Some(
            [
                ("driver.json".to_owned(), config.json.clone()),
                (names::ALLOWED_NAMESPACES.to_owned(), allowed),
            ]
            .into(),
        ),
        ..ConfigMap::default()
    }
}

fn stateful_set(
    owner: &Owner,
    cluster: &Cluster,
    default_image: &str,
    pods: u32,
    tls: bool,
) -> StatefulSet {
    let claims = match &cluster.storage {
        ClusterStorage::Ephemeral => None,
        ClusterStorage::Volumes { size, class, .. } => Some(vec![PersistentVolumeClaim {
            // Only constants beside class and size: any later change is refused by the API.
            metadata: ObjectMeta {
                name: Some(names::DATA_VOLUME.to_owned()),
                labels: Some(names::selector(&owner.name)),
                ..ObjectMeta::default()
            },
            spec: Some(PersistentVolumeClaimSpec {
                access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
                storage_class_name: class.clone(),
                resources: Some(VolumeResourceRequirements {
                    requests: Some([("storage".to_owned(), size.clone())].into()),
                    ..VolumeResourceRequirements::default()
                }),
                ..PersistentVolumeClaimSpec::default()
            }),
            ..PersistentVolumeClaim::default()
        }]),
    };
    StatefulSet {
        metadata: owner.child_meta(&owner.name),
        spec: Some(StatefulSetSpec {
            replicas: i32::try_from(pods).ok(),
            service_name: Some(owner.name.clone()),
            selector: LabelSelector {
                match_labels: Some(names::selector(&owner.name)),
                ..LabelSelector::default()
            },
            // The operator knows the order; Kubernetes would wait for nodes that cannot be ready.
            pod_management_policy: Some("Parallel".to_owned()),
            update_strategy: Some(StatefulSetUpdateStrategy {
                type_: Some("OnDelete".to_owned()),
                rolling_update: None,
            }),
            // Disks are never Kubernetes' to delete.
            persistent_volume_claim_retention_policy: Some(
                StatefulSetPersistentVolumeClaimRetentionPolicy {
                    when_deleted: Some("Retain".to_owned()),
                    when_scaled: Some("Retain".to_owned()),
                },
            ),
            revision_history_limit: Some(5),
            template: pod_template(owner, cluster, default_image, tls),
            volume_claim_templates: claims,
            ..StatefulSetSpec::default()
        }),
        ..StatefulSet::default()
    }
}

#[cfg(test)]
mod tests;
