//! What a primitive reads and writes its part of a snapshot with: a sequence of records, each a
//! protobuf message. Lengths and checksums of the file are the business of its frames.

use std::io::{self, Read, Write};

use prost::Message;

use crate::error::SnapshotError;
use crate::snapshot::frame::{FrameReader, FrameSort, FrameWriter};

/// Frames of a section hold at most this many bytes.
const FRAME_BYTES: usize = 256 << 10;

/// The bytes of a record's length.
const LENGTH_BYTES: usize = 4;

/// Writes the sections of a snapshot; a primitive sees its own one only.
pub struct SectionWriter<'a> {
    frames: FrameWriter<'a>,
    buffer: Vec<u8>,
}

impl<'a> SectionWriter<'a> {
    /// Begins a snapshot.
    pub(crate) fn begin(writer: &'a mut dyn Write, header: &impl Message) -> io::Result<Self> {
        let mut frames = FrameWriter::new(writer);
        frames.write(FrameSort::Header, &header.encode_to_vec())?;
        let buffer = Vec::new();
        Ok(Self { frames, buffer })
    }

    /// Ends the present section and begins another.
    pub(crate) fn begin_section(&mut self, header: &impl Message) -> io::Result<()> {
        self.flush()?;
        self.frames
            .write(FrameSort::Section, &header.encode_to_vec())
    }

    /// Ends the snapshot.
    pub(crate) fn end(mut self) -> io::Result<()> {
        self.flush()?;
        self.frames.write(FrameSort::End, &[])
    }

    /// Adds a record.
    ///
    /// # Errors
    /// Those of the underlying writer; also a record of 4 GiB or more.
    pub fn record(&mut self, record: &impl Message) -> io::Result<()> {
        let length = u32::try_from(record.encoded_len())
            .map_err(|_| io::Error::other("a snapshot record is larger than 4 GiB"))?;
        self.buffer.extend_from_slice(&length.to_le_bytes());
        record
            .encode(&mut self.buffer)
            .map_err(|error| io::Error::other(error.to_string()))?;
        if self.buffer.len() >= FRAME_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        for chunk in self.buffer.chunks(FRAME_BYTES) {
            self.frames.write(FrameSort::Data, chunk)?;
        }
        self.buffer.clear();
        Ok(())
    }
}

/// Reads the sections of a snapshot; a primitive sees its own one only.
pub struct SectionReader<'a> {
    frames: FrameReader<'a>,
    /// What is left of the section's frames that have been read.
    buffer: Vec<u8>,
    consumed: usize,
    /// The frame after the section, when it has been reached.
    next: Option<(FrameSort, Vec<u8>)>,
}

impl<'a> SectionReader<'a> {
    /// Begins a snapshot and hands out its header.
    pub(crate) fn begin<H: Message + Default>(
        reader: &'a mut dyn Read,
    ) -> Result<(Self, H), SnapshotError> {
        let mut frames = FrameReader::new(reader);
        let (sort, payload) = frames.read()?;
        if sort != FrameSort::Header {
            return Err(SnapshotError::damaged("it does not begin with a header"));
        }
        let header = decode(&payload)?;
        let reader = Self {
            frames,
            buffer: Vec::new(),
            consumed: 0,
            next: None,
        };
        Ok((reader, header))
    }

    /// The header of the next section; `None` at the end of the snapshot. The present section must
    /// have been read to its end.
    pub(crate) fn next_section<H: Message + Default>(
        &mut self,
    ) -> Result<Option<H>, SnapshotError> {
        if self.fill(1)? {
            return Err(SnapshotError::damaged("a section holds too many records"));
        }
        let Some((sort, payload)) = self.next.take() else {
            return Err(SnapshotError::damaged("a section does not end"));
        };
        match sort {
            FrameSort::Section => Ok(Some(decode(&payload)?)),
            FrameSort::End => Ok(None),
            FrameSort::Header | FrameSort::Data => {
                Err(SnapshotError::damaged("a section begins without a header"))
            }
        }
    }

    /// The next record of the section; `None` at its end.
    ///
    /// # Errors
    /// Damage, and those of the underlying reader.
    pub fn record<M: Message + Default>(&mut self) -> Result<Option<M>, SnapshotError> {
        if !self.fill(1)? {
            return Ok(None);
        }
        let cut = || SnapshotError::damaged("a record is cut off");
        if !self.fill(LENGTH_BYTES)? {
            return Err(cut());
        }
        let length = self.take(LENGTH_BYTES).ok_or_else(cut)?;
        let length: [u8; LENGTH_BYTES] = length.try_into().map_err(|_| cut())?;
        let length = usize::try_from(u32::from_le_bytes(length)).map_err(|_| cut())?;
        if !self.fill(length)? {
            return Err(cut());
        }
        let record = self.take(length).ok_or_else(cut)?;
        Ok(Some(decode(record)?))
    }

    /// The next record, which must exist.
    ///
    /// # Errors
    /// Damage, also when the section has ended.
    pub fn required<M: Message + Default>(&mut self) -> Result<M, SnapshotError> {
        self.record()?
            .ok_or_else(|| SnapshotError::damaged("a section lacks a record"))
    }

    /// Reads frames until the buffer has this many bytes; false if the section ends before.
    fn fill(&mut self, bytes: usize) -> Result<bool, SnapshotError> {
        while self.buffer.len() - self.consumed < bytes {
            if self.next.is_some() {
                return Ok(false);
            }
            match self.frames.read()? {
                (FrameSort::Data, mut payload) => {
                    self.buffer.drain(..self.consumed);
                    self.consumed = 0;
                    self.buffer.append(&mut payload);
                }
                other => self.next = Some(other),
            }
        }
        Ok(true)
    }

    fn take(&mut self, bytes: usize) -> Option<&[u8]> {
        let end = self.consumed.checked_add(bytes)?;
        let taken = self.buffer.get(self.consumed..end)?;
        self.consumed = end;
        Some(taken)
    }
}

fn decode<M: Message + Default>(bytes: &[u8]) -> Result<M, SnapshotError> {
    M::decode(bytes).map_err(|error| SnapshotError::damaged(error.to_string()))
}
