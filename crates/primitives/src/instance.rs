//! One primitive with what the frame keeps beside it.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use crate::ids::{Key, OperationId, PrimitiveKey, SessionId};
use crate::intents::Intents;
use crate::kind::AnyPrimitive;

/// What a primitive costs beside its data, in bytes; part of active version 1.
const PRIMITIVE_OVERHEAD: u64 = 128;
/// What a timer costs beside its tag, in bytes; part of active version 1.
const TIMER_OVERHEAD: u64 = 64;
/// What a place in a line costs, in bytes; part of active version 1.
const PARKED_OVERHEAD: u64 = 64;

#[derive(Clone)]
pub(crate) struct Instance {
    primitive: Arc<dyn AnyPrimitive>,
    pub(crate) intents: Intents,
    /// The operations that wait for the end of an intent, by key, then by arrival.
    pub(crate) parked: OrdMap<(Key, u64), OperationId>,
    /// The sessions that may own something here.
    pub(crate) sessions: OrdSet<SessionId>,
    /// How many timers are set.
    pub(crate) timers: u64,
    /// The bytes at the last count.
    pub(crate) charged_bytes: u64,
}

impl Instance {
    pub(crate) fn new(primitive: Arc<dyn AnyPrimitive>) -> Self {
        Self {
            primitive,
            intents: Intents::default(),
            parked: OrdMap::new(),
            sessions: OrdSet::new(),
            timers: 0,
            charged_bytes: 0,
        }
    }

    pub(crate) fn primitive(&self) -> &dyn AnyPrimitive {
        &*self.primitive
    }

    /// The primitive to change, together with the timer count and the intents. It is copied first if
    /// a snapshot shares it.
    pub(crate) fn parts_mut(&mut self) -> (&mut dyn AnyPrimitive, &mut u64, &mut Intents) {
        if Arc::get_mut(&mut self.primitive).is_none() {
            self.primitive = self.primitive.duplicate();
        }
        #[allow(clippy::expect_used, reason = "the copy above has one owner")]
        let primitive = Arc::get_mut(&mut self.primitive).expect("a fresh copy has one owner");
        (primitive, &mut self.timers, &mut self.intents)
    }

    /// Whether it is the same as a primitive that never existed.
    pub(crate) fn is_void(&self) -> bool {
        self.timers == 0
            && self.intents.is_empty()
            && self.parked.is_empty()
            && self.primitive.is_empty()
    }

    pub(crate) fn bytes(&self, key: &PrimitiveKey) -> u64 {
        PRIMITIVE_OVERHEAD
            + key.name.len() as u64
            + self.primitive.bytes()
            + self.timers.saturating_mul(TIMER_OVERHEAD)
            + (self.parked.len() as u64).saturating_mul(PARKED_OVERHEAD)
            + self.intents.bytes()
    }
}
