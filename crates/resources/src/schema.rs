//! Finishes a generated CRD: what derive macros cannot say.
//! Not for rules of single fields; those stand at the fields.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use serde_json::json;

/// Limits of lists, maps and strings of embedded Kubernetes types, which come without: CEL's cost
/// budget counts what an unlimited one could hold.
const ITEMS_LIMIT: i64 = 64;
const TEXT_LIMIT: i64 = 1024;

/// The CRD as it is installed: only free-form objects may be null, numbers have formats that Kubernetes knows,
/// everything has a limit, and a new object's status says that nobody has looked at it yet.
pub(super) fn finish(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    for version in &mut crd.spec.versions {
        let Some(root) = version
            .schema
            .as_mut()
            .and_then(|schema| schema.open_api_v3_schema.as_mut())
        else {
            continue;
        };
        let Some(properties) = root.properties.as_mut() else {
            continue;
        };
        for property in ["spec", "status"] {
            if let Some(schema) = properties.get_mut(property) {
                bound(schema);
            }
        }
        if let Some(status) = properties.get_mut("status") {
            status.default = Some(JSON(json!({"observedGeneration": -1})));
        }
    }
    crd
}

fn bound(schema: &mut JSONSchemaProps) {
    // Optional fields are absent, never null; but see `rules::free_form_object`.
    if schema.x_kubernetes_preserve_unknown_fields != Some(true) {
        schema.nullable = None;
    }
    schema.format = match schema.format.as_deref() {
        Some("uint8" | "uint16" | "uint32") => Some("int32".to_owned()),
        Some("uint64") => Some("int64".to_owned()),
        _ => schema.format.take(),
    };
    match schema.type_.as_deref() {
        Some("string") if schema.enum_.is_none() && schema.format.is_none() => {
            schema.max_length.get_or_insert(TEXT_LIMIT);
        }
        Some("array") => {
            schema.max_items.get_or_insert(ITEMS_LIMIT);
        }
        Some("object") if schema.additional_properties.is_some() => {
            schema.max_properties.get_or_insert(ITEMS_LIMIT);
        }
        _ => {}
    }
    if let Some(properties) = schema.properties.as_mut() {
        properties.values_mut().for_each(bound);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = schema.items.as_mut() {
        bound(items);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = schema.additional_properties.as_mut() {
        bound(values);
    }
}
