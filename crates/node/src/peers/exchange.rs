//! An open stream: sends messages and pairs their replies with them until it ends.

use std::collections::HashMap;
use std::time::Duration;

use atomix_process::grpc::next_message;
use atomix_proto::multiraft::v1::{PeerFrame, peer_frame::Body};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::Streaming;

use super::processes::PeerProcess;
use super::queue::{Lost, Outgoing, ReplySender, Room};

/// Frames that wait for the connection.
pub(super) const FRAMES: usize = 256;

/// A frame on its way out, and the room that it takes until it is there.
pub(super) type Leaving = (PeerFrame, Option<Room>);

/// A stream after both hellos.
pub(super) struct Exchange {
    to_node: mpsc::Sender<Leaving>,
    from_node: Streaming<PeerFrame>,
    process: PeerProcess,
    waiting: Waiting,
}

/// Why a stream ended.
pub(super) enum Ended {
    /// Nothing used it for long.
    Unused,
    Broken(String),
}

/// Messages that wait for their replies.
#[derive(Default)]
struct Waiting {
    replies: HashMap<u64, ReplySender>,
    next_id: u64,
    prune_at: usize,
}

impl Waiting {
    fn add(&mut self, reply: ReplySender) -> u64 {
        self.next_id += 1;
        if self.replies.len() >= self.prune_at.max(1024) {
            // Whoever timed out does not wait any more.
            self.replies.retain(|_, reply| !reply.is_closed());
            self.prune_at = self.replies.len() * 2;
        }
        self.replies.insert(self.next_id, reply);
        self.next_id
    }

    /// Whether it was a reply that somebody might wait for.
    fn complete(&mut self, frame: PeerFrame) -> bool {
        let Some(Body::Reply(reply)) = frame.body else {
            return false;
        };
        let Some(waiter) = self.replies.remove(&frame.correlation_id) else {
            return false;
        };
        // Whoever waited may have given up.
        let _ = waiter.send(Ok(reply));
        true
    }
}

impl Exchange {
    pub(super) fn new(
        to_node: mpsc::Sender<Leaving>,
        from_node: Streaming<PeerFrame>,
        process: PeerProcess,
    ) -> Self {
        Self {
            to_node,
            from_node,
            process,
            waiting: Waiting::default(),
        }
    }

    /// Carries messages until the stream breaks, or nothing was sent for `idle`. `replied` is called
    /// with the first reply.
    pub(super) async fn run(
        mut self,
        first: Option<Outgoing>,
        queue: &mut mpsc::Receiver<Outgoing>,
        idle: Duration,
        replied: impl FnMut(),
    ) -> Ended {
        let ended = self.carry(first, queue, idle, replied).await;
        let reason = match &ended {
            Ended::Unused => "nothing used the stream",
            Ended::Broken(reason) => reason,
        };
        for (_, reply) in self.waiting.replies {
            // Whoever waited may have given up.
            let _ = reply.send(Err(Lost::NoReply(reason.to_owned())));
        }
        ended
    }

    async fn carry(
        &mut self,
        first: Option<Outgoing>,
        queue: &mut mpsc::Receiver<Outgoing>,
        idle: Duration,
        mut replied: impl FnMut(),
    ) -> Ended {
        let Self {
            to_node,
            from_node,
            process,
            waiting,
        } = self;
        let mut next = first;
        let mut has_replied = false;
        let mut used = Instant::now();
        let idle_check = tokio::time::sleep_until(used + idle);
        tokio::pin!(idle_check);
        loop {
            tokio::select! {
                biased;
                stale = process.replaced() => return Ended::Broken(stale.to_string()),
                // Replies are taken while a message waits, or two full streams would wait for each
                // other.
                frame = next_message(from_node) => match frame {
                    Ok(Some(frame)) => {
                        if waiting.complete(frame) && !has_replied {
                            has_replied = true;
                            replied();
                        }
                    }
                    Ok(None) => return Ended::Broken("the node ended it".to_owned()),
                    Err(status) => return Ended::Broken(describe(&status)),
                },
                place = to_node.reserve(), if next.is_some() => {
                    let Ok(place) = place else {
                        return Ended::Broken("the stream was closed".to_owned());
                    };
                    if let Some(Outgoing { message, reply, room }) = next.take() {
                        let frame = PeerFrame {
                            correlation_id: waiting.add(reply),
                            body: Some(Body::Message(message)),
                        };
                        place.send((frame, Some(room)));
                        used = Instant::now();
                    }
                }
                outgoing = queue.recv(), if next.is_none() => match outgoing {
                    Some(outgoing) => next = Some(outgoing),
                    None => return Ended::Unused,
                },
                () = &mut idle_check, if next.is_none() => {
                    if used.elapsed() >= idle {
                        return Ended::Unused;
                    }
                    idle_check.as_mut().reset(used + idle);
                }
            }
        }
    }
}

/// A status as a line of a log.
pub(super) fn describe(status: &tonic::Status) -> String {
    format!("{}: {}", status.code(), status.message())
}
