//! `atomix-operator uninstall`, which the chart runs before it is deleted.

use atomix_controller::ApiError;
use atomix_controller::uninstall::{release_all, stop_operator};
use atomix_resources::labels::{DRIVER_FINALIZER, SESSION_FINALIZER, STORE_FINALIZER};
use atomix_resources::{Driver, Session, Store};
use kube::{Api, Client};
use thiserror::Error;

use crate::context::Scope;

/// Why the operator cannot be uninstalled yet; to be repeated.
#[derive(Debug, Error)]
pub enum UninstallError {
    /// A call to the API server.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// It would add its finalizers again.
    #[error("the pods of Deployment {0} do not end: look at them, then try again")]
    StillRuns(String),
}

/// Stops the operator, then removes its finalizers from everything that it serves; answers from how
/// many objects.
///
/// # Errors
/// When a call fails, or the operator does not stop.
pub async fn uninstall(
    client: &Client,
    scope: &Scope,
    namespace: &str,
    deployment: &str,
) -> Result<usize, UninstallError> {
    if !stop_operator(client, namespace, deployment).await? {
        return Err(UninstallError::StillRuns(deployment.to_owned()));
    }
    // Sessions first: a Store under deletion waits for them, and nobody is left to see them go.
    let sessions: Api<Session> = scope.api(client);
    let mut released = release_all(client, &sessions, SESSION_FINALIZER)
        .await?
        .len();
    let stores: Api<Store> = scope.api(client);
    released += release_all(client, &stores, STORE_FINALIZER).await?.len();
    if *scope == Scope::Cluster {
        let drivers: Api<Driver> = Api::all(client.clone());
        released += release_all(client, &drivers, DRIVER_FINALIZER).await?.len();
    }
    Ok(released)
}
