//! The way back to a driver: who asked, on which stream.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use atomix_primitives::SessionId;
use atomix_proto::multiraft::v1::{Failure, KeepAliveResponse, Response, response};
use tokio::sync::{Notify, mpsc};

use crate::partition::unknown_outcome;

/// Something to send to a driver.
#[derive(Debug)]
pub(crate) enum Answer {
    Response(Response),
    KeepAlive(KeepAliveResponse),
}

/// Answers of one stream that wait for the driver to take them. With more, no request is read.
const MAX_UNSENT: usize = 65_536;

/// One stream's answers. Its queue holds at most one answer for each request in flight; those are
/// limited, and what is refused beyond the limit is answered only as fast as the driver reads.
#[derive(Debug)]
pub(crate) struct Outbox {
    sender: mpsc::UnboundedSender<Answer>,
    /// Requests that are not answered, or whose answers are not sent yet.
    in_flight: AtomicUsize,
    /// Answers that are not sent yet.
    unsent: AtomicUsize,
    /// Answers were sent.
    sent: Notify,
}

impl Outbox {
    pub(crate) fn new() -> (Arc<Self>, mpsc::UnboundedReceiver<Answer>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let outbox = Self {
            sender,
            in_flight: AtomicUsize::new(0),
            unsent: AtomicUsize::new(0),
            sent: Notify::new(),
        };
        (Arc::new(outbox), receiver)
    }

    /// Requests that are not answered, or whose answers are not sent yet.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub(crate) fn sent(&self, answers: usize) {
        self.in_flight.fetch_sub(answers, Ordering::Relaxed);
        self.unsent.fetch_sub(answers, Ordering::Relaxed);
        self.sent.notify_waiters();
    }

    /// Returns when the driver has taken enough of its answers. What merely waits, perhaps for
    /// another request of the same stream, holds nothing up.
    pub(crate) async fn has_room(&self) {
        self.unsent_at_most(MAX_UNSENT).await;
    }

    /// Returns when the driver has taken all answers that there are.
    pub(crate) async fn all_sent(&self) {
        self.unsent_at_most(0).await;
    }

    async fn unsent_at_most(&self, limit: usize) {
        loop {
            let sent = self.sent.notified();
            tokio::pin!(sent);
            // Before the look, so that nothing sent after it is missed.
            sent.as_mut().enable();
            if self.unsent.load(Ordering::Relaxed) <= limit {
                return;
            }
            sent.await;
        }
    }

    fn begin(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    fn push(&self, answer: Answer) {
        self.unsent.fetch_add(1, Ordering::Relaxed);
        // The stream may have ended.
        let _ = self.sender.send(answer);
    }
}

/// One request; it is answered exactly once. A ticket that is dropped answers that the outcome is
/// unknown.
#[derive(Debug)]
pub(crate) struct Ticket {
    id: u64,
    outbox: Option<Arc<Outbox>>,
}

impl Ticket {
    pub(crate) fn new(id: u64, outbox: &Arc<Outbox>) -> Self {
        outbox.begin();
        Self {
            id,
            outbox: Some(Arc::clone(outbox)),
        }
    }

    pub(crate) fn answer(mut self, outcome: response::Outcome) {
        self.send(outcome);
    }

    pub(crate) fn fail(self, failure: Failure) {
        self.answer(response::Outcome::Failure(failure));
    }

    fn send(&mut self, outcome: response::Outcome) {
        if let Some(outbox) = self.outbox.take() {
            outbox.push(Answer::Response(Response {
                id: self.id,
                outcome: Some(outcome),
            }));
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.send(response::Outcome::Failure(unknown_outcome(
            "the partition stopped",
        )));
    }
}

/// One keep-alive; it is answered at most once.
#[derive(Debug)]
pub(crate) struct KeepAliveTicket {
    partition: u32,
    session: SessionId,
    outbox: Option<Arc<Outbox>>,
}

impl KeepAliveTicket {
    pub(crate) fn new(partition: u32, session: SessionId, outbox: &Arc<Outbox>) -> Self {
        outbox.begin();
        Self {
            partition,
            session,
            outbox: Some(Arc::clone(outbox)),
        }
    }

    /// `None` = the session is alive.
    pub(crate) fn answer(mut self, failure: Option<Failure>) {
        self.send(failure);
    }

    fn send(&mut self, failure: Option<Failure>) {
        if let Some(outbox) = self.outbox.take() {
            outbox.push(Answer::KeepAlive(KeepAliveResponse {
                partition_id: self.partition,
                session: self.session.0,
                failure,
            }));
        }
    }
}

impl Drop for KeepAliveTicket {
    fn drop(&mut self) {
        self.send(Some(unknown_outcome("the partition stopped")));
    }
}

#[cfg(test)]
mod tests {
    use atomix_proto::multiraft::v1::failure::Reason;

    use super::*;

    #[test]
    fn a_dropped_ticket_answers_that_the_outcome_is_unknown() {
        let (outbox, mut answers) = Outbox::new();
        drop(Ticket::new(7, &outbox));
        Ticket::new(8, &outbox).answer(response::Outcome::Session(5));
        assert_eq!(outbox.in_flight(), 2);

        let first = answers.try_recv();
        assert!(
            matches!(
                &first,
                Ok(Answer::Response(Response {
                    id: 7,
                    outcome: Some(response::Outcome::Failure(failure)),
                })) if failure.reason() == Reason::OutcomeUnknown
            ),
            "{first:?}"
        );
        let second = answers.try_recv();
        assert!(
            matches!(
                &second,
                Ok(Answer::Response(Response {
                    id: 8,
                    outcome: Some(response::Outcome::Session(5)),
                }))
            ),
            "{second:?}"
        );
        assert!(answers.try_recv().is_err(), "an answer is sent once");
        outbox.sent(2);
        assert_eq!(outbox.in_flight(), 0);
    }

    #[tokio::test]
    async fn answers_that_nobody_takes_hold_up_reading_and_waiting_requests_do_not() {
        let (outbox, _answers) = Outbox::new();
        let mut waiting: Vec<_> = (0..=MAX_UNSENT as u64)
            .map(|id| Ticket::new(id, &outbox))
            .collect();
        outbox.has_room().await;
        waiting.clear();
        let mut room = Box::pin(outbox.has_room());
        assert!(futures::poll!(&mut room).is_pending());
        outbox.sent(1);
        room.await;
    }
}
