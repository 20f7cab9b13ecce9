//! The sidecar's connections to stores: connect, configure, disconnect, and carry operations.

mod change;
mod error;
mod invoke;
mod names;
mod saved;

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use atomix_driver::{Connection, ConnectionState, Driver, StoreId};
use atomix_process::grpc::fencing::OperatorTerm;
use atomix_proto::digest::config_digest;
use atomix_proto::runtime::v1 as proto;
use bytes::Bytes;
use parking_lot::RwLock;

use crate::sessions::OpenPrimitives;
use crate::state_file::StateFile;

pub use error::ChangeError;
pub(crate) use error::open_error;
pub use names::DriverId;
pub(crate) use names::{driver_id, driver_proto, store_id, store_proto};

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
    operator: Option<OperatorTerm>,
}

#[derive(Clone)]
struct Connected {
    driver: DriverId,
    kinds: Arc<Vec<String>>,
    config: Bytes,
    connection: Arc<dyn Connection>,
}

impl Stores {
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

    /// The routes in force.
    #[must_use]
    pub fn routes(&self) -> Vec<proto::Route> {
        self.view.read().routes.clone()
    }

    /// The operator that this sidecar listens to; `None` before any said who it is.
    #[must_use]
    pub fn operator(&self) -> Option<OperatorTerm> {
        self.view.read().operator.clone()
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
}
