//! Structured logs on standard error.

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

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
    init_with(format, std::env::var("RUST_LOG").ok().as_deref());
}

/// Starts logging. `filter` is written as for `RUST_LOG`; without one, or when it is wrong,
/// [`DEFAULT_FILTER`] counts. A second call changes nothing.
pub fn init_with(format: LogFormat, filter: Option<&str>) {
    let wanted = filter.filter(|filter| !filter.trim().is_empty());
    let (filter, wrong) = match wanted.map(EnvFilter::try_new) {
        Some(Ok(filter)) => (filter, None),
        Some(Err(error)) => (EnvFilter::new(DEFAULT_FILTER), Some(error)),
        None => (EnvFilter::new(DEFAULT_FILTER), None),
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Text => builder.with_ansi(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    if let Err(error) = started {
        tracing::debug!(%error, "logging was started before");
    }
    if let Some(error) = wrong {
        tracing::warn!(%error, filter = wanted, "the log filter is wrong; {DEFAULT_FILTER} is used");
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
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::new(DEFAULT_FILTER))
            .with_writer(move || writer.clone())
            .finish();
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
