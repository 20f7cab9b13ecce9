//! The Peers service: the receiving end of the streams between nodes.

use std::sync::Arc;

use atomix_process::grpc::next_message;
use atomix_proto::multiraft::v1::peer_refusal::Reason;
use atomix_proto::multiraft::v1::peers_server::Peers;
use atomix_proto::multiraft::v1::{
    PeerFrame, PeerMessage, PeerRefusal, PeerReply, peer_frame, peer_reply,
};
use atomix_raft::{MemberId, NodeId, PartitionId};
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::Greeting;
use crate::grpc::HELLO_TIMEOUT;
use crate::hosted::Hosted;

/// Replies that wait for one connection; a sender that takes none is cut off.
const REPLIES: usize = 8192;

/// Serves the other nodes.
#[derive(Clone)]
pub(crate) struct PeersService {
    pub(crate) hosted: Arc<Hosted>,
    pub(crate) greeting: Arc<Greeting>,
    pub(crate) shutdown: CancellationToken,
}

type Frames = ReceiverStream<Result<PeerFrame, Status>>;

#[tonic::async_trait]
impl Peers for PeersService {
    type RaftStream = Frames;

    async fn raft(
        &self,
        request: Request<Streaming<PeerFrame>>,
    ) -> Result<Response<Frames>, Status> {
        Ok(self.accept(request.into_inner()))
    }

    type SnapshotStream = Frames;

    async fn snapshot(
        &self,
        request: Request<Streaming<PeerFrame>>,
    ) -> Result<Response<Frames>, Status> {
        Ok(self.accept(request.into_inner()))
    }
}

impl PeersService {
    fn accept(&self, incoming: Streaming<PeerFrame>) -> Response<Frames> {
        let (sender, receiver) = mpsc::channel(REPLIES + 1);
        // Also a sender that takes no replies is told why it is cut off.
        let last = sender.clone().try_reserve_owned();
        let service = self.clone();
        tokio::spawn(async move {
            let ended = tokio::select! {
                ended = service.serve(incoming, &sender) => ended,
                () = service.shutdown.cancelled() => Err(Status::unavailable("the node shuts down")),
            };
            if let Err(status) = ended {
                tracing::debug!(%status, "a node's stream ended");
                if let Ok(last) = last {
                    last.send(Err(status));
                }
            }
        });
        Response::new(ReceiverStream::new(receiver))
    }

    async fn serve(
        &self,
        mut incoming: Streaming<PeerFrame>,
        replies: &mpsc::Sender<Result<PeerFrame, Status>>,
    ) -> Result<(), Status> {
        let first = tokio::time::timeout(HELLO_TIMEOUT, next_message(&mut incoming)).await;
        let first = first.map_err(|_| {
            Status::deadline_exceeded(format!("no hello within {HELLO_TIMEOUT:?}"))
        })??;
        let mut process = self
            .greeting
            .check(first)
            .map_err(Status::failed_precondition)?;
        let from_node = process.node_id;
        let own = self.greeting.frame(&self.hosted.store_uid());
        if replies.send(Ok(own)).await.is_err() {
            return Ok(());
        }
        self.greeting.processes.arrived(from_node);

        let mut handling: FuturesUnordered<BoxFuture<'static, PeerFrame>> = FuturesUnordered::new();
        loop {
            tokio::select! {
                // Before any other frame of the older process is looked at.
                biased;
                stale = process.replaced() => {
                    return Err(Status::failed_precondition(stale.to_string()));
                }
                Some(reply) = handling.next(), if !handling.is_empty() => {
                    // Never waits: the groups' inboxes bound what is being handled.
                    match replies.try_send(Ok(reply)) {
                        Ok(()) => {}
                        Err(mpsc::error::TrySendError::Closed(_)) => return Ok(()),
                        Err(mpsc::error::TrySendError::Full(_)) => {
                            return Err(Status::resource_exhausted("replies are not taken"));
                        }
                    }
                }
                frame = next_message(&mut incoming) => {
                    let Some(frame) = frame? else { return Ok(()) };
                    let Some(peer_frame::Body::Message(message)) = frame.body else {
                        continue;
                    };
                    handling.push(self.handle(from_node, frame.correlation_id, message));
                }
            }
        }
    }

    /// Queues a message at its group.
    fn handle(
        &self,
        from_node: NodeId,
        correlation_id: u64,
        message: PeerMessage,
    ) -> BoxFuture<'static, PeerFrame> {
        let frame = move |reply| PeerFrame {
            correlation_id,
            body: Some(peer_frame::Body::Reply(reply)),
        };
        let refuse = |reason, text| {
            let refused = frame(refusal(reason, text));
            Box::pin(futures::future::ready(refused))
        };
        let Some(partition) = self.hosted.get(PartitionId(message.partition_id)) else {
            return refuse(
                Reason::UnknownPartition,
                format!("this node does not host partition {}", message.partition_id),
            );
        };
        let from_member = MemberId(message.from_member);
        let known = partition.group().node_of(from_member);
        if known.is_some_and(|node| node != from_node) {
            return refuse(
                Reason::WrongMember,
                format!("member {from_member} does not live on node {from_node}"),
            );
        }
        let reply = partition.handle(message);
        Box::pin(async move { frame(reply.await) })
    }
}

fn refusal(reason: Reason, message: String) -> PeerReply {
    PeerReply {
        body: Some(peer_reply::Body::Refusal(PeerRefusal {
            reason: reason.into(),
            message,
        })),
    }
}
