//! Applying one entry: the commands, the timers and whoever waits for a key.

use std::collections::VecDeque;
use std::time::Duration;

use atomix_proto::multiraft::v1::{OpenSession, command::Command};
use bytes::Bytes;

use crate::context::draw;
use crate::error::OperationError;
use crate::events::EventRing;
use crate::ids::{EventPosition, Key, OperationId, PrimitiveKey, Sequence, SessionId, duration};
use crate::kinds::Kinds;
use crate::output::{Applied, Outcome};
use crate::session::Session;
use crate::state::State;

/// More numbers than any entries that a recovered member can lack have drawn.
const RECOVERY_GAP: u64 = 1 << 32;

pub(super) struct Run<'a> {
    pub(super) kinds: &'a Kinds,
    pub(super) state: &'a mut State,
    pub(super) wall_time_millis: u64,
    pub(super) output: Applied,
    /// Keys whose intent has ended and whose waiting operations have not run again yet.
    pub(super) freed: VecDeque<(PrimitiveKey, Key)>,
}

impl<'a> Run<'a> {
    pub(super) fn new(kinds: &'a Kinds, state: &'a mut State, wall_time_millis: u64) -> Self {
        Self {
            kinds,
            state,
            wall_time_millis,
            output: Applied::default(),
            freed: VecDeque::new(),
        }
    }

    /// Moves the time and fires what is due before any command, so that no command sees what should
    /// be gone.
    pub(super) fn advance(&mut self, time: Duration) {
        self.state.time = self.state.time.max(time);
        // These are the timers as they were set before this entry: timers that set timers cannot keep
        // the entry from ending.
        for id in self.state.timers.due(self.state.time) {
            let Some(timer) = self.state.timers.take(id) else {
                continue;
            };
            if let Some(instance) = self.state.primitives.get_mut(&timer.primitive) {
                instance.timers = instance.timers.saturating_sub(1);
            }
            self.call_existing(&timer.primitive, |primitive, context| {
                primitive.timer(id, &timer.tag, context);
            });
            self.run_waiting();
        }
    }

    pub(super) fn command(&mut self, command: &Command) -> Outcome {
        let outcome = match command {
            Command::OpenSession(open) => self.open_session(open),
            Command::CloseSession(close) => {
                self.end_session(SessionId(close.session));
                Outcome::Done
            }
            Command::ExpireSessions(expire) => {
                for session in &expire.sessions {
                    self.end_session(SessionId(*session));
                    self.run_waiting();
                }
                Outcome::Done
            }
            Command::Operate(operate) => self.operate(operate),
            Command::Cancel(cancel) => self.cancel(OperationId {
                session: SessionId(cancel.session),
                sequence: Sequence(cancel.sequence),
            }),
            Command::ReleaseOwner(release) => self.release_owner(release),
            // The time has moved and the timers have fired at the beginning of the entry.
            Command::Tick(_) => Outcome::Done,
            Command::SetLimits(limits) => {
                self.state.limits.set(limits);
                self.state.events.trim(&self.state.limits);
                Outcome::Done
            }
            Command::RaiseVersion(raise) => {
                let active = &mut self.state.active_version;
                *active = raise.active_version.max(*active);
                Outcome::Done
            }
            Command::Recovered(_) => {
                self.recovered();
                Outcome::Done
            }
        };
        self.run_waiting();
        outcome
    }

    fn open_session(&mut self, open: &OpenSession) -> Outcome {
        if open.timeout_nanos == 0 {
            let message = "timeout_nanos: it is 0; a session needs a timeout";
            return Outcome::Reply(Err(OperationError::invalid(message)));
        }
        let id = SessionId(draw(&mut self.state.counter));
        let session = Session::new(duration(open.timeout_nanos), &open.client);
        self.state.sessions.insert(id, session);
        Outcome::Session(id)
    }

    /// Passes over every number that lost entries may have given out, then ends all sessions: what
    /// their end hands to others is numbered above. Whoever follows events from before may have been
    /// told some that are lost now, and must read again.
    fn recovered(&mut self) {
        let counter = &mut self.state.counter;
        *counter = counter.saturating_add(RECOVERY_GAP);
        let lost = EventPosition::after_operation(*counter - 1);
        self.state.events = EventRing::restored(Some(lost));
        let sessions: Vec<SessionId> = self.state.sessions.keys().copied().collect();
        for session in sessions {
            self.end_session(session);
            self.run_waiting();
        }
    }

    /// Runs the operations again that waited for keys whose intent has ended. It ends: an operation
    /// that frees a key never waits for another, so each round has fewer operations waiting.
    pub(super) fn run_waiting(&mut self) {
        while let Some((primitive, key)) = self.freed.pop_front() {
            for (number, operation) in self.parked_for(&primitive, &key) {
                self.run_parked(&primitive, &key, number, operation);
            }
        }
    }

    fn parked_for(&self, primitive: &PrimitiveKey, key: &Bytes) -> Vec<(u64, OperationId)> {
        let Some(instance) = self.state.primitives.get(primitive) else {
            return Vec::new();
        };
        instance
            .parked
            .range((key.clone(), 0)..=(key.clone(), u64::MAX))
            .map(|((_, number), operation)| (*number, *operation))
            .collect()
    }
}
