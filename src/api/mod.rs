//! What the operator tells over gRPC: the SessionService for all Sessions, from its cache, and where
//! the partitions of a Store are, from the nodes.
//!
//! Every replica serves it, with or without the lease. Nothing here writes, but for leaderships
//! that a person asks to be handed over.

mod partitions;
mod sessions;
mod stores;

use std::io;

use atomix_proto::operator::v1::stores_server::StoresServer;
use atomix_proto::runtime::v1::session_service_server::SessionServiceServer;
use atomix_session_service::Sessions;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

pub(crate) use sessions::AllSessions;
pub(crate) use stores::StoreNodes;

/// Why the API could not be served.
#[derive(Debug, Error)]
pub(crate) enum ApiServerError {
    #[error("cannot serve gRPC reflection")]
    Reflection(#[from] tonic_reflection::server::Error),
    #[error("the gRPC server failed")]
    Serve(#[from] tonic::transport::Error),
    #[error("cannot tell the address of the gRPC server")]
    Address(#[from] io::Error),
}

/// Serves until `shutdown`.
///
/// # Errors
/// When accepting connections fails.
pub(crate) async fn serve(
    listener: TcpListener,
    sessions: AllSessions,
    stores: StoreNodes,
    shutdown: CancellationToken,
) -> Result<(), ApiServerError> {
    let address = listener.local_addr()?;
    let service = SessionServiceServer::new(Sessions::new(sessions, shutdown.clone()));
    let (health, health_service) = tonic_health::server::health_reporter();
    health
        .set_serving::<SessionServiceServer<Sessions<AllSessions>>>()
        .await;
    health.set_serving::<StoresServer<StoreNodes>>().await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(atomix_proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .with_service_name("atomix.runtime.v1.SessionService")
        .with_service_name("atomix.operator.v1.Stores")
        .with_service_name("grpc.health.v1.Health")
        .build_v1()?;
    let routes = Routes::new(service)
        .add_service(StoresServer::new(stores))
        .add_service(health_service)
        .add_service(reflection);
    let connections = TcpIncoming::from(listener).with_nodelay(Some(true));
    tracing::info!(%address, "serving gRPC");
    atomix_process::grpc::serve(Server::builder(), routes, connections, shutdown).await?;
    Ok(())
}
