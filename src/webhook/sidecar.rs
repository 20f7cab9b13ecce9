//! The runtime sidecar that a pod gets: its container and volume. Pure.
//!
//! `deploy/samples/application.yaml` shows the same by hand; a test keeps them alike.

use k8s_openapi::api::core::v1::ResourceRequirements;
use serde_json::{Value, json};

use crate::identities::RUNTIME_SECRET;
use crate::runtimes::pod::CONTROL_PORT;

/// Name of the sidecar's container and of its volume.
pub const NAME: &str = "atomix-runtime";
/// Where the application reaches the sidecar.
pub const APPLICATION_HOST: &str = "127.0.0.1";
/// The port there.
pub const APPLICATION_PORT: u16 = 5678;

const ADMIN_PORT: u16 = 5677;
const STATE_FOLDER: &str = "/var/lib/atomix-runtime";
/// The volume with the certificate, and where it is mounted.
pub const TLS_VOLUME: &str = "atomix-runtime-tls";
const TLS_FOLDER: &str = "/etc/atomix/tls";
/// User and group of the images; they have no name for it.
const USER: i64 = 65532;

/// What of the sidecar is chosen by whoever installs the operator.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SidecarOptions {
    /// The image.
    pub image: String,
    /// When the image is pulled; `None` = as Kubernetes does by default.
    pub image_pull_policy: Option<String>,
    /// CPU and memory.
    pub resources: ResourceRequirements,
    /// It speaks mutual TLS, with the certificate of its namespace.
    pub tls: bool,
}

/// A native sidecar: an init container that keeps running, so that it is there before the
/// application starts and until it has ended.
pub(super) fn container(options: &SidecarOptions) -> Value {
    let mut arguments = vec![format!("--state-dir={STATE_FOLDER}")];
    let mut mounts = vec![json!({"name": NAME, "mountPath": STATE_FOLDER})];
    if options.tls {
        arguments.push(format!("--tls-directory={TLS_FOLDER}"));
        mounts.push(json!({"name": TLS_VOLUME, "mountPath": TLS_FOLDER, "readOnly": true}));
    }
    let mut container = json!({
        "name": NAME,
        "image": options.image,
        "restartPolicy": "Always",
        "args": arguments,
        "ports": [
            {"name": "atomix-control", "containerPort": CONTROL_PORT},
            {"name": "atomix-admin", "containerPort": ADMIN_PORT},
        ],
        "startupProbe": {
            "httpGet": {"path": "/livez", "port": "atomix-admin"},
            "periodSeconds": 1,
            "failureThreshold": 60,
        },
        "readinessProbe": {
            "httpGet": {"path": "/readyz", "port": "atomix-admin"},
            "periodSeconds": 2,
        },
        "resources": options.resources,
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "runAsNonRoot": true,
            "runAsUser": USER,
            "runAsGroup": USER,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": mounts,
    });
    if let (Some(policy), Some(fields)) = (&options.image_pull_policy, container.as_object_mut()) {
        fields.insert("imagePullPolicy".to_owned(), policy.clone().into());
    }
    container
}

/// Connections and routes survive a restart of the sidecar, never one of the pod, and never touch a
/// disk.
pub(super) fn volume() -> Value {
    json!({"name": NAME, "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}})
}

/// The namespace's certificate. The kubelet waits for the operator to make it, which the pod's label
/// brings about.
pub(super) fn tls_volume() -> Value {
    json!({
        "name": TLS_VOLUME,
        "secret": {"secretName": RUNTIME_SECRET, "optional": false},
    })
}
