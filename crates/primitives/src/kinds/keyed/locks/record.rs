//! Key locks in a snapshot: one record per held key, then one per operation that waits.

use std::io;

use bytes::Bytes;
use imbl::OrdSet;
use prost::Message;

use crate::error::SnapshotError;
use crate::ids::{OperationId, Owner, OwnerNumber, Sequence, SessionId};
use crate::kinds::wire::TimerRecord;

use super::{Hold, KeyLocks, Waiter};

/// A held key, or an operation that waits.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct LocksRecord {
    /// The number of an operation that waits; 0 = the keys are held.
    #[prost(uint64, tag = "1")]
    number: u64,
    #[prost(uint64, tag = "2")]
    session: u64,
    #[prost(uint64, tag = "3")]
    sequence: u64,
    #[prost(uint64, tag = "4")]
    owner: u64,
    #[prost(bytes = "bytes", repeated, tag = "5")]
    keys: Vec<Bytes>,
    #[prost(message, optional, tag = "6")]
    timer: Option<TimerRecord>,
}

impl LocksRecord {
    fn of(operation: OperationId, owner: Owner, keys: Vec<Bytes>) -> Self {
        Self {
            number: 0,
            session: operation.session.0,
            sequence: operation.sequence.0,
            owner: owner.number.0,
            keys,
            timer: None,
        }
    }
}

impl KeyLocks {
    /// Hands out the records in an order that depends on nothing but the state.
    pub(crate) fn write(
        &self,
        mut record: impl FnMut(LocksRecord) -> io::Result<()>,
    ) -> io::Result<()> {
        for (key, hold) in &self.held {
            record(LocksRecord::of(
                hold.operation,
                hold.owner,
                vec![key.clone()],
            ))?;
        }
        for (number, waiter) in &self.line {
            let keys = waiter.keys.iter().cloned().collect();
            record(LocksRecord {
                number: *number,
                timer: waiter.timer.map(TimerRecord::from),
                ..LocksRecord::of(waiter.operation, waiter.owner, keys)
            })?;
        }
        Ok(())
    }

    /// Takes one of those records back in.
    ///
    /// # Errors
    /// Damage: it contradicts an earlier one or names no key.
    pub(crate) fn restore(&mut self, record: LocksRecord) -> Result<(), SnapshotError> {
        let session = SessionId(record.session);
        let operation = OperationId {
            session,
            sequence: Sequence(record.sequence),
        };
        let owner = Owner {
            session,
            number: OwnerNumber(record.owner),
        };
        let keys: OrdSet<Bytes> = record.keys.into_iter().collect();
        let is_held = |key: &Bytes| self.held.contains_key(key);
        let is_damaged = match record.number {
            0 => keys.iter().any(is_held),
            number => self.line.contains_key(&number) || self.numbers.contains_key(&operation),
        };
        if is_damaged || keys.is_empty() {
            return Err(SnapshotError::damaged(
                "the locks of keys contradict each other",
            ));
        }
        if record.number == 0 {
            self.take(&keys, Hold { operation, owner });
            return Ok(());
        }
        let waiter = Waiter {
            operation,
            owner,
            keys,
            timer: record.timer.map(Into::into),
        };
        self.join_line(record.number, waiter);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use super::*;

    fn record(number: u64, sequence: u64, keys: &[&'static str]) -> LocksRecord {
        LocksRecord {
            number,
            session: 1,
            sequence,
            owner: 1,
            keys: keys.iter().map(|key| Bytes::from(*key)).collect(),
            timer: None,
        }
    }

    #[test]
    fn records_that_contradict_each_other_are_damage() {
        let mut locks = KeyLocks::default();
        locks.restore(record(0, 1, &["a"])).unwrap();
        locks.restore(record(7, 2, &["a", "b"])).unwrap();
        let mut written = Vec::new();
        locks
            .write(|record| {
                written.push(record);
                Ok(())
            })
            .unwrap();
        let expected = [record(0, 1, &["a"]), record(7, 2, &["a", "b"])];
        assert_eq!(written, expected);
        for damaged in [
            record(0, 3, &["a"]),
            record(7, 3, &["c"]),
            record(8, 2, &["c"]),
            record(0, 3, &[]),
            record(8, 3, &[]),
        ] {
            let before = locks.clone();
            let error = locks.restore(damaged.clone());
            assert!(
                matches!(error, Err(SnapshotError::Damaged(_))),
                "{damaged:?}"
            );
            assert_eq!(locks, before, "{damaged:?}");
        }
    }
}
