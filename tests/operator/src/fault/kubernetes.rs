//! The layer on kube's client.

use std::task::{Context, Poll};

use futures::future::BoxFuture;
use http::{Request, Response, Uri};
use kube::client::Body;
use tower::{Layer, Service};

use super::gate::Answer;
use super::{Call, Gate, Verb};

/// For how many seconds the API server is asked to keep a watch open; `None` = as the operator asks.
pub type WatchTimeout = Option<u64>;

/// Takes each request through a gate.
#[derive(Clone, Debug)]
pub struct WatchedApi {
    gate: Gate,
    watch_timeout: WatchTimeout,
}

impl WatchedApi {
    /// A layer for the client of the gate's operator.
    pub fn new(gate: Gate, watch_timeout: WatchTimeout) -> Self {
        Self {
            gate,
            watch_timeout,
        }
    }
}

impl<S> Layer<S> for WatchedApi {
    type Service = Watched<S>;

    fn layer(&self, inner: S) -> Watched<S> {
        Watched {
            layer: self.clone(),
            inner,
        }
    }
}

/// A client whose requests go through a gate.
#[derive(Debug)]
pub struct Watched<S> {
    layer: WatchedApi,
    inner: S,
}

impl<S, B> Service<Request<Body>> for Watched<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
    S::Error: Send,
    B: Send,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<B>, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let call = Call::to_api_server(request.method(), request.uri());
        if let (Verb::Watch, Some(seconds)) = (call.verb, self.layer.watch_timeout) {
            *request.uri_mut() = with_timeout(request.uri(), seconds);
        }
        let gate = self.layer.gate.clone();
        // Sent when it is first polled, so not before the gate lets it pass.
        let answer = self.inner.call(request);
        Box::pin(async move {
            let pass = gate.before(call).await;
            let answer = answer.await;
            let is_refused = answer
                .as_ref()
                .is_ok_and(|response| response.status().is_client_error());
            let became = if is_refused {
                Answer::Refused
            } else {
                Answer::Taken
            };
            gate.after(pass, became).await;
            answer
        })
    }
}

fn with_timeout(uri: &Uri, seconds: u64) -> Uri {
    let query = uri.query().unwrap_or_default();
    let kept = query
        .split('&')
        .filter(|pair| !pair.starts_with("timeoutSeconds="));
    let mut query: Vec<String> = kept.map(ToOwned::to_owned).collect();
    query.push(format!("timeoutSeconds={seconds}"));
    let mut parts = uri.clone().into_parts();
    let path = format!("{}?{}", uri.path(), query.join("&"));
    parts.path_and_query = Some(path.parse().expect("a part of a URI's query is a query"));
    Uri::from_parts(parts).expect("the same URI with another query is a URI")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_gets_another_timeout_and_keeps_the_rest() {
        let asked: Uri = "https://host:1/api/v1/pods?watch=true&timeoutSeconds=290&x=1"
            .parse()
            .unwrap();
        let expected = "https://host:1/api/v1/pods?watch=true&x=1&timeoutSeconds=20";
        assert_eq!(with_timeout(&asked, 20).to_string(), expected);
    }
}
