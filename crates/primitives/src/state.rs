//! The whole replicated state of a partition. A clone takes constant time and is a snapshot.

use std::time::Duration;

use imbl::{OrdMap, OrdSet};

use crate::events::EventRing;
use crate::ids::{PrimitiveKey, SessionId};
use crate::instance::Instance;
use crate::limits::Limits;
use crate::session::Session;
use crate::timers::TimerTable;

#[derive(Clone)]
pub(crate) struct State {
    pub(crate) applied_index: u64,
    pub(crate) active_version: u32,
    pub(crate) time: Duration,
    /// The only source of versions, tokens, terms, offsets and ids.
    pub(crate) counter: u64,
    pub(crate) limits: Limits,
    pub(crate) sessions: OrdMap<SessionId, Session>,
    pub(crate) primitives: OrdMap<PrimitiveKey, Instance>,
    /// The reverse of `Instance::sessions`.
    pub(crate) touched: OrdSet<(SessionId, PrimitiveKey)>,
    pub(crate) timers: TimerTable,
    pub(crate) events: EventRing,
    /// The sum of `Instance::charged_bytes`.
    pub(crate) primitive_bytes: u64,
}

impl State {
    pub(crate) fn new() -> Self {
        Self {
            applied_index: 0,
            active_version: 1,
            time: Duration::ZERO,
            counter: 0,
            limits: Limits::default(),
            sessions: OrdMap::new(),
            primitives: OrdMap::new(),
            touched: OrdSet::new(),
            timers: TimerTable::default(),
            events: EventRing::default(),
            primitive_bytes: 0,
        }
    }

    /// The primitives in which a session may own something, in order.
    pub(crate) fn touched_by(&self, session: SessionId) -> Vec<PrimitiveKey> {
        let first = PrimitiveKey {
            kind: "",
            name: "".into(),
        };
        self.touched
            .range((session, first)..)
            .take_while(|(holder, _)| *holder == session)
            .map(|(_, primitive)| primitive.clone())
            .collect()
    }

    /// Counts the primitive's bytes anew, and removes it when it holds nothing.
    pub(crate) fn settle(&mut self, key: &PrimitiveKey) {
        let Some(instance) = self.primitives.get_mut(key) else {
            return;
        };
        let before = instance.charged_bytes;
        if !instance.is_void() {
            instance.charged_bytes = instance.bytes(key);
            self.primitive_bytes = self
                .primitive_bytes
                .saturating_sub(before)
                .saturating_add(instance.charged_bytes);
            return;
        }
        let sessions = instance.sessions.clone();
        for session in sessions {
            self.touched.remove(&(session, key.clone()));
        }
        self.primitives.remove(key);
        self.primitive_bytes = self.primitive_bytes.saturating_sub(before);
    }
}
