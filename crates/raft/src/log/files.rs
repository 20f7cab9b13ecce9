//! The file system as raft-engine sees it: the real one, with more care. Recovery may cut files
//! only where [`super::verify`] found a torn batch; names of new files, and every batch of files that
//! hold moved entries, are on disk before anything else is written, and files leave the directory one
//! after the other.

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use raft_engine::env::{DefaultFileSystem, FileSystem, Handle, Permission, WriteExt};

use super::mark::Moved;
use super::verify::{Cuts, REWRITE_QUEUE};
use crate::device::{Device, DiskChange, torn};

pub(crate) struct Files {
    inner: DefaultFileSystem,
    cuts: Cuts,
    moved: Arc<Moved>,
    device: Device,
}

impl Files {
    pub(crate) fn new(cuts: Cuts, device: Device) -> Self {
        Self {
            inner: DefaultFileSystem,
            cuts,
            moved: Arc::default(),
            device,
        }
    }

    fn wrap(&self, path: &Path, inner: <DefaultFileSystem as FileSystem>::Handle) -> File {
        File {
            inner: Arc::new(inner),
            path: path.to_owned(),
            may_cut_at: self.cuts.get(path).copied(),
            device: self.device.clone(),
        }
    }
}

pub(crate) struct File {
    inner: Arc<<DefaultFileSystem as FileSystem>::Handle>,
    path: PathBuf,
    may_cut_at: Option<usize>,
    device: Device,
}

impl File {
    fn note_length(&self, length: usize) {
        self.device.note(DiskChange::Resized {
            path: &self.path,
            length: length as u64,
        });
    }
}

impl Handle for File {
    /// Only recovery calls this.
    fn truncate(&self, offset: usize) -> io::Result<()> {
        if self.may_cut_at != Some(offset) {
            return Err(io::Error::other(format!(
                "recovery wants to cut {} at byte {offset}, where no torn batch was found",
                self.path.display()
            )));
        }
        tracing::warn!(path = %self.path.display(), offset, "cutting a torn batch off the log");
        Handle::truncate(self.inner.as_ref(), offset)?;
        self.note_length(offset);
        Ok(())
    }

    fn file_size(&self) -> io::Result<usize> {
        self.inner.file_size()
    }

    fn sync(&self) -> io::Result<()> {
        self.device.may_sync(&self.path)?;
        self.inner.sync()?;
        self.device.note(DiskChange::Synced(&self.path));
        Ok(())
    }
}

pub(crate) struct Writer {
    inner: <DefaultFileSystem as FileSystem>::Writer,
    file: Arc<File>,
    position: u64,
    /// raft-engine syncs rewritten batches only now and then; a power cut could then lose one and
    /// keep the next, which looks like damage. The header of a file is synced for the same reason.
    /// Set for files of moved entries: who is told how far they are on disk.
    moved: Option<Arc<Moved>>,
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let device = &self.file.device;
        let allowed = device.may_write(&self.file.path, bytes.len())?;
        let taken = bytes.get(..allowed).unwrap_or(bytes);
        self.inner.write_all(taken)?;
        device.note(DiskChange::Written {
            path: &self.file.path,
            offset: self.position,
            bytes: taken,
        });
        let is_header = self.position == 0;
        self.position += taken.len() as u64;
        if taken.len() < bytes.len() {
            return Err(torn());
        }
        if self.moved.is_some() || is_header {
            self.file.sync()?;
        }
        if let Some(moved) = &self.moved {
            moved.synced(&self.file.path, self.position);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl Seek for Writer {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.position = self.inner.seek(position)?;
        Ok(self.position)
    }
}

impl WriteExt for Writer {
    fn truncate(&mut self, offset: usize) -> io::Result<()> {
        self.inner.truncate(offset)?;
        self.position = offset as u64;
        self.file.note_length(offset);
        Ok(())
    }

    fn allocate(&mut self, offset: usize, size: usize) -> io::Result<()> {
        self.inner.allocate(offset, size)?;
        self.file.note_length(self.file.file_size()?);
        Ok(())
    }
}

pub(crate) struct Reader(<DefaultFileSystem as FileSystem>::Reader);

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Seek for Reader {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.0.seek(position)
    }
}

impl FileSystem for Files {
    type Handle = File;
    type Reader = Reader;
    type Writer = Writer;

    fn create<P: AsRef<Path>>(&self, path: P) -> io::Result<File> {
        let path = path.as_ref();
        let file = self.wrap(path, self.inner.create(path)?);
        self.device.note(DiskChange::Created(path));
        if let Some(directory) = path.parent() {
            self.device.sync_directory(directory)?;
        }
        Ok(file)
    }

    fn open<P: AsRef<Path>>(&self, path: P, permission: Permission) -> io::Result<File> {
        Ok(self.wrap(path.as_ref(), self.inner.open(&path, permission)?))
    }

    fn delete<P: AsRef<Path>>(&self, path: P) -> io::Result<()> {
        let path = path.as_ref();
        if let Some(directory) = path.parent() {
            self.moved.store(directory, &self.device)?;
        }
        self.inner.delete(path)?;
        self.device.note(DiskChange::Removed(path));
        // One after the other: were a later file gone and an earlier one back, a file would seem to
        // be missing.
        if let Some(directory) = path.parent() {
            self.device.sync_directory(directory)?;
        }
        Ok(())
    }

    fn rename<P: AsRef<Path>>(&self, from: P, to: P) -> io::Result<()> {
        self.inner.rename(&from, &to)?;
        let (from, to) = (from.as_ref(), to.as_ref());
        self.device.note(DiskChange::Renamed { from, to });
        Ok(())
    }

    fn new_reader(&self, handle: Arc<File>) -> io::Result<Reader> {
        self.inner.new_reader(handle.inner.clone()).map(Reader)
    }

    fn new_writer(&self, handle: Arc<File>) -> io::Result<Writer> {
        let name = handle.path.to_string_lossy();
        let moved = name.ends_with(REWRITE_QUEUE).then(|| self.moved.clone());
        drop(name);
        let inner = self.inner.new_writer(handle.inner.clone())?;
        Ok(Writer {
            inner,
            file: handle,
            position: 0,
            moved,
        })
    }
}
