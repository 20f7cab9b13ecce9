#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn options() -> SidecarOptions {
    SidecarOptions {
        image: "garden/helper:7".to_owned(),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        resources: serde_json::from_value(json!({"requests": {"cpu": "20m", "memory": "32Mi"}}))
            .unwrap(),
        tls: true,
    }
}

fn pod(metadata: Value, spec: Value) -> Value {
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "bee"}, "spec": {
        "containers": [{"name": "hive", "image": "hive:1"}],
    }});
    merge(&mut pod["metadata"], metadata);
    merge(&mut pod["spec"], spec);
    pod
}

fn merge(into: &mut Value, from: Value) {
    let Value::Object(from) = from else {
        return;
    };
    into.as_object_mut().unwrap().extend(from);
}

fn asking(spec: Value) -> Value {
    pod(json!({"labels": {INJECT: "true"}}), spec)
}

fn names(containers: &Value) -> Vec<&str> {
    let containers = containers.as_array().unwrap().iter();
    containers
        .map(|container| container["name"].as_str().unwrap())
        .collect()
}

#[test]
fn a_pod_gets_a_sidecar_before_everything_else_with_its_volume_gate_label_and_environment() {
    let before = asking(json!({
        "initContainers": [{"name": "setup", "image": "setup:1"}],
        "containers": [
            {"name": "hive", "image": "hive:1", "env": [
                {"name": "URL", "value": "http://$(ATOMIX_RUNTIME_HOST)/"},
            ]},
            {"name": "wasp", "image": "wasp:1", "env": [
                {"name": "ATOMIX_RUNTIME_PORT", "value": "1"},
            ]},
        ],
        "readinessGates": [{"conditionType": "sun.io/shines"}],
        "newerThanWe": {"kept": true},
    }));
    let after = inject(&before, &options()).unwrap();
    let spec = &after["spec"];
    assert_eq!(after["metadata"]["labels"][RUNTIME], "true");
    assert_eq!(names(&spec["initContainers"]), ["atomix-runtime", "setup"]);
    assert_eq!(names(&spec["containers"]), ["hive", "wasp"]);
    let sidecar = &spec["initContainers"][0];
    assert_eq!(sidecar["restartPolicy"], "Always");
    assert_eq!(sidecar["image"], "garden/helper:7");
    assert_eq!(sidecar["imagePullPolicy"], "IfNotPresent");
    assert_eq!(sidecar["resources"]["requests"]["memory"], "32Mi");
    assert!(sidecar.get("env").is_none(), "{sidecar}");
    let volumes = json!([sidecar::volume(), sidecar::tls_volume()]);
    assert_eq!(spec["volumes"], volumes);
    assert_eq!(
        spec["readinessGates"],
        json!([{"conditionType": "sun.io/shines"}, {"conditionType": CONNECTED}])
    );
    assert_eq!(spec["newerThanWe"], before["spec"]["newerThanWe"]);
    let host = json!({"name": "ATOMIX_RUNTIME_HOST", "value": "127.0.0.1"});
    let port = json!({"name": "ATOMIX_RUNTIME_PORT", "value": "5678"});
    assert_eq!(
        spec["containers"][0]["env"],
        json!([host, port, {"name": "URL", "value": "http://$(ATOMIX_RUNTIME_HOST)/"}]),
    );
    assert_eq!(
        spec["containers"][1]["env"],
        json!([host, {"name": "ATOMIX_RUNTIME_PORT", "value": "1"}]),
    );
    assert_eq!(spec["initContainers"][1]["env"], json!([host, port]));
}

#[test]
fn a_pod_that_does_not_ask_is_left_alone() {
    for metadata in [
        json!({}),
        json!({"labels": null}),
        json!({"labels": {INJECT: "false"}}),
        json!({"labels": {INJECT: "TRUE"}}),
        json!({"annotations": {INJECT: "true"}}),
    ] {
        let before = pod(metadata, json!({"hostNetwork": true}));
        assert_eq!(inject(&before, &options()).unwrap(), before);
    }
}

#[test]
fn the_gate_can_be_declined() {
    let mut declining = asking(json!({}));
    declining["metadata"]["annotations"] = json!({READINESS_GATE: "false"});
    let after = inject(&declining, &options()).unwrap();
    assert!(after["spec"].get("readinessGates").is_none(), "{after}");
    assert_eq!(names(&after["spec"]["initContainers"]), ["atomix-runtime"]);
    declining["metadata"]["annotations"] = json!({READINESS_GATE: "true"});
    let after = inject(&declining, &options()).unwrap();
    assert_eq!(
        after["spec"]["readinessGates"],
        json!([{"conditionType": CONNECTED}])
    );
}

#[test]
fn a_sidecar_written_by_hand_is_kept_and_completed() {
    let own = json!({"name": "helper", "image": "own:1", "ports": [{"containerPort": 5679}]});
    for kind in ["initContainers", "containers"] {
        let mut before = asking(json!({}));
        before["spec"][kind] = json!([own, {"name": "hive", "image": "hive:1"}]);
        let after = inject(&before, &options()).unwrap();
        assert_eq!(after["spec"][kind][0], own, "{kind}");
        assert_eq!(after["spec"][kind].as_array().unwrap().len(), 2, "{kind}");
        assert!(after["spec"].get("volumes").is_none(), "{kind}");
        assert_eq!(after["metadata"]["labels"][RUNTIME], "true");
        assert_eq!(after["spec"][kind][1]["env"].as_array().unwrap().len(), 2);
    }
}

#[test]
fn what_cannot_work_is_refused_with_what_to_do() {
    let on_host_network = asking(json!({"hostNetwork": true}));
    let refused = inject(&on_host_network, &options()).unwrap_err();
    assert!(
        refused.to_string().contains("remove hostNetwork"),
        "{refused}"
    );
    let taken = asking(json!({"containers": [{"name": "atomix-runtime", "image": "other:1"}]}));
    let refused = inject(&taken, &options()).unwrap_err();
    assert!(refused.to_string().contains("rename it"), "{refused}");
    for broken in [
        json!({"metadata": {"labels": {INJECT: "true"}}}),
        json!({"metadata": {"labels": {INJECT: "true"}}, "spec": {"containers": {}}}),
        json!({"metadata": {"labels": {INJECT: "true"}}, "spec": {"containers": [1]}}),
        json!({"metadata": {"labels": {INJECT: "true"}}, "spec": {"volumes": "none"}}),
    ] {
        let refused = inject(&broken, &options()).unwrap_err();
        assert!(matches!(refused, Refusal::Malformed { .. }), "{broken}");
    }
    for not_asking in [json!(null), json!([]), json!({"metadata": 1})] {
        assert_eq!(inject(&not_asking, &options()).unwrap(), not_asking);
    }
}

/// Of the Pod Security standard `restricted`, what a container must say itself when its pod says
/// nothing.
#[test]
fn the_sidecar_is_restricted() {
    let security = &sidecar::container(&options())["securityContext"];
    assert_eq!(security["runAsNonRoot"], true);
    assert_eq!(security["allowPrivilegeEscalation"], false);
    assert_eq!(security["readOnlyRootFilesystem"], true);
    assert_eq!(security["capabilities"], json!({"drop": ["ALL"]}));
    assert_eq!(security["seccompProfile"]["type"], "RuntimeDefault");
}

#[test]
fn the_sample_written_by_hand_has_the_same_sidecar() {
    let sample = include_str!("../../../deploy/samples/application.yaml");
    let sample: Value = serde_yaml::from_str(sample).unwrap();
    let spec = &sample["spec"]["template"]["spec"];
    let mut by_hand = spec["initContainers"][0].clone();
    let mut injected = sidecar::container(&options());
    for container in [&mut by_hand, &mut injected] {
        let container = container.as_object_mut().unwrap();
        // The sample's pod says the rest of it.
        for differing in ["image", "imagePullPolicy", "securityContext"] {
            container.remove(differing);
        }
    }
    assert_eq!(by_hand, injected);
    let volumes = json!([sidecar::volume(), sidecar::tls_volume()]);
    assert_eq!(spec["volumes"], volumes);
}

fn any_container() -> impl Strategy<Value = Value> {
    let name = prop_oneof!["[a-c]", Just("atomix-runtime".to_owned())];
    let port = prop_oneof![Just(8080_u16), Just(5678), Just(5679)];
    let ports = prop::option::of(prop::collection::vec(port, 0..3));
    let variable = prop_oneof!["[A-C]", Just("ATOMIX_RUNTIME_HOST".to_owned())];
    let environment = prop::option::of(prop::collection::vec(variable, 0..3));
    (name, ports, environment).prop_map(|(name, ports, environment)| {
        let mut container = json!({"name": name, "image": "any:1"});
        if let Some(ports) = ports {
            let ports = ports.iter().map(|port| json!({"containerPort": port}));
            container["ports"] = ports.collect();
        }
        container["env"] = environment.map_or(Value::Null, |names| {
            let names = names
                .iter()
                .map(|name| json!({"name": name, "value": "own"}));
            names.collect()
        });
        container
    })
}

fn any_pod() -> impl Strategy<Value = Value> {
    let text = || prop_oneof![Just("true"), Just("false"), Just("x")];
    let labels = prop::option::of(prop::collection::btree_map(
        prop_oneof![Just(INJECT), Just(INJECT), Just(RUNTIME), Just("app")],
        text(),
        0..4,
    ));
    let annotations = prop::option::of(prop::collection::btree_map(
        Just(READINESS_GATE),
        text(),
        0..2,
    ));
    let containers = || prop::collection::vec(any_container(), 0..4);
    let volumes = prop::option::of(prop::collection::vec(
        prop_oneof![Just("data"), Just("atomix-runtime")],
        0..3,
    ));
    let gates = prop::option::of(prop::collection::vec(
        prop_oneof![Just("sun.io/shines"), Just(CONNECTED)],
        0..3,
    ));
    let parts = (
        labels,
        annotations,
        prop::option::of(containers()),
        containers(),
        volumes,
        gates,
    );
    (parts, any::<bool>()).prop_map(
        |((labels, annotations, init, containers, volumes, gates), on_host)| {
            let volumes: Option<Vec<Value>> =
                volumes.map(|names| names.iter().map(|name| json!({"name": name})).collect());
            let gates: Option<Vec<Value>> = gates.map(|types| {
                types
                    .iter()
                    .map(|gate| json!({"conditionType": gate}))
                    .collect()
            });
            json!({
                "metadata": {"name": "any", "labels": labels, "annotations": annotations},
                "spec": {
                    "initContainers": init,
                    "containers": containers,
                    "volumes": volumes,
                    "readinessGates": gates,
                    "hostNetwork": on_host,
                },
            })
        },
    )
}

proptest! {
    #[test]
    fn injecting_twice_changes_nothing(pod in any_pod()) {
        if let Ok(once) = inject(&pod, &options()) {
            prop_assert_eq!(inject(&once, &options()).unwrap(), once);
        }
    }

    /// Whatever the pod had is still there, in the same order.
    #[test]
    fn nothing_is_taken_away(pod in any_pod()) {
        let Ok(after) = inject(&pod, &options()) else {
            return Ok(());
        };
        for field in ["initContainers", "containers", "volumes", "readinessGates"] {
            let names = |pod: &Value| -> Vec<Value> {
                let list = pod["spec"][field].as_array().cloned().unwrap_or_default();
                list.iter().map(|item| json!([item["name"], item["conditionType"]])).collect()
            };
            let (before, after) = (names(&pod), names(&after));
            let mut rest = after.iter();
            prop_assert!(before.iter().all(|item| rest.any(|found| found == item)), "{}", field);
            // State and certificate.
            let added = if field == "volumes" { 2 } else { 1 };
            prop_assert!(after.len() <= before.len() + added, "{}", field);
        }
    }

    /// As the API server applies it.
    #[test]
    fn the_patch_makes_the_injected_pod_of_the_pod(pod in any_pod()) {
        let Ok(after) = inject(&pod, &options()) else {
            return Ok(());
        };
        let patch = json_patch::diff(&pod, &after);
        let text = serde_json::to_string(&patch).unwrap();
        let mut patched = pod;
        json_patch::patch(&mut patched, &serde_json::from_str::<json_patch::Patch>(&text).unwrap()).unwrap();
        prop_assert_eq!(patched, after);
    }
}
