//! An open stream: sends requests in batches and pairs the answers with them.

use std::collections::HashMap;

use atomix_proto::multiraft::v1::{DriverMessage, NodeMessage, Response};
use parking_lot::Mutex;
use prost::Message as _;
use tokio::sync::mpsc;
use tonic::Streaming;

use super::{KeepAliveSender, LinkError, Outgoing, QUEUE, ReplySender};

const MAX_BATCH: usize = 256;
const MAX_BATCH_BYTES: usize = 1024 * 1024;

/// A stream after both hellos.
pub(super) struct Stream {
    pub(super) to_node: mpsc::Sender<DriverMessage>,
    pub(super) from_node: Streaming<NodeMessage>,
}

/// Carries requests and answers until the stream breaks; returns why. Everything that was sent and
/// not answered fails as broken.
pub(super) async fn run(
    outgoing: &mut mpsc::Receiver<Outgoing>,
    stream: Stream,
    node: &str,
) -> String {
    let in_flight = Mutex::new(InFlight::default());
    let reason = tokio::select! {
        reason = write(outgoing, stream.to_node, &in_flight) => reason,
        reason = read(stream.from_node, &in_flight) => reason,
    };
    let error = LinkError::Broken(format!("{node}: {reason}"));
    in_flight.into_inner().fail(&error);
    reason
}

/// What was sent and waits for its answer.
#[derive(Default)]
struct InFlight {
    requests: HashMap<u64, ReplySender>,
    keep_alives: HashMap<(u32, u64), KeepAliveSender>,
    prune_at: usize,
}

impl InFlight {
    fn add(&mut self, id: u64, reply: ReplySender) {
        if self.requests.len() >= self.prune_at.max(QUEUE) {
            // A node that never answers must not make the map grow with what nobody waits for.
            self.requests.retain(|_, reply| !reply.is_closed());
            self.prune_at = self.requests.len() * 2;
        }
        self.requests.insert(id, reply);
    }

    fn answer(&mut self, message: NodeMessage) {
        for Response { id, outcome } in message.responses {
            let (Some(reply), Some(outcome)) = (self.requests.remove(&id), outcome) else {
                continue;
            };
            let _ = reply.send(Ok(outcome));
        }
        for answer in message.keep_alives {
            let key = (answer.partition_id, answer.session);
            if let Some(reply) = self.keep_alives.remove(&key) {
                let _ = reply.send(Ok(answer));
            }
        }
    }

    fn fail(self, error: &LinkError) {
        for reply in self.requests.into_values() {
            let _ = reply.send(Err(error.clone()));
        }
        for reply in self.keep_alives.into_values() {
            let _ = reply.send(Err(error.clone()));
        }
    }
}

async fn write(
    outgoing: &mut mpsc::Receiver<Outgoing>,
    to_node: mpsc::Sender<DriverMessage>,
    in_flight: &Mutex<InFlight>,
) -> String {
    let mut queued = Vec::with_capacity(MAX_BATCH);
    loop {
        if outgoing.recv_many(&mut queued, MAX_BATCH).await == 0 {
            return "the link is closed".to_owned();
        }
        let mut message = DriverMessage::default();
        let mut bytes = 0;
        for item in queued.drain(..) {
            match item {
                Outgoing::Request(request, reply) => {
                    if reply.is_closed() {
                        continue;
                    }
                    if bytes > MAX_BATCH_BYTES {
                        let full = std::mem::take(&mut message);
                        bytes = 0;
                        if to_node.send(full).await.is_err() {
                            let error = LinkError::NotSent("the stream ended".to_owned());
                            let _ = reply.send(Err(error));
                            continue;
                        }
                    }
                    bytes += request.encoded_len();
                    in_flight.lock().add(request.id, reply);
                    message.requests.push(request);
                }
                Outgoing::KeepAlives(keep_alives) => {
                    let mut in_flight = in_flight.lock();
                    for (keep_alive, reply) in keep_alives {
                        let key = (keep_alive.partition_id, keep_alive.session);
                        in_flight.keep_alives.insert(key, reply);
                        message.keep_alives.push(keep_alive);
                    }
                }
            }
        }
        let nothing_left = message.requests.is_empty() && message.keep_alives.is_empty();
        if !nothing_left && to_node.send(message).await.is_err() {
            // The reading side learns why; it ends this future.
            std::future::pending::<()>().await;
        }
    }
}

async fn read(mut from_node: Streaming<NodeMessage>, in_flight: &Mutex<InFlight>) -> String {
    loop {
        match from_node.message().await {
            Ok(Some(message)) => in_flight.lock().answer(message),
            Ok(None) => return "the node ended the stream".to_owned(),
            Err(status) => return describe(&status),
        }
    }
}

/// A status as part of a message.
pub(super) fn describe(status: &tonic::Status) -> String {
    format!("{}: {}", status.code(), status.message())
}
