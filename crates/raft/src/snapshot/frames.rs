//! The format of snapshot files: a magic number, then frames of `length: u32, bytes, crc32`,
//! little-endian. The first frame is the encoded `SnapshotMeta`, the others are the machine's
//! bytes; an empty one ends the file.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

const MAGIC: &[u8; 8] = b"ATXSNAP1";
const FRAME_BYTES: usize = 256 << 10;
/// Larger ones are not read: no writer makes them.
const MAX_FRAME_BYTES: usize = 64 << 20;

/// Cuts what is written into frames.
pub(super) struct FrameWriter<W: Write> {
    inner: W,
    frame: Vec<u8>,
}

impl<W: Write> FrameWriter<W> {
    pub(super) fn new(mut inner: W, meta: &[u8]) -> io::Result<Self> {
        inner.write_all(MAGIC)?;
        write_frame(&mut inner, meta)?;
        Ok(Self {
            inner,
            frame: Vec::with_capacity(FRAME_BYTES),
        })
    }

    pub(super) fn finish(mut self) -> io::Result<W> {
        if !self.frame.is_empty() {
            write_frame(&mut self.inner, &self.frame)?;
        }
        write_frame(&mut self.inner, &[])?;
        self.inner.flush()?;
        Ok(self.inner)
    }
}

fn write_frame(inner: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    inner.write_all(&length.to_le_bytes())?;
    inner.write_all(bytes)?;
    inner.write_all(&crc32fast::hash(bytes).to_le_bytes())
}

impl<W: Write> Write for FrameWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(FRAME_BYTES - self.frame.len());
        self.frame
            .extend_from_slice(bytes.get(..taken).unwrap_or_default());
        if self.frame.len() == FRAME_BYTES {
            write_frame(&mut self.inner, &self.frame)?;
            self.frame.clear();
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads the machine's bytes, each frame checked before any of it is handed out.
pub(super) struct FrameReader {
    file: Arc<File>,
    position: u64,
    frame: Vec<u8>,
    read: usize,
    ended: bool,
}

impl FrameReader {
    /// Answers the encoded meta data, too.
    pub(super) fn open(file: Arc<File>) -> io::Result<(Vec<u8>, Self)> {
        let mut magic = [0; MAGIC.len()];
        file.read_exact_at(&mut magic, 0)?;
        if &magic != MAGIC {
            return Err(corrupt("it does not begin like one"));
        }
        let mut reader = Self {
            file,
            position: MAGIC.len() as u64,
            frame: Vec::new(),
            read: 0,
            ended: false,
        };
        reader.next_frame()?;
        if reader.ended {
            return Err(corrupt("it has no meta data"));
        }
        let meta = std::mem::take(&mut reader.frame);
        Ok((meta, reader))
    }

    fn next_frame(&mut self) -> io::Result<()> {
        let length = self.read_u32()? as usize;
        if length > MAX_FRAME_BYTES {
            return Err(corrupt("a frame is too long"));
        }
        self.frame.resize(length, 0);
        self.file.read_exact_at(&mut self.frame, self.position)?;
        self.position += length as u64;
        if self.read_u32()? != crc32fast::hash(&self.frame) {
            return Err(corrupt("a checksum does not match"));
        }
        self.read = 0;
        self.ended = length == 0;
        Ok(())
    }

    fn read_u32(&mut self) -> io::Result<u32> {
        let mut bytes = [0; size_of::<u32>()];
        self.file.read_exact_at(&mut bytes, self.position)?;
        self.position += bytes.len() as u64;
        Ok(u32::from_le_bytes(bytes))
    }
}

impl Read for FrameReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.read == self.frame.len() {
            if self.ended {
                return Ok(0);
            }
            self.next_frame()?;
        }
        let rest = self.frame.get(self.read..).unwrap_or_default();
        let taken = rest.len().min(buffer.len());
        for (to, from) in buffer.iter_mut().zip(rest) {
            *to = *from;
        }
        self.read += taken;
        Ok(taken)
    }
}

fn corrupt(reason: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("the snapshot is damaged: {reason}"),
    )
}
