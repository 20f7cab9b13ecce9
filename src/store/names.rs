//! Names, ports and labels of what belongs to a Store.

use std::collections::BTreeMap;

use atomix_controller::{FIELD_MANAGER, MANAGED_BY_LABEL};
use atomix_resources::labels;

/// On machines, and on pods from Kubernetes 1.35: the zone.
pub const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// Port of the Node service, for the operator.
pub const CONTROL_PORT: u16 = 5680;

/// Port of the peer and partition services, for nodes and drivers.
pub const PEER_PORT: u16 = 5681;

/// Port of probes and metrics.
pub const ADMIN_PORT: u16 = 9090;

/// Where a node keeps its data.
pub const DATA_DIRECTORY: &str = "/var/lib/atomix";

/// The node's container.
pub const CONTAINER: &str = "node";

/// The volume and claim template of a node's data.
pub const DATA_VOLUME: &str = "data";

/// Field of the ConfigMap, and file in the pods, with the namespaces whose runtimes are served.
pub const ALLOWED_NAMESPACES: &str = "allowed-namespaces";

/// Keeps a Store while Sessions of its namespace use it.
pub const FINALIZER: &str = labels::STORE_FINALIZER;

/// Label of all programs.
pub const NAME_LABEL: &str = "app.kubernetes.io/name";

/// What [`NAME_LABEL`] says on storage pods and all other children of a Store.
pub const NODE_NAME: &str = "atomix-node";

/// Label selector of all children of all Stores.
pub const CHILD_SELECTOR: &str = "app.kubernetes.io/name=atomix-node";

/// Label on pods that says which revision of the StatefulSet made them.
pub const REVISION_LABEL: &str = "controller-revision-hash";

/// The ConfigMap with the driver's configuration. Both ConfigMaps of a Store have an ending of
/// their own, so that the names of two Stores cannot meet.
#[must_use]
pub fn config_map(store: &str) -> String {
    format!("{store}-config")
}

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

/// The claim of the volume of the pod with this ordinal.
#[must_use]
pub fn claim(store: &str, ordinal: u32) -> String {
    format!("{DATA_VOLUME}-{}", pod(store, ordinal))
}

/// The ordinal in a pod's name; `None` for other names.
#[must_use]
pub fn ordinal(store: &str, pod: &str) -> Option<u32> {
    let digits = pod.strip_prefix(store)?.strip_prefix('-')?;
    digits.parse().ok()
}

/// The ordinal of the storage pod with this peer address; `None` for another Store's.
#[must_use]
pub fn ordinal_of_address(store: &str, address: &str) -> Option<u32> {
    let (pod, host) = address.split_once('.')?;
    let is_own = host.strip_prefix(store)?.starts_with('.');
    ordinal(store, pod).filter(|_| is_own)
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
    use std::collections::BTreeSet;

    use proptest::prelude::*;

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

    /// Objects of a Store as KIND/NAME; every name that is derived from a Store's stands here.
    fn derived(store: &str) -> BTreeSet<String> {
        let mut names = BTreeSet::from([
            format!("Service/{store}"),
            format!("StatefulSet/{store}"),
            format!("PodDisruptionBudget/{store}"),
            format!("ConfigMap/{}", config_map(store)),
            format!("ConfigMap/{}", bootstrap_plan(store)),
        ]);
        for ordinal in 0..63 {
            names.insert(format!("Pod/{}", pod(store, ordinal)));
            let claim = format!("{DATA_VOLUME}-{}", pod(store, ordinal));
            names.insert(format!("PersistentVolumeClaim/{claim}"));
        }
        names
    }

    fn expect_apart(one: &str, other: &str) {
        let (of_one, of_other) = (derived(one), derived(other));
        let common: Vec<&String> = of_one.intersection(&of_other).collect();
        assert!(common.is_empty(), "{one} and {other} share {common:?}");
    }

    #[test]
    fn no_object_of_a_store_has_the_name_of_another_stores() {
        let endings = ["config", "bootstrap", "data", "0", "1", "config-0"];
        let mut names = vec!["a".to_owned(), "data-a".to_owned()];
        for _ in 0..2 {
            let longer = names
                .iter()
                .flat_map(|name| endings.map(|ending| format!("{name}-{ending}")).into_iter());
            let longer: Vec<String> = longer.collect();
            names.extend(longer);
        }
        let names: BTreeSet<String> = names.into_iter().collect();
        for one in &names {
            names
                .iter()
                .filter(|other| *other > one)
                .for_each(|other| expect_apart(one, other));
        }
        assert_eq!(bootstrap_plan("a-bootstrap"), "a-bootstrap-bootstrap");
        assert_eq!(config_map("a-bootstrap"), "a-bootstrap-config");
    }

    proptest! {
        #[test]
        fn no_two_legal_names_meet(
            one in "[a-z](-?[a-z0-9]){0,8}(-config|-bootstrap|-0)?",
            ending in "(-config|-bootstrap|-[0-9]|-data)?",
            other in "[a-z](-?[a-z0-9]){0,8}(-config|-bootstrap|-0)?",
        ) {
            let longer = format!("{one}{ending}");
            if longer != one {
                expect_apart(&one, &longer);
            }
            if other != one {
                expect_apart(&one, &other);
            }
        }
    }

    #[test]
    fn peers_have_stable_names() {
        let address = peer_address("tulip", "meadow", 2);
        assert_eq!(address, "tulip-2.tulip.meadow.svc:5681");
        assert_eq!(ordinal_of_address("tulip", &address), Some(2));
        assert_eq!(ordinal_of_address("tulip-2", &address), None);
        let other = peer_address("tulip-2", "meadow", 0);
        assert_eq!(ordinal_of_address("tulip", &other), None);
        assert_eq!(ordinal_of_address("tulip", "10.0.0.1:5681"), None);
        assert_eq!(
            selector_text("tulip"),
            "app.kubernetes.io/name=atomix-node,atomix.io/store=tulip"
        );
    }
}
