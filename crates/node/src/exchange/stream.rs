//! One driver's stream: the hello, requests in, batched answers out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use atomix_primitives::SessionId;
use atomix_process::grpc::next_message;
use atomix_proto::multiraft::v1::response::Outcome;
use atomix_proto::multiraft::v1::{
    DriverHello, DriverMessage, Failure, KeepAlive, NodeHello, NodeMessage, Request, Response,
};
use atomix_raft::PartitionId;
use prost::Message as _;
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::ticket::{Answer, KeepAliveTicket, Outbox, Ticket};
use crate::grpc::{HELLO_TIMEOUT, MAX_NODE_MESSAGE};
use crate::hosted::Hosted;
use crate::partition::{Partition, exhausted, not_leader, unavailable, wrong_store};

/// The protocol version that this node speaks.
const VERSION: u32 = 1;
/// Requests of one stream that may be in flight.
const MAX_IN_FLIGHT: usize = 65_536;
/// Answers of one message.
const MESSAGE_ANSWERS: usize = 1024;
/// A message ends at this many bytes, or with one answer.
const MESSAGE_BYTES: usize = 1 << 20;
/// What one answer may have, so that a message that holds others already can be sent.
const MAX_RESPONSE_BYTES: usize = MAX_NODE_MESSAGE - 2 * MESSAGE_BYTES;

/// Sessions of before are unknown now, and their ids come again: the driver must learn of it first.
const BEGUN_AGAIN: &str = "the data on this node is of another incarnation than when the stream \
                           began; connect again";

type Sender = mpsc::Sender<Result<NodeMessage, Status>>;

/// Serves one stream until the driver ends it.
pub(super) async fn serve(
    hosted: Arc<Hosted>,
    mut incoming: Streaming<DriverMessage>,
    sender: Sender,
) -> Result<(), Status> {
    let first = tokio::time::timeout(HELLO_TIMEOUT, next_message(&mut incoming)).await;
    let first = first
        .map_err(|_| Status::deadline_exceeded(format!("no hello within {HELLO_TIMEOUT:?}")))?;
    let Some(first) = first? else {
        return Ok(());
    };
    let DriverMessage {
        hello,
        requests,
        keep_alives,
    } = first;
    let hello = hello.ok_or_else(|| {
        Status::failed_precondition("the first message of a stream must be the hello")
    })?;
    check_version(&hello)?;
    let incarnation = hosted.incarnation();
    check_incarnation(&hello, incarnation)?;
    tracing::debug!(driver_version = hello.driver_version, "a driver connected");
    let greeting = NodeMessage {
        hello: Some(own_hello(&hosted, incarnation)),
        ..NodeMessage::default()
    };
    if sender.send(Ok(greeting)).await.is_err() {
        return Ok(());
    }

    let (outbox, answers) = Outbox::new();
    let driver = Driver {
        hosted,
        outbox: Arc::clone(&outbox),
        store_uid: hello.store_uid,
        incarnation,
        is_outdated: AtomicBool::new(false),
    };
    driver.take(requests, keep_alives);
    let reading = async {
        loop {
            if driver.is_outdated.load(Ordering::Relaxed) {
                driver.outbox.all_sent().await;
                return Err(Status::unavailable(BEGUN_AGAIN));
            }
            let Some(message) = next_message(&mut incoming).await? else {
                return Ok(());
            };
            driver.take(message.requests, message.keep_alives);
            driver.outbox.has_room().await;
        }
    };
    tokio::select! {
        ended = reading => ended,
        () = write(answers, outbox, sender) => Ok(()),
    }
}

fn check_version(hello: &DriverHello) -> Result<(), Status> {
    if (hello.min_version..=hello.max_version).contains(&VERSION) {
        return Ok(());
    }
    Err(Status::failed_precondition(format!(
        "this node speaks version {VERSION}, the driver {} to {}",
        hello.min_version, hello.max_version
    )))
}

/// A node that missed that the store began again must not serve whoever knows it.
fn check_incarnation(hello: &DriverHello, incarnation: u64) -> Result<(), Status> {
    if incarnation == 0 || hello.incarnation <= incarnation {
        return Ok(());
    }
    Err(Status::failed_precondition(format!(
        "this node holds data of incarnation {incarnation}, but the store has begun again and is at \
         {}; ask another node",
        hello.incarnation
    )))
}

fn own_hello(hosted: &Hosted, incarnation: u64) -> NodeHello {
    let leaders = hosted
        .all()
        .into_iter()
        .filter_map(|partition| partition.leader());
    NodeHello {
        version: VERSION,
        store_uid: hosted.store_uid().to_string(),
        node_id: hosted.node_id().0,
        node_version: env!("CARGO_PKG_VERSION").to_owned(),
        // A node knows its own partitions only: the store has at least so many.
        partitions: hosted.highest_partition(),
        leaders: leaders.collect(),
        incarnation,
    }
}

struct Driver {
    hosted: Arc<Hosted>,
    outbox: Arc<Outbox>,
    /// The store that the driver means; empty = whichever is here.
    store_uid: String,
    /// What the driver was told: the only incarnation that this stream serves.
    incarnation: u64,
    /// Another incarnation was found here.
    is_outdated: AtomicBool,
}

impl Driver {
    fn take(&self, requests: Vec<Request>, keep_alives: Vec<KeepAlive>) {
        for request in requests {
            self.request(request);
        }
        for keep_alive in keep_alives {
            self.keep_alive(keep_alive);
        }
    }

    fn request(&self, request: Request) {
        let ticket = Ticket::new(request.id, &self.outbox);
        if self.outbox.in_flight() > MAX_IN_FLIGHT {
            // Not the operation's own answer: an earlier attempt may be in the log.
            return ticket.fail(unavailable(format!(
                "more than {MAX_IN_FLIGHT} requests are in flight on one stream"
            )));
        }
        match self.partition(request.partition_id) {
            Ok(partition) => partition.request(request, ticket),
            Err(failure) => ticket.fail(failure),
        }
    }

    fn keep_alive(&self, keep_alive: KeepAlive) {
        let KeepAlive {
            partition_id,
            session,
        } = keep_alive;
        let session = SessionId(session);
        let ticket = KeepAliveTicket::new(partition_id, session, &self.outbox);
        match self.partition(partition_id) {
            Ok(partition) => partition.keep_alive(session, ticket),
            Err(failure) => ticket.answer(Some(failure)),
        }
    }

    /// The partition that the driver means, of the data that it means.
    fn partition(&self, id: u32) -> Result<Arc<Partition>, Failure> {
        let store_uid = self.hosted.store_uid();
        if !self.store_uid.is_empty() && self.store_uid != *store_uid {
            return Err(wrong_store(&store_uid));
        }
        let Some(partition) = self.hosted.get(PartitionId(id)) else {
            return Err(unknown_partition(&self.hosted, id));
        };
        if partition.record().incarnation != self.incarnation {
            self.is_outdated.store(true, Ordering::Relaxed);
            return Err(unavailable(BEGUN_AGAIN));
        }
        Ok(partition)
    }
}

/// A partition whose member moved away has a leader elsewhere. Else the message names what is hosted
/// here: a driver with another number of partitions in its
/// configuration than the store has passes it on to whoever can correct that.
fn unknown_partition(hosted: &Hosted, partition: u32) -> Failure {
    if let Some(leader) = hosted.moved_to(PartitionId(partition)) {
        return not_leader(Some(leader));
    }
    crate::partition::unknown_partition(partition, hosted.highest_partition())
}

/// Sends answers, as many in one message as there are.
async fn write(mut answers: mpsc::UnboundedReceiver<Answer>, outbox: Arc<Outbox>, sender: Sender) {
    let mut batch = Vec::new();
    while answers.recv_many(&mut batch, MESSAGE_ANSWERS).await > 0 {
        let count = batch.len();
        let mut message = NodeMessage::default();
        let mut bytes = 0;
        for answer in batch.drain(..) {
            if bytes >= MESSAGE_BYTES {
                if sender.send(Ok(std::mem::take(&mut message))).await.is_err() {
                    return;
                }
                bytes = 0;
            }
            match answer {
                Answer::Response(response) => {
                    let response = fitting(response);
                    bytes += response.encoded_len();
                    message.responses.push(response);
                }
                Answer::KeepAlive(keep_alive) => {
                    bytes += keep_alive.encoded_len();
                    message.keep_alives.push(keep_alive);
                }
            }
        }
        if sender.send(Ok(message)).await.is_err() {
            return;
        }
        outbox.sent(count);
    }
}

/// The response, or that it is too large: a message that cannot be sent would end the stream, and
/// all that is in flight on it.
fn fitting(response: Response) -> Response {
    let bytes = response.encoded_len();
    if bytes <= MAX_RESPONSE_BYTES {
        return response;
    }
    let message = format!(
        "the answer has {bytes} bytes, and may have {MAX_RESPONSE_BYTES}; keep less in one \
         primitive's key, or change less at once"
    );
    Response {
        outcome: Some(Outcome::Failure(exhausted(message))),
        ..response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_no_message_can_hold_becomes_a_refusal() {
        for (bytes, is_sent) in [(1 << 20, true), (13 << 20, true), (17 << 20, false)] {
            let response = fitting(Response {
                id: 7,
                outcome: Some(Outcome::Reply(vec![0; bytes].into())),
            });
            assert_eq!(response.id, 7);
            assert!(response.encoded_len() <= MAX_RESPONSE_BYTES);
            assert_eq!(matches!(response.outcome, Some(Outcome::Reply(_))), is_sent);
        }
    }
}
