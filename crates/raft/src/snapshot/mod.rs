//! Snapshots of one group as files.
//!
//! A snapshot appears under its name only when it is whole and on disk. The newest two are kept:
//! should the newest be damaged, the older one and the log behind it bring the state back. When none
//! that can be read reaches what was compacted, the group is not started.

mod frames;
mod receive;
mod temporary;

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use atomix_proto::multiraft::v1 as pb;
use prost::Message as _;

pub(crate) use receive::{Progress, ReceiveError, Receiver};

use crate::codec;
use crate::device::{Device, is_no_room};
use crate::types::{LogId, SnapshotMeta, index_of};
use frames::{FrameReader, FrameWriter};
use temporary::Temporary;

const SUFFIX: &str = ".snapshot";
const TEMPORARY_SUFFIX: &str = ".tmp";
const KEPT: usize = 2;

/// A whole snapshot file. Stays readable when the file is deleted.
#[derive(Debug, Clone)]
pub(crate) struct SnapshotFile {
    file: Arc<File>,
    path: PathBuf,
    meta: SnapshotMeta,
    length: u64,
    /// Set while it was received and not adopted: goes with the last copy of this, as with a
    /// snapshot that came too late to be installed.
    received: Option<Arc<Temporary>>,
}

impl SnapshotFile {
    fn open(path: &Path) -> io::Result<Self> {
        let file = Arc::new(File::open(path)?);
        let length = file.metadata()?.len();
        let (meta, _) = FrameReader::open(file.clone())?;
        let meta = pb::SnapshotMeta::decode(meta.as_slice()).map_err(io::Error::other)?;
        Ok(Self {
            file,
            path: path.to_owned(),
            meta: codec::snapshot_meta_from_pb(&meta).map_err(io::Error::other)?,
            length,
            received: None,
        })
    }

    pub(crate) fn meta(&self) -> &SnapshotMeta {
        &self.meta
    }

    pub(crate) fn last_index(&self) -> u64 {
        index_of(self.meta.last_log_id.as_ref())
    }

    /// The length of the file in bytes.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Reads raw bytes of the file, to send them.
    pub(crate) fn read_chunk(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let rest = usize::try_from(self.length.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut chunk = vec![0; length.min(rest)];
        self.file.read_exact_at(&mut chunk, offset)?;
        Ok(chunk)
    }

    /// Reads what the machine wrote.
    pub(crate) fn reader(&self) -> io::Result<impl Read + use<>> {
        let (_, reader) = FrameReader::open(self.file.clone())?;
        Ok(reader)
    }

    /// Reads all of it, which checks all of it.
    fn check(&self) -> io::Result<()> {
        io::copy(&mut self.reader()?, &mut io::sink()).map(|_| ())
    }
}

/// The last compacted entry of a log, if no whole snapshot reaches it: what it was is lost then.
pub(crate) fn compacted_beyond(
    compacted: Option<LogId>,
    newest: Option<&SnapshotFile>,
) -> Option<u64> {
    let compacted = compacted?.index;
    let reached = newest.and_then(|file| file.meta.last_log_id);
    reached
        .is_none_or(|last| last.index < compacted)
        .then_some(compacted)
}

/// The directory of one group's snapshots.
#[derive(Debug, Clone)]
pub(crate) struct SnapshotStore {
    directory: PathBuf,
    device: Device,
}

impl SnapshotStore {
    /// Opens the directory, and removes what a crash left unfinished.
    pub(crate) fn open(directory: PathBuf, device: Device) -> io::Result<Self> {
        device.create_directory(&directory)?;
        for path in files(&directory, TEMPORARY_SUFFIX)? {
            device.remove_file(&path)?;
        }
        if let Some(parent) = directory.parent() {
            device.sync_directory(parent)?;
        }
        Ok(Self { directory, device })
    }

    /// The snapshots that are whole, newest first.
    pub(crate) fn list(&self) -> io::Result<Vec<SnapshotFile>> {
        let mut whole = Vec::new();
        for path in files(&self.directory, SUFFIX)?.into_iter().rev() {
            let checked = SnapshotFile::open(&path).and_then(|file| {
                file.check()?;
                Ok(file)
            });
            match checked {
                Ok(file) => whole.push(file),
                Err(error) => {
                    tracing::error!(path = %path.display(), %error, "a damaged snapshot is left out");
                }
            }
        }
        Ok(whole)
    }

    /// Writes a snapshot, for which room is reserved first, `expected` bytes or what it really needs:
    /// one that finds none leaves what there is to the log. Blocks.
    pub(crate) fn create(
        &self,
        meta: &SnapshotMeta,
        expected: u64,
        write: impl Fn(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<SnapshotFile> {
        // One at a time, and adopted before the next.
        let temporary = self.temporary("build");
        let written = self.write_file(&temporary, meta, expected, write);
        let adopted = written.and_then(|()| self.adopt(SnapshotFile::open(&temporary)?));
        // Not there: adopted, and what failed came after.
        if adopted.is_err()
            && temporary.exists()
            && let Err(error) = self.device.remove_file(&temporary)
        {
            tracing::warn!(path = %temporary.display(), %error, "an unfinished snapshot stays for now");
        }
        adopted
    }

    fn write_file(
        &self,
        path: &Path,
        meta: &SnapshotMeta,
        expected: u64,
        write: impl Fn(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        let encoded = codec::snapshot_meta_to_pb(meta).encode_to_vec();
        let file = self.device.create(path)?;
        match file.reserve(expected) {
            // The state may have become smaller.
            Err(error) if is_no_room(&error) => {
                let needed = write_frames(Counted(0), &encoded, &write)?.0;
                if needed >= expected {
                    return Err(error);
                }
                file.reserve(needed)?;
            }
            reserved => reserved?,
        }
        let file = write_frames(BufWriter::new(file), &encoded, &write)?
            .into_inner()
            .map_err(|error| error.into_error())?;
        file.release_rest()?;
        file.sync()
    }

    /// A file of the snapshot directory that is no snapshot yet; an old one is replaced.
    fn temporary(&self, purpose: &str) -> PathBuf {
        self.directory.join(format!("{purpose}{TEMPORARY_SUFFIX}"))
    }

    /// Gives a whole, synced file its name, and deletes older ones.
    pub(crate) fn adopt(&self, file: SnapshotFile) -> io::Result<SnapshotFile> {
        let term = file
            .meta
            .last_log_id
            .as_ref()
            .map_or(0, |id| id.leader_id.term);
        let name = format!("{:020}-{term:020}{SUFFIX}", file.last_index());
        let path = self.directory.join(name);
        if file.path == path {
            return Ok(file);
        }
        self.device.rename(&file.path, &path)?;
        if let Some(received) = &file.received {
            received.keep();
        }
        self.device.sync_directory(&self.directory)?;
        let mut snapshots = files(&self.directory, SUFFIX)?;
        snapshots.truncate(snapshots.len().saturating_sub(KEPT));
        for old in snapshots {
            self.device.remove_file(&old)?;
        }
        Ok(SnapshotFile {
            path,
            received: None,
            ..file
        })
    }
}

fn write_frames<W: Write>(
    inner: W,
    meta: &[u8],
    write: impl Fn(&mut dyn Write) -> io::Result<()>,
) -> io::Result<W> {
    let mut writer = FrameWriter::new(inner, meta)?;
    write(&mut writer)?;
    writer.finish()
}

/// Only counts the bytes that are written to it.
struct Counted(u64);

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The files with a suffix, sorted by name.
fn files(directory: &Path, suffix: &str) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().ends_with(suffix) {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;
    use crate::device::DiskFaults;
    use crate::types::StoredMembership;

    /// Has room for a few bytes.
    struct AlmostFull;

    impl DiskFaults for AlmostFull {
        fn reserve(&self, _path: &Path, length: u64) -> io::Result<()> {
            if length > 1 << 10 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            Ok(())
        }
    }

    #[test]
    fn a_state_that_has_become_small_needs_no_more_room_than_it_has() {
        let folder = tempfile::tempdir().expect("a folder");
        let device = Device::new(Some(Arc::new(AlmostFull)));
        let store = SnapshotStore::open(folder.path().join("7"), device);
        let store = store.expect("an empty directory");
        let meta = SnapshotMeta {
            last_log_id: Some(LogId::new_term_index(1, 1)),
            last_membership: StoredMembership::default(),
        };
        let small = store.create(&meta, 1 << 20, |writer| writer.write_all(b"small"));
        assert!(small.is_ok(), "{small:?}");
        let large = store.create(&meta, 1 << 20, |writer| writer.write_all(&[0; 2 << 10]));
        let refused = large.expect_err("there is no room");
        assert_eq!(refused.kind(), io::ErrorKind::StorageFull);
        let left = files(&folder.path().join("7"), TEMPORARY_SUFFIX);
        assert!(left.expect("a directory").is_empty());
    }

    #[test]
    fn room_that_was_reserved_and_not_needed_is_given_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = SnapshotStore::open(folder.path().join("7"), Device::default());
        let store = store.expect("an empty directory");
        let meta = SnapshotMeta {
            last_log_id: Some(LogId::new_term_index(1, 1)),
            last_membership: StoredMembership::default(),
        };
        let expected = 4 << 20;
        let file = store.create(&meta, expected, |writer| writer.write_all(b"small"));
        let taken = file.expect("a snapshot").path.metadata();
        let taken = taken.expect("the file is there");
        assert!(taken.len() < 1 << 10, "{taken:?}");
        assert!(taken.blocks() * 512 < expected / 2, "{taken:?}");
    }
}
