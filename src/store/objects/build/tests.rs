//! What of a Store reaches its objects. Names differ from the product's, so swapped labels show.

#![allow(clippy::unwrap_used, reason = "tests")]

use serde_json::{Value, json};

use super::*;
use crate::store::spec::driver_config;
use crate::store::spec::validate::{ValidStore, validate};
use atomix_resources::Store;

fn objects(multi_raft: Value) -> StoreObjects {
    protected(multi_raft, &Protection::default())
}

fn protected(multi_raft: Value, protection: &Protection) -> StoreObjects {
    let store: Store = serde_json::from_value(json!({
        "apiVersion": "atomix.io/v1beta1",
        "kind": "Store",
        "metadata": {"name": "tulip", "namespace": "meadow", "uid": "u-1"},
        "spec": {"driver": {"name": "multi-raft"}, "multiRaft": multi_raft},
    }))
    .unwrap();
    let valid = validate(&store, store.spec.config.clone().unwrap_or_default(), None).unwrap();
    let config = driver_config::of(&valid, "tulip", "meadow", false);
    let ValidStore::MultiRaft(cluster) = valid else {
        unreachable!("it has multiRaft");
    };
    let owner = Owner {
        name: "tulip".to_owned(),
        namespace: "meadow".to_owned(),
        reference: kube::Resource::controller_owner_ref(&store, &()).unwrap(),
    };
    let image = "garden/node:7";
    let pods = cluster.replicas;
    build(&owner, &cluster, &config, image, pods, protection, 1)
}

fn json_of(value: &impl serde::Serialize) -> Value {
    serde_json::to_value(value).unwrap()
}

#[test]
fn every_object_is_owned_labelled_and_named_after_its_store() {
    let StoreObjects {
        service,
        config_map,
        network_policy,
        stateful_set,
        budget,
    } = objects(json!({"storage": {"size": "1Gi"}}));
    assert_eq!(network_policy, None, "nobody asked for one");
    for (object, name) in [
        (json_of(&service), "tulip"),
        (json_of(&config_map), "tulip-config"),
        (json_of(&stateful_set), "tulip"),
        (json_of(&budget), "tulip"),
    ] {
        let meta = &object["metadata"];
        assert_eq!(meta["name"], name);
        assert_eq!(meta["namespace"], "meadow");
        assert_eq!(meta["labels"]["atomix.io/store"], "tulip");
        assert_eq!(meta["labels"]["app.kubernetes.io/name"], "atomix-node");
        assert_eq!(
            meta["labels"]["app.kubernetes.io/managed-by"],
            "atomix-operator"
        );
        assert_eq!(meta["ownerReferences"][0]["uid"], "u-1");
        assert_eq!(meta["ownerReferences"][0]["controller"], true);
    }
    assert_eq!(
        json_of(&config_map)["data"]["driver.json"],
        concat!(
            r#"{"partitions":3,"service":"tulip.meadow.svc:5681","#,
            r#""timeouts":{"election":"1000ms","session":"30000ms"}}"#
        )
    );
    assert_eq!(
        json_of(&budget)["spec"],
        json!({
            "maxUnavailable": 1,
            "selector": {"matchLabels": {
                "app.kubernetes.io/name": "atomix-node",
                "atomix.io/store": "tulip",
            }},
        })
    );
    let spec = &json_of(&service)["spec"];
    assert_eq!(spec["clusterIP"], "None");
    assert_eq!(spec["publishNotReadyAddresses"], true);
}

#[test]
fn disks_are_never_deleted_by_kubernetes_and_pods_wait_for_nobody() {
    let set = json_of(
        &objects(json!({"storage": {"size": "1Gi", "storageClassName": "soil"}})).stateful_set,
    );
    let spec = &set["spec"];
    assert_eq!(spec["replicas"], 3);
    assert_eq!(spec["podManagementPolicy"], "Parallel");
    assert_eq!(spec["updateStrategy"], json!({"type": "OnDelete"}));
    assert_eq!(
        spec["persistentVolumeClaimRetentionPolicy"],
        json!({"whenDeleted": "Retain", "whenScaled": "Retain"})
    );
    let claims = spec["volumeClaimTemplates"].as_array().unwrap();
    assert_eq!(claims.len(), 1);
    assert_eq!(claims[0]["metadata"]["name"], "data");
    assert_eq!(
        claims[0]["metadata"]["labels"].as_object().unwrap().len(),
        2
    );
    let claim = &claims[0]["spec"];
    assert_eq!(claim.as_object().unwrap().len(), 3);
    assert_eq!(claim["accessModes"], json!(["ReadWriteOnce"]));
    assert_eq!(claim["storageClassName"], "soil");
    assert_eq!(claim["resources"], json!({"requests": {"storage": "1Gi"}}));
}

#[test]
fn pods_are_restricted_probed_and_spread() {
    let set = json_of(&objects(json!({"storage": {"size": "1Gi"}})).stateful_set);
    let pod = &set["spec"]["template"]["spec"];
    assert_eq!(pod["automountServiceAccountToken"], false);
    assert_eq!(
        pod["readinessGates"],
        json!([{"conditionType": "atomix.io/replicated"}])
    );
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(
        pod["securityContext"]["seccompProfile"]["type"],
        "RuntimeDefault"
    );
    let container = &pod["containers"][0];
    assert_eq!(container["image"], "garden/node:7");
    // The image knows where its program is.
    assert_eq!(container["command"], Value::Null);
    let security = &container["securityContext"];
    assert_eq!(security["allowPrivilegeEscalation"], false);
    assert_eq!(security["readOnlyRootFilesystem"], true);
    assert_eq!(security["capabilities"], json!({"drop": ["ALL"]}));
    for (probe, path) in [("readinessProbe", "/readyz"), ("livenessProbe", "/livez")] {
        assert_eq!(
            container[probe]["httpGet"],
            json!({"path": path, "port": 9090})
        );
    }
    let spread = pod["topologySpreadConstraints"].as_array().unwrap();
    assert_eq!(spread.len(), 2);
    for constraint in spread {
        assert_eq!(constraint["whenUnsatisfiable"], "ScheduleAnyway");
        assert_eq!(
            constraint["labelSelector"]["matchLabels"]["atomix.io/store"],
            "tulip"
        );
    }
}

#[test]
fn pod_fields_of_the_spec_reach_the_pods_but_cannot_break_selection() {
    let set = json_of(
        &objects(json!({
            "replicas": 5,
            "storage": {"ephemeral": {}},
            "pod": {
                "image": "garden/other:8",
                "imagePullPolicy": "Never",
                "env": [{"name": "COLOUR", "value": "red"}],
                "labels": {"bed": "north", "atomix.io/store": "thief"},
                "annotations": {"note": "water daily"},
                "nodeSelector": {"soil": "sand"},
                "securityContext": {"runAsUser": 7},
                "topologySpreadConstraints": [],
            },
        }))
        .stateful_set,
    );
    assert_eq!(set["spec"]["replicas"], 5);
    assert_eq!(set["spec"]["volumeClaimTemplates"], Value::Null);
    let template = &set["spec"]["template"];
    assert_eq!(template["metadata"]["labels"]["bed"], "north");
    assert_eq!(template["metadata"]["labels"]["atomix.io/store"], "tulip");
    assert_eq!(template["metadata"]["annotations"]["note"], "water daily");
    let pod = &template["spec"];
    assert_eq!(pod["nodeSelector"]["soil"], "sand");
    assert_eq!(pod["securityContext"]["runAsUser"], 7);
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["topologySpreadConstraints"], json!([]));
    assert_eq!(pod["containers"][0]["image"], "garden/other:8");
    assert_eq!(pod["containers"][0]["imagePullPolicy"], "Never");
    assert_eq!(
        pod["containers"][0]["env"],
        json!([
            {"name": "ATOMIX_ELECTION_TIMEOUT_MILLIS", "value": "1000"},
            {"name": "ATOMIX_SNAPSHOT_ENTRY_THRESHOLD", "value": "0"},
            {"name": "COLOUR", "value": "red"},
        ])
    );
    let volumes = pod["volumes"].as_array().unwrap();
    assert!(
        volumes
            .iter()
            .any(|volume| volume["name"] == "data" && volume["emptyDir"].is_object())
    );
}

#[test]
fn nodes_that_speak_tls_mount_their_own_stores_certificate_and_the_allowed_namespaces() {
    let storage = json!({"storage": {"size": "1Gi"}});
    let plain = json_of(&objects(storage.clone()).stateful_set).to_string();
    assert!(!plain.contains("tls"), "{plain}");

    let protection = Protection {
        tls: true,
        allowed_namespaces: vec!["field".to_owned(), "wood".to_owned()],
        operator_namespace: None,
    };
    let objects = protected(storage, &protection);
    let map = objects.config_map.data.unwrap();
    assert_eq!(map["allowed-namespaces"], "field\nwood\n");
    let pod = json_of(&objects.stateful_set)["spec"]["template"]["spec"].clone();
    let secret = &pod["volumes"][0]["secret"];
    assert_eq!(secret["secretName"], "atomix-nodes-tls");
    assert_eq!(secret["optional"], false);
    assert_eq!(
        secret["items"],
        json!([
            {"key": "tulip.crt", "path": "tls.crt"},
            {"key": "tulip.key", "path": "tls.key"},
            {"key": "ca.crt", "path": "ca.crt"},
        ])
    );
    assert_eq!(pod["volumes"][1]["configMap"]["name"], "tulip-config");
    let container = &pod["containers"][0];
    let mounts = container["volumeMounts"].as_array().unwrap();
    let folders: Vec<&Value> = mounts.iter().map(|mount| &mount["mountPath"]).collect();
    assert_eq!(
        folders,
        ["/var/lib/atomix", "/etc/atomix/tls", "/etc/atomix/store"]
    );
    let arguments = container["args"].to_string();
    assert!(arguments.contains("--tls-directory=/etc/atomix/tls"));
    assert!(arguments.contains("--allowed-namespaces=/etc/atomix/store/allowed-namespaces"));
}

#[test]
fn a_change_of_raft_s_settings_is_another_template_and_the_user_s_variables_win() {
    let env = |raft: Value, env: Value| {
        let spec = json!({"storage": {"size": "1Gi"}, "raft": raft, "pod": {"env": env}});
        let set = json_of(&objects(spec).stateful_set);
        set["spec"]["template"]["spec"]["containers"][0]["env"].clone()
    };
    let raft = json!({"electionTimeout": "2s", "snapshotEntryThreshold": 9});
    assert_eq!(
        env(raft.clone(), json!([])),
        json!([
            {"name": "ATOMIX_ELECTION_TIMEOUT_MILLIS", "value": "2000"},
            {"name": "ATOMIX_SNAPSHOT_ENTRY_THRESHOLD", "value": "9"},
        ])
    );
    let given = json!([{"name": "ATOMIX_SNAPSHOT_ENTRY_THRESHOLD", "value": "5"}]);
    assert_eq!(
        env(raft, given),
        json!([
            {"name": "ATOMIX_ELECTION_TIMEOUT_MILLIS", "value": "2000"},
            {"name": "ATOMIX_SNAPSHOT_ENTRY_THRESHOLD", "value": "5"},
        ])
    );
}
