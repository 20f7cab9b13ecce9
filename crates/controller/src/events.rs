//! Kubernetes Events: fire and forget, bounded, never repeated while they say nothing new.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::error::call;
use crate::metrics::Metrics;

/// Events that wait to be written; more are dropped and counted.
const CAPACITY: usize = 1024;

/// For how long the same event of the same object is not written again.
const REPEAT_AFTER: Duration = Duration::from_secs(3600);

/// How many written events are remembered.
const REMEMBERED: usize = 4096;

/// After so many events the recorder is made anew: it keeps each whole for some minutes, for counting
/// those that differ only in their note, and lets go of old ones only when it writes another.
const COUNTED_TOGETHER: usize = 512;

/// Whether an event tells of trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Severity {
    /// All is as it should be.
    Normal,
    /// A person may want to look.
    Warning,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Record {
    regarding: Regarding,
    severity: Severity,
    reason: String,
    action: &'static str,
    note: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Regarding {
    api_version: String,
    kind: String,
    namespace: Option<String>,
    name: Option<String>,
    uid: Option<String>,
}

/// Accepts events. Clones share one writer.
#[derive(Debug, Clone)]
pub struct Events {
    records: mpsc::Sender<Record>,
    metrics: Metrics,
}

/// Writes the events that [`Events`] accepted.
pub struct EventWriter {
    records: mpsc::Receiver<Record>,
    client: Client,
    reporter: Reporter,
}

impl std::fmt::Debug for EventWriter {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("EventWriter")
            .finish_non_exhaustive()
    }
}

impl Events {
    /// The two ends; `instance` names this process.
    #[must_use]
    pub fn new(client: Client, instance: &str, metrics: Metrics) -> (Self, EventWriter) {
        let (sender, receiver) = mpsc::channel(CAPACITY);
        let reporter = Reporter {
            controller: "atomix.io/operator".to_owned(),
            instance: Some(instance.to_owned()),
        };
        let writer = EventWriter {
            records: receiver,
            client,
            reporter,
        };
        let events = Self {
            records: sender,
            metrics,
        };
        (events, writer)
    }

    /// Reports on an object. `reason` is CamelCase, `action` says what the operator did or tried
    /// (CamelCase), `note` is a sentence for people.
    pub fn publish<K: Resource<DynamicType = ()>>(
        &self,
        object: &K,
        severity: Severity,
        reason: &'static str,
        action: &'static str,
        note: impl Into<String>,
    ) {
        self.publish_about::<K>(object.meta(), severity, reason, action, note);
    }

    /// Warns of the trouble that conditions tell of since their last change: one event for each
    /// reason that was not among the trouble before.
    pub fn warn_of_changes<K: Resource<DynamicType = ()>>(
        &self,
        meta: &ObjectMeta,
        before: &[Condition],
        after: &[Condition],
        is_trouble: impl Fn(&Condition) -> bool,
    ) {
        for (reason, message) in new_trouble(before, after, is_trouble) {
            self.publish_about::<K>(meta, Severity::Warning, reason, "Reconcile", message);
        }
    }

    fn publish_about<K: Resource<DynamicType = ()>>(
        &self,
        meta: &ObjectMeta,
        severity: Severity,
        reason: impl Into<String>,
        action: &'static str,
        note: impl Into<String>,
    ) {
        let record = Record {
            regarding: Regarding {
                api_version: K::api_version(&()).into_owned(),
                kind: K::kind(&()).into_owned(),
                namespace: meta.namespace.clone(),
                name: meta.name.clone(),
                uid: meta.uid.clone(),
            },
            severity,
            reason: reason.into(),
            action,
            note: shortened(note.into()),
        };
        if self.records.try_send(record).is_err() {
            self.metrics.event_dropped();
        }
    }
}

/// Reason and message of the conditions that are trouble now, without reasons that were before.
fn new_trouble<'a>(
    before: &[Condition],
    after: &'a [Condition],
    is_trouble: impl Fn(&Condition) -> bool,
) -> BTreeMap<&'a str, &'a str> {
    let was_told = |condition: &Condition| {
        before
            .iter()
            .any(|told| told.reason == condition.reason && is_trouble(told))
    };
    let news = after
        .iter()
        .filter(|condition| is_trouble(condition) && !was_told(condition));
    news.map(|condition| (condition.reason.as_str(), condition.message.as_str()))
        .collect()
}

/// The API server refuses notes of more than 1,024 bytes.
fn shortened(mut note: String) -> String {
    const LIMIT: usize = 1000;
    if note.len() > LIMIT {
        let end = (0..=LIMIT).rev().find(|end| note.is_char_boundary(*end));
        note.truncate(end.unwrap_or(0));
        note.push('…');
    }
    note
}

impl EventWriter {
    /// Writes events until `shutdown`. A failed write loses that event only.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut written: HashMap<Record, Instant> = HashMap::new();
        let new_recorder = || Recorder::new(self.client.clone(), self.reporter.clone());
        let mut recorder = new_recorder();
        let mut recorded = 0;
        loop {
            let record = tokio::select! {
                () = shutdown.cancelled() => return,
                record = self.records.recv() => record,
            };
            let Some(record) = record else { return };
            let now = Instant::now();
            let repeated = written
                .get(&record)
                .is_some_and(|at| now.duration_since(*at) < REPEAT_AFTER);
            if repeated {
                continue;
            }
            if written.len() >= REMEMBERED {
                written.retain(|_, at| now.duration_since(*at) < REPEAT_AFTER);
                if written.len() >= REMEMBERED {
                    written.clear();
                }
            }
            let reference = ObjectReference {
                api_version: Some(record.regarding.api_version.clone()),
                kind: Some(record.regarding.kind.clone()),
                // Events of cluster-scoped objects are kept in "default".
                namespace: record.regarding.namespace.clone(),
                name: record.regarding.name.clone(),
                uid: record.regarding.uid.clone(),
                ..ObjectReference::default()
            };
            let event = Event {
                type_: match record.severity {
                    Severity::Normal => EventType::Normal,
                    Severity::Warning => EventType::Warning,
                },
                reason: record.reason.clone(),
                note: Some(record.note.clone()),
                action: record.action.to_owned(),
                secondary: None,
            };
            if recorded == COUNTED_TOGETHER {
                recorder = new_recorder();
                recorded = 0;
            }
            recorded += 1;
            match call("write an event", recorder.publish(&event, &reference)).await {
                Ok(()) => {
                    written.insert(record, now);
                }
                Err(error) => tracing::debug!(%error, reason = %record.reason, "event lost"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;

    use super::*;
    use atomix_resources::conditions::{DEGRADED, READY, STALLED, WantedCondition, follow};

    #[test]
    fn each_reason_is_told_once_while_it_lasts() {
        let now = Timestamp::UNIX_EPOCH;
        let ready = follow(&[], &[WantedCondition::is_true(READY, "Fine", "")], 1, now);
        let wanted = [
            WantedCondition::is_false(READY, "InvalidSpec", "colour"),
            WantedCondition::is_true(STALLED, "InvalidSpec", "colour"),
        ];
        let invalid = follow(&ready, &wanted, 1, now);
        let wanted = [WantedCondition::is_true(DEGRADED, "DiskLost", "of a")];
        let degraded = follow(&invalid, &wanted, 1, now);
        let is_trouble =
            |condition: &Condition| (condition.type_ == READY) != (condition.status == "True");
        let told = |before: &[Condition], after: &[Condition]| -> Vec<String> {
            let news = new_trouble(before, after, is_trouble);
            news.into_keys().map(str::to_owned).collect()
        };
        assert_eq!(told(&[], &ready), Vec::<String>::new());
        assert_eq!(told(&ready, &invalid), ["InvalidSpec"]);
        assert_eq!(told(&invalid, &invalid), Vec::<String>::new());
        assert_eq!(told(&invalid, &degraded), ["DiskLost"]);
        assert_eq!(told(&degraded, &invalid), ["InvalidSpec"]);
    }
}
