//! Status patches only on difference.
//!
//! The patch carries the resource version it was computed from, so two writers cannot mix their
//! statuses. What was written last is remembered until the cache shows it.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::Arc;

use kube::core::PartialObjectMeta;
use kube::{Client, Resource};
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::apply::is_older;
use super::error::{ApiError, call};
use super::key::ObjectKey;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// Writes the status of objects of one kind. Clones share one memory.
#[derive(Clone)]
pub struct StatusWriter {
    client: Client,
    written: Arc<Mutex<HashMap<ObjectKey, Written>>>,
}

#[derive(Debug, Clone)]
struct Written {
    uid: Option<String>,
    resource_version: Option<String>,
    status: Value,
}

impl Debug for StatusWriter {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("StatusWriter")
            .finish_non_exhaustive()
    }
}

impl StatusWriter {
    /// A writer without memory.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self {
            client,
            written: Arc::default(),
        }
    }

    /// Makes `desired` the status of the object if it is not. `known` is the status that the cache
    /// shows. Returns whether a call was made.
    ///
    /// # Errors
    /// When the call fails; 409 when the object changed meanwhile: reconcile again.
    pub async fn write<K, S>(
        &self,
        meta: &ObjectMeta,
        known: Option<&S>,
        desired: &S,
    ) -> Result<bool, ApiError>
    where
        K: Resource<DynamicType = ()> + Debug + Clone,
        S: Serialize,
    {
        let known = known.map(to_value).unwrap_or(Value::Null);
        self.write_value::<K>(meta, known, to_value(desired)).await
    }

    /// The status last written, when the cache does not show it yet. A reconcile that derives
    /// something from the old status (a time, a count) starts from this.
    #[must_use]
    pub fn pending(&self, meta: &ObjectMeta) -> Option<Value> {
        self.newest(meta).map(|newest| newest.status)
    }

    /// What was written last, unless the object shows it or something newer: then it is forgotten.
    fn newest(&self, meta: &ObjectMeta) -> Option<Written> {
        let mut written = self.written.lock();
        let key = ObjectKey::of_meta(meta);
        let newest = written.get(&key)?;
        if newest.is_ahead_of(meta) {
            return Some(newest.clone());
        }
        written.remove(&key);
        None
    }

    /// [`Self::write`] for an object that does not decode: statuses as JSON.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub async fn write_value<K>(
        &self,
        meta: &ObjectMeta,
        known: Value,
        desired: Value,
    ) -> Result<bool, ApiError>
    where
        K: Resource<DynamicType = ()> + Debug + Clone,
    {
        let key = ObjectKey::of_meta(meta);
        let (base, version) = match self.newest(meta) {
            Some(written) => (written.status, written.resource_version),
            None => (known, meta.resource_version.clone()),
        };
        let Some(difference) = difference(&base, &desired) else {
            return Ok(false);
        };

        let namespace = (!key.namespace.is_empty()).then_some(key.namespace.as_str());
        let path = format!("{}/{}/status", K::url_path(&(), namespace), key.name);
        let body = json!({
            "metadata": {"uid": meta.uid, "resourceVersion": version},
            "status": difference,
        });
        let action = "write the status";
        let request = http::Request::patch(path)
            .header(
                "accept",
                "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
            )
            .header("content-type", "application/merge-patch+json")
            .body(body.to_string().into_bytes())
            .map_err(|error| ApiError::Call {
                action,
                source: kube::Error::HttpError(error),
            })?;
        let answer = call(action, self.client.request::<PartialObjectMeta<K>>(request)).await;
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                // The effect is unknown, or our view is old: the cache decides next time.
                self.written.lock().remove(&key);
                return Err(error);
            }
        };
        let written = Written {
            uid: meta.uid.clone(),
            resource_version: answer.metadata.resource_version,
            status: desired,
        };
        self.written.lock().insert(key, written);
        Ok(true)
    }

    /// Forgets a deleted object.
    pub fn forget(&self, key: &ObjectKey) {
        self.written.lock().remove(key);
    }
}

impl Written {
    fn is_ahead_of(&self, meta: &ObjectMeta) -> bool {
        self.uid == meta.uid
            && is_older(
                meta.resource_version.as_deref(),
                self.resource_version.as_deref(),
            )
    }
}

fn to_value<S: Serialize>(status: &S) -> Value {
    // Statuses are plain data with string keys, so this cannot fail; null would show as a
    // status without fields.
    serde_json::to_value(status).unwrap_or(Value::Null)
}

/// The JSON merge patch that turns `from` into `to`; `None` when they are equal. A null and an
/// absent field are the same.
#[must_use]
pub fn difference(from: &Value, to: &Value) -> Option<Value> {
    let empty = Map::new();
    let (Value::Object(from), Value::Object(to)) = (
        if from.is_null() {
            &Value::Object(empty)
        } else {
            from
        },
        to,
    ) else {
        return (from != to).then(|| to.clone());
    };
    let mut patch = Map::new();
    for (name, after) in to.iter().filter(|(_, after)| !after.is_null()) {
        match from.get(name).filter(|before| !before.is_null()) {
            None => {
                patch.insert(name.clone(), after.clone());
            }
            Some(before) => {
                if let Some(changed) = difference(before, after) {
                    patch.insert(name.clone(), changed);
                }
            }
        }
    }
    for (name, before) in from {
        let stays = to.get(name).is_some_and(|after| !after.is_null());
        if !before.is_null() && !stays {
            patch.insert(name.clone(), Value::Null);
        }
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_names_exactly_what_differs() {
        for (from, to, expected) in [
            (json!(null), json!({"a": 1}), Some(json!({"a": 1}))),
            (json!({"a": 1}), json!({"a": 1}), None),
            (json!({"a": null}), json!({}), None),
            (
                json!({"a": 1, "b": 2}),
                json!({"a": 1}),
                Some(json!({"b": null})),
            ),
            (
                json!({"a": {"x": 1, "y": 2}, "b": 1}),
                json!({"a": {"x": 1, "y": 3}, "b": 1}),
                Some(json!({"a": {"y": 3}})),
            ),
            (
                json!({"a": [1, 2]}),
                json!({"a": [2]}),
                Some(json!({"a": [2]})),
            ),
        ] {
            assert_eq!(difference(&from, &to), expected, "{from} to {to}");
        }
    }
}
