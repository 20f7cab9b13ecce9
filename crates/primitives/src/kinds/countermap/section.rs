//! The snapshot section of the kind `countermap`, version 1.

use std::io;

use bytes::Bytes;
use prost::Message;

use crate::error::SnapshotError;
use crate::kinds::keyed::locks::LocksRecord;
use crate::section::{SectionReader, SectionWriter};

use super::{CounterMap, Number};

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
    #[prost(sint64, tag = "2")]
    value: i64,
}

pub(super) fn write(map: &CounterMap, section: &mut SectionWriter<'_>) -> io::Result<()> {
    for (key, number) in map.entries.iter() {
        let entry = EntryRecord {
            key: key.clone(),
            value: number.0,
        };
        let content = Some(Content::Entry(entry));
        section.record(&Record { content })?;
    }
    map.locks.write(|locks| {
        let content = Some(Content::Locks(locks));
        section.record(&Record { content })
    })
}

pub(super) fn read(section: &mut SectionReader<'_>) -> Result<CounterMap, SnapshotError> {
    let mut map = CounterMap::default();
    while let Some(Record { content }) = section.record()? {
        match content {
            Some(Content::Entry(entry)) => {
                let number = Number(entry.value);
                if map.entries.insert(entry.key, number).is_some() {
                    return Err(SnapshotError::damaged("a countermap has a key twice"));
                }
            }
            Some(Content::Locks(locks)) => map.locks.restore(locks)?,
            None => return Err(SnapshotError::damaged("a record of a countermap is empty")),
        }
    }
    Ok(map)
}
