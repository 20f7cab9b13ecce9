//! The readiness gate `atomix.io/connected`: what the pod's condition should say, and when it is
//! written.
//!
//! A pod takes no traffic before its runtime first reached the Stores of its Sessions. Afterwards
//! only a Store that should be reached and is not makes it unready: neither the end of the last
//! Session, nor that *we* cannot ask the runtime. Whether that was reached is remembered in the
//! condition itself: its reason is [`DISCONNECTED`] once it was True, and [`NOT_CONNECTED`] before.

use std::collections::{BTreeSet, HashMap};

use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};

use super::plan::{Desired, Observed};
use super::pod::RuntimePod;
use atomix_controller::apply::is_older;
use atomix_controller::{ApiError, FIELD_MANAGER, ObjectKey, call};
use atomix_resources::labels::CONNECTED;

/// The condition was never True.
const NOT_CONNECTED: &str = "NotConnected";
/// The condition was True before.
const DISCONNECTED: &str = "Disconnected";

/// The condition of a pod.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub struct Condition {
    /// [`CONNECTED`], where it is ours.
    #[serde(rename = "type")]
    pub type_: String,
    /// True or False.
    pub status: String,
    /// CamelCase word for programs.
    pub reason: Option<String>,
    /// For people.
    pub message: Option<String>,
}

impl Condition {
    fn new(is_true: bool, reason: &str, message: String) -> Self {
        Self {
            type_: CONNECTED.to_owned(),
            status: if is_true { "True" } else { "False" }.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
        }
    }

    fn connected(message: &str) -> Self {
        Self::new(true, "Connected", message.to_owned())
    }

    fn is_true(&self) -> bool {
        self.status == "True"
    }

    fn was_true(&self) -> bool {
        self.is_true() || self.reason.as_deref() == Some(DISCONNECTED)
    }
}

/// What the condition should say; `None` = what it says now. `observed` is what the runtime answered.
/// Messages name Stores, never what a driver says: that changes from look to look.
pub(super) fn condition(
    now: Option<&Condition>,
    desired: &Desired,
    has_sessions: bool,
    observed: Option<&Observed>,
) -> Option<Condition> {
    let was_connected = now.is_some_and(Condition::was_true);
    let Some(observed) = observed else {
        let waits = "the runtime has not answered yet".to_owned();
        return (!was_connected).then(|| Condition::new(false, NOT_CONNECTED, waits));
    };
    let present = observed.connections.keys();
    let kept = present.filter(|store| desired.keeps(store));
    let wanted: BTreeSet<&ObjectKey> = desired.connections.keys().chain(kept).collect();
    if wanted.is_empty() {
        if was_connected {
            let is_shut = now.is_none_or(|now| !now.is_true());
            return is_shut.then(|| Condition::connected("no Store is wanted any more"));
        }
        let (reason, message) = if has_sessions {
            (
                NOT_CONNECTED,
                "no Session that selects this pod has a usable Store yet: see their conditions",
            )
        } else {
            (
                "NoSession",
                "no Session selects this pod: create one whose selector matches its labels",
            )
        };
        return Some(Condition::new(false, reason, message.to_owned()));
    }
    let is_reached = |store: &ObjectKey| {
        let connection = observed.connections.get(store);
        connection.is_some_and(|connection| connection.trouble.is_none())
    };
    let missing: Vec<String> = wanted
        .iter()
        .filter(|store| !is_reached(store))
        .map(ToString::to_string)
        .collect();
    Some(if missing.is_empty() {
        Condition::connected("the runtime reaches every Store that it should")
    } else {
        let reason = if was_connected {
            DISCONNECTED
        } else {
            NOT_CONNECTED
        };
        let message = format!("the runtime does not reach {}", missing.join(", "));
        Condition::new(false, reason, message)
    })
}

/// Writes the conditions, and remembers what it wrote until the cache shows it.
#[derive(Debug, Default)]
pub(super) struct Gates {
    written: Mutex<HashMap<ObjectKey, Written>>,
}

#[derive(Clone, Debug)]
struct Written {
    uid: Option<String>,
    resource_version: Option<String>,
    condition: Condition,
}

impl Written {
    /// Whether the pod as the cache shows it is from before the write.
    fn is_ahead_of(&self, pod: &RuntimePod) -> bool {
        let seen = pod.metadata.resource_version.as_deref();
        self.uid == pod.metadata.uid && is_older(seen, self.resource_version.as_deref())
    }
}

impl Gates {
    /// The condition as it is now, as far as we know.
    pub(super) fn current(&self, key: &ObjectKey, pod: &RuntimePod) -> Option<Condition> {
        let written = self.written.lock();
        match written.get(key) {
            Some(written) if written.is_ahead_of(pod) => Some(written.condition.clone()),
            _ => pod.connected_condition().cloned(),
        }
    }

    /// Whether somebody else wrote the condition: what the cache shows is not what we wrote.
    pub(super) fn is_foreign(&self, key: &ObjectKey, pod: &RuntimePod) -> bool {
        let written = self.written.lock();
        written.get(key).is_some_and(|written| {
            !written.is_ahead_of(pod) && pod.connected_condition() != Some(&written.condition)
        })
    }

    pub(super) fn forget(&self, key: &ObjectKey) {
        self.written.lock().remove(key);
    }

    /// Writes the condition of a pod with the gate, if it differs.
    pub(super) async fn write(
        &self,
        client: &Client,
        key: &ObjectKey,
        pod: &RuntimePod,
        wanted: Option<Condition>,
    ) -> Result<(), ApiError> {
        let Some(wanted) = wanted.filter(|_| pod.has_gate()) else {
            return Ok(());
        };
        let current = self.current(key, pod);
        if current.as_ref() == Some(&wanted) {
            return Ok(());
        }
        let patch = Patch::Strategic(patch(pod, current.as_ref(), &wanted));
        let params = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let pods: Api<RuntimePod> = Api::namespaced(client.clone(), &key.namespace);
        let request = pods.patch_status(&key.name, &params, &patch);
        match call("write the condition of a pod", request).await {
            Ok(after) => {
                let written = Written {
                    uid: after.metadata.uid,
                    resource_version: after.metadata.resource_version,
                    condition: wanted,
                };
                self.written.lock().insert(key.clone(), written);
                Ok(())
            }
            Err(error) if error.is_not_found() => {
                self.forget(key);
                Ok(())
            }
            Err(error) => {
                // The effect is unknown: the cache decides.
                self.forget(key);
                Err(error)
            }
        }
    }
}

fn patch(pod: &RuntimePod, current: Option<&Condition>, wanted: &Condition) -> Value {
    let mut condition = json!({
        "type": wanted.type_,
        "status": wanted.status,
        "reason": wanted.reason,
        "message": wanted.message,
    });
    let is_transition = current.is_none_or(|current| current.status != wanted.status);
    if let (true, Some(fields)) = (is_transition, condition.as_object_mut()) {
        let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        fields.insert("lastTransitionTime".to_owned(), now.into());
    }
    json!({"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [condition]}})
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use atomix_proto::runtime::v1::DriverId;

    use super::*;
    use crate::runtimes::plan::{ObservedConnection, WantedConnection};

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new("garden", name)
    }

    fn desired(connected: &[&str], kept: &[&str]) -> Desired {
        let connection = WantedConnection {
            driver: DriverId::default(),
            config: String::new(),
            config_digest: String::new(),
            has_secrets: false,
        };
        Desired {
            connections: connected
                .iter()
                .map(|name| (key(name), connection.clone()))
                .collect(),
            kept: kept.iter().map(|name| key(name)).collect(),
            ..Desired::default()
        }
    }

    fn observed(stores: &[(&str, Option<&str>)]) -> Observed {
        let connections = stores.iter().map(|(name, trouble)| {
            let connection = ObservedConnection {
                driver: DriverId::default(),
                config_digest: String::new(),
                trouble: trouble.map(str::to_owned),
            };
            (key(name), connection)
        });
        Observed {
            connections: connections.collect(),
            routes_digest: String::new(),
            routes: None,
        }
    }

    #[test]
    fn the_gate_opens_with_the_first_connection_and_closes_only_for_a_store_that_is_wanted() {
        let reached = observed(&[("rose", None)]);
        let lost = observed(&[("rose", Some("no leader"))]);
        let nothing = observed(&[]);
        let (some, none) = (desired(&["rose"], &[]), desired(&[], &[]));
        let beside_unreadable = Desired {
            keeps_unknown: true,
            ..Desired::default()
        };
        let open = Condition::new(true, "Connected", String::new());
        let shut = Condition::new(false, "NoSession", String::new());
        let waiting = Condition::new(false, "NotConnected", String::new());
        let closed = Condition::new(false, "Disconnected", String::new());
        for (now, desired, has_sessions, observed, expected) in [
            // Before the first connection.
            (
                None,
                &none,
                false,
                Some(&nothing),
                Some(("False", "NoSession")),
            ),
            (
                None,
                &none,
                true,
                Some(&nothing),
                Some(("False", "NotConnected")),
            ),
            (None, &some, true, None, Some(("False", "NotConnected"))),
            (
                None,
                &some,
                true,
                Some(&nothing),
                Some(("False", "NotConnected")),
            ),
            (
                None,
                &some,
                true,
                Some(&lost),
                Some(("False", "NotConnected")),
            ),
            (
                Some(&shut),
                &some,
                true,
                Some(&reached),
                Some(("True", "Connected")),
            ),
            (
                Some(&waiting),
                &none,
                false,
                Some(&nothing),
                Some(("False", "NoSession")),
            ),
            // Afterwards.
            (
                Some(&open),
                &some,
                true,
                Some(&lost),
                Some(("False", "Disconnected")),
            ),
            (
                Some(&closed),
                &some,
                true,
                Some(&lost),
                Some(("False", "Disconnected")),
            ),
            (Some(&closed), &some, true, None, None),
            // The last Session, or its Store, goes while the Store is not reached.
            (
                Some(&closed),
                &none,
                false,
                Some(&nothing),
                Some(("True", "Connected")),
            ),
            (
                Some(&closed),
                &none,
                true,
                Some(&nothing),
                Some(("True", "Connected")),
            ),
            (
                Some(&closed),
                &some,
                true,
                Some(&reached),
                Some(("True", "Connected")),
            ),
            (
                Some(&open),
                &some,
                true,
                Some(&reached),
                Some(("True", "Connected")),
            ),
            (Some(&open), &some, true, None, None),
            (Some(&open), &none, false, Some(&nothing), None),
            (Some(&open), &none, true, Some(&nothing), None),
            // A connection that is kept counts as long as it is there.
            (
                None,
                &desired_kept(),
                true,
                Some(&reached),
                Some(("True", "Connected")),
            ),
            (
                Some(&open),
                &desired_kept(),
                true,
                Some(&lost),
                Some(("False", "Disconnected")),
            ),
            (Some(&open), &desired_kept(), true, Some(&nothing), None),
            (
                Some(&open),
                &beside_unreadable,
                false,
                Some(&lost),
                Some(("False", "Disconnected")),
            ),
        ] {
            let found = condition(now, desired, has_sessions, observed);
            let found = found
                .as_ref()
                .map(|found| (found.status.as_str(), found.reason.as_deref().unwrap()));
            assert_eq!(found, expected, "{now:?} {desired:?} {observed:?}");
        }
    }

    fn desired_kept() -> Desired {
        desired(&[], &["rose"])
    }

    #[test]
    fn only_a_change_of_the_status_is_a_transition() {
        let pod = RuntimePod::default();
        let wanted = Condition::new(false, "NotConnected", "no rose".to_owned());
        let time = "/status/conditions/0/lastTransitionTime";
        assert!(patch(&pod, None, &wanted).pointer(time).is_some());
        let same = Condition::new(false, "NoSession", String::new());
        assert!(patch(&pod, Some(&same), &wanted).pointer(time).is_none());
        let other = Condition::new(true, "Connected", String::new());
        assert!(patch(&pod, Some(&other), &wanted).pointer(time).is_some());
    }

    #[test]
    fn what_was_written_counts_until_the_cache_shows_it_or_something_newer() {
        let gates = Gates::default();
        let open = Condition::new(true, "Connected", String::new());
        let shut = Condition::new(false, "NoSession", String::new());
        let pod = |version: &str, condition: &Condition| -> RuntimePod {
            let mut pod: RuntimePod = serde_json::from_value(json!({
                "metadata": {"uid": "1", "resourceVersion": version}, "status": {},
            }))
            .unwrap();
            pod.status.as_mut().unwrap().conditions = Some(vec![condition.clone()]);
            pod
        };
        let written = Written {
            uid: Some("1".to_owned()),
            resource_version: Some("20".to_owned()),
            condition: open.clone(),
        };
        gates.written.lock().insert(key("bee"), written);
        let bee = key("bee");
        for (seen, current, is_foreign) in [
            (pod("10", &shut), &open, false),
            (pod("20", &open), &open, false),
            (pod("30", &open), &open, false),
            (pod("30", &shut), &shut, true),
        ] {
            assert_eq!(gates.current(&bee, &seen).as_ref(), Some(current));
            assert_eq!(gates.is_foreign(&bee, &seen), is_foreign, "{seen:?}");
        }
        gates.forget(&bee);
        assert!(!gates.is_foreign(&bee, &pod("30", &shut)));
    }
}
