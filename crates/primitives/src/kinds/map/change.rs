//! Changes of entries: whether they may happen, and that they happen.

use std::collections::BTreeMap;
use std::time::Duration;

use atomix_proto::runtime::map::v1::{Event, commit_response, event};
use bytes::Bytes;
use prost::Message;

use crate::context::Context;
use crate::error::OperationError;
use crate::ids::TimerId;
use crate::kinds::keyed::{Due, changed, key_exists, no_key, text};

use super::{Change, Map, Stored};

/// What must hold for a change.
#[derive(Clone, Copy, Debug)]
pub(super) struct Precondition<'a> {
    key: &'a Bytes,
    existence: Existence,
    /// 0 = any.
    version: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Existence {
    Any,
    Absent,
    Present,
}

impl<'a> Precondition<'a> {
    pub(super) fn of(change: &'a Change) -> Self {
        let (existence, version) = match change {
            Change::Put { prev_version, .. } => (Existence::Any, *prev_version),
            Change::Insert { .. } => (Existence::Absent, 0),
            Change::Update { prev_version, .. } | Change::Remove { prev_version, .. } => {
                (Existence::Present, *prev_version)
            }
        };
        Self {
            key: change.key(),
            existence,
            version,
        }
    }

    /// Whether it holds for a key with this version; `None` = the key does not exist.
    pub(super) fn check(&self, present: Option<u64>) -> Result<(), OperationError> {
        match (self.existence, present) {
            (Existence::Absent, Some(_)) => Err(key_exists(self.key)),
            (Existence::Present, None) => Err(no_key(self.key)),
            (Existence::Any, None) if self.version != 0 => Err(OperationError::conflict(format!(
                "conflict: the key {:?} does not exist, version {} was expected",
                text(self.key),
                self.version
            ))),
            (_, Some(version)) if self.version != 0 && version != self.version => {
                Err(changed(self.key, version, self.version))
            }
            (Existence::Any | Existence::Absent | Existence::Present, _) => Ok(()),
        }
    }
}

/// Checks the changes of a commit, each after those before it.
///
/// # Errors
/// The first that may not happen, with its place.
pub(super) fn check_all(
    changes: &[Change],
    version: impl Fn(&[u8]) -> Option<u64>,
) -> Result<(), OperationError> {
    // Nobody knows the version of what the commit itself writes: 0 is no version and matches none.
    let mut written: BTreeMap<&Bytes, Option<u64>> = BTreeMap::new();
    for (place, change) in changes.iter().enumerate() {
        let key = change.key();
        let present = written.get(key).copied().unwrap_or_else(|| version(key));
        Precondition::of(change).check(present).map_err(|error| {
            let message = format!("operations[{place}]: {}", error.message);
            OperationError::new(error.code, message)
        })?;
        let is_removal = matches!(change, Change::Remove { .. });
        written.insert(key, (!is_removal).then_some(0));
    }
    Ok(())
}

/// What a change did.
pub(super) enum Changed {
    Put(u64, Option<Stored>),
    Inserted(u64),
    Updated(u64, Option<Stored>),
    Removed(Option<Stored>),
}

impl Changed {
    /// As a reply to Commit tells it.
    pub(super) fn result(&self) -> commit_response::result::Result {
        use commit_response::result::Result;
        match self {
            Changed::Put(version, previous) => Result::Put(commit_response::Put {
                version: *version,
                prev_value: previous.as_ref().map(Stored::message),
            }),
            Changed::Inserted(version) => {
                let version = *version;
                Result::Insert(commit_response::Insert { version })
            }
            Changed::Updated(version, previous) => Result::Update(commit_response::Update {
                version: *version,
                prev_value: previous.as_ref().map(Stored::message),
            }),
            Changed::Removed(removed) => Result::Remove(commit_response::Remove {
                value: removed.as_ref().map(Stored::message),
            }),
        }
    }
}

impl Map {
    /// Makes a change whose precondition holds.
    pub(super) fn apply(
        &mut self,
        change: Change,
        version: u64,
        context: &mut Context<'_>,
    ) -> Changed {
        match change {
            Change::Put {
                key, value, ttl, ..
            } => Changed::Put(version, self.store(key, value, ttl, version, context)),
            Change::Insert { key, value, ttl } => {
                self.store(key, value, ttl, version, context);
                Changed::Inserted(version)
            }
            Change::Update {
                key, value, ttl, ..
            } => Changed::Updated(version, self.store(key, value, ttl, version, context)),
            Change::Remove { key, .. } => {
                let removed = self.entries.remove(&key);
                if let Some(stored) = &removed {
                    self.removed(key, stored, false, context);
                }
                Changed::Removed(removed)
            }
        }
    }

    fn store(
        &mut self,
        key: Bytes,
        value: Bytes,
        ttl: Option<Duration>,
        version: u64,
        context: &mut Context<'_>,
    ) -> Option<Stored> {
        let timer = ttl.map(|ttl| context.set_timer(ttl, Due::Expiry(key.clone()).tag()));
        let stored = Stored {
            value,
            version,
            timer,
        };
        let value = Some(stored.message());
        let previous = self.entries.insert(key.clone(), stored);
        if let Some(timer) = previous.as_ref().and_then(|previous| previous.timer) {
            context.clear_timer(timer);
        }
        let event = match &previous {
            None => event::Event::Inserted(event::Inserted { value }),
            Some(previous) => event::Event::Updated(event::Updated {
                value,
                prev_value: Some(previous.message()),
            }),
        };
        emit(key, event, context);
        previous
    }

    /// Takes the timer of an entry that has just been taken out, and tells subscribers.
    pub(super) fn removed(
        &self,
        key: Bytes,
        stored: &Stored,
        expired: bool,
        context: &mut Context<'_>,
    ) {
        if let Some(timer) = stored.timer {
            context.clear_timer(timer);
        }
        let removed = event::Removed {
            value: Some(stored.message()),
            expired,
        };
        emit(key, event::Event::Removed(removed), context);
    }

    /// The time to live of an entry has ended, if it still is the entry with this timer.
    pub(super) fn expire(&mut self, timer: TimerId, key: Bytes, context: &mut Context<'_>) {
        let is_due = |stored: &Stored| stored.timer == Some(timer);
        if !self.entries.get(&key).is_some_and(is_due) {
            return;
        }
        if let Some(stored) = self.entries.remove(&key) {
            self.removed(key, &stored, true, context);
        }
    }
}

fn emit(key: Bytes, event: event::Event, context: &mut Context<'_>) {
    let event = Event {
        key: text(&key),
        event: Some(event),
    };
    context.emit(key, event.encode_to_vec().into());
}
