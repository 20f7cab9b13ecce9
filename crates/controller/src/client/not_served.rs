//! Tells "there is no such object" from "there is no such page".
//!
//! An API server that does not serve a kind, not yet or no longer, and a proxy before it, answer 404 in
//! plain text. kube's client takes any 404 for the object's absence, and what is absent is forgotten,
//! or told to users. Only a `Status` says that of an object; of everything else nothing is known but
//! that it may be served later.

use futures::future::BoxFuture;
use http::StatusCode;
use http_body_util::BodyExt as _;
use kube::core::Status;

use super::amend::{Answer, Asked, with_body, with_status};

/// The answer as it is, unless it is a 404 without a `Status`: then that the path is not available.
pub(super) async fn tell_not_served(asked: Asked, answer: BoxFuture<'static, Answer>) -> Answer {
    let answer = answer.await?;
    if answer.status() != StatusCode::NOT_FOUND {
        return Ok(answer);
    }
    let (mut parts, body) = answer.into_parts();
    let body = body.collect().await?.to_bytes();
    let status: Option<Status> = serde_json::from_slice(&body).ok();
    if status.is_some_and(|status| status.code != 0) {
        return Ok(with_body(parts, body));
    }
    let text = String::from_utf8_lossy(&body);
    let message = format!("{} is not served: {}", asked.path, text.trim());
    parts.status = StatusCode::SERVICE_UNAVAILABLE;
    let status = Status::failure(&message, "ServiceUnavailable").with_code(parts.status.into());
    with_status(parts, &status)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use bytes::Bytes;
    use http::{Request, Response};
    use http_body_util::Full;
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::client::{Body, DynBody};
    use kube::{Api, Client};
    use tower::{BoxError, Layer as _};

    use super::*;
    use crate::client::amend::Amend;
    use crate::error::{ApiError, call};

    async fn asked(code: u16, body: &'static str) -> Result<Option<ConfigMap>, ApiError> {
        let server = tower::service_fn(move |_: Request<Body>| async move {
            let body = Full::new(Bytes::from_static(body.as_bytes()));
            let body = body.map_err(|never: std::convert::Infallible| match never {});
            let body: Box<DynBody> = Box::new(body);
            Ok::<_, BoxError>(Response::builder().status(code).body(body).unwrap())
        });
        let client = Client::new(Amend(tell_not_served).layer(server), "meadow");
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
