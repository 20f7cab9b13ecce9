//! How the operator talks to the API server: no hidden retries, bounded connections, nothing waited
//! for without end, every request counted, and known how long a refusal asks to wait.
//!
//! Retries belong to the controllers' backoff; so a layer that injects faults sees each attempt.

mod amend;
mod answer_within;
mod not_served;
mod retry_after;

use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use kube::client::{Body, ClientBuilder, DynBody};
use kube::{Client, Config};
use tower::{BoxError, Layer, Service};
use tracing::Instrument as _;
use tracing::instrument::Instrumented;

use crate::metrics::Metrics;

use amend::Amend;
use answer_within::answer_within;
use not_served::tell_not_served;
use retry_after::keep_retry_after;

/// How long to wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long writing a request may make no progress.
const WRITE_TIMEOUT: Duration = Duration::from_secs(15);

/// The settings that every client of the operator needs, over `config`.
#[must_use]
pub fn hardened(mut config: Config) -> Config {
    config.default_retry = false;
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.write_timeout = Some(WRITE_TIMEOUT);
    config
}

/// A client with its own connections.
///
/// # Errors
/// When the configuration's certificates or credentials are unusable.
pub fn connect(config: Config, metrics: &Metrics) -> kube::Result<Client> {
    let builder = ClientBuilder::try_from(hardened(config))?;
    Ok(build(builder, metrics))
}

/// A client with the layers that every client of the operator has, over those of `builder`.
#[must_use]
pub fn build<S>(builder: ClientBuilder<S>, metrics: &Metrics) -> Client
where
    S: Service<Request<Body>, Response = Response<Box<DynBody>>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
{
    let metrics = metrics.clone();
    let counting = CountRequests { metrics };
    builder
        .with_layer(&Amend(answer_within))
        .with_layer(&Amend(tell_not_served))
        .with_layer(&Amend(keep_retry_after))
        .with_layer(&counting)
        .build()
}

/// Counts requests by verb and resource, and makes a span of each.
#[derive(Debug, Clone)]
struct CountRequests {
    metrics: Metrics,
}

impl<S> Layer<S> for CountRequests {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Counted<S> {
        Counted {
            metrics: self.metrics.clone(),
            inner,
        }
    }
}

/// A service whose requests are counted.
#[derive(Debug, Clone)]
struct Counted<S> {
    metrics: Metrics,
    inner: S,
}

impl<S: Service<Request<Body>>> Service<Request<Body>> for Counted<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = Instrumented<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (verb, resource) = verb_and_resource(request.method(), request.uri());
        self.metrics.api_request(verb, resource);
        let span = tracing::debug_span!("API request", otel.kind = "client", verb, resource);
        let answer = span.in_scope(|| self.inner.call(request));
        answer.instrument(span)
    }
}

/// The verb and the resource as in RBAC rules; a subresource counts as its resource.
#[must_use]
pub fn verb_and_resource<'a>(method: &http::Method, uri: &'a http::Uri) -> (&'static str, &'a str) {
    let mut rest = uri.path().trim_start_matches('/');
    let mut skip = |segments: usize| {
        for _ in 0..segments {
            rest = rest.split_once('/').map_or("", |(_, rest)| rest);
        }
        rest
    };
    // api/v1/… or apis/GROUP/VERSION/…
    let rest = skip(if uri.path().starts_with("/apis/") {
        3
    } else {
        2
    });
    let parts: Vec<&str> = rest.split('/').collect();
    let (resource, name) = match parts.as_slice() {
        ["namespaces", _, resource, name @ ..] => (*resource, name),
        [resource, name @ ..] => (*resource, name),
        [] => ("", [].as_slice()),
    };
    let is_named = name.first().is_some_and(|name| !name.is_empty());
    let is_watch = uri.query().is_some_and(|query| {
        let mut pairs = query.split('&');
        pairs.any(|pair| pair == "watch=true" || pair == "watch=1")
    });
    let verb = match *method {
        http::Method::GET if is_watch => "watch",
        http::Method::GET if is_named => "get",
        http::Method::GET => "list",
        http::Method::POST => "create",
        http::Method::PUT => "update",
        http::Method::PATCH => "patch",
        http::Method::DELETE => "delete",
        _ => "other",
    };
    (verb, resource)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn requests_are_named_as_in_rbac_rules() {
        for (method, uri, expected) in [
            ("GET", "/api/v1/pods?limit=500", ("list", "pods")),
            (
                "GET",
                "/api/v1/namespaces/meadow/pods?watch=true&x=1",
                ("watch", "pods"),
            ),
            (
                "GET",
                "/api/v1/namespaces/meadow/configmaps/a",
                ("get", "configmaps"),
            ),
            (
                "PATCH",
                "/apis/atomix.io/v1beta1/namespaces/m/stores/a/status",
                ("patch", "stores"),
            ),
            (
                "POST",
                "/apis/apps/v1/namespaces/m/statefulsets",
                ("create", "statefulsets"),
            ),
            (
                "PATCH",
                "/apis/atomix.io/v1beta1/drivers/a",
                ("patch", "drivers"),
            ),
        ] {
            let method: http::Method = method.parse().unwrap();
            let uri: http::Uri = uri.parse().unwrap();
            assert_eq!(verb_and_resource(&method, &uri), expected, "{method} {uri}");
        }
    }
}
