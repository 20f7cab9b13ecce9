//! Ends the streams that are open when the shutdown begins. A server waits for its open streams, and
//! some (health watches, reflection) end only when the client likes.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Response;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::Status;
use tonic::body::Body;

/// The same response, whose body ends at the shutdown as soon as it has nothing to send: an answer
/// that is there still arrives.
pub(super) fn end_at(response: Response<Body>, shutdown: &CancellationToken) -> Response<Body> {
    response.map(|body| {
        Body::new(EndsAtShutdown {
            inner: Some(body),
            shutdown: shutdown.clone(),
            waiting: None,
        })
    })
}

struct EndsAtShutdown {
    /// `None` = the end was sent.
    inner: Option<Body>,
    shutdown: CancellationToken,
    /// Made when the body waits for the first time: most answers are one message and never do.
    waiting: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

impl HttpBody for EndsAtShutdown {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let Some(inner) = &mut this.inner else {
            return Poll::Ready(None);
        };
        if let Poll::Ready(frame) = Pin::new(inner).poll_frame(context) {
            return Poll::Ready(frame);
        }
        let shutdown = &this.shutdown;
        let waiting = this
            .waiting
            .get_or_insert_with(|| Box::pin(shutdown.clone().cancelled_owned()));
        ready!(waiting.as_mut().poll(context));
        // Whoever feeds the stream learns of its end by this drop.
        this.inner = None;
        let ended = Status::unavailable("the server shuts down");
        let mut trailers = http::HeaderMap::new();
        ended.add_header(&mut trailers)?;
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner
            .as_ref()
            .map(HttpBody::size_hint)
            .unwrap_or_default()
    }
}
