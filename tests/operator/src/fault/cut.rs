//! The body of a watch that ends in the middle.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame};
use tower::BoxError;

/// Lets the first lines of a body through, each of them an event, and then ends it.
#[derive(Debug)]
pub(super) struct CutBody<B> {
    inner: B,
    lines_left: usize,
}

impl<B> CutBody<B> {
    pub(super) fn new(inner: B, lines: usize) -> Self {
        Self {
            inner,
            lines_left: lines,
        }
    }
}

impl<B> Body for CutBody<B>
where
    B: Body<Data = Bytes, Error = BoxError> + Unpin,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        if this.lines_left == 0 {
            return Poll::Ready(None);
        }
        let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(context) else {
            return Poll::Pending;
        };
        let data = match frame.map(|frame| frame.map(Frame::into_data)) {
            Some(Ok(Ok(data))) => data,
            Some(Ok(Err(trailers))) => return Poll::Ready(Some(Ok(trailers))),
            Some(Err(error)) => return Poll::Ready(Some(Err(error))),
            None => return Poll::Ready(None),
        };
        let (kept, lines) = first_lines(&data, this.lines_left);
        this.lines_left -= lines;
        Poll::Ready(Some(Ok(Frame::data(data.slice(..kept)))))
    }
}

/// How many bytes hold at most so many lines, and how many lines end in them.
fn first_lines(data: &[u8], limit: usize) -> (usize, usize) {
    let ends = data.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    let ends: Vec<usize> = ends.map(|(at, _)| at + 1).take(limit).collect();
    match ends.last() {
        Some(end) if ends.len() == limit => (*end, limit),
        _ => (data.len(), ends.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_over_frames_of_any_size() {
        for (data, limit, kept, lines) in [
            ("one\ntwo\nthree", 2, 8, 2),
            ("one\ntwo\nthree", 3, 13, 2),
            ("one", 1, 3, 0),
            ("\n", 1, 1, 1),
            ("", 1, 0, 0),
        ] {
            assert_eq!(
                first_lines(data.as_bytes(), limit),
                (kept, lines),
                "{data:?}"
            );
        }
    }
}
