//! The snapshot section of the kind `value`, version 1: one record, or none.

use std::io;

use bytes::Bytes;
use prost::Message;

use crate::error::SnapshotError;
use crate::kinds::wire::TimerRecord;
use crate::section::{SectionReader, SectionWriter};

use super::{Stored, Value};

#[derive(Clone, PartialEq, Message)]
struct Record {
    #[prost(bytes = "bytes", tag = "1")]
    value: Bytes,
    #[prost(uint64, tag = "2")]
    version: u64,
    #[prost(message, optional, tag = "3")]
    timer: Option<TimerRecord>,
}

pub(super) fn write(value: &Value, section: &mut SectionWriter<'_>) -> io::Result<()> {
    let Some(stored) = &value.stored else {
        return Ok(());
    };
    section.record(&Record {
        value: stored.value.clone(),
        version: stored.version,
        timer: stored.timer.map(TimerRecord::from),
    })
}

pub(super) fn read(section: &mut SectionReader<'_>) -> Result<Value, SnapshotError> {
    let record = section.record::<Record>()?;
    let stored = record.map(|record| Stored {
        value: record.value,
        version: record.version,
        timer: record.timer.map(Into::into),
    });
    Ok(Value { stored })
}
