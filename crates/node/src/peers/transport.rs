//! Finds, or makes, the stream that a message takes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use atomix_raft::{Class, NodeId, PeerMessage, PeerReply, PeerTarget, Transport, TransportError};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::Greeting;
use super::link::Link;
use super::queue::{Lost, NotQueued, Queue, ReplyReceiver};
use crate::reach::Reach;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct LinkKey {
    node_id: NodeId,
    address: String,
    class: Class,
}

/// Carries the messages of all groups of this node.
pub(crate) struct PeerTransport {
    greeting: Arc<Greeting>,
    reach: Reach,
    links: Mutex<HashMap<LinkKey, Queue>>,
    shutdown: CancellationToken,
}

impl PeerTransport {
    pub(crate) fn new(greeting: Arc<Greeting>, reach: Reach, shutdown: CancellationToken) -> Self {
        Self {
            greeting,
            reach,
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
    ) -> Result<ReplyReceiver, TransportError> {
        let full = || TransportError::Unreachable {
            node_id: target.to_node,
            address: target.address.clone(),
            reason: "the queue of its stream is full".to_owned(),
        };
        let key = LinkKey {
            node_id: target.to_node,
            address: target.address.clone(),
            class,
        };
        let mut links = self.links.lock();
        let message = match links.get(&key) {
            None => message,
            Some(queue) => match queue.push(message) {
                Ok(reply) => return Ok(reply),
                Err(NotQueued::Full) => return Err(full()),
                Err(NotQueued::Ended(unsent)) => *unsent,
            },
        };
        let (queue, outgoing) = Queue::new();
        // A new queue has room for any message.
        let reply = queue.push(message).map_err(|_| full())?;
        let link = Link {
            node_id: key.node_id,
            address: key.address.clone(),
            class,
            greeting: Arc::clone(&self.greeting),
            reach: self.reach.clone(),
        };
        tokio::spawn(link.run(outgoing, self.shutdown.clone()));
        links.retain(|_, queue| !queue.has_ended());
        links.insert(key, queue);
        Ok(reply)
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
