//! Tells "there is no such object" from "there is no such page".
//!
//! An API server that does not serve a kind, not yet or no longer, and a proxy before it, answer 404 in
//! plain text. kube's client takes any 404 for the object's absence, and what is absent is forgotten,
//! or told to users. Only a `Status` says that of an object; of everything else nothing is known but
//! that it may be served later.

use std::task::{Context, Poll};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use kube::client::{Body, DynBody};
use kube::core::Status;
use tower::{BoxError, Layer, Service};

/// The layer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TellNotServed;

impl<S> Layer<S> for TellNotServed {
    type Service = TellsNotServed<S>;

    fn layer(&self, inner: S) -> TellsNotServed<S> {
        TellsNotServed { inner }
    }
}

/// A service whose 404 means that an object is not there.
#[derive(Debug, Clone)]
pub(crate) struct TellsNotServed<S> {
    inner: S,
}

impl<S> Service<Request<Body>> for TellsNotServed<S>
where
    S: Service<Request<Body>, Response = Response<Box<DynBody>>>,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
{
    type Response = Response<Box<DynBody>>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let path = request.uri().path().to_owned();
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await.map_err(Into::into)?;
            match answer.status() {
                StatusCode::NOT_FOUND => told(&path, answer).await,
                _ => Ok(answer),
            }
        })
    }
}

/// The answer as it is if it is a `Status`, and else that the path is not available.
async fn told(
    path: &str,
    answer: Response<Box<DynBody>>,
) -> Result<Response<Box<DynBody>>, BoxError> {
    let (mut parts, body) = answer.into_parts();
    let mut body = body.collect().await?.to_bytes();
    let status: Option<Status> = serde_json::from_slice(&body).ok();
    if status.is_none_or(|status| status.code == 0) {
        let text = String::from_utf8_lossy(&body);
        let message = format!("{path} is not served: {}", text.trim());
        let unavailable = StatusCode::SERVICE_UNAVAILABLE;
        let status = Status::failure(&message, "ServiceUnavailable").with_code(unavailable.into());
        body = Bytes::from(serde_json::to_vec(&status)?);
        parts.status = unavailable;
        parts.headers.remove(CONTENT_LENGTH);
        let json = HeaderValue::from_static("application/json");
        parts.headers.insert(CONTENT_TYPE, json);
    }
    let body = Full::new(body).map_err(|never| match never {});
    Ok(Response::from_parts(parts, Box::new(body)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::{Api, Client};

    use super::*;
    use crate::error::{ApiError, call};

    async fn asked(code: u16, body: &'static str) -> Result<Option<ConfigMap>, ApiError> {
        let server = tower::service_fn(move |_: Request<Body>| async move {
            let body = Full::new(Bytes::from_static(body.as_bytes()));
            let body = body.map_err(|never: std::convert::Infallible| match never {});
            let body: Box<DynBody> = Box::new(body);
            Ok::<_, BoxError>(Response::builder().status(code).body(body).unwrap())
        });
        let client = Client::new(TellNotServed.layer(server), "meadow");
        let maps: Api<ConfigMap> = Api::namespaced(client, "meadow");
        call("read a ConfigMap", maps.get_opt("rose")).await
    }

    #[tokio::test]
    async fn only_a_status_says_that_an_object_is_not_there() {
        let absent = r#"{"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": "configmaps \"rose\" not found", "reason": "NotFound", "code": 404,
            "details": {"name": "rose", "kind": "configmaps"}}"#;
        assert!(asked(404, absent).await.unwrap().is_none());
        for body in ["404 page not found\n", "", "{}", "<html></html>"] {
            let error = asked(404, body).await.unwrap_err();
            assert_eq!(error.code(), Some(503), "{body}: {error}");
            let path = "/api/v1/namespaces/meadow/configmaps/rose is not served";
            assert!(error.to_string().contains(path), "{body}: {error}");
        }
        let refused = asked(500, "404 page not found\n").await.unwrap_err();
        assert_eq!(refused.code(), Some(500), "{refused}");
    }
}
