//! Reads and writes the ConfigMap with the bootstrap plan.
//!
//! Every write is a CREATE or a PUT with the resource version that was read: of two operators one
//! wins, and the loser reads again.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::PostParams;
use kube::{Api, Client};
use parking_lot::Mutex;

use crate::store::bootstrap::StoredPlan;
use crate::store::bootstrap::plan_record::Plan;
use crate::store::names;
use crate::store::objects::build::Owner;
use atomix_controller::{ApiError, FIELD_MANAGER, ObjectKey, call};

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

    /// Whether it belongs to this very Store, whoever's data it tells of.
    fn is_of(&self, owner: &Owner) -> bool {
        let object = self.object.as_ref();
        let owners = object.and_then(|object| object.metadata.owner_references.as_ref());
        let mut owners = owners.into_iter().flatten();
        owners.any(|found| found.uid == owner.reference.uid)
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
            && remembered.is_of(owner)
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

    /// CREATEs the plan, marked when its groups exist already. `None` = another one exists: read it.
    ///
    /// # Errors
    /// When the call fails otherwise.
    pub async fn create(
        &self,
        owner: &Owner,
        plan: &Plan,
        bootstrapped: bool,
    ) -> Result<Option<ReadPlan>, ApiError> {
        let object = ConfigMap {
            metadata: owner.child_meta(&names::bootstrap_plan(&owner.name)),
            data: Some(data(plan, bootstrapped)),
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

/// What the plan's object is when it is not this Store's. That of an earlier Store of this name
/// goes by itself; anything else only a person can remove.
fn not_ours(owners: &[OwnerReference], owner: &Owner) -> Option<StoredPlan> {
    let wanted = &owner.reference;
    if owners.iter().any(|found| found.uid == wanted.uid) {
        return None;
    }
    let is_earlier = |found: &OwnerReference| {
        // The group decides: the version of an earlier Store may be another one.
        let group = |version: &str| version.split('/').next().unwrap_or_default().to_owned();
        found.kind == wanted.kind
            && found.name == wanted.name
            && group(&found.api_version) == group(&wanted.api_version)
    };
    if owners.iter().any(is_earlier) {
        return Some(StoredPlan::OfEarlierStore);
    }
    let owner = match owners.first() {
        Some(found) => format!("belongs to {} {} ({})", found.kind, found.name, found.uid),
        None => "belongs to nobody".to_owned(),
    };
    Some(StoredPlan::NameTaken(owner))
}

fn interpret(object: &ConfigMap, owner: &Owner) -> StoredPlan {
    let owners = object.metadata.owner_references.as_deref();
    if let Some(not_ours) = not_ours(owners.unwrap_or_default(), owner) {
        return not_ours;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(api_version: &str, kind: &str, name: &str, uid: &str) -> OwnerReference {
        OwnerReference {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            name: name.to_owned(),
            uid: uid.to_owned(),
            ..OwnerReference::default()
        }
    }

    #[test]
    fn only_the_plan_of_an_earlier_store_of_this_name_is_waited_for() {
        let owner = Owner {
            name: "tulip".to_owned(),
            namespace: "meadow".to_owned(),
            reference: reference("atomix.io/v1beta1", "Store", "tulip", "u-1"),
        };
        let taken = |owner: &str| Some(StoredPlan::NameTaken(owner.to_owned()));
        let own = reference("atomix.io/v1beta1", "Store", "tulip", "u-1");
        let earlier = reference("atomix.io/v1", "Store", "tulip", "u-0");
        let other_store = reference("atomix.io/v1beta1", "Store", "tulip-bootstrap", "u-2");
        let other_group = reference("shop/v1", "Store", "tulip", "u-3");
        for (owners, expected) in [
            (vec![own.clone()], None),
            (vec![earlier.clone(), own], None),
            (vec![earlier], Some(StoredPlan::OfEarlierStore)),
            (
                vec![other_store],
                taken("belongs to Store tulip-bootstrap (u-2)"),
            ),
            (vec![other_group], taken("belongs to Store tulip (u-3)")),
            (vec![], taken("belongs to nobody")),
        ] {
            assert_eq!(not_ours(&owners, &owner), expected, "{owners:?}");
        }
    }
}
