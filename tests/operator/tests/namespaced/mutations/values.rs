//! Changes of specifications at random: of any field to any value, or to one that works.

use atomix_operator_tests::schema::Leaf;
use serde_json::{Map, Value, json};

/// Changes one field to anything; returns what was changed to what.
pub(super) fn mutate(spec: &mut Value, leaves: &[Leaf], random: &mut Random) -> String {
    let leaf = random.pick(leaves);
    let value = value(leaf, random);
    change(spec, leaf, value, random)
}

/// Changes one field to what a Store can be run with; returns what was changed to what.
pub(super) fn mutate_in_reason(spec: &mut Value, leaves: &[Leaf], random: &mut Random) -> String {
    let leaf = random.pick(leaves);
    let values = real_values(&leaf.path);
    let value = match random.below(5) {
        0 => None,
        _ => Some(random.pick(&values).clone()),
    };
    change(spec, leaf, value, random)
}

fn change(spec: &mut Value, leaf: &Leaf, value: Option<Value>, random: &mut Random) -> String {
    let shown = match &value {
        Some(value) => value.to_string().chars().take(200).collect(),
        None => "absent".to_owned(),
    };
    let path: Vec<&str> = leaf.path.split('.').collect();
    put(spec, &path, value, random);
    format!("{} = {shown}", leaf.path)
}

/// Sets the field, in an object or in the items of a list; what is not there is made.
fn put(parent: &mut Value, path: &[&str], value: Option<Value>, random: &mut Random) {
    let Some((name, below)) = path.split_first() else {
        return;
    };
    if let Value::Array(items) = parent {
        if items.is_empty() || random.below(4) == 0 {
            items.push(json!({}));
        }
        let index = random.below(items.len());
        return put(&mut items[index], path, value, random);
    }
    if !parent.is_object() {
        *parent = Value::Object(Map::new());
    }
    let Some(fields) = parent.as_object_mut() else {
        return;
    };
    if below.is_empty() {
        match value {
            Some(value) => fields.insert((*name).to_owned(), value),
            None => fields.remove(*name),
        };
        return;
    }
    let is_list = ["configFrom", "matchExpressions"].contains(name);
    let inner = fields
        .entry((*name).to_owned())
        .or_insert_with(|| if is_list { json!([]) } else { json!({}) });
    put(inner, below, value, random);
}

/// A value for a field: often one that its schema allows, else any; `None` = the field goes.
fn value(leaf: &Leaf, random: &mut Random) -> Option<Value> {
    match random.below(10) {
        0 => None,
        1 => Some(Value::Null),
        2 | 3 => Some(any_value(random)),
        _ => Some(allowed_value(leaf, random)),
    }
}

fn any_value(random: &mut Random) -> Value {
    let values = [
        json!(0),
        json!(-1),
        json!(7),
        json!(1_000_000_007),
        json!(1.5),
        json!(true),
        json!(""),
        json!("*"),
        json!("a"),
        json!("A b\n☃"),
        json!("x".repeat(300)),
        json!("10Gi"),
        json!([]),
        json!({}),
        json!([null]),
        json!({"": {"a": [1, {"b": null}]}}),
        json!(["a", "a"]),
    ];
    random.pick(&values).clone()
}

fn allowed_value(leaf: &Leaf, random: &mut Random) -> Value {
    let schema = &leaf.schema;
    // More would only start more processes.
    if leaf.path == "multiRaft.replicas" {
        return json!(1 + random.below(3));
    }
    let real = real_values(&leaf.path);
    if leaf.path.starts_with("multiRaft.pod.") && !real.is_empty() && random.below(2) == 0 {
        return random.pick(&real).clone();
    }
    if let Some(values) = schema.get("enum").and_then(Value::as_array) {
        return random.pick(values).clone();
    }
    let words = [
        "a",
        "lily",
        "rose",
        "tulip",
        "timeouts.connect",
        "5s",
        "300ms",
        "1Gi",
        "honey*",
    ];
    if schema.get("x-kubernetes-int-or-string").is_some() {
        let sizes = [json!(134_217_728), json!("128Mi"), json!("64Mi"), json!(1)];
        return random.pick(&sizes).clone();
    }
    match schema.get("type").and_then(Value::as_str) {
        Some("boolean") => json!(random.below(2) == 0),
        Some("integer") => json!(1 + random.below(5)),
        Some("string") => json!(*random.pick(&words)),
        Some("array") => json!([*random.pick(&words)]),
        Some("object") => {
            let objects = [
                json!({}),
                json!({"app": "nobody"}),
                json!({"timeouts": {"connect": "5s"}}),
                json!({"timeouts": {"session": 5}}),
                json!({"colour": "red"}),
            ];
            random.pick(&objects).clone()
        }
        _ => json!(*random.pick(&words)),
    }
}

/// Values of a field with which a Store runs on, alone or beside most others; empty = it does not stand
/// any change of the field.
pub(super) fn real_values(path: &str) -> Vec<Value> {
    let of_pods = json!({"matchLabels": {"colour": "red"}});
    let spread = json!({
        "maxSkew": 2,
        "topologyKey": "meadow",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": of_pods,
    });
    let near = json!({"weight": 7, "podAffinityTerm": {
        "topologyKey": "meadow",
        "labelSelector": of_pods,
    }});
    let sunny = json!({"key": "sunny", "operator": "In", "values": ["often", "always"]});
    let name = json!({"fieldRef": {"fieldPath": "metadata.name"}});
    let values = match path {
        "config" => json!([
            {},
            {"timeouts": {"connect": "5s"}},
            // Too short beside the longest electionTimeout.
            {"timeouts": {"session": "20s", "connect": "1s"}},
        ]),
        "allowedNamespaces" => json!([[], ["field"], ["field", "heath"]]),
        "multiRaft.replicas" => json!([1, 2, 3, 4, 5]),
        "multiRaft.replicationFactor" => json!([1, 3, 5]),
        "multiRaft.raft.electionTimeout" => json!(["3s", "5s", "8s"]),
        "multiRaft.raft.snapshotEntryThreshold" => json!([20, 1000]),
        "multiRaft.storage.retentionPolicy" => json!(["Retain", "Delete"]),
        "multiRaft.pod.image" => json!(["atomix-node:test", "garden/atomix-node:next"]),
        "multiRaft.pod.imagePullPolicy" => json!(["Always", "IfNotPresent", "Never"]),
        "multiRaft.pod.imagePullSecrets" => json!([[], [{"name": "garden"}]]),
        "multiRaft.pod.resources" => json!([
            {},
            {"requests": {"cpu": "10m", "memory": "32Mi"}},
            {"requests": {"cpu": "500m"}, "limits": {"cpu": 2, "memory": "1Gi"}},
        ]),
        "multiRaft.pod.env" => json!([
            [],
            [{"name": "COLOUR", "value": "red"}],
            [{"name": "COLOUR", "valueFrom": name}],
            [{"name": "COLOUR", "value": "blue"}, {"name": "SCENT", "value": "$(COLOUR)"}],
        ]),
        "multiRaft.pod.labels" => json!([{}, {"colour": "red"}, {"colour": "blue", "tall": ""}]),
        "multiRaft.pod.annotations" => json!([{}, {"colour": "red"}, {"scent": "strong, sweet"}]),
        "multiRaft.pod.tolerations" => json!([
            [],
            [{"operator": "Exists"}],
            [{"key": "meadow", "value": "wet", "effect": "NoSchedule"}],
        ]),
        "multiRaft.pod.affinity" => json!([
            {},
            {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [near]}},
            {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpressions": [sunny]}],
            }}},
        ]),
        "multiRaft.pod.topologySpreadConstraints" => json!([[], [spread]]),
        "multiRaft.pod.priorityClassName" => json!(["system-cluster-critical"]),
        "multiRaft.pod.serviceAccountName" => json!(["default"]),
        "multiRaft.pod.securityContext" => json!([
            {},
            {"runAsUser": 1000, "runAsGroup": 1000},
            {"supplementalGroups": [7], "fsGroupChangePolicy": "Always"},
        ]),
        "updateStrategy.allowDataLoss" => json!([true, false]),
        _ => json!([]),
    };
    let values = values.as_array().cloned();
    values.unwrap_or_default()
}

/// A small generator whose runs can be repeated: xorshift64*.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(number).map_or(0, |number| number % limit.max(1))
    }

    fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}
