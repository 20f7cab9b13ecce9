//! Why a change of the stores was refused or failed.

use atomix_driver::{DriverError, ErrorKind, StoreId};
use thiserror::Error;

use crate::routes::{InvalidRoutes, RouteError};
use crate::sessions::OpenError;
use crate::state_file::StateFileError;

/// Why a change was refused or failed.
#[derive(Debug, Error)]
pub enum ChangeError {
    /// The store is connected.
    #[error("store {0} is connected already; use Configure to change its configuration")]
    Connected(StoreId),
    /// The store is not connected.
    #[error("store {0} is not connected")]
    NotConnected(StoreId),
    /// There is no such driver.
    #[error("driver {name:?} version {version:?} is unknown; known are {known}")]
    UnknownDriver {
        /// The name that was asked for.
        name: String,
        /// The version that was asked for.
        version: String,
        /// The drivers that are there.
        known: String,
    },
    /// The driver refused.
    #[error(transparent)]
    Driver(#[from] DriverError),
    /// The routing table is wrong.
    #[error(transparent)]
    Routes(#[from] InvalidRoutes),
    /// The change could not be saved, so it was not made.
    #[error("the change could not be saved and was not made")]
    NotSaved(#[source] StateFileError),
    /// The store is not reached yet.
    #[error(
        "store {store} is accepted but not reached yet: {reason}; the runtime keeps trying, \
         GetStatus tells when it is"
    )]
    NotReached {
        /// The store.
        store: StoreId,
        /// Why.
        reason: String,
    },
    /// The store is reached, but its configuration does not fit it.
    #[error(
        "store {store} is connected, but its configuration does not fit it: {reason}; configure it \
         anew"
    )]
    Misconfigured {
        /// The store.
        store: StoreId,
        /// What does not fit.
        reason: String,
    },
    /// The task that made the change failed.
    #[error("the change failed half-way; compare with GetStatus and repeat it")]
    Broken,
}

/// The gRPC code of each reason why a primitive cannot be opened.
pub(crate) fn open_error(error: OpenError) -> DriverError {
    let kind = match &error {
        OpenError::Route(RouteError::NoRoute { .. }) => ErrorKind::Unavailable,
        OpenError::Route(RouteError::Ambiguous { .. }) | OpenError::OpenElsewhere { .. } => {
            ErrorKind::FailedPrecondition
        }
    };
    DriverError::new(kind, error.to_string())
}
