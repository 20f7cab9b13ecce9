//! Keeps how long the API server asks to wait.
//!
//! An API server that is overloaded or ends answers before it looks at a request: in plain text, the
//! time in the header `Retry-After` alone. kube's client makes errors of bodies and drops headers, so
//! such an answer gets the body that the API server gives its other refusals.

use futures::future::BoxFuture;
use http::header::RETRY_AFTER;
use http::{Response, StatusCode};
use http_body_util::BodyExt as _;
use kube::client::DynBody;
use kube::core::Status;
use kube::core::response::StatusDetails;

use super::amend::{Answer, Asked, with_status};

/// The answer, whose body tells how long to wait if its header does.
pub(super) async fn keep_retry_after(_asked: Asked, answer: BoxFuture<'static, Answer>) -> Answer {
    let answer = answer.await?;
    let Some(seconds) = asked_to_wait(&answer) else {
        return Ok(answer);
    };
    let (parts, body) = answer.into_parts();
    let body = body.collect().await?.to_bytes();
    let status = with_seconds(&body, parts.status, seconds);
    with_status(parts, &status)
}

/// For how many seconds; `None` also for a date, which no API server sends.
fn asked_to_wait(answer: &Response<Box<DynBody>>) -> Option<u32> {
    let waits = [
        StatusCode::TOO_MANY_REQUESTS,
        StatusCode::SERVICE_UNAVAILABLE,
    ];
    if !waits.contains(&answer.status()) {
        return None;
    }
    answer
        .headers()
        .get(RETRY_AFTER)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

/// The Status that the body is, or else one that has it as its message, with the time to wait where it
/// names none.
fn with_seconds(body: &[u8], code: StatusCode, seconds: u32) -> Status {
    let told: Option<Status> = serde_json::from_slice(body).ok();
    let mut status = told.filter(|told| told.code != 0).unwrap_or_else(|| {
        let text = String::from_utf8_lossy(body);
        let reason = code.canonical_reason().unwrap_or_default();
        Status::failure(text.trim(), &reason.replace(' ', "")).with_code(code.as_u16())
    });
    let details = status.details.get_or_insert_with(|| StatusDetails {
        name: String::new(),
        group: String::new(),
        kind: String::new(),
        uid: String::new(),
        causes: Vec::new(),
        retry_after_seconds: 0,
    });
    if details.retry_after_seconds == 0 {
        details.retry_after_seconds = seconds;
    }
    status
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::time::Duration;

    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::{Api, Config};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use crate::client::connect;
    use crate::error::{ApiError, Category, ReconcileError as _, call};
    use crate::metrics::Metrics;

    /// What the operator makes of an answer, sent over a real connection.
    async fn answered(head: &str, body: &str) -> ApiError {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let length = body.len();
        let answer = format!("HTTP/1.1 {head}\r\ncontent-length: {length}\r\n\r\n{body}");
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await.unwrap());
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        let client = connect(Config::new(url.parse().unwrap()), &Metrics::default()).unwrap();
        let maps: Api<ConfigMap> = Api::namespaced(client, "meadow");
        call("read a ConfigMap", maps.get("rose"))
            .await
            .unwrap_err()
    }

    fn status(details: &str) -> String {
        format!(
            r#"{{"kind": "Status", "apiVersion": "v1", "metadata": {{}}, "status": "Failure",
                "message": "later", "reason": "TooManyRequests", "code": 429, "details": {details}}}"#
        )
    }

    #[tokio::test]
    async fn the_time_that_the_api_server_asks_to_wait_is_known_wherever_it_says_it() {
        let overloaded = "429 Too Many Requests\r\nretry-after: 7";
        let plain = "Too many requests, please try again later.\n";
        let cases = [
            (overloaded, plain.to_owned(), Some(7)),
            (overloaded, String::new(), Some(7)),
            (
                "503 Service Unavailable\r\nretry-after: 7",
                plain.to_owned(),
                Some(7),
            ),
            (overloaded, status("null"), Some(7)),
            (overloaded, status(r#"{"retryAfterSeconds": 3}"#), Some(3)),
            (
                "429 Too Many Requests",
                status(r#"{"retryAfterSeconds": 3}"#),
                Some(3),
            ),
            ("429 Too Many Requests", plain.to_owned(), None),
            (
                "429 Too Many Requests\r\nretry-after: soon",
                plain.to_owned(),
                None,
            ),
            (
                "500 Internal Server Error\r\nretry-after: 7",
                plain.to_owned(),
                None,
            ),
        ];
        for (head, body, seconds) in cases {
            let error = answered(head, &body).await;
            let expected = seconds.map(Duration::from_secs);
            assert_eq!(error.retry_after(), expected, "{head}: {body}: {error}");
            assert_eq!(error.code(), head[..3].parse().ok(), "{error}");
        }
    }

    #[tokio::test]
    async fn a_refusal_keeps_its_kind_and_its_text() {
        let overloaded = "429 Too Many Requests\r\nretry-after: 7";
        let error = answered(overloaded, "too many requests\n").await;
        assert_eq!(error.category(), Category::Throttled);
        let expected = "cannot read a ConfigMap: too many requests (429)";
        assert_eq!(error.to_string(), expected);
    }
}
