//! Streams that something from outside can end.

use futures::stream::{self, BoxStream};
use futures::{Future, StreamExt as _};

/// The messages up to their end or to an error, which is the last; or up to `interruption`, which is
/// the last error then.
pub(crate) fn interrupted_by<T, E>(
    messages: BoxStream<'static, Result<T, E>>,
    interruption: impl Future<Output = E> + Send + 'static,
) -> BoxStream<'static, Result<T, E>>
where
    T: Send + 'static,
    E: Send + 'static,
{
    let begin = Some((messages, Box::pin(interruption)));
    stream::unfold(begin, |rest| async move {
        let (mut messages, mut interruption) = rest?;
        tokio::select! {
            error = &mut interruption => Some((Err(error), None)),
            message = messages.next() => match message? {
                Ok(message) => Some((Ok(message), Some((messages, interruption)))),
                Err(error) => Some((Err(error), None)),
            },
        }
    })
    .boxed()
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    #[tokio::test]
    async fn a_stream_ends_by_itself_with_its_error_or_by_the_interruption() {
        let messages = |messages: Vec<Result<u32, &'static str>>| stream::iter(messages).boxed();
        let all = |stream: BoxStream<'static, _>| stream.collect::<Vec<_>>();
        let ended = interrupted_by(messages(vec![Ok(1), Ok(2)]), pending());
        assert_eq!(all(ended).await, [Ok(1), Ok(2)]);
        let failed = interrupted_by(messages(vec![Ok(1), Err("broken"), Ok(2)]), pending());
        assert_eq!(all(failed).await, [Ok(1), Err("broken")]);
        let quiet = stream::pending::<Result<u32, _>>().boxed();
        let interrupted = interrupted_by(quiet, ready("moved"));
        assert_eq!(all(interrupted).await, [Err("moved")]);
    }
}
