//! The objects of the benchmark with many.

use serde_json::{Value, json};

use crate::runtimes::address;

/// Storage nodes of a Store that has some.
pub(super) const NODES: usize = 3;

/// No machine has this label, so nobody runs the pods.
fn nowhere() -> Value {
    json!({"atomix.io/bench-nowhere": "true"})
}

pub(super) fn pod_name(at: usize) -> String {
    format!("pod-{at}")
}

fn store_name(at: usize) -> String {
    format!("store-{at}")
}

pub(super) fn session_name(at: usize) -> String {
    format!("session-{at}")
}

/// A Store without storage nodes.
pub(super) fn store(at: usize) -> Value {
    json!({
        "apiVersion": "atomix.io/v1beta1", "kind": "Store",
        "metadata": {"name": store_name(at)},
        "spec": {"driver": {"name": "memory"}},
    })
}

/// A Store with storage nodes, whose pods nobody runs.
pub(super) fn store_with_nodes(at: usize) -> Value {
    json!({
        "apiVersion": "atomix.io/v1beta1", "kind": "Store",
        "metadata": {"name": format!("nodes-{at}")},
        "spec": {
            "driver": {"name": "multi-raft"},
            "multiRaft": {
                "replicas": NODES,
                "storage": {"ephemeral": {}},
                "pod": {"nodeSelector": nowhere()},
            },
        },
    })
}

/// A Session of one of so many Stores, for the pod of the same number.
pub(super) fn session(at: usize, stores: usize) -> Value {
    json!({
        "apiVersion": "atomix.io/v1beta1", "kind": "Session",
        "metadata": {"name": session_name(at)},
        "spec": {
            "store": {"name": store_name(at % stores)},
            "selector": {"matchLabels": {"app": pod_name(at)}},
            "kind": "counter",
        },
    })
}

pub(super) fn pod(at: usize) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": pod_name(at),
            "labels": {"app": pod_name(at), "atomix.io/runtime": "true"},
        },
        "spec": {
            "nodeSelector": nowhere(),
            "automountServiceAccountToken": false,
            "initContainers": [{
                "name": "atomix-runtime",
                "image": "atomix-runtime:bench",
                "restartPolicy": "Always",
                "ports": [{"name": "atomix-control", "containerPort": 5679}],
            }],
            "containers": [{"name": "application", "image": "application:bench"}],
        },
    })
}

/// What a kubelet would write.
pub(super) fn pod_status(at: usize) -> Value {
    let container = |name: &str| {
        json!({
            "name": name, "image": "", "imageID": "", "containerID": format!("bench://{name}-{at}"),
            "ready": true, "started": true, "restartCount": 0,
            "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
        })
    };
    let condition = |name: &str| json!({"type": name, "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let ip = address(at).to_string();
    let conditions = ["PodScheduled", "Initialized", "ContainersReady", "Ready"].map(condition);
    json!({"status": {
        "phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
        "startTime": "2026-01-01T00:00:00Z",
        "conditions": conditions,
        "initContainerStatuses": [container("atomix-runtime")],
        "containerStatuses": [container("application")],
    }})
}
