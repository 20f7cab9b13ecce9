//! Objects of ours that do not decode, as after the roll-back of an operator: their status says so
//! and an event warns, once for each error; nothing else of the status is lost.

use std::collections::HashMap;
use std::fmt::Debug;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ApiResource, DynamicObject};
use kube::core::error_boundary::InvalidObject;
use kube::{Api, Client, Resource};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::error::{ApiError, call};
use super::events::Events;
use super::key::ObjectKey;
use super::status::StatusWriter;
use atomix_resources::conditions::{self, READY, STALLED, WantedCondition, follow_some};

/// The reason of their conditions.
const REASON: &str = "Undecodable";

/// Reports the objects of one kind.
pub struct UndecodableReports {
    client: Client,
    events: Events,
    statuses: StatusWriter,
    /// What becomes of their work meanwhile, for people.
    meanwhile: &'static str,
    /// What was reported of each object.
    reported: Mutex<HashMap<ObjectKey, Report>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Report {
    uid: Option<String>,
    generation: Option<i64>,
    error: String,
}

impl Debug for UndecodableReports {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("UndecodableReports")
            .finish_non_exhaustive()
    }
}

impl UndecodableReports {
    /// Nothing has been reported yet. `statuses` is the writer of the kind's other statuses;
    /// `meanwhile` says what becomes of an object's work.
    #[must_use]
    pub fn new(
        client: Client,
        events: Events,
        statuses: StatusWriter,
        meanwhile: &'static str,
    ) -> Self {
        Self {
            client,
            events,
            statuses,
            meanwhile,
            reported: Mutex::default(),
        }
    }

    /// Reports an object, unless that was done before.
    ///
    /// # Errors
    /// When its status can be neither read nor written.
    pub async fn report<K>(&self, object: &InvalidObject) -> Result<(), ApiError>
    where
        K: Resource<DynamicType = ()> + Debug + Clone,
    {
        let meta = &object.metadata;
        let key = ObjectKey::new(
            meta.namespace.clone().unwrap_or_default(),
            meta.name.clone().unwrap_or_default(),
        );
        let report = Report {
            uid: meta.uid.clone(),
            generation: meta.generation,
            error: object.error.clone(),
        };
        if self.reported.lock().get(&key) == Some(&report) {
            return Ok(());
        }
        // Its status cannot be read from the cache, but must not be lost.
        let resource = ApiResource::erase::<K>(&());
        let api: Api<DynamicObject> = match &meta.namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        };
        let read = call("read the object", api.get_opt(&key.name)).await?;
        // Gone, or changed since: the watch tells.
        let Some(current) = read.filter(|current| {
            current.metadata.uid == meta.uid && current.metadata.generation == meta.generation
        }) else {
            return Ok(());
        };
        let known = current.data.get("status").cloned().unwrap_or(Value::Null);
        let before = conditions_of(&known);
        let generation = meta.generation.unwrap_or_default();
        let now = Timestamp::now();
        let after = conditions(&object.error, self.meanwhile, &before, generation, now);
        let is_trouble = |condition: &Condition| condition.reason == REASON;
        self.events
            .warn_of_changes::<K>(meta, &before, &after, is_trouble);
        let desired = with_conditions(&known, &after, generation);
        self.statuses
            .write_value::<K>(&current.metadata, known, desired)
            .await?;
        self.reported.lock().insert(key, report);
        Ok(())
    }

    /// Forgets an object that is gone.
    pub fn forget(&self, key: &ObjectKey) {
        self.reported.lock().remove(key);
    }
}

fn conditions(
    error: &str,
    meanwhile: &str,
    before: &[Condition],
    generation: i64,
    now: Timestamp,
) -> Vec<Condition> {
    let message = format!(
        "this version of the operator cannot read the object: {error}; {meanwhile}; correct the \
         object, or install the version of the operator that knows this field"
    );
    let wanted = [
        WantedCondition::is_false(READY, REASON, message.clone()),
        WantedCondition::is_false(conditions::PROGRESSING, REASON, ""),
        WantedCondition::is_true(STALLED, REASON, message),
    ];
    follow_some(before, &wanted, generation, now)
}

fn conditions_of(status: &Value) -> Vec<Condition> {
    let conditions = status.get("conditions").cloned().unwrap_or_default();
    serde_json::from_value(conditions).unwrap_or_default()
}

fn with_conditions(status: &Value, conditions: &[Condition], generation: i64) -> Value {
    let mut status = status.as_object().cloned().unwrap_or_default();
    status.insert("observedGeneration".to_owned(), json!(generation));
    status.insert("conditions".to_owned(), json!(conditions));
    Value::Object(status)
}

#[cfg(test)]
mod tests {
    use super::*;
    use atomix_resources::conditions::{DATA_LOST, follow, holds};

    #[test]
    fn the_rest_of_the_status_stays() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let lost = follow(
            &[],
            &[WantedCondition::is_true(DATA_LOST, "X", "all")],
            1,
            at(1),
        );
        let known = json!({"incarnation": 2, "observedGeneration": 1, "conditions": lost});
        let after = conditions(
            "unknown field",
            "it stays",
            &conditions_of(&known),
            3,
            at(2),
        );
        assert!(holds(&after, DATA_LOST) && holds(&after, STALLED));
        let desired = with_conditions(&known, &after, 3);
        assert_eq!(desired["incarnation"], 2);
        assert_eq!(desired["observedGeneration"], 3);
        // The same error again writes nothing.
        let again = conditions("unknown field", "it stays", &after, 3, at(9));
        assert_eq!(with_conditions(&desired, &again, 3), desired);
    }
}
