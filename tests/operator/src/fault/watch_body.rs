//! The body of a watch whose events are counted, of which one may be lost, and which may end early.

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
/// watch's place in history is gone, and ends; so it does after its last event, saying nothing.
#[derive(Debug)]
pub(super) struct WatchBody<B> {
    inner: B,
    gate: Gate,
    watch: Call,
    /// After so many more events it ends.
    events_left: Option<usize>,
    is_within_event: bool,
    has_ended: bool,
}

impl<B> WatchBody<B> {
    /// The body of this watch, with all of its events or only so many.
    pub(super) fn new(inner: B, gate: Gate, watch: Call, events: Option<usize>) -> Self {
        Self {
            inner,
            gate,
            watch,
            events_left: events,
            is_within_event: false,
            has_ended: false,
        }
    }

    fn pass(&mut self, data: Bytes) -> Bytes {
        let mut passed = 0;
        for line in data.split_inclusive(|byte| *byte == b'\n') {
            if !self.is_within_event && !self.gate.event_passes(&self.watch) {
                self.has_ended = true;
                let seen = data.slice(..passed);
                return Bytes::from([seen.as_ref(), GONE].concat());
            }
            passed += line.len();
            self.is_within_event = !line.ends_with(b"\n");
            if !self.is_within_event && self.was_last_event() {
                self.has_ended = true;
                return data.slice(..passed);
            }
        }
        data
    }

    fn was_last_event(&mut self) -> bool {
        let Some(left) = &mut self.events_left else {
            return false;
        };
        *left -= 1;
        *left == 0
    }
}

impl<B> Body for WatchBody<B>
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

    const FRAMES: [&[&str]; 3] = [
        &["one\ntwo\nthree\nfour\n"],
        &["one\nt", "wo\nth", "ree\nfour\n"],
        &["one\n", "two\n", "", "three\n"],
    ];

    /// What comes through of a watch.
    fn seen(frames: &[&str], disturbance: Option<Disturbance>, events: Option<usize>) -> Vec<u8> {
        let watch = Call {
            verb: Verb::Watch,
            what: "pods".to_owned(),
            name: String::new(),
        };
        let mut body = WatchBody::new((), Gate::new(disturbance), watch, events);
        let mut seen = Vec::new();
        for frame in frames {
            if !body.has_ended {
                seen.extend(body.pass(Bytes::from((*frame).to_owned())));
            }
        }
        seen
    }

    #[test]
    fn one_event_is_lost_however_the_frames_lie() {
        for frames in FRAMES {
            let lost = Disturbance::Loss("watch pods #3".parse().unwrap());
            let expected = [b"one\ntwo\n", GONE].concat();
            assert_eq!(seen(frames, Some(lost), None), expected, "{frames:?}");
        }
    }

    #[test]
    fn a_watch_ends_after_so_many_events_however_the_frames_lie() {
        for frames in FRAMES {
            for (events, expected) in [(1, "one\n"), (2, "one\ntwo\n"), (3, "one\ntwo\nthree\n")] {
                let seen = seen(frames, None, Some(events));
                assert_eq!(seen, expected.as_bytes(), "{frames:?} {events}");
            }
        }
    }
}
