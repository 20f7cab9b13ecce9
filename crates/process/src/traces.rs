//! Opt-in traces: spans go to an OpenTelemetry collector by OTLP over gRPC, in the background and in
//! batches. A collector that is slow or away costs spans, never work.
//!
//! Not for log lines: see [`logging`](crate::logging).

use std::time::Duration;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use thiserror::Error;
use tracing::{Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::registry::LookupSpan;

/// How long the last spans may take to be sent when the process ends.
const LAST_SPANS: Duration = Duration::from_secs(2);

/// The prefix of all crates whose spans are sent.
const OWN_CRATES: &str = "atomix";

/// Why no traces can be sent.
#[derive(Debug, Error)]
#[error("cannot send traces to {endpoint}: give a URL such as http://collector:4317")]
pub struct TracesError {
    /// The collector.
    pub endpoint: String,
    /// Why.
    pub source: ExporterBuildError,
}

/// Sends spans until it is dropped; then those that are left.
#[derive(Debug)]
#[must_use = "spans are sent as long as this lives"]
pub struct Traces {
    provider: SdkTracerProvider,
}

impl Drop for Traces {
    fn drop(&mut self) {
        if let Err(error) = self.provider.shutdown_with_timeout(LAST_SPANS) {
            tracing::warn!(%error, "the last spans were not sent");
        }
    }
}

/// A layer that sends spans of our own crates to the collector at `endpoint`, as those of `service`.
/// To be called within a tokio runtime.
///
/// # Errors
/// When the endpoint is no URL. A collector that does not answer is no error.
pub fn layer<S>(
    service: &'static str,
    endpoint: &str,
) -> Result<(impl Layer<S> + Send + Sync + use<S>, Traces), TracesError>
where
    S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
{
    let exporter = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .build();
    let exporter = exporter.map_err(|source| TracesError {
        endpoint: endpoint.to_owned(),
        source,
    })?;
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_resource(Resource::builder().with_service_name(service).build())
        .build();
    let layer = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer(service))
        .with_location(false)
        .with_threads(false)
        .with_filter(Targets::new().with_target(OWN_CRATES, Level::DEBUG));
    Ok((layer, Traces { provider }))
}
