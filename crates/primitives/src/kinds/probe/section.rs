//! The snapshot section of the kind `probe`.

use std::io;

use crate::error::SnapshotError;
use crate::ids::{OperationId, Owner, OwnerNumber, Sequence, SessionId, TimerId, duration, nanos};
use crate::section::{SectionReader, SectionWriter};

use super::messages::{ClaimRecord, Content, ItemRecord, Record, TimerRecord};
use super::{Claim, Probe, Stored};

pub(super) fn write(probe: &Probe, section: &mut SectionWriter<'_>) -> io::Result<()> {
    for (key, stored) in &probe.items {
        let item = ItemRecord {
            key: key.clone(),
            value: stored.value.clone(),
            version: stored.version,
            timer: stored.timer.map(timer_record),
        };
        section.record(&record(Content::Item(item)))?;
    }
    if let Some(holder) = &probe.holder {
        section.record(&record(Content::Holder(claim_record(holder))))?;
    }
    for claim in probe.line.values() {
        section.record(&record(Content::Waiter(claim_record(claim))))?;
    }
    Ok(())
}

pub(super) fn read(section: &mut SectionReader<'_>) -> Result<Probe, SnapshotError> {
    let mut probe = Probe::default();
    while let Some(Record { content }) = section.record()? {
        match content {
            Some(Content::Item(item)) => {
                let stored = Stored {
                    value: item.value,
                    version: item.version,
                    timer: item.timer.as_ref().map(timer),
                };
                probe.store(item.key, stored);
            }
            Some(Content::Holder(holder)) => probe.holder = Some(claim(&holder)),
            Some(Content::Waiter(waiter)) => {
                probe.line.insert(waiter.number, claim(&waiter));
            }
            None => return Err(SnapshotError::damaged("a record of a probe is empty")),
        }
    }
    Ok(probe)
}

fn record(content: Content) -> Record {
    let content = Some(content);
    Record { content }
}

fn claim_record(claim: &Claim) -> ClaimRecord {
    ClaimRecord {
        number: claim.number,
        session: claim.operation.session.0,
        sequence: claim.operation.sequence.0,
        owner: claim.owner.number.0,
        timer: claim.timer.map(timer_record),
    }
}

fn claim(record: &ClaimRecord) -> Claim {
    let session = SessionId(record.session);
    Claim {
        number: record.number,
        operation: OperationId {
            session,
            sequence: Sequence(record.sequence),
        },
        owner: Owner {
            session,
            number: OwnerNumber(record.owner),
        },
        timer: record.timer.as_ref().map(timer),
    }
}

fn timer_record(timer: TimerId) -> TimerRecord {
    TimerRecord {
        deadline_nanos: nanos(timer.deadline),
        number: timer.number,
    }
}

fn timer(record: &TimerRecord) -> TimerId {
    TimerId {
        deadline: duration(record.deadline_nanos),
        number: record.number,
    }
}
