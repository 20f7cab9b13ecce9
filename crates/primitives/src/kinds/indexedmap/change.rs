//! Changes of entries with their timers and events.

use std::time::Duration;

use atomix_proto::runtime::indexedmap::v1::{Entry, Event, event};
use bytes::Bytes;
use prost::Message;

use crate::context::Context;
use crate::error::{ErrorCode, OperationError};
use crate::ids::TimerId;
use crate::kinds::keyed::{key_exists, text};

use super::{IndexedMap, Stored};

impl IndexedMap {
    pub(super) fn append(
        &mut self,
        key: Bytes,
        value: Bytes,
        ttl: Option<Duration>,
        context: &mut Context<'_>,
    ) -> Result<Entry, OperationError> {
        if self.indexes.contains_key(&key) {
            return Err(key_exists(&key));
        }
        let index = self.last_index.checked_add(1).ok_or_else(|| {
            let message = "the map has given all indexes of 64 bits; use another one";
            OperationError::new(ErrorCode::ResourceExhausted, message)
        })?;
        let stored = Stored {
            key,
            value,
            version: context.operation(),
            timer: set_timer(index, ttl, context),
        };
        let inserted = event::Inserted {
            value: Some(stored.value()),
        };
        emit(
            &stored.key,
            index,
            event::Event::Inserted(inserted),
            context,
        );
        let entry = stored.entry(index);
        self.store(index, stored);
        Ok(entry)
    }

    /// Writes the entry at the index, if there is one: also an equal value renews its version and
    /// its time to live.
    pub(super) fn update(
        &mut self,
        index: u64,
        value: Bytes,
        ttl: Option<Duration>,
        context: &mut Context<'_>,
    ) -> Option<Entry> {
        let previous = self.entries.get(&index)?.clone();
        if let Some(timer) = previous.timer {
            context.clear_timer(timer);
        }
        let stored = Stored {
            key: previous.key.clone(),
            value,
            version: context.operation(),
            timer: set_timer(index, ttl, context),
        };
        let updated = event::Updated {
            value: Some(stored.value()),
            prev_value: Some(previous.value()),
        };
        emit(&stored.key, index, event::Event::Updated(updated), context);
        let entry = stored.entry(index);
        self.store(index, stored);
        Some(entry)
    }

    pub(super) fn remove(
        &mut self,
        index: u64,
        expired: bool,
        context: &mut Context<'_>,
    ) -> Option<Stored> {
        let stored = self.entries.remove(&index)?;
        self.indexes.remove(&stored.key);
        self.bytes = self.bytes.saturating_sub(stored.bytes());
        if let Some(timer) = stored.timer {
            context.clear_timer(timer);
        }
        let removed = event::Removed {
            value: Some(stored.value()),
            expired,
        };
        emit(&stored.key, index, event::Event::Removed(removed), context);
        Some(stored)
    }

    /// The time to live of an entry has ended, if it still is the entry with this timer.
    pub(super) fn expire(&mut self, timer: TimerId, tag: &Bytes, context: &mut Context<'_>) {
        let Ok(index) = <[u8; 8]>::try_from(&**tag).map(u64::from_be_bytes) else {
            return;
        };
        let is_due = |stored: &Stored| stored.timer == Some(timer);
        if self.entries.get(&index).is_some_and(is_due) {
            self.remove(index, true, context);
        }
    }

    /// Puts an entry at an index that its key has or that is new.
    pub(super) fn store(&mut self, index: u64, stored: Stored) {
        self.last_index = self.last_index.max(index);
        self.bytes += stored.bytes();
        self.indexes.insert(stored.key.clone(), index);
        if let Some(previous) = self.entries.insert(index, stored) {
            self.bytes = self.bytes.saturating_sub(previous.bytes());
        }
    }
}

/// Timers are tagged with the index, whichever way the entry is named.
fn set_timer(index: u64, ttl: Option<Duration>, context: &mut Context<'_>) -> Option<TimerId> {
    let ttl = ttl?;
    Some(context.set_timer(ttl, index.to_be_bytes().to_vec().into()))
}

fn emit(key: &Bytes, index: u64, event: event::Event, context: &mut Context<'_>) {
    let event = Event {
        key: text(key),
        index,
        event: Some(event),
    };
    context.emit(key.clone(), event.encode_to_vec().into());
}
