//! Reads and writes the ConfigMap with the bootstrap plan.
//!
//! Every write is a CREATE or a PUT with the resource version that was read: of two operators one
//! wins, and the loser reads again.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::PostParams;
use kube::{Api, Client};
use parking_lot::Mutex;

use super::bootstrap::StoredPlan;
use super::build::Owner;
use super::names;
use super::plan_record::Plan;
use crate::controller::{ApiError, FIELD_MANAGER, ObjectKey, call};

const PLAN_KEY: &str = "plan.json";
const MARK_KEY: &str = "bootstrapped";

/// The plan as it was read, and where.
#[derive(Debug, Clone)]
pub struct ReadPlan {
    /// What it says.
    pub stored: StoredPlan,
    /// The object; `None` = there is none.
    object: Option<Box<ConfigMap>>,
}

impl ReadPlan {
    /// The version of the object that was read.
    #[must_use]
    pub fn resource_version(&self) -> Option<&str> {
        self.object.as_ref()?.metadata.resource_version.as_deref()
    }

    fn is_final(&self) -> bool {
        matches!(
            self.stored,
            StoredPlan::Ours {
                bootstrapped: true,
                ..
            }
        )
    }
}

/// Access to the plans of all Stores.
pub struct PlanStore {
    client: Client,
    /// Marked plans, which hardly ever change: they are read again only when the watch shows
    /// another version.
    marked: Mutex<HashMap<ObjectKey, ReadPlan>>,
}

impl std::fmt::Debug for PlanStore {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("PlanStore").finish_non_exhaustive()
    }
}

impl PlanStore {
    /// Nothing is remembered yet.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self {
            client,
            marked: Mutex::default(),
        }
    }

    fn api(&self, owner: &Owner) -> Api<ConfigMap> {
        Api::namespaced(self.client.clone(), &owner.namespace)
    }

    /// The stored plan. Until it is marked it is read from the API server each time, never from a
    /// cache. `seen_version` is the version that the watch shows.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn read(
        &self,
        owner: &Owner,
        seen_version: Option<&str>,
    ) -> Result<ReadPlan, ApiError> {
        let key = ObjectKey::new(&owner.namespace, &owner.name);
        let remembered = self.marked.lock().get(&key).cloned();
        if let Some(remembered) = remembered
            && remembered.resource_version() == seen_version
            && matches!(&remembered.stored, StoredPlan::Ours { plan, .. } if plan.store_uid == owner.reference.uid)
        {
            return Ok(remembered);
        }
        let name = names::bootstrap_plan(&owner.name);
        let api = self.api(owner);
        let found = call("read the bootstrap plan", api.get_opt(&name)).await?;
        Ok(self.remember(owner, found))
    }

    fn remember(&self, owner: &Owner, object: Option<ConfigMap>) -> ReadPlan {
        let read = ReadPlan {
            stored: object
                .as_ref()
                .map_or(StoredPlan::Absent, |object| interpret(object, owner)),
            object: object.map(Box::new),
        };
        let key = ObjectKey::new(&owner.namespace, &owner.name);
        if read.is_final() {
            self.marked.lock().insert(key, read.clone());
        } else {
            self.marked.lock().remove(&key);
        }
        read
    }

    /// Forgets a Store that is gone.
    pub fn forget(&self, key: &ObjectKey) {
        self.marked.lock().remove(key);
    }

    /// CREATEs the plan. `None` = another one exists: read it.
    ///
    /// # Errors
    /// When the call fails otherwise.
    pub async fn create(&self, owner: &Owner, plan: &Plan) -> Result<Option<ReadPlan>, ApiError> {
        let object = ConfigMap {
            metadata: owner.child_meta(&names::bootstrap_plan(&owner.name)),
            data: Some(data(plan, false)),
            ..ConfigMap::default()
        };
        let (api, parameters) = (self.api(owner), parameters());
        let request = api.create(&parameters, &object);
        match call("create the bootstrap plan", request).await {
            Ok(created) => Ok(Some(self.remember(owner, Some(created)))),
            Err(error) if error.is_conflict() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// PUTs `plan` in place of what was read. `None` = it changed meanwhile: read it.
    ///
    /// # Errors
    /// When the call fails otherwise.
    pub async fn replace(
        &self,
        owner: &Owner,
        read: &ReadPlan,
        plan: &Plan,
        bootstrapped: bool,
    ) -> Result<Option<ReadPlan>, ApiError> {
        let Some(object) = &read.object else {
            return Ok(None);
        };
        let mut object = ConfigMap::clone(object);
        object.metadata.managed_fields = None;
        object.data = Some(data(plan, bootstrapped));
        let name = names::bootstrap_plan(&owner.name);
        let (api, parameters) = (self.api(owner), parameters());
        let request = api.replace(&name, &parameters, &object);
        match call("write the bootstrap plan", request).await {
            Ok(written) => Ok(Some(self.remember(owner, Some(written)))),
            Err(error) if error.is_conflict() || error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn parameters() -> PostParams {
    PostParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    }
}

fn data(plan: &Plan, bootstrapped: bool) -> BTreeMap<String, String> {
    BTreeMap::from([
        (PLAN_KEY.to_owned(), plan.to_json()),
        (MARK_KEY.to_owned(), bootstrapped.to_string()),
    ])
}

fn interpret(object: &ConfigMap, owner: &Owner) -> StoredPlan {
    let mut owners = object.metadata.owner_references.iter().flatten();
    if !owners.any(|reference| reference.uid == owner.reference.uid) {
        return StoredPlan::OfEarlierStore;
    }
    let field = |key: &str| object.data.as_ref().and_then(|data| data.get(key));
    let Some(text) = field(PLAN_KEY) else {
        return StoredPlan::Damaged(format!("{PLAN_KEY} is missing"));
    };
    let bootstrapped = match field(MARK_KEY).map(String::as_str) {
        Some("true") => true,
        Some("false") => false,
        _ => return StoredPlan::Damaged(format!("{MARK_KEY} is neither true nor false")),
    };
    match Plan::parse(text) {
        Ok(plan) => StoredPlan::Ours {
            plan: Box::new(plan),
            bootstrapped,
        },
        Err(damaged) => StoredPlan::Damaged(damaged.to_string()),
    }
}
