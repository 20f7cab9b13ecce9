//! Lets go of everything before the operator is uninstalled: stops it, then removes its finalizers.
//! Data and pods stay as they are.

use std::fmt::Debug;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::time::Instant;

use crate::error::{ApiError, call};
use crate::finalizer;
use crate::key::ObjectKey;

/// How often an object that somebody else changes is tried.
const ATTEMPTS: usize = 10;
/// How long the operator's pods may take to end.
const PATIENCE: Duration = Duration::from_secs(90);
const PAUSE: Duration = Duration::from_millis(500);

/// Removes a finalizer from all objects; answers which had it.
///
/// # Errors
/// The first call that fails; to be repeated.
pub async fn release_all<K>(
    client: &Client,
    objects: &Api<K>,
    finalizer: &str,
) -> Result<Vec<ObjectKey>, ApiError>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let everything = ListParams::default();
    let found = call("list objects", objects.list_metadata(&everything)).await?;
    let mut released = Vec::new();
    for object in found {
        if !finalizer::has(&object.metadata, finalizer) {
            continue;
        }
        let key = ObjectKey::of(&object);
        release_one(client, objects, &key, object.metadata, finalizer).await?;
        released.push(key);
    }
    Ok(released)
}

async fn release_one<K>(
    client: &Client,
    objects: &Api<K>,
    key: &ObjectKey,
    mut meta: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
    finalizer: &str,
) -> Result<(), ApiError>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    // Of all namespaces, one object is read in its own.
    for _ in 1..ATTEMPTS {
        match finalizer::remove::<K>(client, &meta, finalizer).await {
            Err(error) if error.is_conflict() => {}
            result => return result,
        }
        let named = ListParams::default().fields(&format!("metadata.name={}", key.name));
        let found = call("read an object", objects.list_metadata(&named)).await?;
        let again = found
            .into_iter()
            .find(|object| ObjectKey::of(object) == *key);
        let Some(again) = again else {
            return Ok(());
        };
        meta = again.metadata;
    }
    finalizer::remove::<K>(client, &meta, finalizer).await
}

/// Scales the operator's Deployment to nothing and waits until its pods have ended. One that is not
/// there has ended.
///
/// # Errors
/// When a call fails. An operator that does not end in time is only told of: without its finalizers
/// it adds them again.
pub async fn stop_operator(client: &Client, namespace: &str, name: &str) -> Result<bool, ApiError> {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    let nothing = Patch::Merge(json!({"spec": {"replicas": 0}}));
    let parameters = PatchParams::default();
    let scaled = deployments.patch_scale(name, &parameters, &nothing);
    match call("stop the operator", scaled).await {
        Err(error) if error.is_not_found() => return Ok(true),
        Err(error) => return Err(error),
        Ok(_) => {}
    }
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = call("read the Deployment", deployments.get_opt(name)).await?;
        let Some(found) = found else {
            return Ok(true);
        };
        let status = found.status.as_ref();
        let seen = status.and_then(|status| status.observed_generation);
        // Its status counts no pod that is ending, and that is still at work: of two, the other one may
        // even take over.
        let params = pods_of(&found);
        let left = call("list the operator's pods", pods.list_metadata(&params)).await?;
        if seen >= found.metadata.generation && left.items.is_empty() {
            return Ok(true);
        }
        if Instant::now() > deadline {
            return Ok(false);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The pods of a Deployment that have not ended.
fn pods_of(deployment: &Deployment) -> ListParams {
    let spec = deployment.spec.as_ref();
    let labels = spec.and_then(|spec| spec.selector.match_labels.as_ref());
    let labels = labels.into_iter().flatten();
    let labels: Vec<String> = labels
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    ListParams::default()
        .labels(&labels.join(","))
        .fields("status.phase!=Succeeded,status.phase!=Failed")
}
