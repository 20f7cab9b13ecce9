//! The Partitions service: long-lived streams of drivers.
//!
//! Not for what requests mean (module `partition`).

mod stream;
mod ticket;

use std::sync::Arc;

use atomix_proto::multiraft::v1::partitions_server::Partitions;
use atomix_proto::multiraft::v1::{DriverMessage, NodeMessage};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::hosted::Hosted;

pub(crate) use ticket::{KeepAliveTicket, Ticket};

/// Messages that wait for the connection.
const MESSAGES: usize = 4;

/// Serves drivers.
pub(crate) struct PartitionsService {
    pub(crate) hosted: Arc<Hosted>,
    pub(crate) shutdown: CancellationToken,
}

#[tonic::async_trait]
impl Partitions for PartitionsService {
    type ExchangeStream = ReceiverStream<Result<NodeMessage, Status>>;

    async fn exchange(
        &self,
        request: Request<Streaming<DriverMessage>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        let (sender, receiver) = mpsc::channel(MESSAGES);
        let hosted = Arc::clone(&self.hosted);
        let shutdown = self.shutdown.clone();
        let incoming = request.into_inner();
        tokio::spawn(async move {
            let ended = tokio::select! {
                ended = stream::serve(hosted, incoming, sender.clone()) => ended,
                () = shutdown.cancelled() => Err(Status::unavailable("the node shuts down")),
            };
            if let Err(status) = ended {
                tracing::debug!(%status, "a driver's stream ended");
                // The driver may be gone.
                let _ = sender.send(Err(status)).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}
