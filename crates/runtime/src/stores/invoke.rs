//! Operations of applications, and the end of the connections that they came over.

use std::sync::Arc;

use atomix_driver::{
    Connection, DriverError, ErrorKind, Holdings, Invocation, Owner, ReplyStream, StoreId,
};
use bytes::Bytes;

use super::Stores;
use super::error::open_error;
use crate::sessions::PrimitiveKey;
use crate::streams::interrupted_by;

fn key_of(invocation: &Invocation) -> PrimitiveKey {
    PrimitiveKey {
        kind: invocation.kind.clone(),
        name: invocation.primitive.clone(),
    }
}

/// Existing clients take UNAVAILABLE for leave to begin the stream again unseen.
fn moved_away(key: &PrimitiveKey, why: &str) -> DriverError {
    DriverError::new(
        ErrorKind::DataLoss,
        format!(
            "{} {:?} is not where this stream reads: {why}; read again",
            key.kind, key.name
        ),
    )
}

impl Stores {
    /// Carries out an operation on an open primitive, or on one that only one store can have.
    ///
    /// # Errors
    /// The operation's own error, or why it could not be carried out.
    pub async fn invoke(&self, invocation: Invocation) -> Result<Bytes, DriverError> {
        let (_, connection) = self.connection_for(&invocation)?;
        connection.invoke(invocation).await
    }

    /// Begins a streaming operation on an open primitive, or on one that only one store can have.
    /// The stream ends with DATA_LOSS when the primitive's route moves to another store.
    ///
    /// # Errors
    /// Why it could not be begun.
    pub async fn subscribe(&self, invocation: Invocation) -> Result<ReplyStream, DriverError> {
        let mut changes = self.open.changes();
        let (store, connection) = self.connection_for(&invocation)?;
        let key = key_of(&invocation);
        let messages = connection.subscribe(invocation).await?;
        let open = Arc::clone(&self.open);
        let moved = async move {
            while changes.changed().await.is_ok() {
                match open.store_of(&key) {
                    Some(Ok(now)) if now != store => {
                        return moved_away(&key, &format!("it is routed to store {now} now"));
                    }
                    Some(Err(error)) => return moved_away(&key, &error.to_string()),
                    Some(Ok(_)) | None => {}
                }
            }
            moved_away(&key, "the runtime ends")
        };
        Ok(interrupted_by(messages, moved))
    }

    /// Ends an application connection's use of a primitive; what it owns there is released before. In a
    /// store where the primitive was before its route moved, that stays until the connection ends. One
    /// that is not open is no error.
    ///
    /// # Errors
    /// The store refuses the release.
    pub async fn close(
        &self,
        key: &PrimitiveKey,
        owner: Owner,
        owns: bool,
    ) -> Result<(), DriverError> {
        if owns && let Some(Ok(store)) = self.open.store_of(key) {
            let connected = {
                let view = self.view.read();
                let connected = view.connections.get(&store);
                connected.map(|connected| Arc::clone(&connected.connection))
            };
            if let Some(connection) = connected {
                let holdings = Holdings::Of {
                    kind: &key.kind,
                    primitive: &key.name,
                };
                connection.release_owner(owner, holdings).await?;
            }
        }
        self.open.close(key, owner);
        Ok(())
    }

    fn all_connections(&self) -> Vec<Arc<dyn Connection>> {
        let view = self.view.read();
        let connected = view.connections.values();
        connected
            .map(|connected| Arc::clone(&connected.connection))
            .collect()
    }

    /// Where an invocation goes.
    fn connection_for(
        &self,
        invocation: &Invocation,
    ) -> Result<(StoreId, Arc<dyn Connection>), DriverError> {
        let destination = self
            .open
            .destination(&key_of(invocation), invocation.owner)
            .map_err(open_error)?;
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
        Ok((destination.store, Arc::clone(&connected.connection)))
    }

    /// Ends what a closed application connection used and owned.
    pub async fn connection_closed(&self, owner: Owner, owned: bool) {
        self.open.connection_closed(owner);
        if !owned {
            return;
        }
        // Each by itself: one store may be away for long.
        let connections = self.all_connections();
        let released = connections.iter().map(|connection| async move {
            if let Err(error) = connection.release_owner(owner, Holdings::All).await {
                tracing::warn!(owner = owner.0, %error, "what a closed connection owned stays \
                     until the session ends");
            }
        });
        futures::future::join_all(released).await;
    }

    /// Ends all connections without forgetting them.
    pub async fn shut_down(&self) {
        let connections = self.all_connections();
        let ended = connections.iter().map(|connection| connection.disconnect());
        futures::future::join_all(ended).await;
    }
}
