//! One call: timed, its answer judged, and both written down.

use std::error::Error as _;
use std::future::Future;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tonic::{Code, Request, Status};

use super::Client;
use crate::history::{Arguments, Object, Outcome, Record, Reply};

/// After a call's own deadline, before it is given up here.
const GRACE: Duration = Duration::from_secs(2);

/// What is asked.
pub(super) struct Asked<'a> {
    pub(super) object: &'a Object,
    pub(super) key: &'a str,
    pub(super) method: &'static str,
    pub(super) arguments: Arguments,
}

/// What a client learns.
#[derive(Debug)]
pub(super) enum Told {
    Answered(Reply),
    Refused,
    Failed,
    Unknown,
}

impl Told {
    /// The answer, if that is what it was.
    pub(super) fn reply(self) -> Option<Reply> {
        match self {
            Self::Answered(reply) => Some(reply),
            Self::Refused | Self::Failed | Self::Unknown => None,
        }
    }
}

/// A request with a deadline.
pub(super) fn within<T>(patience: Duration, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(patience);
    request
}

impl Client {
    /// Awaits a call that was not begun yet, and writes down what came of it.
    pub(super) async fn call(
        &mut self,
        asked: Asked<'_>,
        patience: Duration,
        call: impl Future<Output = Result<Reply, Status>>,
    ) -> anyhow::Result<Told> {
        let clock = self.shared.clock;
        let called = clock.now();
        let answered = tokio::time::timeout(patience + GRACE, call).await;
        let returned = clock.now();
        let answered = answered.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer")));
        let (told, code) = match answered {
            Ok(reply) => (Told::Answered(reply), None),
            Err(status) => (judge(&status), Some(name(status.code()))),
        };
        let (outcome, reply) = match &told {
            Told::Answered(reply) => (Outcome::Ok, Some(reply)),
            Told::Refused => (Outcome::Refused, None),
            Told::Failed => (Outcome::Failed, None),
            Told::Unknown => (Outcome::Unknown, None),
        };
        asked.object.record(&Record {
            client: self.number,
            key: asked.key,
            method: asked.method,
            arguments: &asked.arguments,
            call: called,
            returned: (outcome != Outcome::Unknown).then_some(returned),
            outcome,
            code,
            reply,
        })?;
        self.shared.histories.count(asked.object.used_as, outcome);
        if outcome == Outcome::Unknown {
            self.become_another()?;
        } else {
            self.answered = called;
        }
        Ok(told)
    }

    /// Ends the connection and goes on under another number.
    pub(super) fn become_another(&mut self) -> anyhow::Result<()> {
        self.channel = None;
        for object in std::mem::take(&mut self.owns) {
            self.lost(&object)?;
        }
        self.number = self.shared.next_number.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Writes down that it may have lost what it owned there at any time since the last answer: its
    /// sidecar may have ended before the call that told.
    fn lost(&self, object: &Object) -> anyhow::Result<()> {
        object.record(&Record {
            client: self.number,
            key: "",
            method: "Lost",
            arguments: &Arguments {
                value: Some(self.number.to_string()),
                ..Arguments::default()
            },
            call: self.answered,
            returned: None,
            outcome: Outcome::Unknown,
            code: None,
            reply: None,
        })
    }
}

/// What a status says of the operation. A sidecar's UNAVAILABLE promises that nothing was done; one that
/// was made on this side, because the connection broke, promises nothing.
fn judge(status: &Status) -> Told {
    if status.source().is_some() {
        return Told::Unknown;
    }
    match status.code() {
        Code::Aborted | Code::NotFound | Code::AlreadyExists | Code::OutOfRange => Told::Refused,
        Code::Unavailable
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::InvalidArgument
        | Code::PermissionDenied
        | Code::Unauthenticated
        | Code::Unimplemented => Told::Failed,
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::Internal
        | Code::DataLoss => Told::Unknown,
    }
}

fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn only_a_sidecars_own_answer_is_believed() {
        let failed = judge(&Status::unavailable("the store is not connected"));
        assert!(matches!(failed, Told::Failed));
        let broken = Status::from_error(Box::new(io::Error::other("reset")));
        assert!(matches!(judge(&broken), Told::Unknown));
        let refused = judge(&Status::aborted("conflict"));
        assert!(matches!(refused, Told::Refused));
        let late = judge(&Status::deadline_exceeded("late"));
        assert!(matches!(late, Told::Unknown));
    }
}
