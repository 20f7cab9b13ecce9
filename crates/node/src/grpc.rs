//! What both gRPC ports have in common: limits and windows.

use std::time::Duration;

use atomix_tls::Guard;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Server;

/// The largest message between nodes: an append of one entry, or a snapshot chunk.
pub(crate) const MAX_PEER_MESSAGE: usize = 16 << 20;
/// The largest message of a driver; one operation in it may have 1 MiB.
pub(crate) const MAX_DRIVER_MESSAGE: usize = 8 << 20;
/// The largest message to a driver.
pub(crate) const MAX_NODE_MESSAGE: usize = 16 << 20;
/// The largest request of the operator.
pub(crate) const MAX_CONTROL_MESSAGE: usize = 4 << 20;

/// HTTP/2 windows: a stream carries many requests, and one window each round trip.
pub(crate) const STREAM_WINDOW: u32 = 4 << 20;
pub(crate) const CONNECTION_WINDOW: u32 = 16 << 20;
/// A silent connection is given up after about twice this.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// How long the other side of a stream may take to greet.
pub(crate) const HELLO_TIMEOUT: Duration = Duration::from_secs(3);

/// Serves with the settings of every port of a node until `shutdown`; with a guard by TLS.
///
/// # Errors
/// When accepting connections fails.
pub(crate) async fn serve(
    listener: tokio::net::TcpListener,
    routes: Routes,
    guard: Option<Guard>,
    shutdown: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let server = Server::builder()
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE));
    let routes = match &guard {
        Some(guard) => guard.protect(routes),
        None => routes,
    };
    let connections = atomix_tls::accept(listener, guard);
    atomix_process::grpc::serve(server, routes, connections, shutdown).await
}

/// The reflection service of a port that serves these, and health.
///
/// # Errors
/// When the descriptors do not decode.
pub(crate) fn reflection(
    services: &[&str],
) -> Result<
    tonic_reflection::server::v1::ServerReflectionServer<
        impl tonic_reflection::server::v1::ServerReflection,
    >,
    tonic_reflection::server::Error,
> {
    let mut reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(atomix_proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .with_service_name(tonic_health::pb::health_server::SERVICE_NAME);
    for service in services {
        reflection = reflection.with_service_name(*service);
    }
    reflection.build_v1()
}

/// tonic's transport errors say what happened in their sources only.
pub(crate) fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
