//! SessionService as every sidecar serves it for its own sessions, and the operator for all of them.
//!
//! What the two have in common is how a list is asked for and watched. Which sessions there are, and
//! how they are named, is a [`Source`]'s.

mod config;
mod watch;

use std::pin::Pin;
use std::sync::Arc;

use atomix_process::grpc::deadline;
use atomix_proto::runtime::v1 as proto;
use atomix_proto::runtime::v1::session_service_server::SessionService;
use futures::{Stream, stream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

pub use config::packed_config;

use watch::Watcher;

/// Where sessions come from.
pub trait Source: Send + Sync + 'static {
    /// Whether there is a list already.
    ///
    /// # Errors
    /// UNAVAILABLE, and for how long about.
    fn ready(&self) -> Result<(), Status> {
        Ok(())
    }

    /// Sessions of this kind, in an order of their own that stays; an empty kind asks for all.
    fn list(&self, kind: &str) -> Vec<proto::Session>;

    /// The one session with this id; neither part is empty but for a primitive that was not given.
    ///
    /// # Errors
    /// NOT_FOUND, or INVALID_ARGUMENT when the id is not unique or lacks something.
    fn find(&self, name: &str, primitive: &str) -> Result<proto::Session, Status>;

    /// A number that grows whenever what is listed may have changed.
    fn changes(&self) -> tokio::sync::watch::Receiver<u64>;
}

/// The service over a source.
#[derive(Debug)]
pub struct Sessions<S> {
    source: Arc<S>,
    shutdown: CancellationToken,
}

impl<S: Source> Sessions<S> {
    /// The service; watches end at `shutdown`.
    pub fn new(source: S, shutdown: CancellationToken) -> Self {
        Self {
            source: Arc::new(source),
            shutdown,
        }
    }

    fn watcher(&self, request: proto::ListSessionsRequest) -> Watcher<S> {
        Watcher::new(
            Arc::clone(&self.source),
            request.r#type,
            self.shutdown.clone(),
        )
    }
}

#[tonic::async_trait]
impl<S: Source> SessionService for Sessions<S> {
    async fn get_session(
        &self,
        request: Request<proto::GetSessionRequest>,
    ) -> Result<Response<proto::GetSessionResponse>, Status> {
        let id = request.into_inner().session_id.unwrap_or_default();
        let primitive = id.primitive.unwrap_or_default().id;
        if id.name.is_empty() {
            return Err(Status::invalid_argument("session_id.name is empty"));
        }
        self.source.ready()?;
        let session = self.source.find(&id.name, &primitive)?;
        Ok(Response::new(proto::GetSessionResponse {
            session: Some(session),
        }))
    }

    async fn list_sessions(
        &self,
        request: Request<proto::ListSessionsRequest>,
    ) -> Result<Response<proto::ListSessionsResponse>, Status> {
        let deadline = deadline::of(request.metadata())?;
        self.source.ready()?;
        let request = request.into_inner();
        if !request.watch {
            let sessions = self.source.list(&request.r#type);
            return Ok(Response::new(proto::ListSessionsResponse { sessions }));
        }
        let mut watcher = self.watcher(request);
        let at_first = watcher.look();
        let expiry = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = watcher.next() => match changed {
                Some(response) => Ok(Response::new(response)),
                None => Err(Status::unavailable("the server is shutting down")),
            },
            () = expiry => Ok(Response::new(at_first)),
        }
    }

    type WatchSessionsStream =
        Pin<Box<dyn Stream<Item = Result<proto::ListSessionsResponse, Status>> + Send>>;

    async fn watch_sessions(
        &self,
        request: Request<proto::ListSessionsRequest>,
    ) -> Result<Response<Self::WatchSessionsStream>, Status> {
        self.source.ready()?;
        let watcher = self.watcher(request.into_inner());
        let answers = stream::unfold(watcher, |mut watcher| async move {
            let response = watcher.next().await?;
            Some((Ok(response), watcher))
        });
        Ok(Response::new(Box::pin(answers)))
    }
}
