//! The operator's metrics. Labels are bounded: no object names.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::error::Category;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ControllerLabel {
    controller: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ErrorLabels {
    controller: &'static str,
    category: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ResourceLabel {
    resource: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    verb: &'static str,
    resource: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct GrpcLabels {
    method: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ObjectLabels {
    kind: &'static str,
    state: &'static str,
}

fn duration_histogram() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 15))
}

/// All metrics of the operator. Clones share their values.
#[derive(Debug, Clone)]
pub struct Metrics {
    families: Arc<Families>,
}

#[derive(Debug)]
struct Families {
    reconcile_seconds: Family<ControllerLabel, Histogram, fn() -> Histogram>,
    reconcile_errors: Family<ErrorLabels, Counter>,
    queue_depth: Family<ControllerLabel, Gauge>,
    watch_errors: Family<ResourceLabel, Counter>,
    watch_alive: Family<ResourceLabel, Gauge>,
    api_requests: Family<RequestLabels, Counter>,
    grpc_calls: Family<GrpcLabels, Counter>,
    objects: Family<ObjectLabels, Gauge>,
    lease_held: Gauge,
    events_dropped: Counter<u64, AtomicU64>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            families: Arc::new(Families {
                reconcile_seconds: Family::new_with_constructor(duration_histogram),
                reconcile_errors: Family::default(),
                queue_depth: Family::default(),
                watch_errors: Family::default(),
                watch_alive: Family::default(),
                api_requests: Family::default(),
                grpc_calls: Family::default(),
                objects: Family::default(),
                lease_held: Gauge::default(),
                events_dropped: Counter::default(),
            }),
        }
    }
}

impl Metrics {
    /// Adds all metrics to a registry, under the prefix `atomix_operator`.
    pub fn register(&self, registry: &mut Registry) {
        let families = &self.families;
        let registry = registry.sub_registry_with_prefix("atomix_operator");
        registry.register_with_unit(
            "reconcile_duration",
            "How long one reconcile took",
            Unit::Seconds,
            families.reconcile_seconds.clone(),
        );
        registry.register(
            "reconcile_errors",
            "Reconciles that failed, by category",
            families.reconcile_errors.clone(),
        );
        registry.register(
            "queue_depth",
            "Objects that are due and wait for a reconcile",
            families.queue_depth.clone(),
        );
        registry.register(
            "watch_errors",
            "Watches that failed and were started again",
            families.watch_errors.clone(),
        );
        registry.register(
            "watch_alive",
            "1 while the watch of a resource works",
            families.watch_alive.clone(),
        );
        registry.register(
            "api_requests",
            "Requests to the API server",
            families.api_requests.clone(),
        );
        registry.register(
            "grpc_calls",
            "Calls to nodes and runtimes",
            families.grpc_calls.clone(),
        );
        registry.register("objects", "Objects by state", families.objects.clone());
        registry.register(
            "lease_held",
            "1 while this process holds the lease",
            families.lease_held.clone(),
        );
        registry.register(
            "events_dropped",
            "Events that were not written because too many waited",
            families.events_dropped.clone(),
        );
    }

    /// One reconcile ended.
    pub fn reconciled(&self, controller: &'static str, duration: Duration) {
        let label = ControllerLabel { controller };
        let histogram = self.families.reconcile_seconds.get_or_create(&label);
        histogram.observe(duration.as_secs_f64());
    }

    /// One reconcile failed.
    pub fn reconcile_error(&self, controller: &'static str, category: Category) {
        let labels = ErrorLabels {
            controller,
            category: category.as_str(),
        };
        self.families.reconcile_errors.get_or_create(&labels).inc();
    }

    /// How many keys wait.
    pub fn queue_depth(&self, controller: &'static str, depth: usize) {
        let label = ControllerLabel { controller };
        let depth = i64::try_from(depth).unwrap_or(i64::MAX);
        self.families.queue_depth.get_or_create(&label).set(depth);
    }

    /// A watch failed.
    pub fn watch_error(&self, resource: &'static str) {
        let label = ResourceLabel { resource };
        self.families.watch_errors.get_or_create(&label).inc();
    }

    /// A watch works, or has failed several times in a row.
    pub fn watch_alive(&self, resource: &'static str, alive: bool) {
        let label = ResourceLabel { resource };
        self.families
            .watch_alive
            .get_or_create(&label)
            .set(i64::from(alive));
    }

    /// One request to the API server.
    pub fn api_request(&self, verb: &'static str, resource: &str) {
        let labels = RequestLabels {
            verb,
            resource: resource.to_owned(),
        };
        self.families.api_requests.get_or_create(&labels).inc();
    }

    /// One call to a node or runtime; `method` is the path of the call.
    pub fn grpc_call(&self, method: &str) {
        let labels = GrpcLabels {
            method: method.to_owned(),
        };
        self.families.grpc_calls.get_or_create(&labels).inc();
    }

    /// One object of a kind came into a state (1), or left it (-1).
    pub fn objects_changed(&self, kind: &'static str, state: &'static str, by: i64) {
        let labels = ObjectLabels { kind, state };
        self.families.objects.get_or_create(&labels).inc_by(by);
    }

    /// Whether this process holds the lease.
    pub fn lease_held(&self, held: bool) {
        self.families.lease_held.set(i64::from(held));
    }

    /// An event was not written.
    pub fn event_dropped(&self) {
        self.families.events_dropped.inc();
    }
}
