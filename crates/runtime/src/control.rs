//! The Runtime service on the control port: what the operator calls.
//!
//! - Connect answers OK once the store is reached. A store that the driver accepts is saved at once;
//!   when it is not reached within five seconds (or the caller's deadline, if that is shorter) the
//!   answer is UNAVAILABLE, the connection stays and keeps trying, and GetStatus tells when it is
//!   reached. So a Connect whose answer was lost can be repeated: the answer is ALREADY_EXISTS.
//! - Everything that is answered OK is on the disk.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use atomix_driver::{ConnectionState, StoreId};
use atomix_process::grpc::deadline;
use atomix_process::grpc::fencing::{Fence, OperatorTerm};
use atomix_proto::digest::routes_digest;
use atomix_proto::runtime::v1 as proto;
use atomix_proto::runtime::v1::connection::State;
use atomix_proto::runtime::v1::runtime_server::Runtime;
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use crate::stores::{ChangeError, ConnectionStatus, Stores, driver_id, driver_proto};
use crate::stores::{store_id, store_proto};

const CONNECT_PATIENCE: Duration = Duration::from_secs(5);

/// The Runtime service.
pub(crate) struct RuntimeService {
    stores: Arc<Stores>,
    fence: Fence,
}

impl RuntimeService {
    /// Refuses changes by callers that do not say which operator they are, if `requires_operator`.
    pub(crate) fn new(stores: Arc<Stores>, requires_operator: bool) -> Self {
        let keeper = Arc::clone(&stores);
        let keep = move |operator: OperatorTerm| {
            let stores = Arc::clone(&keeper);
            Box::pin(async move {
                let kept = stores.remember_operator(operator).await;
                kept.map_err(change_status)
            }) as _
        };
        let fence = Fence::new(stores.operator(), requires_operator, Box::new(keep));
        Self { stores, fence }
    }
}

#[tonic::async_trait]
impl Runtime for RuntimeService {
    async fn connect(
        &self,
        request: Request<proto::ConnectRequest>,
    ) -> Result<Response<proto::ConnectResponse>, Status> {
        self.fence.admit(request.metadata()).await?;
        let patience = Instant::now() + CONNECT_PATIENCE;
        let wait_until =
            deadline::of(request.metadata())?.map_or(patience, |deadline| deadline.min(patience));
        let request = request.into_inner();
        let store = named_store(request.store_id)?;
        let driver = driver_id(request.driver_id.unwrap_or_default());
        if driver.name.is_empty() {
            return Err(Status::invalid_argument("driver_id.name is empty"));
        }
        self.stores
            .connect(store, driver, request.config, wait_until)
            .await
            .map_err(change_status)?;
        Ok(Response::new(proto::ConnectResponse {}))
    }

    async fn configure(
        &self,
        request: Request<proto::ConfigureRequest>,
    ) -> Result<Response<proto::ConfigureResponse>, Status> {
        self.fence.admit(request.metadata()).await?;
        let request = request.into_inner();
        let store = named_store(request.store_id)?;
        self.stores
            .configure(store, request.config)
            .await
            .map_err(change_status)?;
        Ok(Response::new(proto::ConfigureResponse {}))
    }

    async fn disconnect(
        &self,
        request: Request<proto::DisconnectRequest>,
    ) -> Result<Response<proto::DisconnectResponse>, Status> {
        self.fence.admit(request.metadata()).await?;
        let store = named_store(request.into_inner().store_id)?;
        self.stores.disconnect(store).await.map_err(change_status)?;
        Ok(Response::new(proto::DisconnectResponse {}))
    }

    async fn program(
        &self,
        request: Request<proto::ProgramRequest>,
    ) -> Result<Response<proto::ProgramResponse>, Status> {
        self.fence.admit(request.metadata()).await?;
        self.stores
            .program(request.into_inner().routes)
            .await
            .map_err(change_status)?;
        Ok(Response::new(proto::ProgramResponse {}))
    }

    async fn get_status(
        &self,
        _request: Request<proto::GetStatusRequest>,
    ) -> Result<Response<proto::GetStatusResponse>, Status> {
        let connections = self.stores.connections().into_iter().map(connection_proto);
        let operator = self.fence.seen().unwrap_or_default();
        let routes = self.stores.routes();
        Ok(Response::new(proto::GetStatusResponse {
            connections: connections.collect(),
            routes_digest: routes_digest(&routes),
            operator_term: operator.term,
            operator_id: operator.id,
            routes,
        }))
    }
}

fn named_store(store: Option<proto::StoreId>) -> Result<StoreId, Status> {
    let store = store_id(store.unwrap_or_default());
    if store.name.is_empty() {
        return Err(Status::invalid_argument("store_id.name is empty"));
    }
    Ok(store)
}

fn connection_proto(status: ConnectionStatus) -> proto::Connection {
    let (state, message) = match status.state {
        ConnectionState::Connected => (State::Connected, String::new()),
        ConnectionState::Connecting { reason } | ConnectionState::Misconfigured { reason } => {
            (State::Connecting, reason)
        }
    };
    proto::Connection {
        store_id: Some(store_proto(&status.store)),
        driver_id: Some(driver_proto(&status.driver)),
        config_digest: status.config_digest,
        state: state.into(),
        message,
    }
}

fn change_status(error: ChangeError) -> Status {
    let message = match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    };
    match error {
        ChangeError::Connected(_) => Status::already_exists(message),
        ChangeError::NotConnected(_) | ChangeError::UnknownDriver { .. } => {
            Status::not_found(message)
        }
        ChangeError::Driver(error) => error.into(),
        ChangeError::Routes(_) => Status::invalid_argument(message),
        ChangeError::Misconfigured { .. } => Status::failed_precondition(message),
        ChangeError::NotReached { .. } => Status::unavailable(message),
        ChangeError::NotSaved(_) | ChangeError::Broken => Status::internal(message),
    }
}
