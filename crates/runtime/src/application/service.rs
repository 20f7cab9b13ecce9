//! Serves the application API of every kind: finds out which primitive a call is about, and passes
//! its encoded request to the primitive's store.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use atomix_driver::{Invocation, Owner};
use atomix_process::grpc::deadline;
use atomix_proto::kinds::{Cache, Kind};
use atomix_proto::runtime::v1::PrimitiveId;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use prost::Message as _;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codegen::{Body as HttpBody, Service, StdError};
use tonic::server::{Grpc, ServerStreamingService, UnaryService};
use tonic::{Request, Response, Status};

use super::calls::{self, Call};
use super::codec::BytesCodec;
use super::connections::ApplicationConnection;
use crate::metrics::Metrics;
use crate::sessions::PrimitiveKey;
use crate::stores::{Stores, open_error};
use crate::streams::interrupted_by;

/// The largest request that an application may send.
pub(crate) const MAX_REQUEST_BYTES: usize = 4 * 1024 * 1024;

/// The application API.
#[derive(Clone)]
pub(crate) struct ApplicationService {
    stores: Arc<Stores>,
    metrics: Metrics,
    default_deadline: Duration,
    shutdown: CancellationToken,
}

/// The messages of a streaming call.
type Messages = BoxStream<'static, Result<Bytes, Status>>;

impl ApplicationService {
    /// Calls without a deadline of their own get `default_deadline`; streams end at the shutdown.
    pub(crate) fn new(
        stores: Arc<Stores>,
        metrics: Metrics,
        default_deadline: Duration,
        shutdown: CancellationToken,
    ) -> Self {
        Self {
            stores,
            metrics,
            default_deadline,
            shutdown,
        }
    }

    async fn call(&self, call: Call, request: Request<Bytes>) -> Result<Bytes, Status> {
        let started = Instant::now();
        let result = self.dispatch(call, request).await;
        let code = result.as_ref().err().map_or(tonic::Code::Ok, Status::code);
        self.metrics
            .application_call(call.kind().name, code, started.elapsed());
        result
    }

    async fn dispatch(&self, call: Call, request: Request<Bytes>) -> Result<Bytes, Status> {
        self.check_served(call.kind())?;
        match call {
            Call::Create(kind) => self.create(kind, &request),
            Call::Close(kind) => self.close(kind, &request).await,
            Call::Operation(kind, method) => {
                let (invocation, _) = self.invocation(kind, method, request)?;
                Ok(self.stores.invoke(invocation).await?)
            }
            Call::Stream(_, method) => Err(Status::internal(format!(
                "{method} streams and was called as if it did not"
            ))),
        }
    }

    /// A stream is counted, with its code, when it has begun.
    async fn stream(
        &self,
        kind: &'static Kind,
        method: &'static str,
        request: Request<Bytes>,
    ) -> Result<Messages, Status> {
        let started = Instant::now();
        let result = self.subscribe(kind, method, request).await;
        let code = result.as_ref().err().map_or(tonic::Code::Ok, Status::code);
        self.metrics
            .application_call(kind.name, code, started.elapsed());
        result
    }

    async fn subscribe(
        &self,
        kind: &Kind,
        method: &str,
        request: Request<Bytes>,
    ) -> Result<Messages, Status> {
        self.check_served(kind)?;
        let (invocation, until) = self.invocation(kind, method, request)?;
        let messages = self.stores.subscribe(invocation).await?;
        let shutdown = self.shutdown.clone();
        let end = async move {
            tokio::select! {
                () = shutdown.cancelled() => Status::data_loss("the runtime shuts down, read again"),
                () = passed(until) => Status::deadline_exceeded("the stream's deadline has passed"),
            }
        };
        let messages = messages.map(|message| message.map_err(Status::from));
        Ok(interrupted_by(messages.boxed(), end))
    }

    fn check_served(&self, kind: &Kind) -> Result<(), Status> {
        if self.stores.is_served(kind.name) {
            return Ok(());
        }
        Err(Status::unimplemented(format!(
            "kind {} is not served: no driver of this runtime supports it",
            kind.name
        )))
    }

    fn create(&self, kind: &Kind, request: &Request<Bytes>) -> Result<Bytes, Status> {
        let create: CreateRequest = decode(request.get_ref())?;
        let key = primitive_key(kind, create.id)?;
        let destination = self
            .stores
            .open_primitives()
            .create(&key, create.tags, owner(request)?)
            .map_err(open_error)?;
        let config = Config::of(kind, &destination.config);
        Ok(CreateResponse {
            config: Some(config),
        }
        .encode_to_vec()
        .into())
    }

    async fn close(&self, kind: &Kind, request: &Request<Bytes>) -> Result<Bytes, Status> {
        let addressed: Addressed = decode(request.get_ref())?;
        let key = primitive_key(kind, addressed.id)?;
        let connection = connection(request)?;
        let owns = connection.owns(&key);
        let callers = deadline::of(request.metadata())?;
        let deadline = callers.unwrap_or_else(|| Instant::now() + self.default_deadline);
        let closed = self.stores.close(&key, connection.owner(), owns.is_some());
        match tokio::time::timeout_at(deadline, closed).await {
            Ok(closed) => closed?,
            Err(_) => {
                return Err(Status::deadline_exceeded(
                    "the store did not say in time that it has released what this connection owns \
                     in the primitive: close it again",
                ));
            }
        }
        if let Some(calls) = owns {
            connection.released(&key, calls);
        }
        Ok(Bytes::new())
    }

    /// What a call asks for, and the caller's own deadline.
    fn invocation(
        &self,
        kind: &Kind,
        method: &str,
        request: Request<Bytes>,
    ) -> Result<(Invocation, Option<Instant>), Status> {
        let addressed: Addressed = decode(request.get_ref())?;
        let key = primitive_key(kind, addressed.id)?;
        let callers = deadline::of(request.metadata())?;
        let connection = connection(&request)?;
        if calls::is_owned(kind, method) {
            connection.will_own(&key);
        }
        let owner = connection.owner();
        let request = request.into_inner();
        let patience = calls::patience(kind, method, &request, self.default_deadline);
        let invocation = Invocation {
            kind: key.kind,
            primitive: key.name,
            method: method.to_owned(),
            owner,
            deadline: callers.unwrap_or_else(|| Instant::now() + patience),
            request,
        };
        Ok((invocation, callers))
    }
}

async fn passed(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

impl<B> Service<http::Request<B>> for ApplicationService
where
    B: HttpBody + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future =
        Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send + 'static>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            let path = request.uri().path();
            let mut grpc = Grpc::new(BytesCodec).max_decoding_message_size(MAX_REQUEST_BYTES);
            let Some(call) = Call::parse(path) else {
                let message = format!("method {path} does not exist");
                return Ok(Status::unimplemented(message).into_http());
            };
            Ok(match call {
                Call::Stream(kind, method) => {
                    let handler = StreamHandler {
                        service,
                        kind,
                        method,
                    };
                    grpc.server_streaming(handler, request).await
                }
                Call::Create(_) | Call::Close(_) | Call::Operation(..) => {
                    grpc.unary(Handler { service, call }, request).await
                }
            })
        })
    }
}

/// One call.
struct Handler {
    service: ApplicationService,
    call: Call,
}

impl UnaryService<Bytes> for Handler {
    type Response = Bytes;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Bytes>, Status>> + Send>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let service = self.service.clone();
        let call = self.call;
        Box::pin(async move { service.call(call, request).await.map(Response::new) })
    }
}

/// One call that is answered with a stream.
struct StreamHandler {
    service: ApplicationService,
    kind: &'static Kind,
    method: &'static str,
}

impl ServerStreamingService<Bytes> for StreamHandler {
    type Response = Bytes;
    type ResponseStream = Messages;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Messages>, Status>> + Send>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let service = self.service.clone();
        let (kind, method) = (self.kind, self.method);
        Box::pin(async move {
            let messages = service.stream(kind, method, request).await?;
            Ok(Response::new(messages))
        })
    }
}

/// What every request of the application API begins with.
#[derive(Clone, PartialEq, prost::Message)]
struct Addressed {
    #[prost(message, optional, tag = "1")]
    id: Option<PrimitiveId>,
}

/// The CreateRequest of every kind.
#[derive(Clone, PartialEq, prost::Message)]
struct CreateRequest {
    #[prost(message, optional, tag = "1")]
    id: Option<PrimitiveId>,
    #[prost(string, repeated, tag = "2")]
    tags: Vec<String>,
}

/// The CreateResponse of every kind.
#[derive(Clone, PartialEq, prost::Message)]
struct CreateResponse {
    #[prost(message, optional, tag = "1")]
    config: Option<Config>,
}

/// The Config of every kind; those without a cache leave it out.
#[derive(Clone, PartialEq, prost::Message)]
struct Config {
    #[prost(message, optional, tag = "1")]
    cache: Option<CacheConfig>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct CacheConfig {
    #[prost(bool, tag = "1")]
    enabled: bool,
    #[prost(uint64, tag = "2")]
    size: u64,
}

impl Config {
    /// From the route's JSON: `{"cache": {"enabled": true, "size": 100}}`.
    fn of(kind: &Kind, json: &[u8]) -> Self {
        let config: serde_json::Value = serde_json::from_slice(json).unwrap_or_default();
        let enabled = config
            .pointer("/cache/enabled")
            .and_then(|value| value.as_bool());
        let size = config
            .pointer("/cache/size")
            .and_then(|value| value.as_u64());
        let cache = CacheConfig {
            enabled: enabled.unwrap_or_default(),
            size: size.unwrap_or_default(),
        };
        let cache = match kind.cache {
            Cache::None => None,
            Cache::Switch => Some(CacheConfig { size: 0, ..cache }),
            Cache::Sized => Some(cache),
        };
        Self { cache }
    }
}

fn decode<M: prost::Message + Default>(request: &Bytes) -> Result<M, Status> {
    M::decode(request.clone())
        .map_err(|error| Status::invalid_argument(format!("the request does not decode: {error}")))
}

fn primitive_key(kind: &Kind, id: Option<PrimitiveId>) -> Result<PrimitiveKey, Status> {
    let name = id.unwrap_or_default().id;
    if name.is_empty() {
        return Err(Status::invalid_argument("id.name is empty"));
    }
    Ok(PrimitiveKey {
        kind: kind.name.to_owned(),
        name,
    })
}

fn connection(request: &Request<Bytes>) -> Result<&ApplicationConnection, Status> {
    request
        .extensions()
        .get::<ApplicationConnection>()
        .ok_or_else(|| Status::internal("the call came over no known connection"))
}

fn owner(request: &Request<Bytes>) -> Result<Owner, Status> {
    connection(request).map(ApplicationConnection::owner)
}
