//! The admin server: plain HTTP for probes and metrics, apart from the ports that do the work.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// How long a page may take that is being fetched when the shutdown begins.
const DRAIN: Duration = Duration::from_secs(1);

/// What the admin server reports. Clones share their state.
#[derive(Debug, Clone)]
pub struct Admin {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    registry: Registry,
    /// Why each named part is not ready; `None` = ready.
    parts: Mutex<BTreeMap<&'static str, Option<String>>>,
}

impl Shared {
    fn parts(&self) -> MutexGuard<'_, BTreeMap<&'static str, Option<String>>> {
        // A panic of another holder leaves the map whole: each change is one insert.
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says whether one named part of the process is ready.
#[derive(Debug, Clone)]
pub struct Readiness {
    name: &'static str,
    shared: Arc<Shared>,
}

impl Readiness {
    /// Marks the part as ready.
    pub fn ready(&self) {
        self.shared.parts().insert(self.name, None);
    }

    /// Marks the part as not ready and says why, for people.
    pub fn not_ready(&self, reason: impl Into<String>) {
        self.shared.parts().insert(self.name, Some(reason.into()));
    }

    /// [`Self::ready`] or [`Self::not_ready`].
    pub fn set(&self, ready: bool, reason: impl Into<String>) {
        if ready {
            self.ready();
        } else {
            self.not_ready(reason);
        }
    }
}

impl Admin {
    /// An admin server for these metrics; ready as long as every named part is.
    #[must_use]
    pub fn new(registry: Registry) -> Self {
        Self {
            shared: Arc::new(Shared {
                registry,
                parts: Mutex::default(),
            }),
        }
    }

    /// A part that must be ready before the process is. It starts not ready.
    #[must_use]
    pub fn readiness(&self, name: &'static str) -> Readiness {
        let readiness = Readiness {
            name,
            shared: Arc::clone(&self.shared),
        };
        readiness.not_ready("starting");
        readiness
    }

    /// Serves `/livez`, `/readyz`, `/readyz/PART` for one part alone, and `/metrics` until the token
    /// is cancelled. A connection that is open then is waited for shortly: one on which nobody ever asks would be waited for for ever.
    ///
    /// # Errors
    /// When the listener fails.
    pub async fn serve(
        self,
        listener: TcpListener,
        shutdown: CancellationToken,
    ) -> std::io::Result<()> {
        let router = Router::new()
            .route("/livez", get(|| async { "ok\n" }))
            .route("/readyz", get(readyz))
            .route("/readyz/{part}", get(part_readyz))
            .route("/metrics", get(metrics))
            .with_state(self);
        let serving = axum::serve(listener, router)
            .with_graceful_shutdown(shutdown.clone().cancelled_owned());
        let drained = async {
            shutdown.cancelled().await;
            tokio::time::sleep(DRAIN).await;
        };
        tokio::select! {
            ended = serving.into_future() => ended,
            () = drained => Ok(()),
        }
    }
}

async fn readyz(State(admin): State<Admin>) -> Response {
    let reasons: Vec<String> = admin
        .shared
        .parts()
        .iter()
        .filter_map(|(name, reason)| reason.as_ref().map(|reason| format!("{name}: {reason}\n")))
        .collect();
    if reasons.is_empty() {
        return "ok\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, reasons.concat()).into_response()
}

async fn part_readyz(State(admin): State<Admin>, Path(part): Path<String>) -> Response {
    match admin.shared.parts().get(part.as_str()) {
        Some(None) => "ok\n".into_response(),
        Some(Some(reason)) => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response()
        }
        None => (StatusCode::NOT_FOUND, format!("no part {part}\n")).into_response(),
    }
}

async fn metrics(State(admin): State<Admin>) -> Response {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &admin.shared.registry) {
        Ok(()) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(error) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("cannot encode metrics: {error}\n"),
        )
            .into_response(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;

    async fn fetch(address: std::net::SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn readiness_names_what_is_missing_and_metrics_are_served() {
        let mut registry = Registry::default();
        let counter = prometheus_client::metrics::counter::Counter::<u64>::default();
        registry.register("things", "Things counted", counter.clone());
        counter.inc_by(3);
        let admin = Admin::new(registry);
        let log = admin.readiness("log");
        let disk = admin.readiness("disk");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let server = tokio::spawn(admin.serve(listener, shutdown.clone()));

        let before = fetch(address, "/readyz").await;
        assert!(before.starts_with("HTTP/1.1 503"), "{before}");
        assert!(before.contains("log: starting"), "{before}");
        let part = fetch(address, "/readyz/log").await;
        assert!(part.starts_with("HTTP/1.1 503"), "{part}");
        log.ready();
        assert!(fetch(address, "/readyz").await.starts_with("HTTP/1.1 503"));
        let part = fetch(address, "/readyz/log").await;
        assert!(part.starts_with("HTTP/1.1 200"), "{part}");
        let part = fetch(address, "/readyz/no-such-part").await;
        assert!(part.starts_with("HTTP/1.1 404"), "{part}");
        disk.ready();
        assert!(fetch(address, "/readyz").await.starts_with("HTTP/1.1 200"));
        assert!(fetch(address, "/livez").await.starts_with("HTTP/1.1 200"));
        assert!(fetch(address, "/metrics").await.contains("things_total 3"));

        // Nobody ever asks anything on this connection.
        let _silent = TcpStream::connect(address).await.unwrap();
        assert!(fetch(address, "/livez").await.starts_with("HTTP/1.1 200"));
        shutdown.cancel();
        let ended = tokio::time::timeout(DRAIN * 5, server).await;
        ended.unwrap().unwrap().unwrap();
    }
}
