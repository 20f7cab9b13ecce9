//! Errors of API calls, and the one place that decides what is tried again.
//!
//! Categories are few and fixed: they become event reasons and metric labels.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::time::Duration;

use kube::core::response::StatusCause;
use thiserror::Error as ThisError;

/// How long one call to the API server may take, its retries by the backoff not counted.
pub const API_TIMEOUT: Duration = Duration::from_secs(15);

/// What kind of failure an error is. Bounded, so it can label a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Category {
    /// Somebody else changed the object first.
    Conflict,
    /// The operator lacks a right.
    Forbidden,
    /// The object itself is wrong: only its owner can go on.
    InvalidObject,
    /// Something that is needed is not there.
    NotFound,
    /// A node or runtime answered, and refused.
    PeerRefused,
    /// A node or runtime did not answer.
    PeerUnavailable,
    /// The API server refused an object that we made.
    Rejected,
    /// The API server asked to slow down.
    Throttled,
    /// No answer in time; the effect is unknown.
    Timeout,
    /// The API server cannot be reached or failed.
    Unavailable,
}

impl Category {
    /// The name used in metrics, events and conditions.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Conflict => "Conflict",
            Self::Forbidden => "Forbidden",
            Self::InvalidObject => "InvalidObject",
            Self::NotFound => "NotFound",
            Self::PeerRefused => "PeerRefused",
            Self::PeerUnavailable => "PeerUnavailable",
            Self::Rejected => "Rejected",
            Self::Throttled => "Throttled",
            Self::Timeout => "Timeout",
            Self::Unavailable => "Unavailable",
        }
    }

    /// Whether the same attempt can succeed later without a change of the object.
    #[must_use]
    pub fn is_retried(self) -> bool {
        match self {
            Self::InvalidObject => false,
            Self::Conflict
            | Self::Forbidden
            | Self::NotFound
            | Self::PeerRefused
            | Self::PeerUnavailable
            | Self::Rejected
            | Self::Throttled
            | Self::Timeout
            | Self::Unavailable => true,
        }
    }

    /// The category of a gRPC status of a node or runtime.
    #[must_use]
    pub fn of_grpc(code: tonic::Code) -> Self {
        match code {
            tonic::Code::Unavailable | tonic::Code::Cancelled => Self::PeerUnavailable,
            tonic::Code::DeadlineExceeded => Self::Timeout,
            tonic::Code::NotFound => Self::NotFound,
            _ => Self::PeerRefused,
        }
    }
}

impl fmt::Display for Category {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// An error with which a reconcile ends.
pub trait ReconcileError: Error + Send + 'static {
    /// What kind of failure it is; decides whether it is tried again.
    fn category(&self) -> Category;

    /// The least time to wait that the other side asked for.
    fn retry_after(&self) -> Option<Duration> {
        None
    }
}

/// A call to the API server that failed.
#[derive(Debug, ThisError)]
pub enum ApiError {
    /// No answer in time.
    #[error("cannot {action}: no answer of the API server within {limit:?}")]
    Timeout {
        /// What was tried.
        action: &'static str,
        /// How long it was waited for.
        limit: Duration,
    },
    /// A test of a JSON patch did not hold, which the API server answers with 422.
    #[error("cannot {action}: the object has changed since it was read")]
    Changed {
        /// What was tried.
        action: &'static str,
    },
    /// The call failed.
    #[error("cannot {action}: {}", describe(source))]
    Call {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: kube::Error,
    },
}

/// `kube::Error` repeats whole answers; people need the message.
pub(crate) fn describe(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("{} ({})", status.message, status.code),
        other => other.to_string(),
    }
}

impl ApiError {
    /// The HTTP status, when the API server answered with one.
    #[must_use]
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Call {
                source: kube::Error::Api(status),
                ..
            } => Some(status.code),
            Self::Changed { .. } => Some(409),
            Self::Call { .. } | Self::Timeout { .. } => None,
        }
    }

    /// True for 404.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.code() == Some(404)
    }

    /// True for 409: another writer was first, the object exists, or another one has its name. What
    /// was wanted is not done, so a caller that has no other answer to it tries again.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        self.code() == Some(409)
    }

    /// True when the API server refused because the namespace is being deleted.
    #[must_use]
    pub fn is_namespace_terminating(&self) -> bool {
        self.has_cause(403, |cause| cause.reason == "NamespaceTerminating")
    }

    /// True when a patch named the uid of an object that another one has replaced: the uid would
    /// change, which is invalid.
    #[must_use]
    pub fn is_of_another_object(&self) -> bool {
        self.has_cause(422, |cause| cause.field == "metadata.uid")
    }

    fn has_cause(&self, code: u16, is_it: impl Fn(&StatusCause) -> bool) -> bool {
        let Self::Call {
            source: kube::Error::Api(status),
            ..
        } = self
        else {
            return false;
        };
        let details = status.details.as_ref();
        status.code == code && details.is_some_and(|details| details.causes.iter().any(is_it))
    }
}

impl ReconcileError for ApiError {
    fn category(&self) -> Category {
        match self.code() {
            Some(404 | 410) => Category::NotFound,
            Some(409) => Category::Conflict,
            Some(401 | 403) => Category::Forbidden,
            Some(429) => Category::Throttled,
            Some(400..=499) => Category::Rejected,
            Some(_) => Category::Unavailable,
            None => match self {
                Self::Timeout { .. } => Category::Timeout,
                Self::Changed { .. } | Self::Call { .. } => Category::Unavailable,
            },
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Call {
                source: kube::Error::Api(status),
                ..
            } => {
                let seconds = status.details.as_ref()?.retry_after_seconds;
                (seconds > 0).then(|| Duration::from_secs(u64::from(seconds).min(60)))
            }
            Self::Call { .. } | Self::Changed { .. } | Self::Timeout { .. } => None,
        }
    }
}

/// Runs one call to the API server under [`API_TIMEOUT`]. `action` completes "cannot …".
///
/// # Errors
/// When the call fails or does not end in time.
pub async fn call<T>(
    action: &'static str,
    request: impl Future<Output = kube::Result<T>>,
) -> Result<T, ApiError> {
    match tokio::time::timeout(API_TIMEOUT, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(source)) => Err(ApiError::Call { action, source }),
        Err(_elapsed) => Err(ApiError::Timeout {
            action,
            limit: API_TIMEOUT,
        }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use serde_json::json;

    use super::*;

    fn refused(code: u16, field: &str) -> ApiError {
        let cause =
            json!({"reason": "FieldValueInvalid", "message": "Invalid value", "field": field});
        let status = json!({"code": code, "details": {"causes": [cause]}});
        let status = serde_json::from_value(status).unwrap();
        ApiError::Call {
            action: "write the readiness gate of a pod",
            source: kube::Error::Api(Box::new(status)),
        }
    }

    #[test]
    fn only_a_changed_uid_says_that_the_object_is_another_one() {
        assert!(refused(422, "metadata.uid").is_of_another_object());
        assert!(!refused(422, "status.conditions").is_of_another_object());
        assert!(!refused(409, "metadata.uid").is_of_another_object());
    }
}
