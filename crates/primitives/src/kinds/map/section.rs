//! The snapshot section of the kind `map`, version 1.

use std::io;

use bytes::Bytes;
use prost::Message;

use crate::error::SnapshotError;
use crate::kinds::keyed::locks::LocksRecord;
use crate::kinds::wire::TimerRecord;
use crate::section::{SectionReader, SectionWriter};

use super::{Map, Stored};

/// One record: an entry or a lock.
#[derive(Clone, PartialEq, Message)]
struct Record {
    #[prost(oneof = "Content", tags = "1, 2")]
    content: Option<Content>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Content {
    #[prost(message, tag = "1")]
    Entry(EntryRecord),
    #[prost(message, tag = "2")]
    Locks(LocksRecord),
}

#[derive(Clone, PartialEq, Message)]
struct EntryRecord {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
    #[prost(uint64, tag = "3")]
    version: u64,
    #[prost(message, optional, tag = "4")]
    timer: Option<TimerRecord>,
}

pub(super) fn write(map: &Map, section: &mut SectionWriter<'_>) -> io::Result<()> {
    for (key, stored) in map.entries.iter() {
        let entry = EntryRecord {
            key: key.clone(),
            value: stored.value.clone(),
            version: stored.version,
            timer: stored.timer.map(TimerRecord::from),
        };
        let content = Some(Content::Entry(entry));
        section.record(&Record { content })?;
    }
    map.locks.write(|locks| {
        let content = Some(Content::Locks(locks));
        section.record(&Record { content })
    })
}

pub(super) fn read(section: &mut SectionReader<'_>) -> Result<Map, SnapshotError> {
    let mut map = Map::default();
    while let Some(Record { content }) = section.record()? {
        match content {
            Some(Content::Entry(entry)) => {
                let stored = Stored {
                    value: entry.value,
                    version: entry.version,
                    timer: entry.timer.map(Into::into),
                };
                if map.entries.insert(entry.key, stored).is_some() {
                    return Err(SnapshotError::damaged("a map has a key twice"));
                }
            }
            Some(Content::Locks(locks)) => map.locks.restore(locks)?,
            None => return Err(SnapshotError::damaged("a record of a map is empty")),
        }
    }
    Ok(map)
}
