//! Counts Stores and Sessions by their state, for metrics. Labels are kinds and states, never names.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Resource;
use kube::core::DeserializeGuard;

use crate::context::Context;
use atomix_controller::metrics::Metrics;
use atomix_controller::{Cache, Change};
use atomix_resources::conditions::{READY, STALLED, holds};

/// Keeps the gauges as the caches change; call it before they run.
pub(crate) fn follow(context: &Context) {
    follow_kind("Store", &context.stores, &context.metrics, |store| {
        store
            .status
            .as_ref()
            .map(|status| status.conditions.as_slice())
    });
    follow_kind("Session", &context.sessions, &context.metrics, |session| {
        session
            .status
            .as_ref()
            .map(|status| status.conditions.as_slice())
    });
}

fn follow_kind<K: Resource<DynamicType = ()> + 'static>(
    kind: &'static str,
    cache: &Cache<DeserializeGuard<K>>,
    metrics: &Metrics,
    conditions: fn(&K) -> Option<&[Condition]>,
) {
    let metrics = metrics.clone();
    let state = move |object: &DeserializeGuard<K>| match &object.0 {
        Err(_) => "Undecodable",
        Ok(object) if object.meta().deletion_timestamp.is_some() => "Deleting",
        Ok(object) => state(conditions(object).unwrap_or_default()),
    };
    cache.listen(
        move |change: &Change<'_, DeserializeGuard<K>>| match change {
            Change::Deleted(object) => metrics.objects_changed(kind, state(object), -1),
            Change::Applied { before, after } => {
                if let Some(before) = before {
                    metrics.objects_changed(kind, state(before), -1);
                }
                metrics.objects_changed(kind, state(after), 1);
            }
        },
    );
}

fn state(conditions: &[Condition]) -> &'static str {
    if holds(conditions, STALLED) {
        "Stalled"
    } else if holds(conditions, READY) {
        "Ready"
    } else {
        "NotReady"
    }
}
