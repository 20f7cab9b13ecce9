//! Objects as a user handles them: YAML applied, conditions read.

use std::time::Duration;

use anyhow::Context as _;
use kube::api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::Value;

use crate::cluster::Namespace;
use crate::wait::until;

const FIELD_MANAGER: &str = "atomix-e2e";

impl Namespace {
    /// Applies every document of a YAML text, as `kubectl apply --server-side` does.
    ///
    /// # Errors
    /// When a document is no object or the API server refuses one.
    pub async fn apply(&self, yaml: &str) -> anyhow::Result<()> {
        for document in documents(yaml)? {
            let object: DynamicObject = serde_json::from_value(document)?;
            let types = object.types.clone().context("an object without kind")?;
            let gvk = GroupVersionKind::try_from(&types)?;
            let api = self.dynamic(&gvk);
            api.patch(
                &object.name_any(),
                &PatchParams::apply(FIELD_MANAGER).force(),
                &Patch::Apply(&object),
            )
            .await
            .with_context(|| format!("cannot apply {} {}", types.kind, object.name_any()))?;
        }
        Ok(())
    }

    /// Applies a text that the API server must refuse, and returns its message.
    ///
    /// # Errors
    /// When it was accepted.
    pub async fn refused(&self, yaml: &str) -> anyhow::Result<String> {
        match self.apply(yaml).await {
            Ok(()) => anyhow::bail!("the API server accepted what it must refuse:\n{yaml}"),
            Err(error) => Ok(format!("{error:#}")),
        }
    }

    /// A Store, Session or Driver of this namespace, or `None`.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn get(&self, kind: &str, name: &str) -> anyhow::Result<Option<Value>> {
        let object = self.atomix(kind).get_opt(name).await?;
        Ok(object.map(serde_json::to_value).transpose()?)
    }

    /// Deletes a Store or Session without waiting for its end.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn delete_object(&self, kind: &str, name: &str) -> anyhow::Result<()> {
        self.delete_with(kind, name, &DeleteParams::default()).await
    }

    /// Deletes a Store or Session in the foreground or background, without waiting for its end.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn delete_with(
        &self,
        kind: &str,
        name: &str,
        how: &DeleteParams,
    ) -> anyhow::Result<()> {
        self.atomix(kind).delete(name, how).await?;
        Ok(())
    }

    /// Waits until a condition of an object has this status (and, if given, reason), and returns
    /// its message. The condition must speak of the object's present generation.
    ///
    /// # Errors
    /// When it has not within `limit`; the error shows the conditions.
    pub async fn condition(
        &self,
        kind: &str,
        name: &str,
        condition: &str,
        status: &str,
        reason: Option<&str>,
        limit: Duration,
    ) -> anyhow::Result<String> {
        let what = format!(
            "{kind} {name} has {condition}={status} {}",
            reason.unwrap_or_default()
        );
        let mut last = Value::Null;
        let message = until(&what, limit, async || {
            let Some(object) = self.get(kind, name).await? else {
                return Ok(None);
            };
            last = object["status"]["conditions"].clone();
            let generation = object["metadata"]["generation"].as_i64();
            let found = last.as_array().into_iter().flatten().find(|found| {
                found["type"] == condition
                    && found["status"] == status
                    && found["observedGeneration"].as_i64() == generation
                    && reason.is_none_or(|reason| found["reason"] == reason)
            });
            Ok(found.map(|found| found["message"].as_str().unwrap_or_default().to_owned()))
        })
        .await;
        message.with_context(|| format!("the conditions are {last:#}"))
    }

    fn atomix(&self, kind: &str) -> Api<DynamicObject> {
        self.dynamic(&GroupVersionKind::gvk("atomix.io", "v1beta1", kind))
    }

    fn dynamic(&self, gvk: &GroupVersionKind) -> Api<DynamicObject> {
        let resource = ApiResource::from_gvk(gvk);
        if gvk.kind == "Driver" || gvk.kind == "Namespace" {
            return Api::all_with(self.cluster().client(), &resource);
        }
        Api::namespaced_with(self.cluster().client(), self.name(), &resource)
    }
}

/// The documents of a YAML text.
///
/// # Errors
/// When one is no YAML.
pub fn documents(yaml: &str) -> anyhow::Result<Vec<Value>> {
    use serde::Deserialize as _;
    serde_yaml::Deserializer::from_str(yaml)
        .map(|document| Ok(Value::deserialize(document)?))
        .filter(|document| !matches!(document, Ok(Value::Null)))
        .collect()
}
