//! One call, sent as often as its method allows until the deadline.

use std::time::Duration;

use prost::Message;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Streaming};
use tonic_prost::ProstCodec;

use crate::connection::OwnConnections;
use crate::error::Result;
use crate::failure::Failure;
use crate::method::Method;
use crate::retry::{Attempts, LONGEST, RetryPolicy};

/// What all handles of a client share.
#[derive(Debug)]
pub(crate) struct Caller {
    channel: Channel,
    /// For what belongs to a connection.
    pub(crate) owners: OwnConnections,
    deadline: Duration,
    retry: RetryPolicy,
}

impl Caller {
    pub(crate) fn new(
        channel: Channel,
        endpoint: Endpoint,
        address: String,
        deadline: Duration,
        retry: RetryPolicy,
    ) -> Self {
        Self {
            channel,
            owners: OwnConnections::new(endpoint, address),
            deadline,
            retry,
        }
    }

    /// The attempts of a new call.
    pub(crate) fn attempts(&self) -> Attempts<'_> {
        Attempts::new(&self.retry, self.deadline)
    }

    /// Calls a method that is answered once.
    pub(crate) async fn call<Q, R>(&self, method: &Method<Q, R>, request: Q) -> Result<R>
    where
        Q: Message + Clone + 'static,
        R: Message + Default + 'static,
    {
        let mut attempts = self.attempts();
        loop {
            let patience = Some(attempts.remaining());
            match send(&self.channel, method, request.clone(), patience).await {
                Ok(reply) => return Ok(reply),
                Err(failure) => attempts.again(failure, method.repeat).await?,
            }
        }
    }

    /// Begins a stream. The deadline is for its beginning, not for how long it lasts.
    pub(crate) async fn open<Q, R>(&self, method: &Method<Q, R>, request: Q) -> Result<Streaming<R>>
    where
        Q: Message + Clone + 'static,
        R: Message + Default + 'static,
    {
        let mut attempts = self.attempts();
        loop {
            let opening = open(&self.channel, method, request.clone());
            let opened = match tokio::time::timeout(attempts.remaining(), opening).await {
                Ok(opened) => opened,
                Err(_) => Err(Failure::timed_out()),
            };
            match opened {
                Ok(stream) => return Ok(stream),
                Err(failure) => attempts.again(failure, method.repeat).await?,
            }
        }
    }
}

/// Sends a request once. Without a patience it waits as long as the answer takes.
pub(crate) async fn send<Q, R>(
    channel: &Channel,
    method: &Method<Q, R>,
    request: Q,
    patience: Option<Duration>,
) -> Result<R, Failure>
where
    Q: Message + 'static,
    R: Message + Default + 'static,
{
    let patience = patience.map(|patience| patience.min(LONGEST));
    let mut request = Request::new(request);
    if let Some(patience) = patience {
        request.set_timeout(patience);
    }
    let sending = async {
        let mut grpc = ready(channel).await?;
        let path = PathAndQuery::from_static(method.path);
        let answer = grpc.unary(request, path, ProstCodec::default()).await?;
        Ok::<_, Failure>(answer.into_inner())
    };
    match patience {
        // The sidecar answers a little before, and says why; this is for one that does not.
        Some(patience) => tokio::time::timeout(patience, sending)
            .await
            .unwrap_or_else(|_| Err(Failure::timed_out())),
        None => sending.await,
    }
}

async fn open<Q, R>(
    channel: &Channel,
    method: &Method<Q, R>,
    request: Q,
) -> Result<Streaming<R>, Failure>
where
    Q: Message + 'static,
    R: Message + Default + 'static,
{
    let mut grpc = ready(channel).await?;
    let path = PathAndQuery::from_static(method.path);
    let request = Request::new(request);
    let answer = grpc.server_streaming(request, path, ProstCodec::default());
    Ok(answer.await?.into_inner())
}

/// A reply that is too large to be read belongs to a mutation that is done: there is no limit.
async fn ready(channel: &Channel) -> Result<Grpc<Channel>, Failure> {
    let mut grpc = Grpc::new(channel.clone()).max_decoding_message_size(usize::MAX);
    grpc.ready()
        .await
        .map_err(|error| Failure::not_sent(format!("the client has ended: {error}")))?;
    Ok(grpc)
}
