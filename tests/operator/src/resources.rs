//! Stores, Sessions and Drivers as a user's tools see them: plain JSON, not the operator's types.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::events::v1::Event;
use kube::api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client};
use serde_json::Value;

fn resource(kind: &str, plural: &str) -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("atomix.io", "v1beta1", kind), plural)
}

/// The Stores of a namespace.
pub fn stores(client: &Client, namespace: &str) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), namespace, &resource("Store", "stores"))
}

/// The Sessions of a namespace.
pub fn sessions(client: &Client, namespace: &str) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), namespace, &resource("Session", "sessions"))
}

/// All Drivers.
pub fn drivers(client: &Client) -> Api<DynamicObject> {
    Api::all_with(client.clone(), &resource("Driver", "drivers"))
}

/// Creates an object from JSON.
///
/// # Errors
/// When the API server refuses it.
pub async fn create(api: &Api<DynamicObject>, object: Value) -> Result<DynamicObject> {
    let shown = object.to_string();
    let object: DynamicObject = serde_json::from_value(object)?;
    api.create(&PostParams::default(), &object)
        .await
        .with_context(|| format!("cannot create {shown}"))
}

/// Changes an object by a merge patch.
///
/// # Errors
/// When the API server refuses it.
pub async fn change(api: &Api<DynamicObject>, name: &str, change: Value) -> Result<DynamicObject> {
    let patch = Patch::Merge(change);
    Ok(api.patch(name, &PatchParams::default(), &patch).await?)
}

/// A condition of a status.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Condition {
    /// Such as `Ready`.
    pub type_: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// A word for programs.
    pub reason: String,
    /// A sentence for people.
    pub message: String,
}

/// The conditions of an object; each must be about the object's newest specification.
///
/// # Errors
/// When one is malformed or about an older specification.
pub fn conditions(object: &DynamicObject) -> Result<Vec<Condition>> {
    let text = |condition: &Value, field: &str| {
        condition
            .get(field)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let Some(conditions) = object.data.pointer("/status/conditions") else {
        return Ok(Vec::new());
    };
    let mut seen = Vec::new();
    for condition in conditions
        .as_array()
        .context("status.conditions is not a list")?
    {
        let observed = condition.get("observedGeneration").and_then(Value::as_i64);
        if observed != object.metadata.generation {
            bail!(
                "the condition {condition} is about generation {observed:?}, not about {:?}",
                object.metadata.generation
            );
        }
        seen.push(Condition {
            type_: text(condition, "type"),
            status: text(condition, "status"),
            reason: text(condition, "reason"),
            message: text(condition, "message"),
        });
    }
    seen.sort();
    Ok(seen)
}

/// The condition of this type, when it has this status.
///
/// # Errors
/// When it is not there, has another status, or is about an older specification; with the whole
/// status.
pub fn expect_condition(object: &DynamicObject, type_: &str, status: &str) -> Result<Condition> {
    let found = conditions(object)?
        .into_iter()
        .find(|condition| condition.type_ == type_ && condition.status == status);
    found.with_context(|| {
        format!(
            "{} is not {type_}={status}: {}",
            object.metadata.name.as_deref().unwrap_or_default(),
            object.data.get("status").unwrap_or(&Value::Null)
        )
    })
}

/// The reasons of all events about an object.
///
/// # Errors
/// When they cannot be read.
pub async fn events(client: &Client, namespace: &str, object: &str) -> Result<BTreeSet<String>> {
    let events: Api<Event> = Api::namespaced(client.clone(), namespace);
    let all = events.list(&ListParams::default()).await?;
    let about = all.into_iter().filter(|event| {
        let regarding = event.regarding.as_ref();
        regarding.and_then(|regarding| regarding.name.as_deref()) == Some(object)
    });
    Ok(about.filter_map(|event| event.reason).collect())
}

/// The Warning events about an object, by their reason.
///
/// # Errors
/// When they cannot be read.
pub async fn warnings(
    client: &Client,
    namespace: &str,
    object: &str,
) -> Result<BTreeMap<String, Vec<Event>>> {
    let events: Api<Event> = Api::namespaced(client.clone(), namespace);
    let mut by_reason: BTreeMap<String, Vec<Event>> = BTreeMap::new();
    for event in events.list(&ListParams::default()).await? {
        let about = event
            .regarding
            .as_ref()
            .and_then(|object| object.name.clone());
        if about.as_deref() == Some(object) && event.type_.as_deref() == Some("Warning") {
            let reason = event.reason.clone().unwrap_or_default();
            by_reason.entry(reason).or_default().push(event);
        }
    }
    Ok(by_reason)
}

/// Checks that one Warning of this reason was published about an object, however often the
/// operator looked at it.
///
/// # Errors
/// When there is none, or more than one.
pub async fn expect_one_warning(
    client: &Client,
    namespace: &str,
    object: &str,
    reason: &str,
) -> Result<()> {
    let found = warnings(client, namespace, object).await?;
    let of_reason = found.get(reason).map(Vec::as_slice).unwrap_or_default();
    let times: i32 = of_reason
        .iter()
        .map(|event| event.series.as_ref().map_or(1, |series| series.count))
        .sum();
    anyhow::ensure!(
        times == 1,
        "{object} has {times} Warnings {reason}; in all it has {:?}",
        found.keys()
    );
    Ok(())
}
