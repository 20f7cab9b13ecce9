//! Finds, or makes, the stream that a message takes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use atomix_raft::{Class, NodeId, PeerMessage, PeerReply, PeerTarget, Transport, TransportError};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::Greeting;
use super::link::{Link, Lost, Outgoing};
use crate::resolver::Resolver;

/// Messages that wait for one stream.
const QUEUE: usize = 4096;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct LinkKey {
    node_id: NodeId,
    address: String,
    class: Class,
}

/// Carries the messages of all groups of this node.
pub(crate) struct PeerTransport {
    greeting: Arc<Greeting>,
    resolver: Arc<dyn Resolver>,
    links: Mutex<HashMap<LinkKey, mpsc::Sender<Outgoing>>>,
    shutdown: CancellationToken,
}

impl PeerTransport {
    pub(crate) fn new(
        greeting: Arc<Greeting>,
        resolver: Arc<dyn Resolver>,
        shutdown: CancellationToken,
    ) -> Self {
        Self {
            greeting,
            resolver,
            links: Mutex::default(),
            shutdown,
        }
    }

    /// Puts the message into the queue of its stream.
    fn queue(
        &self,
        target: &PeerTarget,
        message: PeerMessage,
        class: Class,
    ) -> Result<oneshot::Receiver<Result<PeerReply, Lost>>, TransportError> {
        let (reply, receiver) = oneshot::channel();
        let mut outgoing = Outgoing { message, reply };
        let key = LinkKey {
            node_id: target.to_node,
            address: target.address.clone(),
            class,
        };
        let mut links = self.links.lock();
        if let Some(link) = links.get(&key) {
            match link.try_send(outgoing) {
                Ok(()) => return Ok(receiver),
                Err(mpsc::error::TrySendError::Full(_)) => {
                    return Err(TransportError::Unreachable {
                        node_id: target.to_node,
                        address: target.address.clone(),
                        reason: "the queue of its stream is full".to_owned(),
                    });
                }
                // The link ended because nothing used it.
                Err(mpsc::error::TrySendError::Closed(unsent)) => outgoing = unsent,
            }
        }
        let (sender, queue) = mpsc::channel(QUEUE);
        // A new queue has room.
        let _ = sender.try_send(outgoing);
        let link = Link {
            node_id: key.node_id,
            address: key.address.clone(),
            class,
            greeting: Arc::clone(&self.greeting),
            resolver: Arc::clone(&self.resolver),
        };
        tokio::spawn(link.run(queue, self.shutdown.clone()));
        links.retain(|_, link| !link.is_closed());
        links.insert(key, sender);
        Ok(receiver)
    }
}

impl Transport for PeerTransport {
    fn send(
        &self,
        target: &PeerTarget,
        message: PeerMessage,
        class: Class,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<PeerReply, TransportError>> {
        let node_id = target.to_node;
        let address = target.address.clone();
        let receiver = match self.queue(target, message, class) {
            Ok(receiver) => receiver,
            Err(error) => return futures::future::ready(Err(error)).boxed(),
        };
        async move {
            match tokio::time::timeout(timeout, receiver).await {
                Ok(Ok(Ok(reply))) => Ok(reply),
                Ok(Ok(Err(Lost::NotSent(reason)))) => Err(TransportError::Unreachable {
                    node_id,
                    address,
                    reason,
                }),
                Ok(Ok(Err(Lost::NoReply(reason)))) => {
                    Err(TransportError::Broken { node_id, reason })
                }
                Ok(Err(_)) => Err(TransportError::Broken {
                    node_id,
                    reason: "the node shuts down".to_owned(),
                }),
                Err(_) => Err(TransportError::TimedOut { node_id, timeout }),
            }
        }
        .boxed()
    }
}
