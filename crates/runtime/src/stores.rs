//! The sidecar's connections to stores: connect, configure, disconnect, and carry operations.
//!
//! Changes are made one at a time and saved before they are answered; each runs in a task of its
//! own, so that a caller who goes away cannot leave one half done.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use atomix_driver::{
    Connection, ConnectionState, Driver, DriverError, ErrorKind, Invocation, Owner, StoreId,
};
use atomix_proto::digest::{config_digest, routes_digest};
use atomix_proto::runtime::v1 as proto;
use bytes::Bytes;
use parking_lot::RwLock;
use thiserror::Error;
use tokio::time::Instant;

use crate::routes::{InvalidRoutes, RoutingTable};
use crate::sessions::{OpenError, OpenPrimitives, PrimitiveKey};
use crate::state_file::{SavedState, StateFile, StateFileError};

/// Names a driver and the version of its configuration format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DriverId {
    /// The name: `multi-raft`.
    pub name: String,
    /// The version; empty in a request = any.
    pub version: String,
}

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
    /// The task that made the change failed.
    #[error("the change failed half-way; compare with GetStatus and repeat it")]
    Broken,
}

/// What is reported of a connection.
#[derive(Debug, Clone)]
pub struct ConnectionStatus {
    /// The store.
    pub store: StoreId,
    /// Its driver.
    pub driver: DriverId,
    /// The digest of its configuration.
    pub config_digest: String,
    /// Whether it is reached.
    pub state: ConnectionState,
}

/// All stores of a sidecar.
pub struct Stores {
    drivers: Vec<Arc<dyn Driver>>,
    file: Option<StateFile>,
    /// Held during a change.
    change: tokio::sync::Mutex<()>,
    view: RwLock<View>,
    open: Arc<OpenPrimitives>,
    itself: Weak<Self>,
}

#[derive(Default)]
struct View {
    connections: BTreeMap<StoreId, Connected>,
    routes: Vec<proto::Route>,
    operator_term: u64,
}

#[derive(Clone)]
struct Connected {
    driver: DriverId,
    kinds: Arc<Vec<String>>,
    config: Bytes,
    connection: Arc<dyn Connection>,
}

impl Stores {
    /// Restores what was connected before. A store whose saved configuration is refused now is left
    /// out with an error in the log: the operator compares and corrects.
    pub async fn restore(
        drivers: Vec<Arc<dyn Driver>>,
        file: Option<StateFile>,
        open: Arc<OpenPrimitives>,
    ) -> Arc<Self> {
        let saved = load(file.as_ref());
        let stores = Arc::new_cyclic(|itself| Self {
            drivers,
            file,
            change: tokio::sync::Mutex::default(),
            view: RwLock::default(),
            open,
            itself: Weak::clone(itself),
        });
        for connection in saved.connections {
            let store = store_id(connection.store_id.unwrap_or_default());
            let driver = driver_id(connection.driver_id.unwrap_or_default());
            match stores.start(&store, &driver, connection.config).await {
                Ok(connected) => {
                    tracing::info!(%store, driver = driver.name, "connection restored");
                    stores.insert(&store, connected);
                }
                Err(error) => tracing::error!(%store, %error, "a saved connection is refused"),
            }
        }
        match RoutingTable::new(&saved.routes) {
            Ok(table) => {
                stores.open.program(table);
                stores.view.write().routes = saved.routes;
            }
            Err(error) => tracing::error!(%error, "the saved routes are refused"),
        }
        stores.view.write().operator_term = saved.operator_term;
        stores
    }

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

    /// Remembers the highest term of an operator that changed something.
    pub fn saw_operator_term(&self, term: u64) {
        let mut view = self.view.write();
        view.operator_term = view.operator_term.max(term);
    }

    /// The connections in the order of their stores.
    #[must_use]
    pub fn connections(&self) -> Vec<ConnectionStatus> {
        let view = self.view.read();
        view.connections
            .iter()
            .map(|(store, connected)| ConnectionStatus {
                store: store.clone(),
                driver: connected.driver.clone(),
                config_digest: config_digest(&connected.config),
                state: connected.connection.state().borrow().clone(),
            })
            .collect()
    }

    /// Whether operations on this store can succeed.
    #[must_use]
    pub fn is_reached(&self, store: &StoreId) -> bool {
        let view = self.view.read();
        view.connections.get(store).is_some_and(|connected| {
            *connected.connection.state().borrow() == ConnectionState::Connected
        })
    }

    /// The digest of the routes in force.
    #[must_use]
    pub fn routes_digest(&self) -> String {
        routes_digest(&self.view.read().routes)
    }

    /// The highest operator term seen.
    #[must_use]
    pub fn operator_term(&self) -> u64 {
        self.view.read().operator_term
    }

    /// The open primitives, which are this sidecar's sessions.
    #[must_use]
    pub fn open_primitives(&self) -> &Arc<OpenPrimitives> {
        &self.open
    }

    /// Whether any driver serves this kind.
    #[must_use]
    pub fn is_served(&self, kind: &str) -> bool {
        self.drivers
            .iter()
            .any(|driver| driver.describe().kinds.iter().any(|served| served == kind))
    }

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

    async fn start(
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

    fn insert(&self, store: &StoreId, connected: Connected) {
        let mut state = connected.connection.state();
        let open = Arc::clone(&self.open);
        let followed = store.clone();
        tokio::spawn(async move {
            while state.changed().await.is_ok() {
                match &*state.borrow_and_update() {
                    ConnectionState::Connected => tracing::info!(store = %followed, "reached"),
                    ConnectionState::Connecting { reason } => {
                        tracing::warn!(store = %followed, reason, "not reached");
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

    fn saved(&self) -> SavedState {
        let view = self.view.read();
        SavedState {
            connections: view
                .connections
                .iter()
                .map(|(store, connected)| proto::ConnectRequest {
                    store_id: Some(store_proto(store)),
                    driver_id: Some(driver_proto(&connected.driver)),
                    config: connected.config.clone(),
                })
                .collect(),
            routes: view.routes.clone(),
            operator_term: view.operator_term,
        }
    }

    async fn save(&self, state: SavedState) -> Result<(), ChangeError> {
        let Some(file) = self.file.clone() else {
            return Ok(());
        };
        match tokio::task::spawn_blocking(move || file.save(&state)).await {
            Ok(saved) => saved.map_err(ChangeError::NotSaved),
            Err(_) => Err(ChangeError::Broken),
        }
    }
}

/// How long releasing what a closed application connection owned may take, per store.
const RELEASE_PATIENCE: Duration = Duration::from_secs(30);

fn load(file: Option<&StateFile>) -> SavedState {
    match file.map(StateFile::load) {
        Some(Ok(Some(saved))) => saved,
        Some(Ok(None)) | None => SavedState::default(),
        Some(Err(error)) => {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            tracing::error!(%error, cause, "starting without connections; the operator restores them");
            SavedState::default()
        }
    }
}

async fn wait_connected(
    store: StoreId,
    connection: &Arc<dyn Connection>,
    wait_until: Instant,
) -> Result<(), ChangeError> {
    let mut state = connection.state();
    let reached = state.wait_for(|state| *state == ConnectionState::Connected);
    if let Ok(Ok(_)) = tokio::time::timeout_at(wait_until, reached).await {
        return Ok(());
    }
    let reason = match &*connection.state().borrow() {
        ConnectionState::Connected => return Ok(()),
        ConnectionState::Connecting { reason } => reason.clone(),
    };
    Err(ChangeError::NotReached { store, reason })
}

/// The gRPC code of each reason why a primitive cannot be opened.
pub(crate) fn open_error(error: OpenError) -> DriverError {
    use crate::routes::RouteError;
    let kind = match &error {
        OpenError::Route(RouteError::NoRoute { .. }) => ErrorKind::Unavailable,
        OpenError::Route(RouteError::Ambiguous { .. }) | OpenError::OpenElsewhere { .. } => {
            ErrorKind::FailedPrecondition
        }
    };
    DriverError::new(kind, error.to_string())
}

pub(crate) fn store_id(store: proto::StoreId) -> StoreId {
    StoreId {
        namespace: store.namespace,
        name: store.name,
    }
}

pub(crate) fn driver_id(driver: proto::DriverId) -> DriverId {
    DriverId {
        name: driver.name,
        version: driver.version,
    }
}

pub(crate) fn store_proto(store: &StoreId) -> proto::StoreId {
    proto::StoreId {
        namespace: store.namespace.clone(),
        name: store.name.clone(),
    }
}

pub(crate) fn driver_proto(driver: &DriverId) -> proto::DriverId {
    proto::DriverId {
        name: driver.name.clone(),
        version: driver.version.clone(),
    }
}
