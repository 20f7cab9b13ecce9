//! Every field of every specification: a change takes effect, or is refused with a message; none
//! counts only at creation. A field of the CRDs without a row here fails the test.

use std::collections::BTreeSet;
use std::fmt;

use anyhow::{Context as _, Result, bail, ensure};
use atomix_operator_tests::resources::{self, expect_condition};
use atomix_operator_tests::runtime_pods;
use atomix_operator_tests::samples::{self, StoreSize};
use atomix_operator_tests::schema;
use atomix_operator_tests::supervised::Supervised;
use atomix_operator_tests::test_bed::TestBed;
use atomix_operator_tests::workload::{self, LIMIT};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

const CLUSTER: &str = "tulip";
const MEMORY: &str = "rose";
const SESSION: &str = "bees";
const POD: &str = "hive-0";
const SIZE: StoreSize = StoreSize {
    replicas: 1,
    partitions: 1,
};
/// Below these are types of Kubernetes.
const WHOLE: [&str; 1] = ["multiRaft.pod"];

/// What becomes of a change.
#[derive(Clone, Debug)]
enum Expect {
    /// The API server refuses it, with these words.
    Refused(&'static str),
    /// The StatefulSet has this value there.
    StatefulSet(&'static str, Value),
    /// The driver's configuration, as people see it, has these words.
    DriverConfig(&'static str),
    /// The object says so: condition, status, reason.
    Condition(&'static str, &'static str, &'static str),
    /// Its status has this value there.
    Status(&'static str, Value),
    /// The runtime has other routes.
    OtherRoutes,
    /// The runtime is connected with this Store.
    Connected(&'static str),
    /// Accepted; its effect is tested there.
    TestedIn(Tested),
}

use Expect::{
    Condition, Connected, DriverConfig, OtherRoutes, Refused, StatefulSet as InStatefulSet, Status,
    TestedIn,
};

/// A test, by its source and its name.
#[derive(Clone)]
struct Tested {
    source: &'static str,
    name: &'static str,
}

impl fmt::Debug for Tested {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name)
    }
}

/// The source of a test program, so that a test that is gone is noticed.
macro_rules! tested_in {
    ($file:literal, $name:literal) => {
        TestedIn(Tested {
            source: include_str!($file),
            name: $name,
        })
    };
}

/// A field and a change of it, for one object.
struct Row {
    field: &'static str,
    object: &'static str,
    spec: Value,
    expect: Expect,
}

fn row(field: &'static str, object: &'static str, spec: Value, expect: Expect) -> Row {
    Row {
        field,
        object,
        spec,
        expect,
    }
}

fn raft(fields: Value) -> Value {
    json!({"multiRaft": fields})
}

/// A field of the pods, with where and what the pod template says then.
fn pod(field: &'static str, name: &str, value: Value, path: &'static str, expected: Value) -> Row {
    row(
        field,
        CLUSTER,
        raft(json!({"pod": {name: value}})),
        InStatefulSet(path, expected),
    )
}

fn source(fields: Value) -> Value {
    let mut source = json!({"key": "k", "path": "timeouts.connect"});
    let fields = fields.as_object().expect("an object").clone();
    source.as_object_mut().expect("an object").extend(fields);
    json!({"configFrom": [source]})
}

fn store_rows() -> Vec<Row> {
    let by_secret = json!({"secretRef": {"name": "pollen"}});
    let by_config_map = json!({"configMapRef": {"name": "weather"}});
    let named = |key: &str| json!({"configMapRef": {"name": "weather"}, "key": key});
    let placed = json!({"configMapRef": {"name": "weather"}, "path": "timeouts.session"});
    vec![
        // Before the pods' fields: some of those make pods that never run, and members wait for pods.
        row(
            "multiRaft.replicas",
            CLUSTER,
            raft(json!({"replicas": 2})),
            InStatefulSet("/spec/replicas", json!(2)),
        ),
        row(
            "driver.name",
            MEMORY,
            json!({"driver": {"name": "multi-raft"}}),
            Refused("cannot be changed"),
        ),
        row(
            "driver.version",
            MEMORY,
            json!({"driver": {"version": "v0"}}),
            Condition("Stalled", "True", "DriverNotFound"),
        ),
        row(
            "driver.version",
            CLUSTER,
            json!({"driver": {"version": "v0"}}),
            Condition("Stalled", "True", "DriverNotFound"),
        ),
        row(
            "config",
            CLUSTER,
            json!({"config": {"timeouts": {"connect": "3s"}}}),
            DriverConfig(r#""connect":"3s""#),
        ),
        row(
            "configFrom.secretRef.name",
            CLUSTER,
            source(by_secret),
            DriverConfig("from Secret pollen, key k"),
        ),
        row(
            "configFrom.configMapRef.name",
            CLUSTER,
            source(by_config_map),
            DriverConfig("from ConfigMap weather, key k"),
        ),
        row(
            "configFrom.key",
            CLUSTER,
            source(named("other")),
            DriverConfig("from ConfigMap weather, key other"),
        ),
        row(
            "configFrom.path",
            CLUSTER,
            source(placed),
            DriverConfig(r#""session":"from ConfigMap"#),
        ),
        row(
            "allowedNamespaces",
            MEMORY,
            json!({"allowedNamespaces": ["elsewhere"]}),
            tested_in!(
                "../cluster_wide/main.rs",
                "a_store_is_used_from_another_namespace_while_it_allows_that"
            ),
        ),
        row(
            "multiRaft.partitions",
            CLUSTER,
            raft(json!({"partitions": 2})),
            Refused("partitions cannot be changed"),
        ),
        row(
            "multiRaft.replicationFactor",
            CLUSTER,
            raft(json!({"replicationFactor": 3})),
            Refused("replicationFactor cannot be greater than replicas"),
        ),
        row(
            "multiRaft.raft.electionTimeout",
            CLUSTER,
            raft(json!({"raft": {"electionTimeout": "2s"}})),
            tested_in!(
                "rolling.rs",
                "a_change_goes_through_all_pods_under_load_and_loses_nothing"
            ),
        ),
        row(
            "multiRaft.raft.snapshotEntryThreshold",
            CLUSTER,
            raft(json!({"raft": {"snapshotEntryThreshold": 20000}})),
            tested_in!(
                "rolling.rs",
                "a_change_goes_through_all_pods_under_load_and_loses_nothing"
            ),
        ),
        row(
            "multiRaft.storage.size",
            CLUSTER,
            raft(json!({"storage": {"size": "65Mi"}})),
            tested_in!(
                "disks.rs",
                "volumes_grow_where_their_class_lets_them_and_the_store_says_where_not"
            ),
        ),
        row(
            "multiRaft.storage.storageClassName",
            CLUSTER,
            raft(json!({"storage": {"storageClassName": "slow"}})),
            Refused("storage keeps its kind and its storageClassName"),
        ),
        row(
            "multiRaft.storage.retentionPolicy",
            CLUSTER,
            raft(json!({"storage": {"retentionPolicy": "Delete"}})),
            tested_in!(
                "disks.rs",
                "volumes_go_with_their_nodes_and_with_the_store_if_it_says_so"
            ),
        ),
        row(
            "multiRaft.storage.ephemeral",
            CLUSTER,
            raft(json!({"storage": {"size": null, "ephemeral": {}}})),
            Refused("storage keeps its kind"),
        ),
        row(
            "multiRaft.pod.image",
            CLUSTER,
            raft(json!({"pod": {"image": "garden/node:2"}})),
            InStatefulSet(
                "/spec/template/spec/containers/0/image",
                json!("garden/node:2"),
            ),
        ),
        pod(
            "multiRaft.pod.imagePullPolicy",
            "imagePullPolicy",
            json!("Always"),
            "/spec/template/spec/containers/0/imagePullPolicy",
            json!("Always"),
        ),
        pod(
            "multiRaft.pod.imagePullSecrets",
            "imagePullSecrets",
            json!([{"name": "a"}]),
            "/spec/template/spec/imagePullSecrets/0/name",
            json!("a"),
        ),
        pod(
            "multiRaft.pod.resources",
            "resources",
            json!({"requests": {"cpu": 1}}),
            "/spec/template/spec/containers/0/resources/requests/cpu",
            json!("1"),
        ),
        row(
            "multiRaft.pod.env",
            CLUSTER,
            raft(json!({"pod": {"env": [{"name": "A", "value": "b"}]}})),
            tested_in!(
                "../../../../src/store/objects/build/tests.rs",
                "pod_fields_of_the_spec_reach_the_pods_but_cannot_break_selection"
            ),
        ),
        pod(
            "multiRaft.pod.labels",
            "labels",
            json!({"a": "b"}),
            "/spec/template/metadata/labels/a",
            json!("b"),
        ),
        pod(
            "multiRaft.pod.annotations",
            "annotations",
            json!({"a": "b"}),
            "/spec/template/metadata/annotations/a",
            json!("b"),
        ),
        pod(
            "multiRaft.pod.nodeSelector",
            "nodeSelector",
            json!({"a": "b"}),
            "/spec/template/spec/nodeSelector/a",
            json!("b"),
        ),
        pod(
            "multiRaft.pod.tolerations",
            "tolerations",
            json!([{"operator": "Exists"}]),
            "/spec/template/spec/tolerations/0/operator",
            json!("Exists"),
        ),
        pod(
            "multiRaft.pod.affinity",
            "affinity",
            json!({"nodeAffinity": {}}),
            "/spec/template/spec/affinity/nodeAffinity",
            json!({}),
        ),
        row(
            "multiRaft.pod.topologySpreadConstraints",
            CLUSTER,
            raft(json!({"pod": {"topologySpreadConstraints": []}})),
            tested_in!(
                "../../../../src/store/objects/build/tests.rs",
                "pod_fields_of_the_spec_reach_the_pods_but_cannot_break_selection"
            ),
        ),
        pod(
            "multiRaft.pod.priorityClassName",
            "priorityClassName",
            json!("high"),
            "/spec/template/spec/priorityClassName",
            json!("high"),
        ),
        pod(
            "multiRaft.pod.serviceAccountName",
            "serviceAccountName",
            json!("other"),
            "/spec/template/spec/serviceAccountName",
            json!("other"),
        ),
        pod(
            "multiRaft.pod.securityContext",
            "securityContext",
            json!({"runAsUser": 7}),
            "/spec/template/spec/securityContext/runAsUser",
            json!(7),
        ),
        row(
            "updateStrategy.allowDataLoss",
            CLUSTER,
            json!({"updateStrategy": {"allowDataLoss": true}}),
            tested_in!(
                "rolling.rs",
                "a_change_that_would_lose_the_only_copy_is_refused_until_that_is_allowed"
            ),
        ),
        row(
            "paused",
            CLUSTER,
            json!({"paused": true}),
            Condition("Progressing", "False", "Paused"),
        ),
    ]
}

fn session_rows() -> Vec<Row> {
    let requirement = |key: &str, operator: &str, values: Value| json!({"selector": {"matchExpressions": [{"key": key, "operator": operator, "values": values}]}});
    let nobody = || Status("/pods/matched", json!(0));
    vec![
        row(
            "store.name",
            SESSION,
            json!({"store": {"name": "lily"}}),
            Connected("lily"),
        ),
        row(
            "store.namespace",
            SESSION,
            json!({"store": {"namespace": "elsewhere"}}),
            Condition("Stalled", "True", "StoreNamespaceNotServed"),
        ),
        row(
            "selector.matchLabels",
            SESSION,
            json!({"selector": {"matchLabels": {"colour": "red"}}}),
            nobody(),
        ),
        row(
            "selector.matchExpressions.key",
            SESSION,
            requirement("colour", "In", json!(["red"])),
            nobody(),
        ),
        row(
            "selector.matchExpressions.operator",
            SESSION,
            requirement("app", "DoesNotExist", json!([])),
            nobody(),
        ),
        row(
            "selector.matchExpressions.values",
            SESSION,
            requirement("app", "NotIn", json!(["hive"])),
            nobody(),
        ),
        row("kind", SESSION, json!({"kind": "map"}), OtherRoutes),
        row(
            "primitive",
            SESSION,
            json!({"primitive": "honey"}),
            OtherRoutes,
        ),
        row("tags", SESSION, json!({"tags": ["sweet"]}), OtherRoutes),
        row(
            "config",
            SESSION,
            json!({"config": {"cache": {"enabled": true}}}),
            OtherRoutes,
        ),
        row(
            "paused",
            SESSION,
            json!({"paused": true}),
            Condition("Progressing", "False", "Paused"),
        ),
    ]
}

#[test]
fn every_field_of_the_schemas_has_a_row() -> Result<()> {
    // Of a Driver nothing can be changed, as tests/crds/main.rs asks the API server.
    let driver = ["name", "version", "source.builtin"].into_iter().collect();
    let of = |rows: &[Row]| rows.iter().map(|row| row.field).collect::<BTreeSet<_>>();
    for (plural, rows) in [
        ("stores", of(&store_rows())),
        ("sessions", of(&session_rows())),
        ("drivers", driver),
    ] {
        let leaves = schema::leaves(&schema::spec_of(plural)?, &WHOLE);
        let fields: BTreeSet<&str> = leaves.iter().map(|leaf| leaf.path.as_str()).collect();
        let without: Vec<_> = fields.difference(&rows).collect();
        let stale: Vec<_> = rows.difference(&fields).collect();
        ensure!(
            without.is_empty() && stale.is_empty(),
            "{plural}: fields without a row: {without:?}; rows without a field: {stale:?}"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_change_takes_effect_or_is_refused() -> Result<()> {
    workload::run("fields", None, walk).await?;
    Ok(())
}

async fn walk(bed: &TestBed, operator: &mut Supervised<'_>) -> Result<()> {
    for store in [MEMORY, "lily"] {
        resources::create(&bed.stores(), samples::store_of_driver(store, "memory")).await?;
    }
    bed.create_pod(samples::application_pod(POD, "hive"))
        .await?;
    resources::create(&bed.sessions(), samples::session(SESSION, MEMORY, "hive")).await?;
    let mut cluster = samples::store(CLUSTER, SIZE);
    if let Some(size) = cluster.pointer_mut("/spec/multiRaft/storage/size") {
        *size = json!("65Mi");
    }
    workload::bootstrap_of(bed, operator, cluster, CLUSTER, SIZE).await?;
    connected(bed, operator).await?;
    for row in store_rows() {
        change(bed, operator, &bed.stores(), &row).await?;
    }
    for row in session_rows() {
        change(bed, operator, &bed.sessions(), &row).await?;
        connected(bed, operator).await?;
    }
    Ok(())
}

async fn connected(bed: &TestBed, operator: &mut Supervised<'_>) -> Result<()> {
    operator
        .until("the Session to be connected", LIMIT, async || {
            let session = bed.sessions().get(SESSION).await?;
            let ready = expect_condition(&session, "Ready", "True")?;
            ensure!(ready.reason == "Connected", "{ready:?}");
            Ok(())
        })
        .await
}

/// Makes the change, looks for its effect, and takes it back.
async fn change(
    bed: &TestBed,
    operator: &mut Supervised<'_>,
    api: &Api<DynamicObject>,
    row: &Row,
) -> Result<()> {
    let Row {
        field,
        object,
        spec,
        expect,
    } = row;
    let before = api.get(object).await?;
    let routes = routes(bed).await?;
    let patch = Patch::Merge(json!({"spec": spec}));
    let changed = api.patch(object, &PatchParams::default(), &patch).await;
    if let Refused(words) = expect {
        let Err(kube::Error::Api(status)) = changed else {
            bail!("{object}: the change of {field} was not refused");
        };
        ensure!(
            status.message.contains(words),
            "{field}: {}",
            status.message
        );
        return Ok(());
    }
    changed.with_context(|| format!("{object}: the change of {field} was refused"))?;
    operator
        .until("a change to take effect", LIMIT, async || {
            effect(bed, api, object, expect, &routes).await
        })
        .await
        .with_context(|| format!("{object}: {field}"))?;
    operator
        .until("the change to be taken back", LIMIT, async || {
            let mut back = api.get(object).await?;
            back.data["spec"] = before.data["spec"].clone();
            api.replace(object, &PostParams::default(), &back).await?;
            Ok(())
        })
        .await
        .with_context(|| format!("{object}: {field}"))
}

async fn effect(
    bed: &TestBed,
    api: &Api<DynamicObject>,
    object: &str,
    expect: &Expect,
    routes_before: &str,
) -> Result<()> {
    match expect {
        Refused(_) => Ok(()),
        TestedIn(test) => {
            let is_there = test.source.contains(&format!("fn {}(", test.name));
            ensure!(is_there, "no test is called {}", test.name);
            println!("{object}: accepted; its effect is tested in {}", test.name);
            Ok(())
        }
        InStatefulSet(pointer, value) => {
            let sets: Api<StatefulSet> = Api::namespaced(bed.client().clone(), bed.namespace());
            let set = serde_json::to_value(sets.get(object).await?)?;
            ensure!(
                set.pointer(pointer) == Some(value),
                "{:?}",
                set.pointer(pointer)
            );
            Ok(())
        }
        DriverConfig(words) => {
            let maps: Api<ConfigMap> = Api::namespaced(bed.client().clone(), bed.namespace());
            let data = maps.get(&format!("{object}-config")).await?.data;
            let text = data.and_then(|data| data.get("driver.json").cloned());
            let text = text.context("no driver.json")?;
            ensure!(text.contains(words), "{text}");
            Ok(())
        }
        Condition(type_, status, reason) => {
            let object = api.get(object).await?;
            let found = expect_condition(&object, type_, status)?;
            ensure!(found.reason == *reason, "{found:?}");
            Ok(())
        }
        Status(pointer, value) => {
            let object = api.get(object).await?;
            let found = object.data.pointer(&format!("/status{pointer}"));
            ensure!(found == Some(value), "{found:?}");
            Ok(())
        }
        OtherRoutes => {
            ensure!(
                routes(bed).await? != routes_before,
                "the routes are as before"
            );
            Ok(())
        }
        Connected(store) => {
            let status = runtime_pods::status(address(bed)?).await?;
            let mut stores = status
                .connections
                .iter()
                .filter_map(|one| one.store_id.as_ref());
            ensure!(stores.any(|id| id.name == *store), "{status:?}");
            Ok(())
        }
    }
}

fn address(bed: &TestBed) -> Result<std::net::Ipv4Addr> {
    bed.runner().address(POD).context("the pod does not run")
}

async fn routes(bed: &TestBed) -> Result<String> {
    Ok(runtime_pods::status(address(bed)?).await?.routes_digest)
}
