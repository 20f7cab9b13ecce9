//! What drivers ask for: checked, and queued for the proposer or the reader. Nothing here blocks.

use std::time::Duration;

use atomix_primitives::{Access, SessionId};
use atomix_proto::multiraft::v1::{Failure, Operate, Operation, Request, command, request};
use prost::Message as _;

use super::Partition;
use super::answers::{self, Asker, exhausted, protocol};
use super::queues::{Proposal, Read};
use crate::exchange::{KeepAliveTicket, Ticket};

/// One operation's request message.
const MAX_REQUEST_BYTES: usize = 1 << 20;
const SESSION_TIMEOUTS: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(24 * 3600);

impl Partition {
    /// Takes a driver's request. Never blocks.
    pub(crate) fn request(&self, request: Request, ticket: Ticket) {
        let Request {
            id: _,
            partition_id: _,
            body,
        } = request;
        let Some(body) = body else {
            return ticket.fail(protocol("a request that this version does not know"));
        };
        let command = match body {
            request::Body::Query(query) => return self.query(query.operation, ticket),
            request::Body::FollowEvents(asked) => return self.follow_events(asked, ticket),
            request::Body::Operate(operate) => {
                if let Err(failure) = self.check_operate(&operate) {
                    return ticket.fail(failure);
                }
                self.touch(SessionId(operate.session));
                command::Command::Operate(operate)
            }
            request::Body::OpenSession(open) => {
                let timeout = Duration::from_nanos(open.timeout_nanos);
                if !SESSION_TIMEOUTS.contains(&timeout) {
                    return ticket.fail(invalid("timeout_nanos: must be 100 ms to 24 h"));
                }
                if open.client.len() > 256 {
                    return ticket.fail(invalid("client: is longer than 256 bytes"));
                }
                command::Command::OpenSession(open)
            }
            request::Body::CloseSession(close) => command::Command::CloseSession(close),
            request::Body::Cancel(cancel) => command::Command::Cancel(cancel),
            request::Body::ReleaseOwner(release) => command::Command::ReleaseOwner(release),
        };
        self.inner.proposals.push(Proposal {
            command,
            asker: Asker::Driver(ticket),
        });
    }

    /// Takes a driver's keep-alive. Never blocks.
    pub(crate) fn keep_alive(&self, session: SessionId, ticket: KeepAliveTicket) {
        // Counted from the arrival, before anything is waited for.
        self.touch(session);
        self.inner.reads.push(Read::KeepAlive { session, ticket });
    }

    fn query(&self, operation: Option<Operation>, ticket: Ticket) {
        let Some(operation) = operation else {
            return ticket.fail(protocol("operation: it is missing"));
        };
        if let Err(failure) = self.check(&operation, Access::Read) {
            return ticket.fail(failure);
        }
        self.inner.reads.push(Read::Query { operation, ticket });
    }

    fn check_operate(&self, operate: &Operate) -> Result<(), Failure> {
        if operate.sequence == 0 {
            return Err(invalid("sequence: must be at least 1"));
        }
        let Some(operation) = &operate.operation else {
            return Err(invalid("operation: it is missing"));
        };
        self.check(operation, Access::Write)
    }

    fn check(&self, operation: &Operation, expected: Access) -> Result<(), Failure> {
        if operation.encoded_len() > MAX_REQUEST_BYTES {
            return Err(exhausted(format!(
                "the operation is larger than {MAX_REQUEST_BYTES} bytes"
            )));
        }
        let kinds = &self.inner.kinds;
        kinds
            .validate(operation)
            .map_err(|error| answers::operation(&error))?;
        let access = kinds
            .access(operation)
            .map_err(|error| answers::operation(&error))?;
        if access != expected {
            return Err(invalid(match expected {
                Access::Read => "method: it writes; send it as an operation of a session",
                Access::Write => "method: it only reads; send it as a query",
            }));
        }
        Ok(())
    }

    fn touch(&self, session: SessionId) {
        self.inner
            .leadership
            .with(|term, now| term.deadlines.touch(session, now));
    }
}

fn invalid(message: &str) -> Failure {
    answers::operation(&atomix_primitives::OperationError::invalid(message))
}
