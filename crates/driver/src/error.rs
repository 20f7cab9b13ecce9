//! What a driver answers when it cannot do what it was asked for.
//!
//! The kinds are the driver interface's own words, so that a driver outside of this process can use
//! them; each stands for one gRPC status code.

use thiserror::Error;
use tonic::{Code, Status};

/// Why a driver failed, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// Certainly not done; it may work later.
    Unavailable,
    /// What was asked for does not exist.
    NotFound,
    /// What was to be created exists.
    AlreadyExists,
    /// A condition on a version or value did not hold; nothing changed.
    Conflict,
    /// The request or the configuration is wrong.
    Invalid,
    /// Not allowed.
    Denied,
    /// The driver does not offer this.
    Unsupported,
    /// The deadline passed; a mutation may have been done.
    Timeout,
    /// The caller gave up.
    Canceled,
    /// A defect of the driver or the store.
    Internal,
    /// A value left its range; nothing changed.
    OutOfRange,
    /// A limit is reached; certainly not done.
    ResourceExhausted,
    /// The store is not in a state that allows it; nothing changed.
    FailedPrecondition,
    /// Data or events are lost.
    DataLoss,
    /// Perhaps done, and nobody can tell any more; never send it again blindly.
    Unknown,
}

impl ErrorKind {
    /// The gRPC status code that applications see.
    #[must_use]
    pub fn code(self) -> Code {
        match self {
            Self::Unavailable => Code::Unavailable,
            Self::NotFound => Code::NotFound,
            Self::AlreadyExists => Code::AlreadyExists,
            Self::Conflict => Code::Aborted,
            Self::Invalid => Code::InvalidArgument,
            Self::Denied => Code::PermissionDenied,
            Self::Unsupported => Code::Unimplemented,
            Self::Timeout => Code::DeadlineExceeded,
            Self::Canceled => Code::Cancelled,
            Self::Internal => Code::Internal,
            Self::OutOfRange => Code::OutOfRange,
            Self::ResourceExhausted => Code::ResourceExhausted,
            Self::FailedPrecondition => Code::FailedPrecondition,
            Self::DataLoss => Code::DataLoss,
            Self::Unknown => Code::Unknown,
        }
    }

    /// The kind that stands for a gRPC status code, as storage nodes send it.
    #[must_use]
    pub fn from_code(code: i32) -> Self {
        match Code::from(code) {
            Code::Unavailable => Self::Unavailable,
            Code::NotFound => Self::NotFound,
            Code::AlreadyExists => Self::AlreadyExists,
            Code::Aborted => Self::Conflict,
            Code::InvalidArgument => Self::Invalid,
            Code::PermissionDenied | Code::Unauthenticated => Self::Denied,
            Code::Unimplemented => Self::Unsupported,
            Code::DeadlineExceeded => Self::Timeout,
            Code::Cancelled => Self::Canceled,
            Code::OutOfRange => Self::OutOfRange,
            Code::ResourceExhausted => Self::ResourceExhausted,
            Code::FailedPrecondition => Self::FailedPrecondition,
            Code::DataLoss => Self::DataLoss,
            Code::Unknown => Self::Unknown,
            // An error that carries OK is a defect of the sender.
            Code::Ok | Code::Internal => Self::Internal,
        }
    }
}

/// A driver's error: its kind for programs, its message for people.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct DriverError {
    /// For programs.
    pub kind: ErrorKind,
    /// For people: what was tried and what to do.
    pub message: String,
}

impl DriverError {
    /// An error of that kind.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }

    /// The request or the configuration is wrong.
    #[must_use]
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }
}

impl From<DriverError> for Status {
    fn from(error: DriverError) -> Self {
        Self::new(error.kind.code(), error.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_survives_the_way_over_its_code() {
        let kinds = [
            ErrorKind::Unavailable,
            ErrorKind::NotFound,
            ErrorKind::AlreadyExists,
            ErrorKind::Conflict,
            ErrorKind::Invalid,
            ErrorKind::Denied,
            ErrorKind::Unsupported,
            ErrorKind::Timeout,
            ErrorKind::Canceled,
            ErrorKind::Internal,
            ErrorKind::OutOfRange,
            ErrorKind::ResourceExhausted,
            ErrorKind::FailedPrecondition,
            ErrorKind::DataLoss,
            ErrorKind::Unknown,
        ];
        for kind in kinds {
            assert_eq!(ErrorKind::from_code(kind.code() as i32), kind);
        }
    }
}
