//! Reads the objects that a Store's `spec.configFrom` names, when they are not what was read before.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::PartialObjectMeta;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;

use super::ConfigSources;
use super::merge::{SourceValue, object_of};
use super::trouble::{ConfigTrouble, SourceKind, SourceObject};
use atomix_controller::apply::is_older;
use atomix_controller::{ApiError, Cache, ObjectKey, call};
use atomix_resources::ConfigSource;
use atomix_resources::labels::CONFIG;

/// Which form of an object was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Version {
    uid: Option<String>,
    resource_version: Option<String>,
}

impl Version {
    fn of(meta: &ObjectMeta) -> Self {
        Self {
            uid: meta.uid.clone(),
            resource_version: meta.resource_version.clone(),
        }
    }

    /// Whether what the cache shows is what was read, or from before it.
    fn covers(&self, seen: &Self) -> bool {
        let (read, seen_version) = (
            self.resource_version.as_deref(),
            seen.resource_version.as_deref(),
        );
        self.uid == seen.uid && (read == seen_version || is_older(seen_version, read))
    }
}

/// An object as its cache shows it.
enum Seen {
    /// The cache is not complete.
    NotYet,
    /// Nobody may look.
    NotGranted,
    /// It is not there, or not labelled.
    Absent,
    /// It is there and labelled.
    Present(Version),
}

/// The values of an object by key. Not shown.
pub(super) type Values = BTreeMap<String, Vec<u8>>;

/// Why an object was not fetched.
pub(super) struct NotFetched {
    pub(super) trouble: ConfigTrouble,
    /// What the API server answered, if it is to be asked again.
    pub(super) refused: Option<ApiError>,
}

impl From<ConfigTrouble> for NotFetched {
    fn from(trouble: ConfigTrouble) -> Self {
        Self {
            trouble,
            refused: None,
        }
    }
}

type Fetched = (
    BTreeMap<SourceObject, Version>,
    Result<BTreeMap<SourceObject, Values>, NotFetched>,
);

impl ConfigSources {
    /// Whether each object is what was read of it.
    pub(super) fn is_current(
        &self,
        namespace: &str,
        objects: &BTreeSet<SourceObject>,
        versions: &BTreeMap<SourceObject, Version>,
    ) -> bool {
        objects.iter().all(
            |object| match (self.seen(namespace, object), versions.get(object)) {
                (Seen::Present(seen), Some(read)) => read.covers(&seen),
                // When it is listed, that is told as a change.
                (Seen::NotYet, Some(_)) => true,
                _ => false,
            },
        )
    }

    fn seen(&self, namespace: &str, object: &SourceObject) -> Seen {
        let key = ObjectKey::new(namespace, &object.name);
        match object.kind {
            SourceKind::ConfigMap => seen_in(&self.shared.config_maps, &key),
            SourceKind::Secret => match self.shared.secrets.get(namespace) {
                Some(secrets) => seen_in(secrets, &key),
                None => Seen::NotGranted,
            },
        }
    }

    /// Fetches every object. The first that cannot be had ends it, with what was read so far.
    pub(super) async fn fetch(
        &self,
        namespace: &str,
        objects: &BTreeSet<SourceObject>,
    ) -> Result<Fetched, ApiError> {
        let mut versions = BTreeMap::new();
        let mut found = BTreeMap::new();
        for object in objects {
            match self.fetch_one(namespace, object).await {
                Ok(Ok((version, values))) => {
                    versions.insert(object.clone(), version);
                    found.insert(object.clone(), values);
                }
                Ok(Err(trouble)) => return Ok((versions, Err(trouble.into()))),
                Err(error) if error.code() == Some(403) => {
                    let not_fetched = NotFetched {
                        trouble: ConfigTrouble::Forbidden(object.clone()),
                        refused: Some(error),
                    };
                    return Ok((versions, Err(not_fetched)));
                }
                Err(error) => return Err(error),
            }
        }
        Ok((versions, Ok(found)))
    }

    async fn fetch_one(
        &self,
        namespace: &str,
        object: &SourceObject,
    ) -> Result<Result<(Version, Values), ConfigTrouble>, ApiError> {
        let is_seen = match self.seen(namespace, object) {
            Seen::NotGranted => {
                let namespace = namespace.to_owned();
                return Ok(Err(ConfigTrouble::NotGranted { namespace }));
            }
            // Nobody waits for the watch: it may be forbidden where a look by name is not.
            Seen::Absent | Seen::NotYet => false,
            Seen::Present(_) => true,
        };
        let client = &self.shared.client;
        match object.kind {
            SourceKind::Secret => {
                let secret: Result<Secret, _> =
                    labelled(client, namespace, object, is_seen).await?;
                Ok(secret.map(|secret| {
                    let data = secret.data.unwrap_or_default();
                    let values = data.into_iter().map(|(key, value)| (key, value.0));
                    (Version::of(&secret.metadata), values.collect())
                }))
            }
            SourceKind::ConfigMap => {
                let config_map: Result<ConfigMap, _> =
                    labelled(client, namespace, object, is_seen).await?;
                Ok(config_map.map(|config_map| {
                    let texts = config_map.data.unwrap_or_default();
                    let texts = texts
                        .into_iter()
                        .map(|(key, text)| (key, text.into_bytes()));
                    let bytes = config_map.binary_data.unwrap_or_default();
                    let bytes = bytes.into_iter().map(|(key, value)| (key, value.0));
                    (
                        Version::of(&config_map.metadata),
                        texts.chain(bytes).collect(),
                    )
                }))
            }
        }
    }
}

fn seen_in<K>(cache: &Cache<PartialObjectMeta<K>>, key: &ObjectKey) -> Seen
where
    PartialObjectMeta<K>: Resource,
{
    match cache.get(key) {
        Some(object) => Seen::Present(Version::of(&object.metadata)),
        None if cache.is_synced() => Seen::Absent,
        None => Seen::NotYet,
    }
}

/// Reads an object that carries the label; of another one only the metadata is read.
async fn labelled<K>(
    client: &Client,
    namespace: &str,
    object: &SourceObject,
    is_seen: bool,
) -> Result<Result<K, ConfigTrouble>, ApiError>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + DeserializeOwned
        + Clone
        + Debug,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    if !is_seen {
        let action = "look for an object of spec.configFrom";
        let found = call(action, api.get_metadata_opt(&object.name)).await?;
        match found {
            None => return Ok(Err(ConfigTrouble::NotFound(object.clone()))),
            Some(found) if !is_labelled(&found.metadata) => {
                return Ok(Err(ConfigTrouble::Unlabelled(object.clone())));
            }
            // The cache will show it soon.
            Some(_) => {}
        }
    }
    let action = "read an object of spec.configFrom";
    let found = call(action, api.get_opt(&object.name)).await?;
    Ok(match found {
        None => Err(ConfigTrouble::NotFound(object.clone())),
        Some(found) if !is_labelled(found.meta()) => Err(ConfigTrouble::Unlabelled(object.clone())),
        Some(found) => Ok(found),
    })
}

fn is_labelled(meta: &ObjectMeta) -> bool {
    let label = meta.labels.as_ref().and_then(|labels| labels.get(CONFIG));
    label.is_some_and(|value| value == "true")
}

/// The value for each source.
pub(super) fn values(
    sources: &[ConfigSource],
    found: &BTreeMap<SourceObject, Values>,
) -> Result<Vec<SourceValue>, ConfigTrouble> {
    let value = |source: &ConfigSource| {
        let object = object_of(source);
        let value = found
            .get(&object)
            .and_then(|values| values.get(&source.key));
        match value {
            Some(value) => SourceValue::of(&object, &source.key, value),
            None => Err(ConfigTrouble::KeyNotFound {
                object,
                key: source.key.clone(),
            }),
        }
    };
    sources.iter().map(value).collect()
}
