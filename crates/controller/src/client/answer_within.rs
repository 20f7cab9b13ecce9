//! Gives up requests that the API server does not answer.
//!
//! kube's client waits for ever, and a connection whose other end went without a word never fails: a
//! watch that begins with such a LIST would stay deaf. A watch that goes on is not limited here; kube's
//! watcher begins another one when nothing came for longer than the API server keeps it open.

use std::time::Duration;

use futures::future::BoxFuture;
use http_body_util::BodyExt as _;
use thiserror::Error;

use super::amend::{Answer, Asked, with_body};

/// Longer than an API server lets a request wait for its turn, which is a quarter of the minute that
/// it gives each (`--request-timeout`).
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Nothing came back in time. The request may have been carried out.
#[derive(Debug, Error)]
#[error("the API server did not answer within {ANSWER_TIMEOUT:?}")]
struct Unanswered;

/// The answer, if all of it comes within the time; of a watch, if it begins to.
pub(super) async fn answer_within(asked: Asked, answer: BoxFuture<'static, Answer>) -> Answer {
    let answer = async {
        let answer = answer.await?;
        if asked.verb == "watch" {
            return Ok(answer);
        }
        let (parts, body) = answer.into_parts();
        Ok(with_body(parts, body.collect().await?.to_bytes()))
    };
    let answered = tokio::time::timeout(ANSWER_TIMEOUT, answer).await;
    answered.unwrap_or_else(|_elapsed| Err(Unanswered.into()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::pin::Pin;
    use std::task::{Context, Poll};

    use bytes::Bytes;
    use http::{Request, Response};
    use http_body::Frame;
    use kube::client::{Body, DynBody};
    use tower::{BoxError, Layer as _, ServiceExt as _};

    use super::*;
    use crate::client::amend::Amend;

    /// Its one frame comes after a time.
    struct Late(Pin<Box<tokio::time::Sleep>>, bool);

    impl http_body::Body for Late {
        type Data = Bytes;
        type Error = BoxError;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
            if self.1 {
                return Poll::Ready(None);
            }
            std::task::ready!(self.0.as_mut().poll(context));
            self.1 = true;
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"{}")))))
        }
    }

    /// What comes of a request whose answer begins after one time, and whose body comes after another.
    async fn answered(uri: &'static str, head: u64, body: u64) -> Result<Bytes, String> {
        let server = tower::service_fn(move |_: Request<Body>| async move {
            tokio::time::sleep(Duration::from_secs(head)).await;
            let late = Late(
                Box::pin(tokio::time::sleep(Duration::from_secs(body))),
                false,
            );
            Ok::<_, BoxError>(Response::new(Box::new(late) as Box<DynBody>))
        });
        let request = Request::get(uri).body(Body::empty()).unwrap();
        let service = Amend(answer_within).layer(server);
        let answer = service.oneshot(request).await;
        let answer = answer.map_err(|error| error.to_string())?;
        let body = answer.into_body().collect().await.unwrap();
        Ok(body.to_bytes())
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_watch_that_has_begun_may_keep_silent() {
        let (list, watch) = ("/api/v1/pods?limit=500", "/api/v1/pods?watch=true");
        for (uri, head, body, is_answered) in [
            (list, 29, 0, true),
            (list, 31, 0, false),
            (list, 20, 9, true),
            (list, 20, 11, false),
            (watch, 29, 280, true),
            (watch, 31, 0, false),
        ] {
            let answer = answered(uri, head, body).await;
            assert_eq!(answer.is_ok(), is_answered, "{uri} {head} {body}");
            if let Err(error) = answer {
                assert_eq!(error, "the API server did not answer within 30s");
            }
        }
    }
}
