//! Walks the schemas of the CRDs that the operator's types generate.

use anyhow::{Context as _, Result};
use kube::ResourceExt as _;
use serde_json::Value;

/// The schema of the specification of a resource, by its plural.
///
/// # Errors
/// When there is none.
pub fn spec_of(plural: &str) -> Result<Value> {
    let crds = atomix_resources::all();
    let crd = crds
        .iter()
        .find(|crd| crd.name_any().starts_with(&format!("{plural}.")));
    let crd = serde_json::to_value(crd.context("no such CRD")?)?;
    let schema = crd.pointer("/spec/versions/0/schema/openAPIV3Schema/properties/spec");
    schema
        .cloned()
        .context("the CRD has no schema of a specification")
}

/// A field that holds no further fields of ours.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// Names with dots in between; the items of a list are at the list's name.
    pub path: String,
    /// Its schema.
    pub schema: Value,
}

/// Every leaf below `schema`. What is below `whole` fields is Kubernetes' own and counts as one.
pub fn leaves(schema: &Value, whole: &[&str]) -> Vec<Leaf> {
    let mut found = Vec::new();
    collect(schema, "", whole, &mut found);
    found
}

fn collect(schema: &Value, path: &str, whole: &[&str], found: &mut Vec<Leaf>) {
    let is_whole = whole.iter().any(|parent| {
        let below = path
            .strip_prefix(parent)
            .and_then(|rest| rest.strip_prefix('.'));
        below.is_some()
    });
    let of_items = schema.pointer("/items/properties");
    let fields = schema
        .get("properties")
        .or(of_items)
        .and_then(Value::as_object);
    match fields.filter(|fields| !is_whole && !fields.is_empty()) {
        None => found.push(Leaf {
            path: path.to_owned(),
            schema: schema.clone(),
        }),
        Some(fields) => {
            for (name, field) in fields {
                let path = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}.{name}")
                };
                collect(field, &path, whole, found);
            }
        }
    }
}
