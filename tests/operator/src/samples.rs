//! The objects that the tests create, as a user would write them.

use atomix_operator::store::StoreOptions;
use serde_json::{Value, json};

/// A label that no machine has: no kubelet takes these pods, whatever the cluster is.
pub(crate) const NOWHERE: &str = "atomix.io/operator-tests-nowhere";

/// Ordinals, partitions and replicas of a Store.
#[derive(Clone, Copy, Debug)]
pub struct StoreSize {
    /// Storage nodes.
    pub replicas: u32,
    /// Partitions.
    pub partitions: u32,
}

/// A Store with storage nodes on volumes.
pub fn store(name: &str, size: StoreSize) -> Value {
    json!({
        "apiVersion": "atomix.io/v1beta1",
        "kind": "Store",
        "metadata": {"name": name},
        "spec": {
            "driver": {"name": "multi-raft"},
            "multiRaft": {
                "replicas": size.replicas,
                "partitions": size.partitions,
                "storage": {"size": "64Mi"},
                "pod": {"image": "atomix-node:test", "nodeSelector": {NOWHERE: "true"}},
            },
        },
    })
}

/// As [`store`], with nodes that elect only when one is really away: a machine that is busy with other
/// tests misses a second's heartbeats.
pub fn patient_store(name: &str, size: StoreSize) -> Value {
    let mut store = store(name, size);
    if let Some(Value::Object(multi_raft)) = store.pointer_mut("/spec/multiRaft") {
        multi_raft.insert("raft".to_owned(), json!({"electionTimeout": "5s"}));
    }
    store
}

/// A Store with storage nodes that keep their data in the pods.
pub fn ephemeral_store(name: &str, size: StoreSize) -> Value {
    let mut store = store(name, size);
    if let Some(storage) = store.pointer_mut("/spec/multiRaft/storage") {
        *storage = json!({"ephemeral": {}});
    }
    store
}

/// A Store whose driver needs no nodes.
pub fn store_of_driver(name: &str, driver: &str) -> Value {
    json!({
        "apiVersion": "atomix.io/v1beta1",
        "kind": "Store",
        "metadata": {"name": name},
        "spec": {"driver": {"name": driver}},
    })
}

/// A Session that connects the pods labelled `app=NAME` with a Store.
pub fn session(name: &str, store: &str, app: &str) -> Value {
    json!({
        "apiVersion": "atomix.io/v1beta1",
        "kind": "Session",
        "metadata": {"name": name},
        "spec": {
            "store": {"name": store},
            "selector": {"matchLabels": {"app": app}},
            "kind": "counter",
        },
    })
}

/// An application pod with a runtime sidecar, labelled `app=APP`.
pub fn application_pod(name: &str, app: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "labels": {"app": app, "atomix.io/runtime": "true"},
        },
        "spec": {
            "nodeSelector": {NOWHERE: "true"},
            "automountServiceAccountToken": false,
            "initContainers": [{
                "name": "atomix-runtime",
                "image": "atomix-runtime:test",
                "restartPolicy": "Always",
                "command": ["/bin/atomix-runtime"],
                "args": ["--state-dir=/var/lib/atomix-runtime"],
                "ports": [
                    {"name": "atomix-control", "containerPort": 5679},
                    {"name": "atomix-admin", "containerPort": 5677},
                ],
                "startupProbe": {"httpGet": {"path": "/livez", "port": "atomix-admin"}},
                "readinessProbe": {"httpGet": {"path": "/readyz", "port": "atomix-admin"}},
                "volumeMounts": [{"name": "state", "mountPath": "/var/lib/atomix-runtime"}],
            }],
            "containers": [{"name": "application", "image": "application:test"}],
            "volumes": [{"name": "state", "emptyDir": {}}],
        },
    })
}

/// As [`application_pod`], with a certificate for its runtime.
pub fn secured_pod(name: &str, app: &str) -> Value {
    let mut pod = application_pod(name, app);
    let mount = json!({"name": "tls", "mountPath": "/etc/atomix/tls", "readOnly": true});
    let volume = json!({"name": "tls", "secret": {"secretName": "atomix-runtime-tls"}});
    for (list, item) in [
        ("/spec/initContainers/0/volumeMounts", mount),
        (
            "/spec/initContainers/0/args",
            json!("--tls-directory=/etc/atomix/tls"),
        ),
        ("/spec/volumes", volume),
    ] {
        let list = pod.pointer_mut(list).and_then(Value::as_array_mut);
        list.expect("the sample has this list").push(item);
    }
    pod
}

/// As the Pod Security profile `restricted` asks of an application.
pub fn restricted(mut pod: Value) -> Value {
    let of_pod = json!({
        "runAsNonRoot": true,
        "runAsUser": 65532,
        "seccompProfile": {"type": "RuntimeDefault"},
    });
    let of_container = json!({
        "allowPrivilegeEscalation": false,
        "capabilities": {"drop": ["ALL"]},
    });
    for (place, context) in [("/spec", of_pod), ("/spec/containers/0", of_container)] {
        let place = pod.pointer_mut(place).and_then(Value::as_object_mut);
        let place = place.expect("the sample has this object");
        place.insert("securityContext".to_owned(), context);
    }
    pod
}

/// An application pod that asks for a runtime sidecar, labelled `app=APP`.
pub fn asking_pod(name: &str, app: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "labels": {"app": app, "atomix.io/inject": "true"},
        },
        "spec": {
            "nodeSelector": {NOWHERE: "true"},
            "automountServiceAccountToken": false,
            "containers": [{"name": "application", "image": "application:test"}],
        },
    })
}

/// What the operator itself needs to know of Stores.
pub fn store_options() -> StoreOptions {
    StoreOptions {
        node_image: "atomix-node:test".to_owned(),
        tls: false,
        network_policies: None,
    }
}
