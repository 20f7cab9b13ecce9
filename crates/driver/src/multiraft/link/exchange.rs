//! An open stream: sends requests in batches and pairs the answers with them.

use std::cmp::Ordering;
use std::collections::HashMap;

use atomix_proto::multiraft::v1::failure::Reason;
use atomix_proto::multiraft::v1::{
    DriverMessage, Failure, KeepAlive, KeepAliveResponse, NodeMessage, Response, response,
};
use parking_lot::Mutex;
use prost::Message as _;
use tokio::sync::mpsc;
use tonic::Streaming;

use super::{Answered, Incarnation, KeepAliveSender, LinkError, Outgoing, QUEUE, ReplySender};

const MAX_BATCH: usize = 256;
const MAX_BATCH_BYTES: usize = 1024 * 1024;

/// A stream after both hellos.
pub(super) struct Stream {
    pub(super) to_node: mpsc::Sender<DriverMessage>,
    pub(super) from_node: Streaming<NodeMessage>,
    /// What the node's hello said.
    pub(super) incarnation: Incarnation,
}

/// Carries requests and answers until the stream breaks; returns why. Everything that was sent and
/// not answered fails as broken.
pub(super) async fn run(
    outgoing: &mut mpsc::Receiver<Outgoing>,
    stream: Stream,
    node: &str,
) -> String {
    let in_flight = Mutex::new(InFlight {
        incarnation: stream.incarnation,
        ..InFlight::default()
    });
    let reason = tokio::select! {
        reason = write(outgoing, stream.to_node, &in_flight, stream.incarnation) => reason,
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
    /// Of the data behind the stream.
    incarnation: Incarnation,
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
            let _ = reply.send(Ok(Answered {
                outcome,
                incarnation: self.incarnation,
            }));
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

/// What a request of a session is answered here, when the data behind the stream is not the
/// session's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Instead {
    /// The store has begun again.
    SessionLost,
    /// The node has missed that the store has begun again.
    NotSent,
}

impl Instead {
    fn of(session_of: Incarnation, here: Incarnation) -> Option<Self> {
        if session_of == 0 || here == 0 {
            return None;
        }
        match session_of.cmp(&here) {
            Ordering::Less => Some(Self::SessionLost),
            Ordering::Equal => None,
            Ordering::Greater => Some(Self::NotSent),
        }
    }

    fn answer(self, here: Incarnation) -> Result<Answered, LinkError> {
        match self {
            Self::SessionLost => Ok(Answered {
                outcome: response::Outcome::Failure(session_lost()),
                incarnation: here,
            }),
            Self::NotSent => Err(behind()),
        }
    }

    fn answer_keep_alive(self, asked: KeepAlive) -> Result<KeepAliveResponse, LinkError> {
        match self {
            Self::SessionLost => Ok(KeepAliveResponse {
                partition_id: asked.partition_id,
                session: asked.session,
                failure: Some(session_lost()),
            }),
            Self::NotSent => Err(behind()),
        }
    }
}

fn session_lost() -> Failure {
    Failure {
        reason: Reason::SessionLost.into(),
        code: tonic::Code::NotFound.into(),
        message: "the store has begun again, and its sessions with it".to_owned(),
        leader: None,
    }
}

fn behind() -> LinkError {
    LinkError::NotSent("the node holds data of before the store began again".to_owned())
}

async fn write(
    outgoing: &mut mpsc::Receiver<Outgoing>,
    to_node: mpsc::Sender<DriverMessage>,
    in_flight: &Mutex<InFlight>,
    here: Incarnation,
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
                Outgoing::Request(request, session_of, reply) => {
                    if reply.is_closed() {
                        continue;
                    }
                    if let Some(instead) = Instead::of(session_of, here) {
                        let _ = reply.send(instead.answer(here));
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
                    for (keep_alive, session_of, reply) in keep_alives {
                        if let Some(instead) = Instead::of(session_of, here) {
                            let _ = reply.send(instead.answer_keep_alive(keep_alive));
                            continue;
                        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_never_sent_to_data_of_another_incarnation() {
        for (session_of, here, expected) in [
            (0, 0, None),
            (0, 3, None),
            (3, 0, None),
            (3, 3, None),
            (2, 3, Some(Instead::SessionLost)),
            (4, 3, Some(Instead::NotSent)),
        ] {
            assert_eq!(
                Instead::of(session_of, here),
                expected,
                "a session of {session_of} on a stream of {here}"
            );
        }
    }
}
