//! The snapshot section of the kind `lock`, version 1: the holder, then the line by arrival.

use std::io;

use prost::Message;

use crate::error::SnapshotError;
use crate::ids::{OperationId, Owner, OwnerNumber, Sequence, SessionId};
use crate::kinds::wire::TimerRecord;
use crate::section::{SectionReader, SectionWriter};

use super::{Holder, Lock, Waiter};

/// The holder is the first record.
#[derive(Clone, PartialEq, Message)]
struct Record {
    /// The holder's version, or the waiter's place.
    #[prost(uint64, tag = "1")]
    number: u64,
    #[prost(uint64, tag = "2")]
    session: u64,
    #[prost(uint64, tag = "3")]
    sequence: u64,
    #[prost(uint64, tag = "4")]
    owner: u64,
    /// Only of waiters.
    #[prost(message, optional, tag = "5")]
    timer: Option<TimerRecord>,
}

impl Record {
    fn new(number: u64, operation: OperationId, owner: Owner) -> Self {
        Self {
            number,
            session: operation.session.0,
            sequence: operation.sequence.0,
            owner: owner.number.0,
            timer: None,
        }
    }

    fn operation(&self) -> OperationId {
        OperationId {
            session: SessionId(self.session),
            sequence: Sequence(self.sequence),
        }
    }

    /// An operation's owner is of the same session.
    fn owner(&self) -> Owner {
        Owner {
            session: SessionId(self.session),
            number: OwnerNumber(self.owner),
        }
    }
}

pub(super) fn write(lock: &Lock, section: &mut SectionWriter<'_>) -> io::Result<()> {
    let Some(holder) = &lock.holder else {
        return Ok(());
    };
    section.record(&Record::new(holder.version, holder.operation, holder.owner))?;
    for (place, waiter) in &lock.line {
        section.record(&Record {
            timer: waiter.timer.map(TimerRecord::from),
            ..Record::new(*place, waiter.operation, waiter.owner)
        })?;
    }
    Ok(())
}

pub(super) fn read(section: &mut SectionReader<'_>) -> Result<Lock, SnapshotError> {
    let mut lock = Lock::default();
    let Some(first) = section.record::<Record>()? else {
        return Ok(lock);
    };
    lock.holder = Some(Holder {
        version: first.number,
        operation: first.operation(),
        owner: first.owner(),
    });
    while let Some(record) = section.record::<Record>()? {
        let last = lock.line.get_max().map(|(place, _)| *place);
        if last >= Some(record.number) || lock.places.contains_key(&record.operation()) {
            return Err(SnapshotError::damaged("the line of a lock is not in order"));
        }
        let waiter = Waiter {
            operation: record.operation(),
            owner: record.owner(),
            timer: record.timer.map(Into::into),
        };
        lock.queue(record.number, waiter);
    }
    Ok(lock)
}
