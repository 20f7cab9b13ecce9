//! What goes wrong with an operator's calls while it lives: refusals, lost requests and replies,
//! watches that end in the middle, views of the past.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame};
use kube::client::DynBody;
use serde_json::json;
use tower::BoxError;

use super::call::{Call, Verb};

/// One kind of trouble, and the calls that it meets. A call fails at its first attempt only, so that
/// whatever repeats it gets on; the lease is spared, but by [`Trouble::Lease`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults {
    /// What goes wrong.
    pub trouble: Trouble,
    /// Of the calls that can meet it, numbered from 0 as they first appear, those with this number
    /// modulo [`Self::of`] meet it. One pass of a controller that fails at call after call would
    /// mostly wait for its growing backoff.
    pub share: usize,
    /// See [`Self::share`]; 1 = all calls meet the trouble.
    pub of: usize,
}

impl fmt::Display for Faults {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { trouble, share, of } = self;
        write!(formatter, "{trouble} (share {share} of {of})")
    }
}

/// What can go wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The API server answers with this status and changes nothing; 404 says that there is no such
    /// page, not that there is no such object.
    Refusal(u16),
    /// The API server refuses with 429 before it looks at the request, as one that is overloaded does:
    /// in plain text, and with [`ASKED_TO_WAIT`] in a header.
    Overload,
    /// The connection to the API server breaks before the request is sent.
    Reset,
    /// The API server does what it was asked to, but the connection breaks before it says so.
    ReplyLost,
    /// The API server gets no request and never answers.
    Unanswered,
    /// A node or runtime answers with this code and changes nothing.
    PeerRefusal(tonic::Code),
    /// A node or runtime does what it was asked to, but its answer comes too late.
    PeerReplyLost,
    /// A node or runtime gets no request and never answers.
    PeerUnanswered,
    /// Each watch ends after so many events: the next one is never seen by it.
    CutWatches {
        /// How many events come through.
        after: usize,
        /// Whether the place in history is gone: the next watch is refused with 410, and only a
        /// new LIST helps.
        is_expired: bool,
    },
    /// What concerns the lease fails, and nothing else. Not at first attempts only: always.
    Lease(LeaseTrouble),
    /// LISTs are answered from the past, and watches begin only after a time, so that it is acted
    /// upon. Not at first attempts only: always.
    Past {
        /// The resource version whose view is shown.
        version: String,
        /// For how long nothing newer is heard.
        hold: Duration,
    },
}

/// How the API server treats calls about the lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseTrouble {
    /// It refuses them, as for want of a right.
    Refused,
    /// It never answers.
    Unanswered,
}

/// How long an API server that is overloaded asks to wait.
pub const ASKED_TO_WAIT: Duration = Duration::from_secs(1);

impl fmt::Display for Trouble {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refusal(status) => write!(formatter, "the API server refuses with {status}"),
            Self::Overload => formatter.write_str("the API server is overloaded"),
            Self::Reset => formatter.write_str("the API server's connection breaks"),
            Self::ReplyLost => formatter.write_str("the API server's reply is lost"),
            Self::Unanswered => formatter.write_str("the API server never answers"),
            Self::PeerUnanswered => formatter.write_str("the peer never answers"),
            Self::PeerRefusal(code) => write!(formatter, "the peer refuses with {code:?}"),
            Self::PeerReplyLost => formatter.write_str("the peer's reply is lost"),
            Self::CutWatches { after, is_expired } => {
                let then = if *is_expired { "expire" } else { "go on" };
                write!(formatter, "watches end after {after} events and {then}")
            }
            Self::Lease(LeaseTrouble::Refused) => formatter.write_str("the lease is refused"),
            Self::Lease(LeaseTrouble::Unanswered) => {
                formatter.write_str("nobody answers about the lease")
            }
            Self::Past { version, hold } => {
                write!(formatter, "the view of {version} is held for {hold:?}")
            }
        }
    }
}

impl Trouble {
    /// Whether it can happen to this call.
    pub(super) fn concerns(&self, call: &Call) -> bool {
        let is_to_peer = matches!(call.verb, Verb::Ask | Verb::Tell);
        let is_of_lease = call.what.starts_with("leases");
        if is_of_lease != self.is_of_lease() {
            return false;
        }
        match self {
            Self::Lease(_) => true,
            Self::Refusal(_) | Self::Overload | Self::Reset | Self::Unanswered => !is_to_peer,
            // Of a watch, the reply is its events.
            Self::ReplyLost => !is_to_peer && call.verb != Verb::Watch,
            Self::PeerRefusal(_) | Self::PeerReplyLost | Self::PeerUnanswered => is_to_peer,
            Self::CutWatches { .. } | Self::Past { .. } => false,
        }
    }

    pub(super) fn is_of_lease(&self) -> bool {
        matches!(self, Self::Lease(_))
    }

    /// Whether it is a storage node or a runtime that gives trouble.
    pub(crate) fn is_of_peers(&self) -> bool {
        matches!(
            self,
            Self::PeerRefusal(_) | Self::PeerReplyLost | Self::PeerUnanswered
        )
    }

    /// Whether the caller waits until it gives up.
    pub(crate) fn is_silence(&self) -> bool {
        matches!(
            self,
            Self::Unanswered | Self::PeerUnanswered | Self::Lease(LeaseTrouble::Unanswered)
        )
    }

    /// The API server's answer to a request that it never gets; `None` = it gets it.
    pub(super) fn instead_of_api_server(
        &self,
    ) -> Option<Result<http::Response<Box<DynBody>>, BoxError>> {
        match self {
            Self::Refusal(status) => Some(Ok(refusal(*status))),
            Self::Overload => Some(Ok(overloaded())),
            Self::Lease(LeaseTrouble::Refused) => Some(Ok(refusal(403))),
            Self::Reset => Some(Err(broken_connection())),
            Self::Lease(LeaseTrouble::Unanswered)
            | Self::ReplyLost
            | Self::Unanswered
            | Self::PeerRefusal(_)
            | Self::PeerReplyLost
            | Self::PeerUnanswered
            | Self::CutWatches { .. }
            | Self::Past { .. } => None,
        }
    }

    /// A peer's answer to a request that it never gets; `None` = it gets it.
    pub(super) fn instead_of_peer(&self) -> Option<http::Response<tonic::body::Body>> {
        match self {
            Self::PeerRefusal(code) => {
                Some(tonic::Status::new(*code, "refused by the test").into_http())
            }
            Self::Refusal(_)
            | Self::Overload
            | Self::Lease(_)
            | Self::Reset
            | Self::ReplyLost
            | Self::Unanswered
            | Self::PeerReplyLost
            | Self::PeerUnanswered
            | Self::CutWatches { .. }
            | Self::Past { .. } => None,
        }
    }
}

/// A reply that never came, as kube's client sees it.
pub(super) fn broken_connection() -> BoxError {
    std::io::Error::from(std::io::ErrorKind::ConnectionReset).into()
}

/// A peer's reply that came too late.
pub(super) fn late_reply() -> http::Response<tonic::body::Body> {
    tonic::Status::deadline_exceeded("the reply was held back by the test").into_http()
}

/// The API server's refusal, with the one second that 429 asks to wait.
pub(super) fn refusal(code: u16) -> http::Response<Box<DynBody>> {
    if code == 404 {
        return in_plain_text(
            http::Response::builder().status(404),
            "404 page not found\n",
        );
    }
    let reason = match code {
        403 => "Forbidden",
        409 => "Conflict",
        410 => "Expired",
        422 => "Invalid",
        429 => "TooManyRequests",
        _ => "InternalError",
    };
    let details = match code {
        429 => json!({"retryAfterSeconds": 1}),
        _ => json!({}),
    };
    let status = json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": "refused by the test",
        "reason": reason,
        "code": code,
        "details": details,
    });
    http::Response::builder()
        .status(code)
        .header("content-type", "application/json")
        .body(Box::new(Text(Some(status.to_string().into()))) as Box<DynBody>)
        .expect("a constant header is a header")
}

/// The refusal of an API server that has not looked at the request.
fn overloaded() -> http::Response<Box<DynBody>> {
    let waits = http::Response::builder()
        .status(429)
        .header("retry-after", ASKED_TO_WAIT.as_secs());
    in_plain_text(waits, "Too many requests, please try again later.\n")
}

fn in_plain_text(
    answer: http::response::Builder,
    text: &'static str,
) -> http::Response<Box<DynBody>> {
    answer
        .header("content-type", "text/plain; charset=utf-8")
        .body(Box::new(Text(Some(text.into()))) as Box<DynBody>)
        .expect("constant headers are headers")
}

/// A body of one piece.
struct Text(Option<Bytes>);

impl Body for Text {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Poll::Ready(self.0.take().map(|text| Ok(Frame::data(text))))
    }
}
