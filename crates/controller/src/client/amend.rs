//! A layer that amends what kube's client would misunderstand in an answer, or wait for without end.

use std::task::{Context, Poll};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::response::Parts;
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Full};
use kube::client::{Body, DynBody};
use kube::core::Status;
use tower::{BoxError, Layer, Service};

use super::verb_and_resource;

/// What comes back of a request.
pub(super) type Answer = Result<Response<Box<DynBody>>, BoxError>;

/// What of a request its answer's meaning depends on.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    /// As in RBAC rules.
    pub verb: &'static str,
    /// Without the query.
    pub path: String,
}

/// The layer: every answer becomes what the function makes of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Amend<F>(pub F);

impl<S, F: Clone> Layer<S> for Amend<F> {
    type Service = Amended<S, F>;

    fn layer(&self, inner: S) -> Amended<S, F> {
        Amended {
            inner,
            amend: self.0.clone(),
        }
    }
}

/// A service whose answers are amended.
#[derive(Debug, Clone)]
pub(super) struct Amended<S, F> {
    inner: S,
    amend: F,
}

impl<S, F, A> Service<Request<Body>> for Amended<S, F>
where
    S: Service<Request<Body>, Response = Response<Box<DynBody>>>,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    F: Fn(Asked, BoxFuture<'static, Answer>) -> A,
    A: Future<Output = Answer> + Send + 'static,
{
    type Response = Response<Box<DynBody>>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Answer>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (verb, _) = verb_and_resource(request.method(), request.uri());
        let asked = Asked {
            verb,
            path: request.uri().path().to_owned(),
        };
        let answer = self.inner.call(request);
        let answer = Box::pin(async move { answer.await.map_err(Into::into) });
        Box::pin((self.amend)(asked, answer))
    }
}

/// An answer with this body.
pub(super) fn with_body(parts: Parts, body: Bytes) -> Response<Box<DynBody>> {
    let body = Full::new(body).map_err(|never| match never {});
    Response::from_parts(parts, Box::new(body))
}

/// An answer whose body is this Status.
pub(super) fn with_status(mut parts: Parts, status: &Status) -> Answer {
    let body = Bytes::from(serde_json::to_vec(status)?);
    parts.headers.remove(CONTENT_LENGTH);
    let json = HeaderValue::from_static("application/json");
    parts.headers.insert(CONTENT_TYPE, json);
    Ok(with_body(parts, body))
}
