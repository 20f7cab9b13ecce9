//! Structured logs on standard error.

use clap::ValueEnum;
use tracing::Subscriber;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::{LookupSpan, Registry};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer};

use crate::traces::{self, Traces, TracesError};

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum LogFormat {
    /// One line of text an event, for people.
    #[default]
    Text,
    /// One JSON object a line, for machines.
    Json,
}

/// What is logged unless the filter says otherwise. The Raft library warns of every heartbeat that
/// does not arrive, several times a second while a node is down; what matters of it is logged by the
/// node itself.
pub const DEFAULT_FILTER: &str = "info,openraft=error";

/// [`init_with`] the filter in the environment variable `RUST_LOG`.
pub fn init(format: LogFormat) {
    init_with(format, filter_of_environment().as_deref());
}

/// Starts logging. `filter` is written as for `RUST_LOG`; without one, or when it is wrong,
/// [`DEFAULT_FILTER`] counts. A second call changes nothing.
pub fn init_with(format: LogFormat, filter: Option<&str>) {
    let (filter, wrong) = log_filter(filter);
    let lines = lines(format, filter, std::io::stderr);
    start(Registry::default().with(lines), wrong);
}

/// Logs to `writer` as a program does by [`DEFAULT_FILTER`], for whoever looks at the lines.
pub fn to<W>(writer: W, format: LogFormat) -> impl Subscriber + Send + Sync
where
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let filter = EnvFilter::new(DEFAULT_FILTER);
    Registry::default().with(lines(format, filter, writer))
}

/// As [`init`]; spans go to the collector at `endpoint` too, if there is one.
///
/// # Errors
/// When the endpoint is no URL.
pub fn init_traced(
    format: LogFormat,
    service: &'static str,
    endpoint: Option<&str>,
) -> Result<Option<Traces>, TracesError> {
    let Some(endpoint) = endpoint else {
        init(format);
        return Ok(None);
    };
    let (filter, wrong) = log_filter(filter_of_environment().as_deref());
    let (spans, traces) = traces::layer(service, endpoint)?;
    let lines = lines(format, filter, std::io::stderr);
    start(Registry::default().with(lines).with(spans), wrong);
    Ok(Some(traces))
}

fn filter_of_environment() -> Option<String> {
    std::env::var("RUST_LOG").ok()
}

/// The filter, and what was wrong with the one that was asked for.
fn log_filter(wanted: Option<&str>) -> (EnvFilter, Option<String>) {
    let wanted = wanted.filter(|filter| !filter.trim().is_empty());
    match wanted.map(|filter| (filter, EnvFilter::try_new(filter))) {
        Some((_, Ok(filter))) => (filter, None),
        Some((wrong, Err(error))) => (
            EnvFilter::new(DEFAULT_FILTER),
            Some(format!("{wrong}: {error}")),
        ),
        None => (EnvFilter::new(DEFAULT_FILTER), None),
    }
}

fn lines<S, W>(format: LogFormat, filter: EnvFilter, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer().with_writer(writer);
    match format {
        LogFormat::Text => layer.with_ansi(false).with_filter(filter).boxed(),
        LogFormat::Json => layer.json().flatten_event(true).with_filter(filter).boxed(),
    }
}

fn start(subscriber: impl Subscriber + Send + Sync + 'static, wrong: Option<String>) {
    #[cfg(feature = "test-panics")]
    if let Some(panics) = crate::panics::of_environment() {
        return begin(subscriber.with(panics), wrong);
    }
    begin(subscriber, wrong);
}

fn begin(subscriber: impl Subscriber + Send + Sync + 'static, wrong: Option<String>) {
    if let Err(error) = subscriber.try_init() {
        tracing::debug!(%error, "logging was started before");
    }
    if let Some(wrong) = wrong {
        tracing::warn!(%wrong, "the log filter is wrong; {DEFAULT_FILTER} is used");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_default_filter_keeps_the_raft_library_quiet_but_for_errors() {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = to(move || writer.clone(), LogFormat::Text);
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(target: "openraft::core::heartbeat", "no heartbeat");
            tracing::error!(target: "openraft::core", "storage failed");
            tracing::info!(target: "atomix_node::peers", "a peer is back");
        });
        let logged = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert!(!logged.contains("no heartbeat"), "{logged}");
        assert!(logged.contains("storage failed"), "{logged}");
        assert!(logged.contains("a peer is back"), "{logged}");
    }
}
