//! Calling into one primitive, and settling what the call left behind.

use crate::context::{Caller, Context, draw};
use crate::error::Reply;
use crate::ids::PrimitiveKey;
use crate::instance::Instance;
use crate::kind::AnyPrimitive;
use crate::state::State;

use super::run::Run;

/// What the frame learns from a call beside its result.
pub(super) struct Called<R> {
    pub(super) result: R,
    /// The call completed the very operation it runs.
    pub(super) own_reply: Option<Reply>,
    pub(super) ended_an_intent: bool,
}

impl Run<'_> {
    /// Calls into a primitive on behalf of an operation; it comes into being if it does not exist,
    /// and stays only if it then holds something. `None` if its kind does not exist.
    pub(super) fn call<R>(
        &mut self,
        key: &PrimitiveKey,
        caller: Caller,
        body: impl FnOnce(&mut dyn AnyPrimitive, &mut Context<'_>) -> R,
    ) -> Option<Called<R>> {
        if self.state.primitives.contains_key(key) {
            return self.call_instance(key, None, Some(caller), body);
        }
        let (_, primitive) = self.kinds.create(key.kind)?;
        let mut instance = Instance::new(primitive);
        let called = self.call_instance(key, Some(&mut instance), Some(caller), body);
        if !instance.is_void() {
            self.state.primitives.insert(key.clone(), instance);
        }
        called
    }

    /// Calls into a primitive on behalf of nobody: a timer, a cancel, a release. `None` if it does
    /// not exist.
    pub(super) fn call_existing<R>(
        &mut self,
        key: &PrimitiveKey,
        body: impl FnOnce(&mut dyn AnyPrimitive, &mut Context<'_>) -> R,
    ) -> Option<R> {
        let called = self.call_instance(key, None, None, body)?;
        Some(called.result)
    }

    /// `fresh` is a primitive that is not in the map yet.
    fn call_instance<R>(
        &mut self,
        key: &PrimitiveKey,
        fresh: Option<&mut Instance>,
        caller: Option<Caller>,
        body: impl FnOnce(&mut dyn AnyPrimitive, &mut Context<'_>) -> R,
    ) -> Option<Called<R>> {
        let State {
            time,
            counter,
            limits,
            sessions,
            primitives,
            touched,
            timers,
            events,
            primitive_bytes,
            applied_index: _,
            active_version: _,
        } = &mut *self.state;
        let instance = match fresh {
            Some(instance) => instance,
            None => primitives.get_mut(key)?,
        };
        let (primitive, timers_of_primitive, intents) = instance.parts_mut();
        let mut context = Context {
            primitive: key,
            caller,
            operation: draw(counter),
            ordinal: 0,
            now: *time,
            wall_time_millis: self.wall_time_millis,
            counter,
            limits,
            sessions,
            timers,
            ring: events,
            timers_of_primitive,
            intents,
            output: &mut self.output,
            freed: &mut self.freed,
            ended_an_intent: false,
            own_reply: None,
        };
        let result = body(primitive, &mut context);
        let called = Called {
            result,
            own_reply: context.own_reply.take(),
            ended_an_intent: context.ended_an_intent,
        };

        if instance.is_void() {
            self.state.settle(key);
            return Some(called);
        }
        if let Some(caller) = caller
            && instance.primitive().owns()
        {
            let session = caller.operation.session;
            if instance.sessions.insert(session).is_none() {
                touched.insert((session, key.clone()));
            }
        }
        let before = instance.charged_bytes;
        instance.charged_bytes = instance.bytes(key);
        *primitive_bytes = primitive_bytes
            .saturating_sub(before)
            .saturating_add(instance.charged_bytes);
        Some(called)
    }
}
