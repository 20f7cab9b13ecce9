//! What streaming calls are answered with.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::stream::{self, BoxStream, Stream, StreamExt as _};
use tonic::Streaming;

use crate::error::{Error, Result};
use crate::failure::Failure;

/// What a streaming call tells, in order, each once.
///
/// An error is the last item. A stream that follows changes has no other end: with
/// [`Error::DataLoss`] something may have been missed (the sidecar was restarted, the reader was
/// too slow, the primitive moved to another store), and whoever goes on begins anew. The sidecar sends
/// on only as items are taken, so a slow reader holds up nobody.
///
/// Dropping it ends the stream. It needs no handle and no client: it keeps the connection open.
#[must_use = "a subscription does nothing unless it is read"]
pub struct Subscription<T> {
    items: BoxStream<'static, Result<T>>,
}

/// Whether a stream may end without an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// It tells what there is, and ends.
    AfterAll,
    /// It goes on.
    Never,
}

impl<T: Send + 'static> Subscription<T> {
    /// `read` makes an item of a message, or nothing of one that tells nothing.
    pub(crate) fn new<M: Send + 'static>(
        messages: Streaming<M>,
        end: End,
        read: impl FnMut(M) -> Result<Option<T>> + Send + 'static,
    ) -> Self {
        let begin = Some((messages, read));
        let items = stream::unfold(begin, move |rest| async move {
            let (mut messages, mut read) = rest?;
            loop {
                let item = match messages.message().await {
                    Ok(Some(message)) => read(message),
                    Ok(None) if end == End::AfterAll => return None,
                    Ok(None) => Err(Error::DataLoss("it ended without a word".to_owned())),
                    Err(status) => Err(Failure::from(status).into_end_of_stream()),
                };
                match item {
                    Ok(Some(item)) => return Some((Ok(item), Some((messages, read)))),
                    Ok(None) => {}
                    Err(error) => return Some((Err(error), None)),
                }
            }
        });
        Self {
            items: items.boxed(),
        }
    }

    /// The next item; `None` after the last.
    ///
    /// # Errors
    /// Why the stream has ended.
    pub async fn next(&mut self) -> Result<Option<T>> {
        self.items.next().await.transpose()
    }
}

impl<T> Stream for Subscription<T> {
    type Item = Result<T>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<T>>> {
        self.items.poll_next_unpin(context)
    }
}

impl<T> fmt::Debug for Subscription<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Subscription")
            .finish_non_exhaustive()
    }
}
