//! The body of a watch whose events are counted, and of which one may be lost.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame};
use tower::BoxError;

use super::{Call, Gate};

/// What the API server says, and nothing more, when it has forgotten the place that a watch is at.
const GONE: &[u8] = br#"{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"too old resource version: by the test","reason":"Expired","code":410}}
"#;

/// Tells a gate of each event as it begins, each a line. In place of one that is lost it says that the
/// watch's place in history is gone, and ends.
#[derive(Debug)]
pub(super) struct EventsBody<B> {
    inner: B,
    gate: Gate,
    watch: Call,
    is_within_event: bool,
    has_ended: bool,
}

impl<B> EventsBody<B> {
    pub(super) fn new(inner: B, gate: Gate, watch: Call) -> Self {
        Self {
            inner,
            gate,
            watch,
            is_within_event: false,
            has_ended: false,
        }
    }

    fn pass(&mut self, data: Bytes) -> Bytes {
        let mut passed = 0;
        for line in data.split_inclusive(|byte| *byte == b'\n') {
            if !self.is_within_event && !self.gate.event_passes(&self.watch) {
                self.has_ended = true;
                let passed = data.slice(..passed);
                return Bytes::from([passed.as_ref(), GONE].concat());
            }
            self.is_within_event = !line.ends_with(b"\n");
            passed += line.len();
        }
        data
    }
}

impl<B> Body for EventsBody<B>
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
        if this.has_ended {
            return Poll::Ready(None);
        }
        let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(context) else {
            return Poll::Pending;
        };
        let frame = frame.map(|frame| frame.map(|frame| frame.map_data(|data| this.pass(data))));
        Poll::Ready(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{Disturbance, Verb};

    #[test]
    fn one_event_is_lost_however_the_frames_lie() {
        let first = "one\ntwo\n";
        for frames in [
            vec!["one\ntwo\nthree\nfour\n"],
            vec!["one\nt", "wo\nth", "ree\nfour\n"],
            vec!["one\n", "two\n", "", "three\n"],
        ] {
            let watch = Call {
                verb: Verb::Watch,
                what: "pods".to_owned(),
                name: String::new(),
            };
            let point = "watch pods #3".parse().unwrap();
            let gate = Gate::new(Some(Disturbance::Loss(point)));
            let mut body = EventsBody::new((), gate, watch);
            let mut seen = Vec::new();
            for frame in &frames {
                if !body.has_ended {
                    seen.extend(body.pass(Bytes::from(*frame)));
                }
            }
            let expected = [first.as_bytes(), GONE].concat();
            assert_eq!(seen, expected, "{frames:?}");
            assert!(body.has_ended);
        }
    }
}
