//! What becomes of a pod that asks for a runtime sidecar. Pure; injecting twice changes nothing.
//!
//! Works on JSON, not on a typed Pod: fields of a newer Kubernetes must survive.

use serde_json::{Map, Value, json};
use thiserror::Error;

use super::sidecar::{self, SidecarOptions};
use crate::runtimes::pod::CONTROL_PORT;
use atomix_resources::labels::{CONNECTED, INJECT, READINESS_GATE, RUNTIME};

/// Why a pod cannot get a sidecar.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Refusal {
    /// Its ports would be the node's.
    #[error(
        "a pod with hostNetwork: true cannot get an Atomix runtime, whose ports 5677-5679 would be \
         those of its node: remove hostNetwork, or remove the label {INJECT} and run no runtime"
    )]
    HostNetwork,
    /// The sidecar's name is taken.
    #[error(
        "the pod has a container named {} that declares no port {CONTROL_PORT}, so it is no Atomix \
         runtime: rename it, or remove the label {INJECT}",
        sidecar::NAME
    )]
    NameTaken,
    /// It is no pod.
    #[error("{field} of the pod is not {expected}: correct it")]
    Malformed {
        /// Which part.
        field: &'static str,
        /// What it must be.
        expected: &'static str,
    },
}

/// The pod as it should be: unchanged unless its label asks for a sidecar.
///
/// # Errors
/// When the pod cannot get one.
pub fn inject(pod: &Value, options: &SidecarOptions) -> Result<Value, Refusal> {
    let mut pod = pod.clone();
    if !asks_for_a_sidecar(&pod) {
        return Ok(pod);
    }
    let has_gate = text(&pod, "/metadata/annotations", READINESS_GATE) != Some("false");
    let is_on_host_network = pod.pointer("/spec/hostNetwork") == Some(&Value::Bool(true));
    if is_on_host_network {
        return Err(Refusal::HostNetwork);
    }

    let root = fields(Some(&mut pod), "the whole")?;
    let metadata = fields(root.get_mut("metadata"), "metadata")?;
    let labels = object(metadata, "labels")?;
    labels.insert(RUNTIME.to_owned(), "true".into());

    let spec = fields(root.get_mut("spec"), "spec")?;
    add_sidecar(spec, options)?;
    for kind in ["initContainers", "containers"] {
        if spec
            .get(kind)
            .is_some_and(|containers| !containers.is_null())
        {
            for container in list(spec, kind)? {
                add_environment(container)?;
            }
        }
    }
    if has_gate {
        add_gate(spec)?;
    }
    Ok(pod)
}

fn asks_for_a_sidecar(pod: &Value) -> bool {
    text(pod, "/metadata/labels", INJECT) == Some("true")
}

/// The value of a label or annotation, whose names have slashes.
fn text<'a>(pod: &'a Value, pointer: &str, name: &str) -> Option<&'a str> {
    pod.pointer(pointer)?.get(name)?.as_str()
}

/// Adds the sidecar unless the pod has one, ours of an earlier call or one written by hand.
fn add_sidecar(spec: &mut Map<String, Value>, options: &SidecarOptions) -> Result<(), Refusal> {
    let containers = ["initContainers", "containers"]
        .iter()
        .filter_map(|kind| spec.get(*kind)?.as_array())
        .flatten();
    let mut is_name_taken = false;
    for container in containers {
        if is_runtime(container) {
            return Ok(());
        }
        is_name_taken |= is_named(container, sidecar::NAME);
    }
    if is_name_taken {
        return Err(Refusal::NameTaken);
    }
    // First, so that all others can use it.
    list(spec, "initContainers")?.insert(0, sidecar::container(options));
    let volumes = list(spec, "volumes")?;
    if !volumes.iter().any(|volume| is_named(volume, sidecar::NAME)) {
        volumes.push(sidecar::volume());
    }
    let has_tls = volumes
        .iter()
        .any(|volume| is_named(volume, sidecar::TLS_VOLUME));
    if options.tls && !has_tls {
        volumes.push(sidecar::tls_volume());
    }
    Ok(())
}

/// As the operator itself recognizes it.
fn is_runtime(container: &Value) -> bool {
    let ports = container.get("ports").and_then(Value::as_array);
    ports.into_iter().flatten().any(|port| {
        port.get("containerPort").and_then(Value::as_u64) == Some(u64::from(CONTROL_PORT))
    })
}

fn is_named(value: &Value, name: &str) -> bool {
    value.get("name").and_then(Value::as_str) == Some(name)
}

/// Tells a container where the runtime is, unless it says so itself. In front, so that the
/// container's own variables can refer to ours.
fn add_environment(container: &mut Value) -> Result<(), Refusal> {
    if is_runtime(container) {
        return Ok(());
    }
    let variables = [
        ("ATOMIX_RUNTIME_HOST", sidecar::APPLICATION_HOST.to_owned()),
        ("ATOMIX_RUNTIME_PORT", sidecar::APPLICATION_PORT.to_string()),
    ];
    let container = fields(Some(container), "a container")?;
    let environment = list(container, "env")?;
    let mut position = 0;
    for (name, value) in variables {
        if !environment.iter().any(|variable| is_named(variable, name)) {
            environment.insert(position, json!({"name": name, "value": value}));
            position += 1;
        }
    }
    Ok(())
}

fn add_gate(spec: &mut Map<String, Value>) -> Result<(), Refusal> {
    let gates = list(spec, "readinessGates")?;
    let gate = json!({"conditionType": CONNECTED});
    let is_there = gates
        .iter()
        .any(|found| found.get("conditionType") == gate.get("conditionType"));
    if !is_there {
        gates.push(gate);
    }
    Ok(())
}

fn fields<'a>(
    value: Option<&'a mut Value>,
    field: &'static str,
) -> Result<&'a mut Map<String, Value>, Refusal> {
    let expected = "an object";
    let object = value.and_then(Value::as_object_mut);
    object.ok_or(Refusal::Malformed { field, expected })
}

/// The object of this name, made if it is not there; null is as good as absent.
fn object<'a>(
    parent: &'a mut Map<String, Value>,
    field: &'static str,
) -> Result<&'a mut Map<String, Value>, Refusal> {
    let value = parent.entry(field).or_insert(Value::Null);
    if value.is_null() {
        *value = json!({});
    }
    fields(Some(value), field)
}

/// The list of this name, made if it is not there; null is as good as absent.
fn list<'a>(
    parent: &'a mut Map<String, Value>,
    field: &'static str,
) -> Result<&'a mut Vec<Value>, Refusal> {
    let value = parent.entry(field).or_insert(Value::Null);
    if value.is_null() {
        *value = json!([]);
    }
    let expected = "a list";
    value
        .as_array_mut()
        .ok_or(Refusal::Malformed { field, expected })
}

#[cfg(test)]
mod tests;
