//! What a sidecar keeps over a restart: its connections and routes.

use std::sync::{Arc, Weak};

use atomix_driver::Driver;
use atomix_process::grpc::fencing::OperatorTerm;
use atomix_proto::runtime::v1 as proto;
use parking_lot::RwLock;

use super::names::{driver_id, driver_proto, store_id, store_proto};
use super::{ChangeError, Stores};
use crate::routes::RoutingTable;
use crate::sessions::OpenPrimitives;
use crate::state_file::{SavedState, StateFile};

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
        stores.view.write().operator = (!saved.operator_id.is_empty()).then_some(OperatorTerm {
            id: saved.operator_id,
            term: saved.operator_term,
        });
        stores
    }

    pub(super) fn saved(&self) -> SavedState {
        let view = self.view.read();
        let operator = view.operator.clone().unwrap_or_default();
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
            operator_term: operator.term,
            operator_id: operator.id,
        }
    }

    pub(super) async fn save(&self, state: SavedState) -> Result<(), ChangeError> {
        let Some(file) = self.file.clone() else {
            return Ok(());
        };
        match tokio::task::spawn_blocking(move || file.save(&state)).await {
            Ok(saved) => saved.map_err(ChangeError::NotSaved),
            Err(_) => Err(ChangeError::Broken),
        }
    }
}

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
