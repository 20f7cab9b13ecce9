//! What is known of a call that failed. gRPC's UNAVAILABLE alone does not say it: from the sidecar it
//! means that nothing was done, made here of a connection that broke it means nothing of the kind.

use std::error::Error as StdError;

use tonic::{Code, ConnectError, Status, TimeoutExpired};

use crate::error::Error;
use crate::method::Repeat;

/// A call that failed, once.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) fate: Fate,
    pub(crate) code: Code,
    pub(crate) message: String,
}

/// What became of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It never left this process.
    NotSent,
    /// The sidecar says that it was not carried out and may be later.
    NotDone,
    /// The sidecar has answered, for good.
    Answered,
    /// The connection ended before the answer came.
    Lost,
}

impl Failure {
    pub(crate) fn not_sent(message: String) -> Self {
        Self {
            fate: Fate::NotSent,
            code: Code::Unavailable,
            message,
        }
    }

    pub(crate) fn timed_out() -> Self {
        Self {
            fate: Fate::Answered,
            code: Code::DeadlineExceeded,
            message: "the sidecar did not answer in time".to_owned(),
        }
    }

    /// Whether a request that may be repeated so may be sent again.
    pub(crate) fn allows(&self, repeat: Repeat) -> bool {
        match self.fate {
            Fate::NotSent => true,
            Fate::NotDone => match repeat {
                Repeat::Always | Repeat::IfNotDone => true,
                Repeat::IfNotSent => false,
            },
            Fate::Lost => match repeat {
                Repeat::Always => true,
                Repeat::IfNotDone | Repeat::IfNotSent => false,
            },
            Fate::Answered => false,
        }
    }

    /// As the caller sees it.
    pub(crate) fn into_error(self, repeat: Repeat) -> Error {
        let Self {
            fate,
            code,
            message,
        } = self;
        match (fate, repeat) {
            (Fate::Lost, Repeat::Always) => Error::Unavailable(message),
            (Fate::Lost, Repeat::IfNotDone | Repeat::IfNotSent) => Error::Unknown(message),
            (Fate::NotSent | Fate::NotDone | Fate::Answered, _) => Error::of(code, message),
        }
    }

    /// As the reader of a stream that had begun sees it.
    pub(crate) fn into_end_of_stream(self) -> Error {
        match self.fate {
            Fate::NotSent | Fate::NotDone | Fate::Lost => {
                Error::DataLoss(format!("{}; read again", self.message))
            }
            Fate::Answered => Error::of(self.code, self.message),
        }
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let (code, message) = (status.code(), status.message().to_owned());
        // What arrived from the sidecar has no source; what was made here has one.
        let Some(source) = status.source() else {
            let fate = match code {
                Code::Unavailable => Fate::NotDone,
                _ => Fate::Answered,
            };
            return Self {
                fate,
                code,
                message,
            };
        };
        if chain(source).any(<dyn StdError>::is::<TimeoutExpired>) {
            return Self::timed_out();
        }
        let reason = reason_of(source);
        if chain(source).any(<dyn StdError>::is::<ConnectError>) {
            return Self::not_sent(format!("the sidecar cannot be reached: {reason}"));
        }
        Self {
            fate: Fate::Lost,
            code,
            message: format!("the connection to the sidecar broke: {reason}"),
        }
    }
}

/// What an error comes from in the end: those above it say little.
pub(crate) fn reason_of(error: &(dyn StdError + 'static)) -> String {
    let first = chain(error).last().unwrap_or(error);
    first.to_string()
}

/// An error and what it comes from.
fn chain<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn StdError + 'static)| {
        (**error).source()
    })
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use super::*;

    fn local(code: Code, source: impl StdError + Send + Sync + 'static) -> Failure {
        let mut status = Status::new(code, "transport error");
        status.set_source(Arc::new(source));
        Failure::from(status)
    }

    fn broken() -> io::Error {
        io::Error::new(io::ErrorKind::ConnectionReset, "reset")
    }

    #[test]
    fn only_what_has_certainly_had_no_effect_is_sent_again() {
        let from_sidecar = |code| Failure::from(Status::new(code, "so"));
        let never = [Repeat::Always, Repeat::IfNotDone, Repeat::IfNotSent].map(|_| false);
        let cases = [
            (
                local(Code::Unavailable, ConnectError(broken().into())),
                [true, true, true],
            ),
            (from_sidecar(Code::Unavailable), [true, true, false]),
            // A keep-alive of this side that was not answered is UNAVAILABLE, too.
            (local(Code::Unavailable, broken()), [true, false, false]),
            (local(Code::Unknown, broken()), [true, false, false]),
            (from_sidecar(Code::Unknown), never),
            (from_sidecar(Code::Aborted), never),
            (from_sidecar(Code::DeadlineExceeded), never),
            (local(Code::Cancelled, TimeoutExpired(())), never),
        ];
        for (failure, expected) in cases {
            let repeats = [Repeat::Always, Repeat::IfNotDone, Repeat::IfNotSent];
            let allowed = repeats.map(|repeat| failure.allows(repeat));
            assert_eq!(allowed, expected, "{failure:?}");
        }
    }

    #[test]
    fn a_lost_answer_is_unknown_for_a_mutation_and_a_data_loss_for_a_stream() {
        let lost = || local(Code::Internal, broken());
        let told = |repeat| lost().into_error(repeat);
        assert!(matches!(told(Repeat::IfNotDone), Error::Unknown(_)));
        assert!(matches!(told(Repeat::IfNotSent), Error::Unknown(_)));
        assert!(matches!(told(Repeat::Always), Error::Unavailable(_)));
        assert!(matches!(lost().into_end_of_stream(), Error::DataLoss(_)));
        let timed_out = local(Code::Cancelled, TimeoutExpired(()));
        let told = timed_out.into_error(Repeat::IfNotDone);
        assert!(matches!(told, Error::DeadlineExceeded(_)));
    }
}
