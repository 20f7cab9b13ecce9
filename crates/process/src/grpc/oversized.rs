//! Messages beyond the size limit answer RESOURCE_EXHAUSTED, as gRPC specifies; the gRPC library
//! answers OUT_OF_RANGE, which here means that a value left its range.

use http::{HeaderMap, HeaderValue, Response};
use tonic::body::Body;
use tonic::{Code, Status, Streaming};

const STATUS: &str = "grpc-status";
const MESSAGE: &str = "grpc-message";
/// How the library's message begins.
const TOO_LARGE: &str = "Error, decoded message length too large";
/// The same as it stands in the header, where it may be percent-encoded.
const TOO_LARGE_ENCODED: &str = "Error,%20decoded%20message%20length%20too%20large";

/// Corrects the status of the answer to a request that was too large.
pub(super) fn correct(mut response: Response<Body>) -> Response<Body> {
    if is_too_large(response.headers()) {
        let code = HeaderValue::from(Code::ResourceExhausted as i32);
        response.headers_mut().insert(STATUS, code);
    }
    response
}

fn is_too_large(headers: &HeaderMap) -> bool {
    let out_of_range = HeaderValue::from(Code::OutOfRange as i32);
    headers.get(STATUS) == Some(&out_of_range)
        && headers
            .get(MESSAGE)
            .and_then(|message| message.to_str().ok())
            .is_some_and(|message| {
                message.starts_with(TOO_LARGE) || message.starts_with(TOO_LARGE_ENCODED)
            })
}

/// The next message of a stream; `None` at its end.
///
/// # Errors
/// RESOURCE_EXHAUSTED when the message is too large, otherwise why the stream broke.
pub async fn next_message<T>(stream: &mut Streaming<T>) -> Result<Option<T>, Status> {
    stream.message().await.map_err(|status| {
        if status.code() == Code::OutOfRange && status.message().starts_with(TOO_LARGE) {
            return Status::resource_exhausted(status.message());
        }
        status
    })
}
