//! A session's operations: what makes each of them apply exactly once.
//!
//! Every operation above the acknowledged floor is remembered as waiting or as done with its reply.
//! At or below the floor only the sequences that the client named as open may still be asked.

use std::sync::Arc;
use std::time::Duration;

use atomix_proto::multiraft::v1::Operation;
use imbl::{OrdMap, OrdSet};

use crate::error::Reply;
use crate::ids::{Key, OwnerNumber, PrimitiveKey, Sequence};
use crate::limits::Limits;

#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) timeout: Duration,
    pub(crate) client: Arc<str>,
    floor: u64,
    /// Sequences up to the floor that are not acknowledged.
    open: OrdSet<u64>,
    operations: OrdMap<u64, Entry>,
    /// Replies, and requests that wait for a key, in bytes.
    held_bytes: u64,
    /// How many operations a primitive has that wait.
    waiting: u64,
}

/// What is remembered of one operation.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Entry {
    Waiting(Waiting),
    Done(Done),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Waiting {
    pub(crate) primitive: PrimitiveKey,
    pub(crate) owner: Option<OwnerNumber>,
    /// Set while it waits for the end of an intent; otherwise the primitive has it.
    pub(crate) parked: Option<Parked>,
}

/// An operation that has not run yet because a key has an intent.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Parked {
    pub(crate) key: Key,
    /// Its place in the line.
    pub(crate) number: u64,
    pub(crate) operation: Operation,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Done {
    /// Where a grant that comes too late is given back; `None` for kinds that grant nothing.
    pub(crate) primitive: Option<PrimitiveKey>,
    pub(crate) reply: Reply,
}

/// What the session knows of a sequence.
pub(crate) enum Known<'a> {
    /// Acknowledged: its reply is forgotten and it must not run again.
    Forgotten,
    Recorded(&'a Entry),
    New,
}

impl Entry {
    pub(crate) fn bytes(&self) -> u64 {
        let bytes = match self {
            Entry::Waiting(waiting) => waiting.parked.as_ref().map_or(0, Parked::bytes),
            Entry::Done(done) => match &done.reply {
                Ok(reply) => reply.len(),
                Err(error) => error.message.len(),
            },
        };
        bytes as u64
    }

    /// Whether a primitive has it and completes it some time.
    pub(crate) fn is_held(&self) -> bool {
        matches!(self, Entry::Waiting(waiting) if waiting.parked.is_none())
    }
}

impl Parked {
    fn bytes(&self) -> usize {
        self.key.len() + self.operation.request.len()
    }
}

impl Session {
    pub(crate) fn new(timeout: Duration, client: &str) -> Self {
        Self {
            timeout,
            client: client.into(),
            floor: 0,
            open: OrdSet::new(),
            operations: OrdMap::new(),
            held_bytes: 0,
            waiting: 0,
        }
    }

    pub(crate) fn look_up(&self, sequence: Sequence) -> Known<'_> {
        if sequence.0 <= self.floor && !self.open.contains(&sequence.0) {
            return Known::Forgotten;
        }
        match self.operations.get(&sequence.0) {
            Some(entry) => Known::Recorded(entry),
            None => Known::New,
        }
    }

    /// Whether the next new operation has to be refused.
    pub(crate) fn is_full(&self, limits: &Limits) -> bool {
        self.operations.len() as u64 >= limits.session_window_operations
            || self.held_bytes >= limits.session_window_reply_bytes
    }

    /// Whether one more operation may wait in a primitive.
    pub(crate) fn may_wait(&self, limits: &Limits) -> bool {
        self.waiting < limits.session_waiting_operations()
    }

    /// Whether the client goes on far beyond its window although it is refused.
    pub(crate) fn is_overrun(&self, limits: &Limits) -> bool {
        let remembered = (self.operations.len() + self.open.len()) as u64;
        remembered >= limits.session_window_operations.saturating_mul(8)
    }

    /// Forgets what is acknowledged: every sequence up to `through` that is not in `open`. Hands out
    /// the operations among them that still wait, in order: the client no longer wants them.
    pub(crate) fn acknowledge(&mut self, through: u64, open: &[u64]) -> Vec<(Sequence, Waiting)> {
        let mut withdrawn = Vec::new();
        if through <= self.floor && self.open.is_empty() {
            return withdrawn;
        }
        let still_open: OrdSet<u64> = open.iter().copied().filter(|one| *one <= through).collect();
        let answered: Vec<u64> = self
            .open
            .range(..=through)
            .copied()
            .filter(|sequence| !still_open.contains(sequence))
            .collect();
        for sequence in answered {
            self.open.remove(&sequence);
            self.forget(sequence, &mut withdrawn);
        }
        if through <= self.floor {
            return withdrawn;
        }
        let answered: Vec<u64> = self
            .operations
            .range(self.floor.saturating_add(1)..=through)
            .map(|(sequence, _)| *sequence)
            .filter(|sequence| !still_open.contains(sequence))
            .collect();
        for sequence in answered {
            self.forget(sequence, &mut withdrawn);
        }
        for sequence in still_open.range(self.floor.saturating_add(1)..=through) {
            self.open.insert(*sequence);
        }
        self.floor = through;
        withdrawn
    }

    fn forget(&mut self, sequence: u64, withdrawn: &mut Vec<(Sequence, Waiting)>) {
        if let Some(Entry::Waiting(waiting)) = self.remove(Sequence(sequence)) {
            withdrawn.push((Sequence(sequence), waiting));
        }
    }

    fn remove(&mut self, sequence: Sequence) -> Option<Entry> {
        let entry = self.operations.remove(&sequence.0)?;
        self.no_longer_holds(&entry);
        Some(entry)
    }

    pub(crate) fn record(&mut self, sequence: Sequence, entry: Entry) {
        self.held_bytes = self.held_bytes.saturating_add(entry.bytes());
        self.waiting = self.waiting.saturating_add(u64::from(entry.is_held()));
        if let Some(previous) = self.operations.insert(sequence.0, entry) {
            self.no_longer_holds(&previous);
        }
    }

    fn no_longer_holds(&mut self, entry: &Entry) {
        self.held_bytes = self.held_bytes.saturating_sub(entry.bytes());
        self.waiting = self.waiting.saturating_sub(u64::from(entry.is_held()));
    }

    pub(crate) fn waits(&self, sequence: Sequence) -> bool {
        let entry = self.operations.get(&sequence.0);
        entry.is_some_and(Entry::is_held)
    }

    pub(crate) fn entry(&self, sequence: Sequence) -> Option<&Entry> {
        self.operations.get(&sequence.0)
    }

    /// Turns a waiting operation into a done one.
    pub(crate) fn finish(&mut self, sequence: Sequence, reply: Reply) {
        let Some(Entry::Waiting(waiting)) = self.operations.get(&sequence.0) else {
            return;
        };
        let primitive = Some(waiting.primitive.clone());
        self.record(sequence, Entry::Done(Done { primitive, reply }));
    }

    /// All operations that wait, in order.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = (Sequence, &Waiting)> {
        self.operations
            .iter()
            .filter_map(|(sequence, entry)| match entry {
                Entry::Waiting(waiting) => Some((Sequence(*sequence), waiting)),
                Entry::Done(_) => None,
            })
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = (Sequence, &Entry)> {
        self.operations
            .iter()
            .map(|(sequence, entry)| (Sequence(*sequence), entry))
    }

    pub(crate) fn floor(&self) -> u64 {
        self.floor
    }

    pub(crate) fn open(&self) -> impl Iterator<Item = u64> {
        self.open.iter().copied()
    }

    pub(crate) fn held_bytes(&self) -> u64 {
        self.held_bytes
    }

    #[cfg(test)]
    pub(crate) fn waiting_count(&self) -> u64 {
        self.waiting
    }

    pub(crate) fn remembered(&self) -> u64 {
        self.operations.len() as u64
    }

    /// A session of a snapshot, before its operations are recorded.
    pub(crate) fn restored(timeout: Duration, client: &str, floor: u64, open: &[u64]) -> Self {
        Self {
            floor,
            open: open.iter().copied().collect(),
            ..Self::new(timeout, client)
        }
    }
}
