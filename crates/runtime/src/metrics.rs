//! The sidecar's metrics. Labels are bounded: kinds and gRPC codes.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use tonic::Code;

/// Shared handles of all metrics.
#[derive(Debug, Clone)]
pub(crate) struct Metrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    calls: Family<CallLabels, Counter>,
    seconds: Family<KindLabels, Histogram, fn() -> Histogram>,
    open_primitives: Gauge,
    stores: Gauge,
    stores_reached: Gauge,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    kind: &'static str,
    code: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    kind: &'static str,
}

impl Metrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let inner = Inner {
            calls: Family::default(),
            seconds: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(0.000_1, 2.0, 18))
            }),
            open_primitives: Gauge::default(),
            stores: Gauge::default(),
            stores_reached: Gauge::default(),
        };
        registry.register(
            "atomix_runtime_application_calls",
            "Calls of applications by kind of primitive and gRPC code",
            inner.calls.clone(),
        );
        registry.register(
            "atomix_runtime_application_call_seconds",
            "Duration of applications' calls by kind of primitive",
            inner.seconds.clone(),
        );
        registry.register(
            "atomix_runtime_open_primitives",
            "Primitives that applications have open",
            inner.open_primitives.clone(),
        );
        registry.register(
            "atomix_runtime_stores",
            "Stores that should be connected",
            inner.stores.clone(),
        );
        registry.register(
            "atomix_runtime_stores_reached",
            "Stores that are connected",
            inner.stores_reached.clone(),
        );
        Self(Arc::new(inner))
    }

    pub(crate) fn application_call(&self, kind: &'static str, code: Code, duration: Duration) {
        let labels = CallLabels {
            kind,
            code: format!("{code:?}"),
        };
        self.0.calls.get_or_create(&labels).inc();
        self.0
            .seconds
            .get_or_create(&KindLabels { kind })
            .observe(duration.as_secs_f64());
    }

    pub(crate) fn set_open_primitives(&self, count: usize) {
        self.0.open_primitives.set(gauge_value(count));
    }

    pub(crate) fn set_stores(&self, wanted: usize, reached: usize) {
        self.0.stores.set(gauge_value(wanted));
        self.0.stores_reached.set(gauge_value(reached));
    }
}

fn gauge_value(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
