//! Every change that this crate makes to its data directory, so that tests can see each of them
//! and make it fail. Not for reading.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::{Errno, retry_on_intr};

/// Makes the disk misbehave, in tests.
pub trait DiskFaults: Send + Sync + 'static {
    /// Called before `length` bytes are written. Answers how many of them reach the file; the
    /// writer gets an error when they are not all.
    ///
    /// # Errors
    /// Whatever the write shall fail with; nothing is written then.
    fn write(&self, path: &Path, length: usize) -> io::Result<usize> {
        let _ = path;
        Ok(length)
    }

    /// Called before room for `length` bytes of a file is reserved.
    ///
    /// # Errors
    /// Whatever the reservation shall fail with.
    fn reserve(&self, path: &Path, length: u64) -> io::Result<()> {
        let _ = (path, length);
        Ok(())
    }

    /// Called before a file is synced.
    ///
    /// # Errors
    /// Whatever the sync shall fail with.
    fn sync(&self, path: &Path) -> io::Result<()> {
        let _ = path;
        Ok(())
    }

    /// Called after the disk changed. Changes of one file come in their order.
    fn changed(&self, change: DiskChange<'_>) {
        let _ = change;
    }
}

/// A change of the disk; a power cut may undo all that no later sync covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskChange<'a> {
    /// A directory was made.
    DirectoryCreated(&'a Path),
    /// A file was made, or emptied.
    Created(&'a Path),
    /// Bytes were written to a file.
    Written {
        /// The file.
        path: &'a Path,
        /// Where in the file.
        offset: u64,
        /// What was written.
        bytes: &'a [u8],
    },
    /// A file got another length; bytes that are new are zero.
    Resized {
        /// The file.
        path: &'a Path,
        /// Its length now.
        length: u64,
    },
    /// What was written to a file is on disk, its name perhaps not.
    Synced(&'a Path),
    /// A file got another name, in the same directory.
    Renamed {
        /// The old name.
        from: &'a Path,
        /// The new name; a file that had it is gone.
        to: &'a Path,
    },
    /// A file, or a directory with all its files, is gone.
    Removed(&'a Path),
    /// The names in a directory are on disk.
    DirectorySynced(&'a Path),
}

/// The way to the disk.
#[derive(Clone, Default)]
pub(crate) struct Device {
    faults: Option<Arc<dyn DiskFaults>>,
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Device")
    }
}

impl Device {
    pub(crate) fn new(faults: Option<Arc<dyn DiskFaults>>) -> Self {
        Self { faults }
    }

    /// How many of `length` bytes may be written.
    pub(crate) fn may_write(&self, path: &Path, length: usize) -> io::Result<usize> {
        match &self.faults {
            None => Ok(length),
            Some(faults) => faults.write(path, length),
        }
    }

    pub(crate) fn may_sync(&self, path: &Path) -> io::Result<()> {
        match &self.faults {
            None => Ok(()),
            Some(faults) => faults.sync(path),
        }
    }

    pub(crate) fn note(&self, change: DiskChange<'_>) {
        if let Some(faults) = &self.faults {
            faults.changed(change);
        }
    }

    /// Makes a directory with its parents; they are on disk when this returns.
    pub(crate) fn create_directory(&self, path: &Path) -> io::Result<()> {
        if path.is_dir() {
            return Ok(());
        }
        let parent = path.parent().filter(|parent| *parent != Path::new(""));
        if let Some(parent) = parent {
            self.create_directory(parent)?;
        }
        match fs::create_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            created => created?,
        }
        self.note(DiskChange::DirectoryCreated(path));
        self.sync_directory(parent.unwrap_or(Path::new(".")))
    }

    /// Makes an empty file.
    pub(crate) fn create(&self, path: &Path) -> io::Result<DeviceFile> {
        let file = File::create(path)?;
        self.note(DiskChange::Created(path));
        Ok(DeviceFile {
            file,
            path: path.to_owned(),
            written: 0,
            device: self.clone(),
        })
    }

    /// Writes a small file whole: it has its old content until it durably has the new one.
    pub(crate) fn replace(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let temporary = path.with_added_extension("tmp");
        let mut file = self.create(&temporary)?;
        file.write_all(content)?;
        file.sync()?;
        self.rename(&temporary, path)?;
        self.sync_directory(path.parent().unwrap_or(Path::new(".")))
    }

    pub(crate) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)?;
        self.note(DiskChange::Renamed { from, to });
        Ok(())
    }

    pub(crate) fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)?;
        self.note(DiskChange::Removed(path));
        Ok(())
    }

    pub(crate) fn remove_directory(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)?;
        self.note(DiskChange::Removed(path));
        Ok(())
    }

    /// Makes what was created, renamed and removed in a directory durable.
    pub(crate) fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        self.may_sync(directory)?;
        OpenOptions::new().read(true).open(directory)?.sync_all()?;
        self.note(DiskChange::DirectorySynced(directory));
        Ok(())
    }
}

/// A file that is written from its beginning to its end.
pub(crate) struct DeviceFile {
    file: File,
    path: PathBuf,
    written: u64,
    device: Device,
}

impl DeviceFile {
    /// Takes room for so many bytes off the disk. A file system that cannot promise any, for whatever
    /// reason, is trusted to have it: the writing will tell.
    pub(crate) fn reserve(&self, length: u64) -> io::Result<()> {
        if length == 0 {
            return Ok(());
        }
        if let Some(faults) = &self.device.faults {
            faults.reserve(&self.path, length)?;
        }
        let reserve = || fallocate(&self.file, FallocateFlags::KEEP_SIZE, 0, length);
        match retry_on_intr(reserve) {
            Err(error @ (Errno::NOSPC | Errno::DQUOT)) => Err(error.into()),
            Err(error) => {
                tracing::debug!(path = %self.path.display(), %error, "no room can be reserved");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// Gives reserved room back that was not written to.
    pub(crate) fn release_rest(&self) -> io::Result<()> {
        self.file.set_len(self.written)
    }

    /// Makes what was written durable; not the file's name.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.device.may_sync(&self.path)?;
        self.file.sync_all()?;
        self.device.note(DiskChange::Synced(&self.path));
        Ok(())
    }
}

impl Write for DeviceFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let allowed = self.device.may_write(&self.path, bytes.len())?;
        let taken = bytes.get(..allowed).unwrap_or(bytes);
        self.file.write_all(taken)?;
        self.device.note(DiskChange::Written {
            path: &self.path,
            offset: self.written,
            bytes: taken,
        });
        self.written += taken.len() as u64;
        if taken.len() < bytes.len() {
            return Err(torn());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Whether it is over when there is room again.
pub(crate) fn is_no_room(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

pub(crate) fn torn() -> io::Error {
    io::Error::other("injected: the write was torn")
}
