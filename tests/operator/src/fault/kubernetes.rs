//! The layer on kube's client.

use std::task::{Context, Poll};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::{Request, Response, Uri};
use kube::client::{Body, DynBody};
use serde_json::Value;
use tower::{BoxError, Layer, Service};

use super::gate::Answer;
use super::trouble::broken_connection;
use super::watch_body::WatchBody;
use super::{Audit, Call, Gate, Trouble, Verb};
use crate::invariants::{Guard, Victim};

/// For how many seconds the API server is asked to keep a watch open; `None` = as the operator asks.
pub type WatchTimeout = Option<u64>;

/// Takes each request through a gate.
#[derive(Clone)]
pub struct WatchedApi {
    gate: Gate,
    guard: Guard,
    watch_timeout: WatchTimeout,
    audit: Option<Audit>,
}

impl WatchedApi {
    /// A layer for the client of the gate's operator.
    pub fn new(
        gate: Gate,
        guard: Guard,
        watch_timeout: WatchTimeout,
        audit: Option<Audit>,
    ) -> Self {
        Self {
            gate,
            guard,
            watch_timeout,
            audit,
        }
    }
}

impl std::fmt::Debug for WatchedApi {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("WatchedApi").finish_non_exhaustive()
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
pub struct Watched<S> {
    layer: WatchedApi,
    inner: S,
}

impl<S> Service<Request<Body>> for Watched<S>
where
    S: Service<Request<Body>, Response = Response<Box<DynBody>>>,
    S::Future: Send + 'static,
    S::Error: Into<BoxError> + Send,
{
    type Response = Response<Box<DynBody>>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<Box<DynBody>>, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let call = Call::to_api_server(request.method(), request.uri());
        if let (Verb::Watch, Some(seconds)) = (call.verb, self.layer.watch_timeout) {
            *request.uri_mut() = with_parameters(request.uri(), &[("timeoutSeconds", seconds)]);
        }
        if victim(&call, None).is_some() {
            expect_uid(&call, request.body());
        }
        let replicas = replicas(&call, request.body());
        let gate = self.layer.gate.clone();
        let guard = self.layer.guard.clone();
        let past = gate.past();
        if let (Verb::List, Some((version, _))) = (call.verb, &past) {
            *request.uri_mut() = of_version(request.uri(), version);
        }
        let audit = self.layer.audit.clone();
        let (method, uri) = (request.method().clone(), request.uri().clone());
        // Sent when it is first polled, so not before the gate lets it pass.
        let answer = self.inner.call(request);
        Box::pin(async move {
            if let (Verb::Watch, Some((_, hold))) = (call.verb, past) {
                tokio::time::sleep(hold).await;
            }
            let pass = gate.before(call.clone()).await;
            let trouble = pass.trouble.clone();
            if trouble.as_ref().is_some_and(Trouble::is_silence) {
                gate.never_answers(&pass).await;
            }
            if let Some(instead) = trouble.as_ref().and_then(Trouble::instead_of_api_server) {
                gate.after(pass, Answer::Refused).await;
                return instead;
            }
            if let Some(victim) = victim(&call, replicas) {
                guard.expect_no_harm(victim, namespace(&uri)).await;
            }
            let answer = answer.await.map_err(Into::into);
            if let (Some(audit), Ok(response)) = (&audit, &answer) {
                audit.record(&method, &uri, response.status());
            }
            let is_refused = answer
                .as_ref()
                .is_ok_and(|response| response.status().is_client_error());
            let became = if is_refused {
                Answer::Refused
            } else {
                Answer::Taken
            };
            gate.after(pass, became).await;
            if trouble == Some(Trouble::ReplyLost) {
                return Err(broken_connection());
            }
            if call.verb != Verb::Watch || is_refused {
                return answer;
            }
            let events = gate.watch_is_cut(&call);
            answer.map(|response| {
                response
                    .map(|body| Box::new(WatchBody::new(body, gate, call, events)) as Box<DynBody>)
            })
        })
    }
}

/// The pods or the claim that it ends; `replicas` = what it makes of a StatefulSet. Another pod or claim
/// of the same name may have taken the place since the operator saw it.
fn victim(call: &Call, replicas: Option<u32>) -> Option<Victim<'_>> {
    let name = Some(call.name.as_str()).filter(|name| !name.is_empty())?;
    match (call.verb, call.what.as_str()) {
        (Verb::Delete, "pods") | (Verb::Create, "pods/eviction") => Some(Victim::Pod(name)),
        (Verb::Delete, "persistentvolumeclaims") => {
            Some(Victim::Claim(name.strip_prefix("data-").unwrap_or(name)))
        }
        (Verb::Patch, "statefulsets") => Some(Victim::From(name, replicas?)),
        _ => None,
    }
}

/// How many pods a StatefulSet is to have.
fn replicas(call: &Call, body: &Body) -> Option<u32> {
    if call.verb != Verb::Patch || call.what != "statefulsets" {
        return None;
    }
    let replicas = content(body).pointer("/spec/replicas")?.as_u64()?;
    u32::try_from(replicas).ok()
}

fn namespace(uri: &Uri) -> &str {
    let mut segments = uri
        .path()
        .split('/')
        .skip_while(|part| *part != "namespaces");
    segments.nth(1).unwrap_or_default()
}

/// Ends an operator that does not say which object it means.
fn expect_uid(call: &Call, body: &Body) {
    let options = content(body);
    let options = options.get("deleteOptions").unwrap_or(&options);
    let uid = options.pointer("/preconditions/uid");
    assert!(
        uid.is_some_and(Value::is_string),
        "{call} would end any object of this name: {options}"
    );
}

fn content(body: &Body) -> Value {
    let body = body.try_clone().expect("what an operator sends is whole");
    let content = body.collect_bytes().now_or_never();
    let content = content.expect("it is in memory").expect("it is in memory");
    serde_json::from_slice(&content).unwrap_or_default()
}

/// The same LIST, as it would have been answered at this version. Later pages name it themselves.
fn of_version(uri: &Uri, version: &str) -> Uri {
    if uri.query().is_some_and(|query| query.contains("continue=")) {
        return uri.clone();
    }
    with_parameters(
        uri,
        &[
            ("resourceVersion", version),
            ("resourceVersionMatch", "Exact"),
        ],
    )
}

/// The URI with these parameters, in place of those that it has.
fn with_parameters<V: ToString>(uri: &Uri, parameters: &[(&str, V)]) -> Uri {
    let query = uri.query().unwrap_or_default();
    let is_replaced = |pair: &str| {
        let name = pair.split('=').next();
        parameters
            .iter()
            .any(|(replaced, _)| Some(*replaced) == name)
    };
    let kept = query
        .split('&')
        .filter(|pair| !pair.is_empty() && !is_replaced(pair));
    let mut query: Vec<String> = kept.map(ToOwned::to_owned).collect();
    for (name, value) in parameters {
        query.push(format!("{name}={}", value.to_string()));
    }
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
        let parameters = [("timeoutSeconds", 20)];
        assert_eq!(with_parameters(&asked, &parameters).to_string(), expected);
    }

    #[test]
    fn who_ends_a_pod_says_which() {
        let call = |verb, what: &str| Call {
            verb,
            what: what.to_owned(),
            name: "tulip-0".to_owned(),
        };
        let deletion = call(Verb::Delete, "pods");
        let eviction = call(Verb::Create, "pods/eviction");
        for (call, named) in [
            (&deletion, true),
            (&call(Verb::Delete, "persistentvolumeclaims"), true),
            (&eviction, true),
            (&call(Verb::Delete, "services"), false),
            (&call(Verb::Get, "pods"), false),
        ] {
            assert_eq!(victim(call, None).is_some(), named, "{call}");
        }
        let shrinks = call(Verb::Patch, "statefulsets");
        let body = |text: &str| Body::from(text.as_bytes().to_vec());
        let asked = replicas(&shrinks, &body(r#"{"spec": {"replicas": 3}}"#));
        assert!(matches!(
            victim(&shrinks, asked),
            Some(Victim::From("tulip-0", 3))
        ));
        assert_eq!(replicas(&shrinks, &body(r#"{"metadata": {}}"#)), None);
        let uid = r#"{"preconditions": {"uid": "u"}}"#;
        expect_uid(&deletion, &body(uid));
        expect_uid(&eviction, &body(&format!(r#"{{"deleteOptions": {uid}}}"#)));
        for text in ["", "{}", r#"{"preconditions": {}}"#] {
            let refused = std::panic::catch_unwind(|| expect_uid(&deletion, &body(text)));
            assert!(refused.is_err(), "{text}");
        }
    }

    #[test]
    fn a_list_is_asked_of_one_version() {
        let asked: Uri = "https://host:1/api/v1/pods?limit=500&resourceVersion=0"
            .parse()
            .unwrap();
        let expected =
            "https://host:1/api/v1/pods?limit=500&resourceVersion=7&resourceVersionMatch=Exact";
        assert_eq!(of_version(&asked, "7").to_string(), expected);
        let next: Uri = "https://host:1/api/v1/pods?limit=500&continue=abc"
            .parse()
            .unwrap();
        assert_eq!(of_version(&next, "7"), next);
    }
}
