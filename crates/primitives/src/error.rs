//! What can go wrong: an operation's own error, a snapshot that cannot be read, an entry that this
//! program must not apply.

use std::io;

use bytes::Bytes;
use thiserror::Error;

/// A gRPC status code, without the gRPC library.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(i32)]
#[allow(missing_docs, reason = "gRPC defines them")]
pub enum ErrorCode {
    Cancelled = 1,
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Aborted = 10,
    OutOfRange = 11,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    DataLoss = 15,
    Unauthenticated = 16,
}

impl ErrorCode {
    /// The number that gRPC gives this code.
    pub fn to_i32(self) -> i32 {
        self as i32
    }

    /// The code with this gRPC number; `None` for OK (0) and for numbers that gRPC does not define.
    pub fn from_i32(number: i32) -> Option<Self> {
        const ALL: [ErrorCode; 16] = [
            ErrorCode::Cancelled,
            ErrorCode::Unknown,
            ErrorCode::InvalidArgument,
            ErrorCode::DeadlineExceeded,
            ErrorCode::NotFound,
            ErrorCode::AlreadyExists,
            ErrorCode::PermissionDenied,
            ErrorCode::ResourceExhausted,
            ErrorCode::FailedPrecondition,
            ErrorCode::Aborted,
            ErrorCode::OutOfRange,
            ErrorCode::Unimplemented,
            ErrorCode::Internal,
            ErrorCode::Unavailable,
            ErrorCode::DataLoss,
            ErrorCode::Unauthenticated,
        ];
        ALL.into_iter().find(|code| code.to_i32() == number)
    }
}

/// An operation's own answer when it fails: final, replicated and the same on every replica.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct OperationError {
    /// What kind of failure it is.
    pub code: ErrorCode,
    /// What was tried and what to do, for people.
    pub message: String,
}

impl OperationError {
    /// An error with this code and message.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { code, message }
    }

    /// A request that can never succeed; the message names the field.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidArgument, message)
    }

    /// A version or value precondition that does not hold.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Aborted, message)
    }

    /// A kind or method that does not exist here.
    pub fn unimplemented(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Unimplemented, message)
    }
}

/// What an operation is answered with: the encoded reply message, or its error.
pub type Reply = Result<Bytes, OperationError>;

/// The ring no longer holds the events after a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("events lost, read again")]
pub struct EventsLost;

impl From<EventsLost> for OperationError {
    fn from(lost: EventsLost) -> Self {
        Self::new(ErrorCode::DataLoss, lost.to_string())
    }
}

/// An entry that this program must not apply and must not skip. The replica has to stop serving the
/// partition; another program version, or a person, has to go on from there.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Stop {
    /// A command that this program does not know.
    #[error("entry {index} holds a command this version does not know; run a newer version")]
    UnknownCommand {
        /// The entry's index in the log.
        index: u64,
    },
    /// An operation that this program does not know.
    #[error(
        "entry {index} holds an operation this version does not know ({operation}); run a newer version"
    )]
    UnknownOperation {
        /// The entry's index in the log.
        index: u64,
        /// The kind and method.
        operation: String,
    },
    /// The group's active version goes beyond this program.
    #[error(
        "entry {index} raises the active version to {version}, this program supports {supported}; run a newer version"
    )]
    Version {
        /// The entry's index in the log.
        index: u64,
        /// The version that the entry asks for.
        version: u32,
        /// The newest version of this program.
        supported: u32,
    },
    /// The entry is not after the last one that was applied: applying it would repeat it.
    #[error("entry {index} was given again after entry {applied} had been applied")]
    Repeated {
        /// The entry's index in the log.
        index: u64,
        /// The last applied index.
        applied: u64,
    },
}

/// A snapshot that could not be restored. The state machine it was meant for is unchanged.
#[derive(Debug, Error)]
pub enum SnapshotError {
    /// The source of the bytes failed, or ended too early.
    #[error("could not read the snapshot: {0}")]
    Read(#[from] io::Error),
    /// The bytes are not what was written.
    #[error("the snapshot is damaged ({0}); take it from another replica")]
    Damaged(String),
    /// The snapshot was written by a newer program.
    #[error("the snapshot needs a newer version of this program ({0})")]
    Unsupported(String),
}

impl SnapshotError {
    /// The bytes are not what was written; `what` names the place.
    pub fn damaged(what: impl Into<String>) -> Self {
        Self::Damaged(what.into())
    }
}
