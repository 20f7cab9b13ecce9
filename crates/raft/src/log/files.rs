//! The file system as raft-engine sees it: the real one, but recovery may cut files only where
//! [`super::verify`] found a torn batch, and tests may make writes fail.

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use raft_engine::env::{DefaultFileSystem, FileSystem, Handle, Permission, WriteExt};

use super::verify::Cuts;

/// Makes the disk misbehave, in tests.
pub trait DiskFaults: Send + Sync + 'static {
    /// Called before `length` bytes are written. Answers how many of them reach the file, and the
    /// error that the writer gets when they are not all.
    ///
    /// # Errors
    /// Whatever the write shall fail with; nothing is written then.
    fn write(&self, path: &Path, length: usize) -> io::Result<usize> {
        let _ = path;
        Ok(length)
    }

    /// Called before a file is synced.
    ///
    /// # Errors
    /// Whatever the sync shall fail with.
    fn sync(&self, path: &Path) -> io::Result<()> {
        let _ = path;
        Ok(())
    }
}

pub(crate) struct Files {
    inner: DefaultFileSystem,
    cuts: Cuts,
    faults: Option<Arc<dyn DiskFaults>>,
}

impl Files {
    pub(crate) fn new(cuts: Cuts, faults: Option<Arc<dyn DiskFaults>>) -> Self {
        Self {
            inner: DefaultFileSystem,
            cuts,
            faults,
        }
    }

    fn wrap(&self, path: &Path, inner: <DefaultFileSystem as FileSystem>::Handle) -> File {
        File {
            inner: Arc::new(inner),
            path: path.to_owned(),
            may_cut_at: self.cuts.get(path).copied(),
            faults: self.faults.clone(),
        }
    }
}

pub(crate) struct File {
    inner: Arc<<DefaultFileSystem as FileSystem>::Handle>,
    path: PathBuf,
    may_cut_at: Option<usize>,
    faults: Option<Arc<dyn DiskFaults>>,
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
        Handle::truncate(self.inner.as_ref(), offset)
    }

    fn file_size(&self) -> io::Result<usize> {
        self.inner.file_size()
    }

    fn sync(&self) -> io::Result<()> {
        if let Some(faults) = &self.faults {
            faults.sync(&self.path)?;
        }
        self.inner.sync()
    }
}

pub(crate) struct Writer {
    inner: <DefaultFileSystem as FileSystem>::Writer,
    file: Arc<File>,
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(faults) = &self.file.faults else {
            return self.inner.write(bytes);
        };
        let allowed = faults.write(&self.file.path, bytes.len())?;
        if allowed >= bytes.len() {
            return self.inner.write(bytes);
        }
        self.inner
            .write_all(bytes.get(..allowed).unwrap_or_default())?;
        Err(io::Error::other("injected: the write was torn"))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl Seek for Writer {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.inner.seek(position)
    }
}

impl WriteExt for Writer {
    fn truncate(&mut self, offset: usize) -> io::Result<()> {
        self.inner.truncate(offset)
    }

    fn allocate(&mut self, offset: usize, size: usize) -> io::Result<()> {
        self.inner.allocate(offset, size)
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
        Ok(self.wrap(path.as_ref(), self.inner.create(&path)?))
    }

    fn open<P: AsRef<Path>>(&self, path: P, permission: Permission) -> io::Result<File> {
        Ok(self.wrap(path.as_ref(), self.inner.open(&path, permission)?))
    }

    fn delete<P: AsRef<Path>>(&self, path: P) -> io::Result<()> {
        self.inner.delete(path)
    }

    fn rename<P: AsRef<Path>>(&self, from: P, to: P) -> io::Result<()> {
        self.inner.rename(from, to)
    }

    fn new_reader(&self, handle: Arc<File>) -> io::Result<Reader> {
        self.inner.new_reader(handle.inner.clone()).map(Reader)
    }

    fn new_writer(&self, handle: Arc<File>) -> io::Result<Writer> {
        let inner = self.inner.new_writer(handle.inner.clone())?;
        Ok(Writer {
            inner,
            file: handle,
        })
    }
}
