//! Names, ports and labels of what belongs to a Store.

use std::collections::BTreeMap;

use crate::controller::{FIELD_MANAGER, MANAGED_BY_LABEL};
use crate::crd::labels;

/// Port of the Node service, for the operator.
pub const CONTROL_PORT: u16 = 5680;

/// Port of the peer and partition services, for nodes and drivers.
pub const PEER_PORT: u16 = 5681;

/// Port of probes and metrics.
pub const ADMIN_PORT: u16 = 9090;

/// Where a node keeps its data.
pub const DATA_DIRECTORY: &str = "/var/lib/atomix";

/// Where the Store's ConfigMap is mounted.
pub const CONFIG_DIRECTORY: &str = "/etc/atomix";

/// The node's container.
pub const CONTAINER: &str = "node";

/// The volume and claim template of a node's data.
pub const DATA_VOLUME: &str = "data";

/// Keeps a Store while Sessions of its namespace use it.
pub const FINALIZER: &str = "atomix.io/store-in-use";

/// Label of all programs.
pub const NAME_LABEL: &str = "app.kubernetes.io/name";

/// What [`NAME_LABEL`] says on storage pods and all other children of a Store.
pub const NODE_NAME: &str = "atomix-node";

/// Label selector of all children of all Stores.
pub const CHILD_SELECTOR: &str = "app.kubernetes.io/name=atomix-node";

/// Label on pods that says which revision of the StatefulSet made them.
pub const REVISION_LABEL: &str = "controller-revision-hash";

/// The ConfigMap with the bootstrap plan.
#[must_use]
pub fn bootstrap_plan(store: &str) -> String {
    format!("{store}-bootstrap")
}

/// The pod with this ordinal.
#[must_use]
pub fn pod(store: &str, ordinal: u32) -> String {
    format!("{store}-{ordinal}")
}

/// The ordinal in a pod's name; `None` for other names.
#[must_use]
pub fn ordinal(store: &str, pod: &str) -> Option<u32> {
    let digits = pod.strip_prefix(store)?.strip_prefix('-')?;
    digits.parse().ok()
}

/// The host name of the headless Service, as seen from any namespace of the cluster.
#[must_use]
pub fn service_host(store: &str, namespace: &str) -> String {
    format!("{store}.{namespace}.svc")
}

/// Where peers and drivers reach the node with this ordinal.
#[must_use]
pub fn peer_address(store: &str, namespace: &str, ordinal: u32) -> String {
    let host = service_host(store, namespace);
    format!("{}.{host}:{PEER_PORT}", pod(store, ordinal))
}

/// What selects the storage pods of a Store. Constant: a StatefulSet's selector cannot change.
#[must_use]
pub fn selector(store: &str) -> BTreeMap<String, String> {
    BTreeMap::from([
        (NAME_LABEL.to_owned(), NODE_NAME.to_owned()),
        (labels::STORE.to_owned(), store.to_owned()),
    ])
}

/// The labels of every child of a Store.
#[must_use]
pub fn child_labels(store: &str) -> BTreeMap<String, String> {
    let mut labels = selector(store);
    labels.insert(MANAGED_BY_LABEL.to_owned(), FIELD_MANAGER.to_owned());
    labels
}

/// [`selector`] as text.
#[must_use]
pub fn selector_text(store: &str) -> String {
    let pairs = selector(store);
    let pairs: Vec<String> = pairs
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    pairs.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinals_are_read_from_own_pods_only() {
        for (store, name, expected) in [
            ("tulip", "tulip-0", Some(0)),
            ("tulip", "tulip-12", Some(12)),
            ("tulip", "tulip-x", None),
            ("tulip", "tulip-red-1", None),
            ("tulip-red", "tulip-red-1", Some(1)),
            ("tulip", "rose-1", None),
        ] {
            assert_eq!(ordinal(store, name), expected, "{name}");
        }
    }

    #[test]
    fn peers_have_stable_names() {
        let address = peer_address("tulip", "meadow", 2);
        assert_eq!(address, "tulip-2.tulip.meadow.svc:5681");
        assert_eq!(
            selector_text("tulip"),
            "app.kubernetes.io/name=atomix-node,atomix.io/store=tulip"
        );
    }
}
