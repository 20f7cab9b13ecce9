//! Operations of applications, and the end of the connections that they came over.

use std::sync::Arc;
use std::time::Duration;

use atomix_driver::{Connection, DriverError, ErrorKind, Invocation, Owner};
use bytes::Bytes;
use tokio::time::Instant;

use super::Stores;
use super::error::open_error;
use crate::sessions::PrimitiveKey;

/// How long releasing what a closed application connection owned may take, per store.
const RELEASE_PATIENCE: Duration = Duration::from_secs(30);

impl Stores {
    /// Carries out an operation on an open primitive, or on one that only one store can have.
    ///
    /// # Errors
    /// The operation's own error, or why it could not be carried out.
    pub async fn invoke(&self, invocation: Invocation) -> Result<Bytes, DriverError> {
        let key = PrimitiveKey {
            kind: invocation.kind.clone(),
            name: invocation.primitive.clone(),
        };
        let destination = self
            .open
            .destination(&key, invocation.owner)
            .map_err(open_error)?;
        let connection = {
            let view = self.view.read();
            let connected = view.connections.get(&destination.store).ok_or_else(|| {
                DriverError::new(
                    ErrorKind::Unavailable,
                    format!("store {} is not connected", destination.store),
                )
            })?;
            if !connected.kinds.contains(&invocation.kind) {
                return Err(DriverError::new(
                    ErrorKind::Unsupported,
                    format!(
                        "driver {} of store {} does not serve kind {}; it serves {}",
                        connected.driver.name,
                        destination.store,
                        invocation.kind,
                        connected.kinds.join(", ")
                    ),
                ));
            }
            Arc::clone(&connected.connection)
        };
        connection.invoke(invocation).await
    }

    /// Ends what a closed application connection used and owned.
    pub async fn connection_closed(&self, owner: Owner, owned: bool) {
        self.open.connection_closed(owner);
        if !owned {
            return;
        }
        let connections: Vec<Arc<dyn Connection>> = self
            .view
            .read()
            .connections
            .values()
            .map(|connected| Arc::clone(&connected.connection))
            .collect();
        for connection in connections {
            let deadline = Instant::now() + RELEASE_PATIENCE;
            if let Err(error) = connection.release_owner(owner, deadline).await {
                tracing::warn!(owner = owner.0, %error, "what a closed connection owned stays \
                     until the session ends");
            }
        }
    }

    /// Ends all connections without forgetting them.
    pub async fn shut_down(&self) {
        let connections: Vec<Arc<dyn Connection>> = self
            .view
            .read()
            .connections
            .values()
            .map(|connected| Arc::clone(&connected.connection))
            .collect();
        let ended = connections.iter().map(|connection| connection.disconnect());
        futures::future::join_all(ended).await;
    }
}
