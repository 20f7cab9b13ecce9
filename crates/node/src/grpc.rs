//! What both gRPC ports have in common: limits, windows, and the code for oversized messages.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderValue, Request, Response};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Status, Streaming};
use tower::layer::util::{Identity, Stack};
use tower::{Layer, Service};

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

/// A server with the settings of every port of a node.
pub(crate) fn server() -> Server<Stack<ExhaustedLayer, Identity>> {
    Server::builder()
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE))
        .layer(ExhaustedLayer)
}

/// Connections without Nagle's delay.
pub(crate) fn incoming(listener: tokio::net::TcpListener) -> TcpIncoming {
    TcpIncoming::from(listener).with_nodelay(Some(true))
}

/// The reflection service for everything in `proto/`.
///
/// # Errors
/// When the descriptors do not decode.
pub(crate) fn reflection() -> Result<
    tonic_reflection::server::v1::ServerReflectionServer<
        impl tonic_reflection::server::v1::ServerReflection,
    >,
    tonic_reflection::server::Error,
> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(atomix_proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
}

/// The next message of a stream; one that is too large is RESOURCE_EXHAUSTED.
///
/// # Errors
/// When the stream broke.
pub(crate) async fn next<T>(stream: &mut Streaming<T>) -> Result<Option<T>, Status> {
    stream.message().await.map_err(|status| {
        if status.code() == Code::OutOfRange {
            return Status::resource_exhausted(status.message().to_owned());
        }
        status
    })
}

/// tonic answers OUT_OF_RANGE for a unary request that is too large; gRPC's convention is
/// RESOURCE_EXHAUSTED. No method of a node answers OUT_OF_RANGE itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ExhaustedLayer;

impl<S> Layer<S> for ExhaustedLayer {
    type Service = Exhausted<S>;

    fn layer(&self, inner: S) -> Exhausted<S> {
        Exhausted { inner }
    }
}

/// See [`ExhaustedLayer`].
#[derive(Debug, Clone)]
pub(crate) struct Exhausted<S> {
    inner: S,
}

impl<S, RequestBody, ResponseBody> Service<Request<RequestBody>> for Exhausted<S>
where
    S: Service<Request<RequestBody>, Response = Response<ResponseBody>>,
    S::Future: Send + 'static,
{
    type Response = Response<ResponseBody>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<RequestBody>) -> Self::Future {
        let answering = self.inner.call(request);
        Box::pin(async move {
            let mut response = answering.await?;
            let status = response.headers_mut().get_mut("grpc-status");
            if let Some(status) = status.filter(|status| *status == "11") {
                *status = HeaderValue::from_static("8");
            }
            Ok(response)
        })
    }
}
