//! Changes: made one at a time and saved before they are answered; each runs in a task of its own, so
//! that a caller who goes away cannot leave one half done.

use std::sync::Arc;

use atomix_driver::{Connection, ConnectionState, StoreId};
use atomix_process::grpc::fencing::OperatorTerm;
use atomix_proto::runtime::v1 as proto;
use bytes::Bytes;
use tokio::time::Instant;

use super::names::{DriverId, driver_proto, store_proto};
use super::{ChangeError, Connected, Stores};
use crate::routes::RoutingTable;

impl Stores {
    /// Connects a store and waits until it is reached, at most until `wait_until`.
    ///
    /// # Errors
    /// [`ChangeError::NotReached`] when the store was accepted and saved, but not reached in time.
    pub async fn connect(
        &self,
        store: StoreId,
        driver: DriverId,
        config: Bytes,
        wait_until: Instant,
    ) -> Result<(), ChangeError> {
        let connection = self
            .change(move |stores| async move { stores.do_connect(store, driver, config).await })
            .await?;
        wait_connected(connection.0, &connection.1, wait_until).await
    }

    async fn do_connect(
        &self,
        store: StoreId,
        driver: DriverId,
        config: Bytes,
    ) -> Result<(StoreId, Arc<dyn Connection>), ChangeError> {
        if self.view.read().connections.contains_key(&store) {
            return Err(ChangeError::Connected(store));
        }
        let connected = self.start(&store, &driver, config.clone()).await?;
        let mut saved = self.saved();
        saved.connections.push(proto::ConnectRequest {
            store_id: Some(store_proto(&store)),
            driver_id: Some(driver_proto(&connected.driver)),
            config,
        });
        if let Err(error) = self.save(saved).await {
            connected.connection.disconnect().await;
            return Err(error);
        }
        let connection = Arc::clone(&connected.connection);
        self.insert(&store, connected);
        tracing::info!(%store, driver = driver.name, "store connected");
        Ok((store, connection))
    }

    /// Changes the configuration of a store. When it fails, the old one keeps working.
    ///
    /// # Errors
    /// When the store is not connected, the driver refuses, or it cannot be saved.
    pub async fn configure(&self, store: StoreId, config: Bytes) -> Result<(), ChangeError> {
        self.change(move |stores| async move {
            let connected = stores.connected(&store)?;
            connected.connection.configure(&config).await?;
            let mut saved = stores.saved();
            for connection in &mut saved.connections {
                if connection.store_id.as_ref() == Some(&store_proto(&store)) {
                    connection.config = config.clone();
                }
            }
            if let Err(error) = stores.save(saved).await {
                if let Err(error) = connected.connection.configure(&connected.config).await {
                    tracing::error!(%store, %error, "cannot go back to the old configuration");
                }
                return Err(error);
            }
            if let Some(connected) = stores.view.write().connections.get_mut(&store) {
                connected.config = config;
            }
            tracing::info!(%store, "store configured");
            Ok(())
        })
        .await
    }

    /// Disconnects a store; operations in flight on it fail.
    ///
    /// # Errors
    /// When the store is not connected, or it cannot be saved.
    pub async fn disconnect(&self, store: StoreId) -> Result<(), ChangeError> {
        self.change(move |stores| async move {
            let connected = stores.connected(&store)?;
            let mut saved = stores.saved();
            saved
                .connections
                .retain(|connection| connection.store_id.as_ref() != Some(&store_proto(&store)));
            stores.save(saved).await?;
            stores.view.write().connections.remove(&store);
            stores.open.touch();
            connected.connection.disconnect().await;
            tracing::info!(%store, "store disconnected");
            Ok(())
        })
        .await
    }

    /// Replaces the routing table.
    ///
    /// # Errors
    /// When the table is wrong or cannot be saved; the old one stays.
    pub async fn program(&self, routes: Vec<proto::Route>) -> Result<(), ChangeError> {
        let table = RoutingTable::new(&routes)?;
        self.change(move |stores| async move {
            if stores.view.read().routes == routes {
                return Ok(());
            }
            let mut saved = stores.saved();
            saved.routes.clone_from(&routes);
            stores.save(saved).await?;
            tracing::info!(routes = routes.len(), "routes programmed");
            stores.view.write().routes = routes;
            stores.open.program(table);
            Ok(())
        })
        .await
    }

    /// Remembers whom this sidecar listens to.
    ///
    /// # Errors
    /// When it cannot be saved; the former one stays.
    pub async fn remember_operator(&self, operator: OperatorTerm) -> Result<(), ChangeError> {
        self.change(move |stores| async move {
            let mut saved = stores.saved();
            saved.operator_id.clone_from(&operator.id);
            saved.operator_term = operator.term;
            stores.save(saved).await?;
            stores.view.write().operator = Some(operator);
            Ok(())
        })
        .await
    }

    async fn change<T, F, Fut>(&self, change: F) -> Result<T, ChangeError>
    where
        T: Send + 'static,
        F: FnOnce(Arc<Self>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, ChangeError>> + Send,
    {
        let Some(stores) = self.itself.upgrade() else {
            return Err(ChangeError::Broken);
        };
        let task = tokio::spawn(async move {
            let _one_at_a_time = stores.change.lock().await;
            change(Arc::clone(&stores)).await
        });
        task.await.unwrap_or(Err(ChangeError::Broken))
    }

    pub(super) async fn start(
        &self,
        store: &StoreId,
        wanted: &DriverId,
        config: Bytes,
    ) -> Result<Connected, ChangeError> {
        let described = self
            .drivers
            .iter()
            .map(|driver| (driver, driver.describe()));
        let found = described.clone().find(|(_, driver)| {
            driver.name == wanted.name
                && (wanted.version.is_empty() || driver.version == wanted.version)
        });
        let Some((driver, description)) = found else {
            let known: Vec<String> = described
                .map(|(_, driver)| format!("{} {}", driver.name, driver.version))
                .collect();
            return Err(ChangeError::UnknownDriver {
                name: wanted.name.clone(),
                version: wanted.version.clone(),
                known: known.join(", "),
            });
        };
        let connection = driver.connect(store, &config).await?;
        Ok(Connected {
            driver: DriverId {
                name: description.name,
                version: description.version,
            },
            kinds: Arc::new(description.kinds),
            config,
            connection,
        })
    }

    pub(super) fn insert(&self, store: &StoreId, connected: Connected) {
        let mut state = connected.connection.state();
        let open = Arc::clone(&self.open);
        let followed = store.clone();
        // It may have been reached already.
        state.mark_changed();
        tokio::spawn(async move {
            while state.changed().await.is_ok() {
                match &*state.borrow_and_update() {
                    ConnectionState::Connected => tracing::info!(store = %followed, "reached"),
                    ConnectionState::Connecting { reason } => {
                        tracing::warn!(store = %followed, reason, "not reached");
                    }
                    ConnectionState::Misconfigured { reason } => {
                        tracing::error!(store = %followed, reason, "the configuration does not fit");
                    }
                }
                open.touch();
            }
        });
        self.view
            .write()
            .connections
            .insert(store.clone(), connected);
        self.open.touch();
    }

    fn connected(&self, store: &StoreId) -> Result<Connected, ChangeError> {
        let view = self.view.read();
        view.connections
            .get(store)
            .cloned()
            .ok_or_else(|| ChangeError::NotConnected(store.clone()))
    }
}

async fn wait_connected(
    store: StoreId,
    connection: &Arc<dyn Connection>,
    wait_until: Instant,
) -> Result<(), ChangeError> {
    let mut state = connection.state();
    let decided = state.wait_for(|state| !matches!(state, ConnectionState::Connecting { .. }));
    // After the deadline the present state tells why.
    let _ = tokio::time::timeout_at(wait_until, decided).await;
    match connection.state().borrow().clone() {
        ConnectionState::Connected => Ok(()),
        ConnectionState::Connecting { reason } => Err(ChangeError::NotReached { store, reason }),
        ConnectionState::Misconfigured { reason } => {
            Err(ChangeError::Misconfigured { store, reason })
        }
    }
}
