//! The installed CRDs, and how they would be after the roll-back of an operator: they accept what
//! the operator's own types do not.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};

use crate::resources;
use crate::samples::{self, StoreSize};
use crate::wait::until;
use crate::workload::LIMIT;

const FIELD_MANAGER: &str = "atomix-operator-tests";

/// A value that only a newer version knows.
const NEWER: &str = "Newer";

/// Installs the CRDs of this work tree.
///
/// # Errors
/// When the API server refuses one.
pub async fn restore(client: &Client) -> Result<()> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for crd in atomix_resources::all() {
        let name = crd.name_any();
        api.patch(
            &name,
            &PatchParams::apply(FIELD_MANAGER).force(),
            &Patch::Apply(&crd),
        )
        .await
        .with_context(|| format!("cannot install the CRD {name}"))?;
    }
    Ok(())
}

/// Lets the API server accept [`newer_store`], [`newer_session`] and [`newer_driver`].
///
/// # Errors
/// When the CRDs do not have the fields, or the API server refuses them.
pub async fn teach_a_newer_version(client: &Client) -> Result<()> {
    let resource = ApiResource::erase::<CustomResourceDefinition>(&());
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    let spec = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties";
    for (name, values) in [
        (
            "stores.atomix.io",
            format!("{spec}/multiRaft/properties/pod/properties/imagePullPolicy/enum"),
        ),
        (
            "sessions.atomix.io",
            format!("{spec}/selector/properties/matchExpressions/items/properties/operator/enum"),
        ),
    ] {
        let mut crd = api.get(name).await?;
        crd.data
            .pointer_mut(&values)
            .and_then(Value::as_array_mut)
            .with_context(|| format!("{name} has no values at {values}"))?
            .push(json!(NEWER));
        api.replace(name, &kube::api::PostParams::default(), &crd)
            .await
            .with_context(|| format!("cannot change the CRD {name}"))?;
    }
    // A source of another sort.
    let name = "drivers.atomix.io";
    let mut crd = api.get(name).await?;
    let source = crd.data.pointer_mut(&format!("{spec}/source"));
    let source = source.and_then(Value::as_object_mut);
    let source = source.with_context(|| format!("{name} has no source"))?;
    source.remove("required");
    api.replace(name, &kube::api::PostParams::default(), &crd)
        .await
        .with_context(|| format!("cannot change the CRD {name}"))?;
    Ok(())
}

/// A Driver that this operator cannot decode.
pub fn newer_driver(name: &str) -> Value {
    json!({
        "apiVersion": "atomix.io/v1beta1",
        "kind": "Driver",
        "metadata": {"name": name},
        "spec": {"name": name, "version": "v1", "source": {}},
    })
}

/// Makes an object of the newer version, as soon as the API server accepts that version.
///
/// # Errors
/// When it does not.
pub async fn create_newer(api: &Api<DynamicObject>, object: &Value) -> Result<()> {
    let name = object.pointer("/metadata/name").and_then(Value::as_str);
    let name = name.context("it has a name")?;
    until("a newer object to be accepted", LIMIT, async || {
        if api.get_opt(name).await?.is_none() {
            resources::create(api, object.clone()).await?;
        }
        Ok(())
    })
    .await
}

/// A Store that this operator cannot decode.
pub fn newer_store(name: &str) -> Value {
    let size = StoreSize {
        replicas: 1,
        partitions: 1,
    };
    let mut store = samples::store(name, size);
    if let Some(pod) = store.pointer_mut("/spec/multiRaft/pod") {
        *pod = json!({"imagePullPolicy": NEWER});
    }
    store
}

/// A Session that this operator cannot decode.
pub fn newer_session(name: &str, store: &str) -> Value {
    let mut session = samples::session(name, store, "nobody");
    if let Some(selector) = session.pointer_mut("/spec/selector") {
        *selector = json!({
            "matchLabels": {"app": "nobody"},
            "matchExpressions": newer_expressions(),
        });
    }
    session
}

/// Expressions of a Session's selector that only a newer version knows.
pub fn newer_expressions() -> Value {
    json!([{"key": "colour", "operator": NEWER}])
}

/// Removes the CRD of Sessions, and waits until it is gone.
///
/// # Errors
/// When it does not go.
pub async fn remove_sessions(client: &Client) -> Result<()> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let name = "sessions.atomix.io";
    api.delete(name, &DeleteParams::default()).await?;
    until("the CRD to be gone", Duration::from_secs(60), async || {
        let found = api.get_opt(name).await?;
        ensure!(found.is_none(), "it is still there: {found:?}");
        Ok(())
    })
    .await
}

/// Makes the CRD of Stores one of an older version, which lacks `spec.configFrom`.
///
/// # Errors
/// When it does not have the field, or the API server refuses it.
pub async fn forget_a_field(client: &Client) -> Result<()> {
    let resource = ApiResource::erase::<CustomResourceDefinition>(&());
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    let name = "stores.atomix.io";
    let mut crd = api.get(name).await?;
    let spec = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties";
    let fields = crd.data.pointer_mut(spec).and_then(Value::as_object_mut);
    let removed = fields.and_then(|fields| fields.remove("configFrom"));
    removed.with_context(|| format!("{name} has no configFrom"))?;
    api.replace(name, &kube::api::PostParams::default(), &crd)
        .await
        .with_context(|| format!("cannot change the CRD {name}"))?;
    Ok(())
}
