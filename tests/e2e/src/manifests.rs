//! The manifests that the tests apply: the repository's own samples, with the images under test.

use std::fs;

use anyhow::Context as _;
use serde_json::Value;

use crate::cluster::Cluster;

/// A sample of deploy/samples with the images under test.
///
/// # Errors
/// When there is no such sample.
pub fn sample(cluster: &Cluster, name: &str) -> anyhow::Result<String> {
    let path = cluster.source().join(format!("deploy/samples/{name}.yaml"));
    let text =
        fs::read_to_string(&path).with_context(|| format!("no sample {}", path.display()))?;
    let mut replaced = String::new();
    for line in text.lines() {
        match line.split_once("image: ghcr.io/atomix/") {
            Some((indent, reference)) => {
                let program = reference.split(':').next().unwrap_or(reference);
                replaced.push_str(&format!("{indent}image: {}\n", cluster.image(program)));
            }
            None => {
                replaced.push_str(line);
                replaced.push('\n');
            }
        }
    }
    Ok(replaced)
}

/// A manifest of one object, changed before it is applied.
///
/// # Errors
/// When it is no YAML.
pub fn edited(yaml: &str, edit: impl FnOnce(&mut Value)) -> anyhow::Result<String> {
    let mut object: Value = serde_yaml::from_str(yaml)?;
    edit(&mut object);
    Ok(serde_yaml::to_string(&object)?)
}

/// A Store of the multi-raft driver.
#[must_use]
pub fn store(name: &str, replicas: u32, partitions: u32) -> String {
    format!(
        "
apiVersion: atomix.io/v1beta1
kind: Store
metadata:
  name: {name}
spec:
  driver:
    name: multi-raft
  multiRaft:
    replicas: {replicas}
    partitions: {partitions}
    storage:
      size: 64Mi
"
    )
}

/// A Session for counters of pods with the label `app: <app>`.
#[must_use]
pub fn session(name: &str, store: &str, app: &str) -> String {
    format!(
        "
apiVersion: atomix.io/v1beta1
kind: Session
metadata:
  name: {name}
spec:
  store:
    name: {store}
  selector:
    matchLabels:
      app: {app}
  kind: counter
"
    )
}
