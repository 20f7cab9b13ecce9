//! The line of the candidates. Its methods say whether they changed who stands where.

use std::sync::Arc;

use imbl::{OrdSet, Vector};

use crate::ids::{OperationId, Owner};
use crate::kind::Released;

/// What a candidate costs beside its name, in bytes; part of active version 1.
const CANDIDATE_BYTES: u64 = 64;
/// What each operation that entered it costs, in bytes; part of active version 1.
const ENTRY_BYTES: u64 = 48;

#[derive(Clone, Debug, Default)]
pub(super) struct Line {
    candidates: Vector<Candidate>,
    bytes: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) name: Arc<str>,
    /// Who entered it, with the operations that did: it stays while one of them does.
    pub(super) entries: OrdSet<(Owner, OperationId)>,
}

impl Candidate {
    pub(super) fn new(name: Arc<str>) -> Self {
        let entries = OrdSet::new();
        Self { name, entries }
    }

    fn bytes(&self) -> u64 {
        let entries = self.entries.len() as u64;
        CANDIDATE_BYTES + self.name.len() as u64 + entries.saturating_mul(ENTRY_BYTES)
    }
}

impl Line {
    pub(super) fn leader(&self) -> Option<&Arc<str>> {
        self.candidates.front().map(|candidate| &candidate.name)
    }

    /// The names in order, the leader's first.
    pub(super) fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.candidates.iter().map(|candidate| &candidate.name)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Candidate> {
        self.candidates.iter()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.candidates.is_empty()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.place(name).is_some()
    }

    pub(super) fn push(&mut self, candidate: Candidate) {
        self.bytes = self.bytes.saturating_add(candidate.bytes());
        self.candidates.push_back(candidate);
    }

    pub(super) fn enter(&mut self, name: String, owner: Owner, operation: OperationId) -> bool {
        let place = self.place(&name);
        let Some(present) = place.and_then(|place| self.candidates.get_mut(place)) else {
            let mut candidate = Candidate::new(name.into());
            candidate.entries.insert((owner, operation));
            self.push(candidate);
            return true;
        };
        if present.entries.insert((owner, operation)).is_none() {
            self.bytes = self.bytes.saturating_add(ENTRY_BYTES);
        }
        false
    }

    /// The operations by which an owner entered a candidate, in order.
    pub(super) fn entered_by(&self, name: &str, owner: Owner) -> impl Iterator<Item = OperationId> {
        let place = self.place(name);
        let candidate = place.and_then(|place| self.candidates.get(place));
        let entries = candidate.into_iter().flat_map(|found| found.entries.iter());
        entries
            .filter(move |(entered, _)| *entered == owner)
            .map(|(_, operation)| *operation)
    }

    pub(super) fn remove(&mut self, name: &str) -> bool {
        self.place(name)
            .is_some_and(|place| self.take(place).is_some())
    }

    pub(super) fn move_to_front(&mut self, name: &str) -> bool {
        match self.place(name) {
            None | Some(0) => false,
            Some(place) => {
                if let Some(candidate) = self.take(place) {
                    self.bytes = self.bytes.saturating_add(candidate.bytes());
                    self.candidates.push_front(candidate);
                }
                true
            }
        }
    }

    pub(super) fn move_up(&mut self, name: &str) -> bool {
        match self.place(name) {
            None | Some(0) => false,
            Some(place) => {
                self.candidates.swap(place - 1, place);
                true
            }
        }
    }

    pub(super) fn move_to_end(&mut self, name: &str) -> bool {
        match self.place(name) {
            Some(place) if place + 1 < self.candidates.len() => {
                if let Some(candidate) = self.take(place) {
                    self.push(candidate);
                }
                true
            }
            Some(_) | None => false,
        }
    }

    /// Takes back the entry that this operation made: whether there was one, and whether its
    /// candidate is gone with it.
    pub(super) fn withdraw_entry(&mut self, operation: OperationId) -> (bool, bool) {
        let place = self.candidates.iter().position(|candidate| {
            let mut entries = candidate.entries.iter();
            entries.any(|(_, entered)| *entered == operation)
        });
        match place {
            Some(place) => (
                true,
                self.leave(place, |(_, entered)| *entered == operation),
            ),
            None => (false, false),
        }
    }

    /// Takes back all entries of the owner or session; whether a candidate is gone with them.
    pub(super) fn release(&mut self, released: Released) -> bool {
        let mut is_changed = false;
        // From the end, so that the places in front stay.
        for place in (0..self.candidates.len()).rev() {
            is_changed |= self.leave(place, |(owner, entered)| released.covers(*owner, *entered));
        }
        is_changed
    }

    /// Takes entries from a candidate; true if it is gone with its last one.
    fn leave(&mut self, place: usize, leaves: impl Fn(&(Owner, OperationId)) -> bool) -> bool {
        let Some(candidate) = self.candidates.get(place) else {
            return false;
        };
        let entries = candidate.entries.iter();
        let leaving: Vec<_> = entries.filter(|entry| leaves(entry)).copied().collect();
        if leaving.is_empty() {
            return false;
        }
        if leaving.len() == candidate.entries.len() {
            return self.take(place).is_some();
        }
        if let Some(candidate) = self.candidates.get_mut(place) {
            for entry in &leaving {
                candidate.entries.remove(entry);
            }
        }
        let bytes = (leaving.len() as u64).saturating_mul(ENTRY_BYTES);
        self.bytes = self.bytes.saturating_sub(bytes);
        false
    }

    fn place(&self, name: &str) -> Option<usize> {
        self.candidates
            .iter()
            .position(|candidate| &*candidate.name == name)
    }

    fn take(&mut self, place: usize) -> Option<Candidate> {
        if place >= self.candidates.len() {
            return None;
        }
        let candidate = self.candidates.remove(place);
        self.bytes = self.bytes.saturating_sub(candidate.bytes());
        Some(candidate)
    }
}
