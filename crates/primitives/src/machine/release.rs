//! Ends: a cancelled operation, an owner that is gone, a session that is gone.

use atomix_proto::multiraft::v1::ReleaseOwner;

use crate::error::{ErrorCode, OperationError};
use crate::ids::{OperationId, Owner, OwnerNumber, PrimitiveKey, Sequence, SessionId};
use crate::kind::Released;
use crate::output::{Completed, Outcome};
use crate::session::{Entry, Known, Waiting};

use super::run::Run;

impl Run<'_> {
    /// Withdraws a waiting operation, or what it was granted in a race. One that has not come yet
    /// will not be applied when it does.
    pub(super) fn cancel(&mut self, id: OperationId) -> Outcome {
        let Some(session) = self.state.sessions.get(&id.session) else {
            return Outcome::SessionLost;
        };
        let entry = match session.look_up(id.sequence) {
            Known::Forgotten => return Outcome::Done,
            Known::Recorded(entry) => Some(entry.clone()),
            Known::New => None,
        };
        match entry {
            None if session.is_overrun(&self.state.limits) => {
                self.end_session(id.session);
                return Outcome::SessionLost;
            }
            None => {
                let _recorded = self.record(id, None, Err(cancelled()));
            }
            Some(Entry::Waiting(waiting)) => {
                self.withdraw(id, &waiting);
                let _recorded = self.record(id, Some(&waiting.primitive), Err(cancelled()));
            }
            Some(Entry::Done(done)) => {
                let Some(key) = done.primitive else {
                    return Outcome::Done;
                };
                let given_back = self.cancel_in(&key, id);
                if given_back {
                    let _recorded = self.record(id, Some(&key), Err(cancelled()));
                }
            }
        }
        Outcome::Done
    }

    /// Takes a waiting operation from wherever it waits and tells whoever listens.
    pub(super) fn withdraw(&mut self, id: OperationId, waiting: &Waiting) {
        match &waiting.parked {
            Some(parked) => {
                self.unpark(&waiting.primitive, &parked.key, parked.number);
                self.state.settle(&waiting.primitive);
            }
            None => {
                self.cancel_in(&waiting.primitive, id);
            }
        }
        self.output.completed.push(Completed {
            session: id.session,
            sequence: id.sequence,
            result: Err(cancelled()),
        });
    }

    pub(super) fn cancel_in(&mut self, key: &PrimitiveKey, id: OperationId) -> bool {
        let owns = self
            .state
            .primitives
            .get(key)
            .is_some_and(|instance| instance.primitive().owns());
        owns && self
            .call_existing(key, |primitive, context| primitive.cancel(id, context))
            .unwrap_or(false)
    }

    /// Gives up what one application connection has, in one primitive or in all of them; its waiting
    /// operations first. A command that comes again, or late, gives up nothing that was taken since.
    pub(super) fn release_owner(&mut self, release: &ReleaseOwner) -> Outcome {
        let (id, number) = (SessionId(release.session), OwnerNumber(release.owner));
        let Some(session) = self.state.sessions.get(&id) else {
            return Outcome::SessionLost;
        };
        let is_meant = |key: &PrimitiveKey| {
            let is_it = key.kind == release.kind && *key.name == *release.primitive;
            release.kind.is_empty() || is_it
        };
        let through = match release.through {
            0 => Sequence(u64::MAX),
            through => Sequence(through),
        };
        let waiting: Vec<(Sequence, Waiting)> = session
            .waiting()
            .take_while(|(sequence, _)| *sequence <= through)
            .filter(|(_, waiting)| waiting.owner == Some(number) && is_meant(&waiting.primitive))
            .map(|(sequence, waiting)| (sequence, waiting.clone()))
            .collect();
        for (sequence, waiting) in waiting {
            let operation = OperationId {
                session: id,
                sequence,
            };
            self.withdraw(operation, &waiting);
            let _recorded = self.record(operation, Some(&waiting.primitive), Err(cancelled()));
        }
        let owner = Owner {
            session: id,
            number,
        };
        self.release(id, Released::Owner { owner, through }, is_meant);
        Outcome::Done
    }

    /// Ends a session with all that it owns. Nothing happens when it does not exist (any more).
    pub(super) fn end_session(&mut self, id: SessionId) {
        let Some(session) = self.state.sessions.remove(&id) else {
            return;
        };
        for (sequence, waiting) in session.waiting() {
            let operation = OperationId {
                session: id,
                sequence,
            };
            match &waiting.parked {
                Some(parked) => {
                    self.unpark(&waiting.primitive, &parked.key, parked.number);
                    self.state.settle(&waiting.primitive);
                }
                None => {
                    self.cancel_in(&waiting.primitive, operation);
                }
            }
            self.output.completed.push(Completed {
                session: id,
                sequence,
                result: Err(session_lost()),
            });
        }
        self.release(id, Released::Session(id), |_| true);
        for key in self.state.touched_by(id) {
            self.state.touched.remove(&(id, key.clone()));
            if let Some(instance) = self.state.primitives.get_mut(&key) {
                instance.sessions.remove(&id);
            }
        }
        self.output.ended_sessions.push(id);
    }

    /// Calls into every primitive that is meant and where the session may own something, in their
    /// order.
    fn release(
        &mut self,
        session: SessionId,
        released: Released,
        is_meant: impl Fn(&PrimitiveKey) -> bool,
    ) {
        let mut touched = self.state.touched_by(session);
        touched.retain(|key| is_meant(key));
        for key in touched {
            self.call_existing(&key, |primitive, context| {
                primitive.release(released, context);
            });
        }
    }
}

fn cancelled() -> OperationError {
    OperationError::new(ErrorCode::Cancelled, "the operation was withdrawn")
}

fn session_lost() -> OperationError {
    OperationError::new(
        ErrorCode::Unknown,
        "the session ended while the operation waited",
    )
}
