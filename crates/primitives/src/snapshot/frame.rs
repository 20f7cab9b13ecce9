//! The frames of a snapshot file: length, checksum, sort, payload.
//!
//! The checksum also covers the frame's number, so a frame that is missing or stands elsewhere is
//! found as surely as a flipped bit.

use std::io::{self, Read, Write};

use crate::error::SnapshotError;

/// No frame is longer, in bytes: a damaged length never makes the reader allocate more.
pub(crate) const MAX_FRAME_BYTES: u32 = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FrameSort {
    /// The first frame: format, versions, counters.
    Header,
    /// Begins a section.
    Section,
    /// A piece of the section's records.
    Data,
    /// The last frame.
    End,
}

impl FrameSort {
    fn to_byte(self) -> u8 {
        match self {
            FrameSort::Header => 1,
            FrameSort::Section => 2,
            FrameSort::Data => 3,
            FrameSort::End => 4,
        }
    }

    fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(FrameSort::Header),
            2 => Some(FrameSort::Section),
            3 => Some(FrameSort::Data),
            4 => Some(FrameSort::End),
            _ => None,
        }
    }
}

pub(crate) struct FrameWriter<'a> {
    writer: &'a mut dyn Write,
    number: u64,
}

impl<'a> FrameWriter<'a> {
    pub(crate) fn new(writer: &'a mut dyn Write) -> Self {
        Self { writer, number: 0 }
    }

    pub(crate) fn write(&mut self, sort: FrameSort, payload: &[u8]) -> io::Result<()> {
        let length = u32::try_from(payload.len())
            .ok()
            .filter(|length| *length <= MAX_FRAME_BYTES)
            .ok_or_else(|| io::Error::other("a snapshot frame is larger than 1 MiB"))?;
        let checksum = checksum(self.number, sort.to_byte(), payload);
        self.writer.write_all(&length.to_le_bytes())?;
        self.writer.write_all(&checksum.to_le_bytes())?;
        self.writer.write_all(&[sort.to_byte()])?;
        self.writer.write_all(payload)?;
        self.number += 1;
        Ok(())
    }
}

pub(crate) struct FrameReader<'a> {
    reader: &'a mut dyn Read,
    number: u64,
}

impl<'a> FrameReader<'a> {
    pub(crate) fn new(reader: &'a mut dyn Read) -> Self {
        Self { reader, number: 0 }
    }

    pub(crate) fn read(&mut self) -> Result<(FrameSort, Vec<u8>), SnapshotError> {
        let mut length = [0; 4];
        let mut expected = [0; 4];
        let mut sort = [0; 1];
        self.reader.read_exact(&mut length)?;
        self.reader.read_exact(&mut expected)?;
        self.reader.read_exact(&mut sort)?;
        let length = u32::from_le_bytes(length);
        if length > MAX_FRAME_BYTES {
            return Err(self.damaged("has an impossible length"));
        }
        let mut payload = Vec::new();
        let mut limited = (&mut *self.reader).take(u64::from(length));
        limited.read_to_end(&mut payload)?;
        if payload.len() as u64 != u64::from(length) {
            return Err(self.damaged("ends too early"));
        }
        let [sort] = sort;
        if checksum(self.number, sort, &payload) != u32::from_le_bytes(expected) {
            return Err(self.damaged("has a wrong checksum"));
        }
        let Some(sort) = FrameSort::from_byte(sort) else {
            let number = self.number;
            return Err(SnapshotError::Unsupported(format!(
                "frame {number} is of the unknown sort {sort}"
            )));
        };
        self.number += 1;
        Ok((sort, payload))
    }

    fn damaged(&self, what: &str) -> SnapshotError {
        SnapshotError::damaged(format!("frame {} {what}", self.number))
    }
}

fn checksum(number: u64, sort: u8, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&number.to_le_bytes());
    hasher.update(&[sort]);
    hasher.update(&(payload.len() as u64).to_le_bytes());
    hasher.update(payload);
    hasher.finalize()
}
