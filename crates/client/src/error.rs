//! What callers see when a call fails.

use thiserror::Error;
use tonic::Code;

/// What a call answers with.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a value could not be encoded or decoded.
pub type CodecError = Box<dyn std::error::Error + Send + Sync>;

/// Why a call failed. The text is what the sidecar or the store said.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// What was to be changed or removed does not exist.
    #[error("not found: {0}")]
    NotFound(String),
    /// What was to be inserted exists.
    #[error("exists already: {0}")]
    AlreadyExists(String),
    /// A version or value is not the one that the caller expected, or what was asked for is not the
    /// caller's to change. Read again and decide anew.
    #[error("{0}")]
    Conflict(String),
    /// The request can never succeed; the text names the field.
    #[error("invalid argument: {0}")]
    InvalidArgument(String),
    /// Nothing can be done before something is changed elsewhere: several stores may have the
    /// primitive, or a configuration does not fit its store.
    #[error("{0}")]
    FailedPrecondition(String),
    /// An index beyond the end of a list, or a number that would leave 64 bits.
    #[error("out of range: {0}")]
    OutOfRange(String),
    /// A limit is reached, or the request is too large.
    #[error("a limit is reached: {0}")]
    ResourceExhausted(String),
    /// The store's driver does not offer this.
    #[error("not offered: {0}")]
    Unimplemented(String),
    /// The store does not allow it.
    #[error("not allowed: {0}")]
    PermissionDenied(String),
    /// The store does not know the caller.
    #[error("not authenticated: {0}")]
    Unauthenticated(String),
    /// The sidecar or the store cannot be reached, or the primitive has no store yet. Nothing was
    /// done, though it was tried again until the deadline.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// The deadline passed. A mutation may or may not be done.
    #[error("the deadline passed: {0}")]
    DeadlineExceeded(String),
    /// The answer was lost on its way: the mutation may or may not be done. It is never sent again
    /// by itself; read before you do.
    #[error("the outcome is unknown: {0}")]
    Unknown(String),
    /// A stream cannot go on without a loss. Begin it again, and read what it was about anew.
    #[error("the stream has ended: {0}")]
    DataLoss(String),
    /// The call was given up on its way. A mutation may or may not be done.
    #[error("cancelled: {0}")]
    Cancelled(String),
    /// A defect of the sidecar or the store.
    #[error("internal error: {0}")]
    Internal(String),
    /// A key or value could not be encoded; nothing was sent.
    #[error("cannot encode it: {0}")]
    Encode(#[source] CodecError),
    /// A key or value that was read is not of the expected type: another application wrote it, or
    /// with another codec. A mutation that answers with it is done.
    #[error("cannot decode what was read: {0}")]
    Decode(#[source] CodecError),
}

impl Error {
    /// Whether it is certain that a mutation did nothing, so that it may be repeated. A method that
    /// concerns keys in several partitions of a store may have been carried out at some of them
    /// whatever the error: those methods say so.
    #[must_use]
    pub fn is_certainly_not_done(&self) -> bool {
        match self {
            Self::NotFound(_)
            | Self::AlreadyExists(_)
            | Self::Conflict(_)
            | Self::InvalidArgument(_)
            | Self::FailedPrecondition(_)
            | Self::OutOfRange(_)
            | Self::ResourceExhausted(_)
            | Self::Unimplemented(_)
            | Self::PermissionDenied(_)
            | Self::Unauthenticated(_)
            | Self::Unavailable(_)
            | Self::Encode(_) => true,
            Self::DeadlineExceeded(_)
            | Self::Unknown(_)
            | Self::DataLoss(_)
            | Self::Cancelled(_)
            | Self::Internal(_)
            | Self::Decode(_) => false,
        }
    }

    pub(crate) fn of(code: Code, message: String) -> Self {
        match code {
            Code::NotFound => Self::NotFound(message),
            Code::AlreadyExists => Self::AlreadyExists(message),
            Code::Aborted => Self::Conflict(message),
            Code::InvalidArgument => Self::InvalidArgument(message),
            Code::FailedPrecondition => Self::FailedPrecondition(message),
            Code::OutOfRange => Self::OutOfRange(message),
            Code::ResourceExhausted => Self::ResourceExhausted(message),
            Code::Unimplemented => Self::Unimplemented(message),
            Code::PermissionDenied => Self::PermissionDenied(message),
            Code::Unauthenticated => Self::Unauthenticated(message),
            Code::Unavailable => Self::Unavailable(message),
            Code::DeadlineExceeded => Self::DeadlineExceeded(message),
            Code::Unknown => Self::Unknown(message),
            Code::DataLoss => Self::DataLoss(message),
            Code::Cancelled => Self::Cancelled(message),
            // An error that carries OK is a defect of the sender.
            Code::Ok | Code::Internal => Self::Internal(message),
        }
    }
}

/// `None` where the API says NOT_FOUND.
pub(crate) fn found<T>(answer: Result<T>) -> Result<Option<T>> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(Error::NotFound(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A field that the API always sets.
pub(crate) fn required<T>(field: Option<T>, name: &str) -> Result<T> {
    field.ok_or_else(|| Error::Internal(format!("the sidecar answered without {name}")))
}
