//! Finalizers by a small JSON patch on metadata only.
//!
//! kube's `finalizer()` needs an object that decodes; ours must also be added to and removed from
//! one that does not. The patch tests the resource version, so no other writer's finalizer is lost.

use std::fmt::Debug;

use kube::core::PartialObjectMeta;
use kube::{Client, Resource};
use serde_json::{Value, json};

use super::error::{ApiError, call};
use crate::key::ObjectKey;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// Whether the object carries the finalizer.
#[must_use]
pub fn has(meta: &ObjectMeta, finalizer: &str) -> bool {
    let mut finalizers = meta.finalizers.iter().flatten();
    finalizers.any(|present| present == finalizer)
}

/// Adds the finalizer unless it is there.
///
/// # Errors
/// When the call fails; a conflict when the object changed meanwhile.
pub async fn add<K>(client: &Client, meta: &ObjectMeta, finalizer: &str) -> Result<(), ApiError>
where
    K: Resource<DynamicType = ()> + Debug + Clone,
{
    if has(meta, finalizer) {
        return Ok(());
    }
    let mut finalizers = meta.finalizers.clone().unwrap_or_default();
    finalizers.push(finalizer.to_owned());
    replace::<K>(client, "add the finalizer", meta, finalizers).await
}

/// Removes the finalizer if it is there. An object that is gone is a success.
///
/// # Errors
/// When the call fails; a conflict when the object changed meanwhile.
pub async fn remove<K>(client: &Client, meta: &ObjectMeta, finalizer: &str) -> Result<(), ApiError>
where
    K: Resource<DynamicType = ()> + Debug + Clone,
{
    if !has(meta, finalizer) {
        return Ok(());
    }
    let present = meta.finalizers.iter().flatten();
    let kept = present.filter(|name| *name != finalizer).cloned().collect();
    match replace::<K>(client, "remove the finalizer", meta, kept).await {
        Err(error) if error.is_not_found() => Ok(()),
        result => result,
    }
}

async fn replace<K>(
    client: &Client,
    action: &'static str,
    meta: &ObjectMeta,
    finalizers: Vec<String>,
) -> Result<(), ApiError>
where
    K: Resource<DynamicType = ()> + Debug + Clone,
{
    let key = ObjectKey::new(
        meta.namespace.clone().unwrap_or_default(),
        meta.name.clone().unwrap_or_default(),
    );
    let namespace = (!key.namespace.is_empty()).then_some(key.namespace.as_str());
    let path = format!("{}/{}", K::url_path(&(), namespace), key.name);
    let body = patch(meta, &finalizers).to_string().into_bytes();
    let request = http::Request::patch(path)
        .header(
            "accept",
            "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
        )
        .header("content-type", "application/json-patch+json")
        .body(body)
        .map_err(|error| ApiError::Call {
            action,
            source: kube::Error::HttpError(error),
        })?;
    let patched = call(action, client.request::<PartialObjectMeta<K>>(request)).await;
    match patched {
        Ok(_) => Ok(()),
        Err(error) if error.code() == Some(422) => Err(ApiError::Changed { action }),
        Err(error) => Err(error),
    }
}

/// The uid test keeps the patch from a new object of the same name, the version test from
/// overwriting another writer's change.
fn patch(meta: &ObjectMeta, finalizers: &[String]) -> Value {
    let mut operations = vec![
        json!({"op": "test", "path": "/metadata/uid", "value": meta.uid}),
        json!({"op": "test", "path": "/metadata/resourceVersion", "value": meta.resource_version}),
    ];
    operations.push(if finalizers.is_empty() {
        json!({"op": "remove", "path": "/metadata/finalizers"})
    } else {
        json!({"op": "add", "path": "/metadata/finalizers", "value": finalizers})
    });
    Value::Array(operations)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_patch_touches_only_finalizers_and_tests_identity_and_version() {
        let meta = ObjectMeta {
            uid: Some("u-1".to_owned()),
            resource_version: Some("7".to_owned()),
            ..ObjectMeta::default()
        };
        let expected = json!([
            {"op": "test", "path": "/metadata/uid", "value": "u-1"},
            {"op": "test", "path": "/metadata/resourceVersion", "value": "7"},
            {"op": "add", "path": "/metadata/finalizers", "value": ["a", "b"]},
        ]);
        assert_eq!(patch(&meta, &["a".to_owned(), "b".to_owned()]), expected);
        let last = patch(&meta, &[]);
        assert_eq!(
            last[2],
            json!({"op": "remove", "path": "/metadata/finalizers"})
        );
    }
}
