//! Whether the cluster's custom resource definitions know all fields that this operator does.
//!
//! An upgrade of the chart does not touch CRDs, and the API server drops fields that they do not
//! know without a word. So an operator that finds older ones says which field is missing, in its log
//! and in its readiness, and its controllers wait; the webhook and its certificates do not. Fields that
//! only the cluster knows are no reason to wait: they are those of a newer version.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::future::Future;
use std::time::Duration;

use atomix_process::admin::Readiness;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, Client, ResourceExt as _};
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use atomix_controller::{ApiError, call};

/// Name of this part of the process's readiness.
pub const READINESS: &str = "crds";

/// Between two looks, while they are too old.
const PERIOD: Duration = Duration::from_secs(2);

/// Waits for CRDs that are new enough. Clones share the answer.
#[derive(Clone, Debug)]
pub struct Crds {
    current: watch::Sender<bool>,
}

impl Default for Crds {
    fn default() -> Self {
        Self {
            current: watch::Sender::new(false),
        }
    }
}

impl Crds {
    /// Returns once the CRDs are new enough.
    pub async fn current(&self) {
        let mut current = self.current.subscribe();
        // The sender lives in `self`, so this cannot fail; a failure would mean nobody waits.
        let _ended = current.wait_for(|current| *current).await;
    }

    /// Does `work` once the CRDs are new enough, unless `shutdown` comes first.
    ///
    /// # Errors
    /// Those of `work`.
    pub async fn before<E>(
        self,
        shutdown: CancellationToken,
        work: impl Future<Output = Result<(), E>>,
    ) -> Result<(), E> {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = self.current() => {}
        }
        work.await
    }

    /// Looks until the CRDs are new enough, then only waits for `shutdown`.
    ///
    /// # Errors
    /// None.
    pub async fn follow(
        self,
        client: Client,
        readiness: Readiness,
        shutdown: CancellationToken,
    ) -> Result<(), Infallible> {
        let mut told = None;
        loop {
            let trouble = look(&client).await.err();
            readiness.set(trouble.is_none(), trouble.clone().unwrap_or_default());
            let Some(trouble) = trouble else {
                self.current.send_replace(true);
                shutdown.cancelled().await;
                return Ok(());
            };
            if told.as_ref() != Some(&trouble) {
                tracing::error!("{trouble}");
                told = Some(trouble);
            }
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                () = tokio::time::sleep(PERIOD) => {}
            }
        }
    }
}

/// Compares each CRD of the cluster with ours.
async fn look(client: &Client) -> Result<(), String> {
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    for ours in atomix_resources::all() {
        let name = ours.name_any();
        let found: Result<_, ApiError> = call("read a CRD", crds.get_opt(&name)).await;
        let found = match found {
            Ok(found) => found,
            Err(error) if error.code() == Some(403) => {
                tracing::warn!(%error, "whether the CRDs are new enough is not checked");
                return Ok(());
            }
            Err(error) => return Err(error.to_string()),
        };
        let missing = match found {
            None => Some("is not installed".to_owned()),
            Some(found) => missing_field(&ours, &found)
                .map(|field| format!("is of an older version, it lacks the field {field}")),
        };
        if let Some(missing) = missing {
            return Err(format!(
                "the CRD {name} {missing}: apply the CRDs of this version with `kubectl apply \
                 --server-side -f crds/`; the operator waits, its webhook serves"
            ));
        }
    }
    Ok(())
}

/// The first field that only our CRD has.
#[must_use]
pub fn missing_field(
    ours: &CustomResourceDefinition,
    found: &CustomResourceDefinition,
) -> Option<String> {
    let found = fields(found);
    fields(ours)
        .into_iter()
        .find(|field| !found.contains(field))
}

/// Every field of the version that we serve, as a path.
fn fields(crd: &CustomResourceDefinition) -> BTreeSet<String> {
    let mut versions = crd.spec.versions.iter();
    let version = versions.find(|version| version.name == atomix_resources::VERSION);
    let schema = version.and_then(|version| version.schema.as_ref());
    let schema = schema.and_then(|schema| schema.open_api_v3_schema.as_ref());
    let mut paths = BTreeSet::new();
    // A schema is plain data; one that cannot be told as JSON has no fields.
    let schema = serde_json::to_value(schema).unwrap_or_default();
    collect(&schema, "", &mut paths);
    paths
}

fn collect(schema: &Value, path: &str, paths: &mut BTreeSet<String>) {
    for (name, field) in schema
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        let path = format!("{path}.{name}");
        collect(field, &path, paths);
        paths.insert(path);
    }
    for inner in ["items", "additionalProperties"] {
        if let Some(inner) = schema.get(inner) {
            collect(inner, &format!("{path}[]"), paths);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn without(
        crd: &CustomResourceDefinition,
        pointer: &str,
        field: &str,
    ) -> CustomResourceDefinition {
        let mut value = serde_json::to_value(crd).unwrap();
        let schema = "/spec/versions/0/schema/openAPIV3Schema/properties";
        let fields = value.pointer_mut(&format!("{schema}{pointer}")).unwrap();
        fields.as_object_mut().unwrap().remove(field).unwrap();
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_field_that_only_we_have_makes_a_crd_old_and_one_that_only_it_has_does_not() {
        let all = atomix_resources::all();
        for crd in &all {
            assert_eq!(missing_field(crd, crd), None);
        }
        let store = all
            .iter()
            .find(|crd| crd.spec.names.plural == "stores")
            .unwrap();
        for (pointer, field, expected) in [
            ("/spec/properties", "configFrom", ".spec.configFrom"),
            (
                "/spec/properties/configFrom/items/properties",
                "key",
                ".spec.configFrom[].key",
            ),
            ("/status/properties", "storeUid", ".status.storeUid"),
        ] {
            let old = without(store, pointer, field);
            assert_eq!(missing_field(store, &old).as_deref(), Some(expected));
            assert_eq!(missing_field(&old, store), None);
        }
    }
}
