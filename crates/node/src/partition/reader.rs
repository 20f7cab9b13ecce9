//! Answers what needs a confirmed leader but no log entry: queries, keep-alives and positions of events.
//!
//! At most one round is under way; whatever arrives meanwhile shares the next.

use std::sync::Arc;
use std::time::Duration;

use atomix_primitives::SessionId;
use atomix_proto::multiraft::v1::{Failure, Operation, response};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Inner;
use super::answers;
use super::events;
use super::queues::{Queued, Read};
use crate::exchange::{KeepAliveTicket, Ticket};

/// Reads of one round.
const ROUND: usize = 8192;

/// Reads until all senders are gone.
pub(super) async fn run(inner: Arc<Inner>, mut reads: mpsc::Receiver<Queued<Read>>) {
    let mut round = Vec::new();
    while reads.recv_many(&mut round, ROUND).await > 0 {
        let arrived = std::mem::take(&mut round);
        answer(&inner, arrived).await;
    }
}

async fn answer(inner: &Arc<Inner>, round: Vec<Queued<Read>>) {
    let confirmed = match inner.leadership.serve(&inner.group) {
        Ok(now) => confirm(inner, now).await,
        Err(failure) => Err(failure),
    };
    let mut queries = Vec::new();
    let mut keep_alives = Vec::new();
    let mut positions = Vec::new();
    for read in round {
        match read.item {
            Read::Query { operation, ticket } => queries.push((operation, ticket)),
            Read::KeepAlive { session, ticket } => keep_alives.push((session, ticket)),
            Read::Position { ticket } => positions.push(ticket),
        }
    }
    inner.metrics.count_reads(queries.len());
    match confirmed {
        Ok(()) => {
            answer_queries(inner, queries);
            answer_keep_alives(inner, keep_alives);
            answer_positions(inner, positions);
        }
        Err(failure) => {
            for (_, ticket) in queries {
                ticket.fail(failure.clone());
            }
            for (_, ticket) in keep_alives {
                ticket.answer(Some(failure.clone()));
            }
            for ticket in positions {
                ticket.fail(failure.clone());
            }
        }
    }
}

/// Makes sure that this member leads and that its state is at least as new as `now`, with no timer
/// due at `now` left unfired.
async fn confirm(inner: &Arc<Inner>, now: Duration) -> Result<(), Failure> {
    let duties = inner.duties();
    loop {
        duties.fire_timers(now).await?;
        let deadline = Instant::now() + inner.propose_timeout();
        let read = inner.group.linearizable_read(deadline).await;
        read.map_err(|error| {
            let status = inner.group.status();
            answers::from_read(status.partition_id, status.term, error)
        })?;
        // An entry that was under way may have set a timer that is due already.
        let next = inner
            .group
            .with_machine(|machine| machine.state().next_timer());
        if next.is_none_or(|due| due > now) {
            return Ok(());
        }
    }
}

fn answer_queries(inner: &Arc<Inner>, queries: Vec<(Operation, Ticket)>) {
    let mut queries = queries.into_iter();
    loop {
        // In small steps: applying waits meanwhile.
        let step: Vec<_> = queries.by_ref().take(256).collect();
        if step.is_empty() {
            return;
        }
        let replies: Vec<_> = inner.group.with_machine(|machine| {
            let state = machine.state();
            step.iter()
                .map(|(operation, _)| state.query(operation))
                .collect()
        });
        for ((_, ticket), reply) in step.into_iter().zip(replies) {
            ticket.answer(answers::reply(reply));
        }
    }
}

fn answer_keep_alives(inner: &Arc<Inner>, keep_alives: Vec<(SessionId, KeepAliveTicket)>) {
    if keep_alives.is_empty() {
        return;
    }
    let alive: Vec<bool> = inner.group.with_machine(|machine| {
        keep_alives
            .iter()
            .map(|(session, _)| machine.state().session(*session).is_some())
            .collect()
    });
    for ((_, ticket), is_alive) in keep_alives.into_iter().zip(alive) {
        ticket.answer((!is_alive).then(answers::session_lost));
    }
}

fn answer_positions(inner: &Arc<Inner>, positions: Vec<Ticket>) {
    if positions.is_empty() {
        return;
    }
    let position = inner
        .group
        .with_machine(|machine| machine.state().event_position());
    for ticket in positions {
        ticket.answer(response::Outcome::Events(events::none(position)));
    }
}
