//! The way back to a driver: who asked, on which stream.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use atomix_primitives::SessionId;
use atomix_proto::multiraft::v1::{Failure, KeepAliveResponse, Response, response};
use tokio::sync::mpsc;

use crate::partition::unknown_outcome;

/// Something to send to a driver.
#[derive(Debug)]
pub(crate) enum Answer {
    Response(Response),
    KeepAlive(KeepAliveResponse),
}

/// One stream's answers. Its queue holds at most one answer for each request in flight, and those
/// are limited.
#[derive(Debug)]
pub(crate) struct Outbox {
    sender: mpsc::UnboundedSender<Answer>,
    in_flight: AtomicUsize,
}

impl Outbox {
    pub(crate) fn new() -> (Arc<Self>, mpsc::UnboundedReceiver<Answer>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let outbox = Self {
            sender,
            in_flight: AtomicUsize::new(0),
        };
        (Arc::new(outbox), receiver)
    }

    /// Requests that are not answered, or whose answers are not sent yet.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub(crate) fn sent(&self, answers: usize) {
        self.in_flight.fetch_sub(answers, Ordering::Relaxed);
    }

    fn begin(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    fn push(&self, answer: Answer) {
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
}
