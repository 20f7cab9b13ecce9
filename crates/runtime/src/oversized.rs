//! Messages beyond the size limit answer RESOURCE_EXHAUSTED, as gRPC specifies; the gRPC library
//! answers OUT_OF_RANGE, which here means that a value left its range.

use http::{HeaderMap, HeaderValue};
use tonic::body::Body;

const STATUS: &str = "grpc-status";
const MESSAGE: &str = "grpc-message";
/// How the library's message begins, as it stands in the header (percent-encoded or not).
const TOO_LARGE: [&str; 2] = [
    "Error, decoded message length too large",
    "Error,%20decoded%20message%20length%20too%20large",
];

/// Corrects the status of an answer.
pub(crate) fn correct(mut response: http::Response<Body>) -> http::Response<Body> {
    if is_too_large(response.headers()) {
        let code = HeaderValue::from(tonic::Code::ResourceExhausted as i32);
        response.headers_mut().insert(STATUS, code);
    }
    response
}

fn is_too_large(headers: &HeaderMap) -> bool {
    let out_of_range = HeaderValue::from(tonic::Code::OutOfRange as i32);
    headers.get(STATUS) == Some(&out_of_range)
        && headers
            .get(MESSAGE)
            .and_then(|message| message.to_str().ok())
            .is_some_and(|message| TOO_LARGE.iter().any(|start| message.starts_with(start)))
}
