//! Key locks in a snapshot: one record per held key, then one per operation that waits.

use std::io;

use bytes::Bytes;
use prost::Message;

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
    pub(crate) fn restore(&mut self, record: LocksRecord) {
        let session = SessionId(record.session);
        let operation = OperationId {
            session,
            sequence: Sequence(record.sequence),
        };
        let owner = Owner {
            session,
            number: OwnerNumber(record.owner),
        };
        let keys = record.keys.into_iter().collect();
        if record.number == 0 {
            self.take(&keys, Hold { operation, owner });
            return;
        }
        let waiter = Waiter {
            operation,
            owner,
            keys,
            timer: record.timer.map(Into::into),
        };
        self.join_line(record.number, waiter);
    }
}
