//! Who may reach a Store's nodes over the network, where the cluster enforces it. Pure.
//!
//! A second wall: what a node serves to whom is decided by certificates (crate `atomix-tls`).

use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort,
    NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::store::names;
use crate::store::objects::build::{Owner, Protection};
use atomix_resources::labels::RUNTIME;

/// On every namespace, by the API server itself.
const NAMESPACE_LABEL: &str = "kubernetes.io/metadata.name";
/// What the operator's pods are called.
const OPERATOR: &str = "atomix-operator";

/// The policy; `None` = none is wanted.
#[must_use]
pub(super) fn network_policy(owner: &Owner, protection: &Protection) -> Option<NetworkPolicy> {
    let operator_namespace = protection.operator_namespace.as_deref()?;
    let allowed = protection.allowed_namespaces.iter().map(String::as_str);
    let runtimes = std::iter::once(owner.namespace.as_str())
        .chain(allowed)
        .map(|namespace| pods_in(namespace, (RUNTIME, "true")));
    let nodes = NetworkPolicyPeer {
        pod_selector: Some(LabelSelector {
            match_labels: Some(names::selector(&owner.name)),
            ..LabelSelector::default()
        }),
        ..NetworkPolicyPeer::default()
    };
    let operator = pods_in(operator_namespace, (names::NAME_LABEL, OPERATOR));
    let spec = NetworkPolicySpec {
        pod_selector: Some(LabelSelector {
            match_labels: Some(names::selector(&owner.name)),
            ..LabelSelector::default()
        }),
        policy_types: Some(vec!["Ingress".to_owned()]),
        ingress: Some(vec![
            rule(names::CONTROL_PORT, vec![operator]),
            rule(
                names::PEER_PORT,
                std::iter::once(nodes).chain(runtimes).collect(),
            ),
            // Kubelets and Prometheus: no peers = everybody.
            rule(names::ADMIN_PORT, Vec::new()),
        ]),
        ..NetworkPolicySpec::default()
    };
    Some(NetworkPolicy {
        metadata: owner.child_meta(&owner.name),
        spec: Some(spec),
    })
}

fn rule(port: u16, peers: Vec<NetworkPolicyPeer>) -> NetworkPolicyIngressRule {
    NetworkPolicyIngressRule {
        from: Some(peers).filter(|peers| !peers.is_empty()),
        ports: Some(vec![NetworkPolicyPort {
            port: Some(IntOrString::Int(i32::from(port))),
            protocol: Some("TCP".to_owned()),
            ..NetworkPolicyPort::default()
        }]),
    }
}

fn pods_in(namespace: &str, (label, value): (&str, &str)) -> NetworkPolicyPeer {
    let selector = |label: &str, value: &str| LabelSelector {
        match_labels: Some([(label.to_owned(), value.to_owned())].into()),
        ..LabelSelector::default()
    };
    NetworkPolicyPeer {
        namespace_selector: Some(selector(NAMESPACE_LABEL, namespace)),
        pod_selector: Some(selector(label, value)),
        ..NetworkPolicyPeer::default()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
    use serde_json::{Value, json};

    use super::*;

    fn policy(operator_namespace: Option<&str>) -> Option<Value> {
        let owner = Owner {
            name: "tulip".to_owned(),
            namespace: "meadow".to_owned(),
            reference: OwnerReference::default(),
        };
        let protection = Protection {
            tls: true,
            allowed_namespaces: vec!["field".to_owned()],
            operator_namespace: operator_namespace.map(ToOwned::to_owned),
        };
        network_policy(&owner, &protection).map(|made| serde_json::to_value(made).unwrap())
    }

    #[test]
    fn each_port_is_open_for_those_who_use_it() {
        assert_eq!(policy(None), None);
        let policy = policy(Some("garden")).unwrap();
        let nodes = json!({"matchLabels": {
            "app.kubernetes.io/name": "atomix-node", "atomix.io/store": "tulip",
        }});
        assert_eq!(policy["spec"]["podSelector"], nodes);
        let pods = |namespace: &str, label: &str, value: &str| {
            json!({
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
                "podSelector": {"matchLabels": {label: value}},
            })
        };
        let port = |number: u16| json!([{"port": number, "protocol": "TCP"}]);
        assert_eq!(
            policy["spec"]["ingress"],
            json!([
                {
                    "ports": port(5680),
                    "from": [pods("garden", "app.kubernetes.io/name", "atomix-operator")],
                },
                {
                    "ports": port(5681),
                    "from": [
                        {"podSelector": nodes},
                        pods("meadow", "atomix.io/runtime", "true"),
                        pods("field", "atomix.io/runtime", "true"),
                    ],
                },
                {"ports": port(9090)},
            ])
        );
    }
}
