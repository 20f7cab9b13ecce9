//! What the kinds share of their messages: decoding requests, checking durations, encoding replies,
//! and timers in snapshot records.

use std::time::Duration;

use bytes::Bytes;
use prost::Message;

use crate::error::{ErrorCode, OperationError};
use crate::ids::{TimerId, duration, nanos};
use crate::kind::{Answer, Progress};

pub(crate) fn decode<M: Message + Default>(request: &Bytes) -> Result<M, OperationError> {
    M::decode(request.clone())
        .map_err(|error| OperationError::invalid(format!("request: it does not decode: {error}")))
}

pub(crate) fn done(reply: &impl Message) -> Result<Progress, OperationError> {
    Ok(Progress::Done(reply.encode_to_vec().into()))
}

pub(crate) fn answer(reply: &impl Message) -> Result<Answer, OperationError> {
    Ok(Answer::Reply(reply.encode_to_vec().into()))
}

/// The frame asks only for methods of `Access::Read`, so this is a mistake of the program.
pub(crate) fn no_read() -> OperationError {
    OperationError::new(
        ErrorCode::Internal,
        "a write was asked as a read; propose it",
    )
}

/// The frame proposes reads nowhere, so this is a mistake of the program.
pub(crate) fn no_write() -> OperationError {
    OperationError::new(
        ErrorCode::Internal,
        "a read was proposed as a write; ask it",
    )
}

pub(crate) fn no_method(kind: &str, method: &str) -> OperationError {
    OperationError::unimplemented(format!("{kind} has no method {method:?}"))
}

/// A field that says how long to wait. Absent and 0 are different things to the caller.
///
/// # Errors
/// INVALID_ARGUMENT naming the field: it is negative, or its nanoseconds are out of range.
pub(crate) fn length_of_time(
    field: &str,
    value: Option<&prost_types::Duration>,
) -> Result<Option<Duration>, OperationError> {
    let Some(value) = value else {
        return Ok(None);
    };
    let is_negative = value.seconds < 0 || value.nanos < 0;
    let nanos = u32::try_from(value.nanos)
        .ok()
        .filter(|nanos| *nanos < 1_000_000_000);
    match (u64::try_from(value.seconds), nanos) {
        (Ok(seconds), Some(nanos)) => Ok(Some(Duration::new(seconds, nanos))),
        _ if is_negative => Err(OperationError::invalid(format!(
            "{field}: it is negative; leave it out for none"
        ))),
        _ => Err(OperationError::invalid(format!(
            "{field}: its nanoseconds are {}, they must be below 1000000000",
            value.nanos
        ))),
    }
}

/// How long a request asks to wait; one that is malformed is refused elsewhere.
pub(crate) fn asked_wait(timeout: Option<prost_types::Duration>) -> Option<Duration> {
    length_of_time("timeout", timeout.as_ref()).ok().flatten()
}

/// A field that says how long data lives: absent and 0 are for ever.
///
/// # Errors
/// As [`length_of_time`].
pub(crate) fn time_to_live(
    value: Option<&prost_types::Duration>,
) -> Result<Option<Duration>, OperationError> {
    Ok(length_of_time("ttl", value)?.filter(|ttl| !ttl.is_zero()))
}

/// A timer in a snapshot record.
#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct TimerRecord {
    #[prost(uint64, tag = "1")]
    deadline_nanos: u64,
    #[prost(uint64, tag = "2")]
    number: u64,
}

impl From<TimerId> for TimerRecord {
    fn from(timer: TimerId) -> Self {
        Self {
            deadline_nanos: nanos(timer.deadline),
            number: timer.number,
        }
    }
}

impl From<TimerRecord> for TimerId {
    fn from(record: TimerRecord) -> Self {
        Self {
            deadline: duration(record.deadline_nanos),
            number: record.number,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_of_time_is_neither_negative_nor_malformed() {
        let of = |seconds, nanos| {
            let value = prost_types::Duration { seconds, nanos };
            length_of_time("timeout", Some(&value))
        };
        assert_eq!(length_of_time("timeout", None), Ok(None));
        assert_eq!(of(0, 0), Ok(Some(Duration::ZERO)));
        assert_eq!(of(2, 999_999_999), Ok(Some(Duration::new(2, 999_999_999))));
        let longest = u64::MAX / 2;
        assert_eq!(of(i64::MAX, 0), Ok(Some(Duration::from_secs(longest))));
        for (seconds, nanos) in [
            (-1, 0),
            (0, -1),
            (i64::MIN, i32::MIN),
            (1, -1),
            (-1, 1),
            (0, 1_000_000_000),
            (0, i32::MAX),
        ] {
            let error = of(seconds, nanos).unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidArgument, "{seconds} {nanos}");
            assert!(error.message.starts_with("timeout: "), "{}", error.message);
        }
    }

    #[test]
    fn a_time_to_live_of_0_is_none() {
        let zero = prost_types::Duration::default();
        assert_eq!(time_to_live(Some(&zero)), Ok(None));
        assert_eq!(time_to_live(None), Ok(None));
    }
}
