//! Why a reconcile of a Store failed, one variant a step.

use std::time::Duration;

use atomix_process::grpc::fencing;
use thiserror::Error;

use crate::store::members::change::ChangeRefused;
use crate::store::spec::validate::InvalidStore;
use atomix_controller::{ApiError, ApplyError, Category, ReconcileError};

/// A failed reconcile.
#[derive(Debug, Error)]
pub enum StoreError {
    /// Reporting that the object is not of this version's form.
    #[error("report an undecodable object: {0}")]
    Report(#[source] ApiError),
    /// The spec contradicts itself.
    #[error("spec is invalid: {0}")]
    Invalid(#[from] InvalidStore),
    /// Reading what the Store depends on.
    #[error("dereference: {0}")]
    Dereference(#[source] ApiError),
    /// Applying a child.
    #[error("apply: {0}")]
    Apply(#[from] ApplyError),
    /// Deleting a pod of an old revision.
    #[error("heal: {0}")]
    Heal(#[source] ApiError),
    /// Replacing a pod.
    #[error("rolling change: {0}")]
    Roll(#[source] ApiError),
    /// Writing whether a pod's disk counts.
    #[error("readiness gate: {0}")]
    Gate(#[source] ApiError),
    /// Writing the bootstrap plan or its mark.
    #[error("bootstrap: {0}")]
    Plan(#[source] ApiError),
    /// A node did not accept its part of the plan.
    #[error("bootstrap: pod {pod} refused the plan: {} ({:?})", status.message(), status.code())]
    Node {
        /// The pod.
        pod: String,
        /// Its answer.
        status: tonic::Status,
    },
    /// A node did not accept a change of members.
    #[error(transparent)]
    Change(ChangeRefused),
    /// Growing a volume.
    #[error("volumes: {0}")]
    Growth(#[source] ApiError),
    /// Deleting a volume.
    #[error("volumes: {0}")]
    Claim(#[source] ApiError),
    /// The finalizer.
    #[error("finalizer: {0}")]
    Finalizer(#[source] ApiError),
    /// Writing the status.
    #[error("status: {0}")]
    Status(#[source] ApiError),
}

impl StoreError {
    fn api(&self) -> Option<&ApiError> {
        match self {
            Self::Dereference(error)
            | Self::Heal(error)
            | Self::Roll(error)
            | Self::Gate(error)
            | Self::Plan(error)
            | Self::Growth(error)
            | Self::Claim(error)
            | Self::Finalizer(error)
            | Self::Report(error)
            | Self::Status(error)
            | Self::Apply(ApplyError::Api(error)) => Some(error),
            Self::Invalid(_)
            | Self::Apply(ApplyError::NotOurs { .. })
            | Self::Node { .. }
            | Self::Change(_) => None,
        }
    }

    /// The nodes listen to another operator.
    #[must_use]
    pub fn is_of_other_operator(&self) -> bool {
        match self {
            Self::Node { status, .. } | Self::Change(ChangeRefused { status, .. }) => {
                fencing::other_operator(status).is_some()
            }
            Self::Report(_)
            | Self::Invalid(_)
            | Self::Dereference(_)
            | Self::Apply(_)
            | Self::Heal(_)
            | Self::Roll(_)
            | Self::Gate(_)
            | Self::Plan(_)
            | Self::Growth(_)
            | Self::Claim(_)
            | Self::Finalizer(_)
            | Self::Status(_) => false,
        }
    }

    /// The namespace is going away: nothing to do, and nothing to complain about.
    #[must_use]
    pub fn is_namespace_terminating(&self) -> bool {
        self.api().is_some_and(ApiError::is_namespace_terminating)
    }

    /// Whether a person should read of it in the status; the rest passes by itself.
    #[must_use]
    pub fn is_for_people(&self) -> bool {
        match self.category() {
            Category::Forbidden
            | Category::InvalidObject
            | Category::PeerRefused
            | Category::Rejected => true,
            Category::Conflict => matches!(self, Self::Apply(ApplyError::NotOurs { .. })),
            Category::NotFound
            | Category::PeerUnavailable
            | Category::Throttled
            | Category::Timeout
            | Category::Unavailable => false,
        }
    }
}

impl ReconcileError for StoreError {
    fn category(&self) -> Category {
        match self {
            Self::Invalid(_) => Category::InvalidObject,
            Self::Dereference(error)
            | Self::Heal(error)
            | Self::Roll(error)
            | Self::Gate(error)
            | Self::Plan(error)
            | Self::Growth(error)
            | Self::Claim(error)
            | Self::Finalizer(error)
            | Self::Report(error)
            | Self::Status(error) => error.category(),
            Self::Apply(error) => error.category(),
            Self::Node { status, .. } | Self::Change(ChangeRefused { status, .. }) => {
                Category::of_grpc(status.code())
            }
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        self.api().and_then(ReconcileError::retry_after)
    }
}
