//! The snapshot section of the kind `indexedmap`, version 1: the last index, then the entries in
//! their order.

use std::io;

use bytes::Bytes;
use prost::Message;

use crate::error::SnapshotError;
use crate::kinds::wire::TimerRecord;
use crate::section::{SectionReader, SectionWriter};

use super::{IndexedMap, Stored};

#[derive(Clone, PartialEq, Message)]
struct Header {
    #[prost(uint64, tag = "1")]
    last_index: u64,
}

#[derive(Clone, PartialEq, Message)]
struct Record {
    #[prost(uint64, tag = "1")]
    index: u64,
    #[prost(bytes = "bytes", tag = "2")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    value: Bytes,
    #[prost(uint64, tag = "4")]
    version: u64,
    #[prost(message, optional, tag = "5")]
    timer: Option<TimerRecord>,
}

pub(super) fn write(map: &IndexedMap, section: &mut SectionWriter<'_>) -> io::Result<()> {
    let last_index = map.last_index;
    section.record(&Header { last_index })?;
    for (index, stored) in &map.entries {
        section.record(&Record {
            index: *index,
            key: stored.key.clone(),
            value: stored.value.clone(),
            version: stored.version,
            timer: stored.timer.map(TimerRecord::from),
        })?;
    }
    Ok(())
}

pub(super) fn read(section: &mut SectionReader<'_>) -> Result<IndexedMap, SnapshotError> {
    let Header { last_index } = section.required()?;
    let mut map = IndexedMap {
        last_index,
        ..IndexedMap::default()
    };
    let mut before = 0;
    while let Some(record) = section.record::<Record>()? {
        let is_in_order = before < record.index && record.index <= last_index;
        if !is_in_order || map.indexes.contains_key(&record.key) {
            let what = "the entries of an indexedmap are not in their order";
            return Err(SnapshotError::damaged(what));
        }
        before = record.index;
        let stored = Stored {
            key: record.key,
            value: record.value,
            version: record.version,
            timer: record.timer.map(Into::into),
        };
        map.store(record.index, stored);
    }
    Ok(map)
}
