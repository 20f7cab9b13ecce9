//! The HTTPS server that the API server asks. Not for answers (`review`) nor for certificates
//! ([`crate::certificates`]).

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum_server::Handle;
use axum_server::tls_rustls::RustlsConfig;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use rustls::ServerConfig;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::review::review;
use super::sidecar::SidecarOptions;
use crate::context::Scope;

/// Where questions are asked.
pub const PATH: &str = "/inject";

/// The largest question; the API server takes no larger object.
const LARGEST_QUESTION: usize = 4 * 1024 * 1024;
/// Questions that are read or answered at a time; others wait.
const CONCURRENCY: usize = 64;
/// How long a question may take; the API server gives up after five seconds.
const ANSWER_WITHIN: Duration = Duration::from_secs(4);
/// How long a client may take to prove that it speaks TLS.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(4);
/// How long a connection may be idle. Longer than clients keep one: were we the one to close it, a
/// question on its way would be lost, and with it the creation of a pod.
const IDLE: Duration = Duration::from_secs(180);
/// How long questions are still taken after the shutdown began: until all of the cluster knows that
/// this replica goes. Their connections are closed after the answer.
const LINGER: Duration = Duration::from_secs(3);
/// How long answers may take that are under way when no more questions are taken.
const DRAIN: Duration = Duration::from_secs(5);

struct Shared {
    scope: Scope,
    options: SidecarOptions,
    places: Semaphore,
    shutdown: CancellationToken,
}

/// Serves until `shutdown`, and then a little longer.
///
/// # Errors
/// When the listener fails.
pub(super) async fn serve(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    scope: Scope,
    options: SidecarOptions,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let shared = Arc::new(Shared {
        scope,
        options,
        places: Semaphore::new(CONCURRENCY),
        shutdown: shutdown.clone(),
    });
    let router = Router::new()
        .route(PATH, post(answer_in_time))
        .with_state(shared);
    listener.set_nonblocking(true)?;
    let handle = Handle::new();
    let mut server = axum_server::from_tcp_rustls(listener, RustlsConfig::from_config(tls))?
        .map(|acceptor| acceptor.handshake_timeout(HANDSHAKE_WITHIN))
        .handle(handle.clone());
    // Without looking for HTTP/2 first, for which a client could let us wait for ever.
    *server.http_builder() = Builder::new(TokioExecutor::new()).http1_only();
    server
        .http_builder()
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE);
    let end = async {
        shutdown.cancelled().await;
        tokio::time::sleep(LINGER).await;
        handle.graceful_shutdown(Some(DRAIN));
        std::future::pending::<()>().await;
    };
    tokio::select! {
        ended = server.serve(router.into_make_service()) => ended,
        () = end => Ok(()),
    }
}

async fn answer_in_time(State(shared): State<Arc<Shared>>, question: Body) -> Response {
    let mut response = match tokio::time::timeout(ANSWER_WITHIN, answer(&shared, question)).await {
        Ok(response) => response,
        Err(_elapsed) => {
            let text = format!("no answer within {ANSWER_WITHIN:?}; try again\n");
            (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
        }
    };
    if shared.shutdown.is_cancelled() {
        // The next question of this client goes to another replica.
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
    }
    response
}

async fn answer(shared: &Shared, question: Body) -> Response {
    let Ok(_place) = shared.places.acquire().await else {
        // Nobody closes it.
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    let question: Bytes = match to_bytes(question, LARGEST_QUESTION).await {
        Ok(question) => question,
        Err(error) => {
            let text =
                format!("cannot read the question of at most {LARGEST_QUESTION} bytes: {error}\n");
            return (StatusCode::PAYLOAD_TOO_LARGE, text).into_response();
        }
    };
    let answer = review(&question, &shared.scope, &shared.options)
        .map_err(|error| error.to_string())
        .and_then(|answer| serde_json::to_vec(&answer).map_err(|error| error.to_string()));
    match answer {
        Ok(answer) => ([(header::CONTENT_TYPE, "application/json")], answer).into_response(),
        Err(reason) => {
            tracing::warn!(%reason, "a question to the webhook was refused");
            (StatusCode::BAD_REQUEST, format!("{reason}\n")).into_response()
        }
    }
}

#[cfg(test)]
mod tests;
