//! How much of the moved entries must be there: their originals are deleted, so that a file of them
//! that is damaged at its end cannot be taken for one that a crash tore.

use std::fs;
use std::io;
use std::path::Path;

use parking_lot::Mutex;

use super::verify::{REWRITE_QUEUE, number_of};
use crate::device::{Device, is_no_room};

/// Beside the log's files.
const NAME: &str = "moved";

/// The newest file of moved entries, and its length in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) file: u64,
    pub(super) length: u64,
}

/// `None` when nothing was deleted yet.
///
/// # Errors
/// It cannot be read, or is no mark: it only ever appears whole.
pub(super) fn read(log_directory: &Path) -> io::Result<Option<Mark>> {
    let text = match fs::read_to_string(log_directory.join(NAME)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut numbers = text.split_whitespace().map(str::parse);
    let mut next = || numbers.next().and_then(Result::ok);
    match (next(), next(), next()) {
        (Some(file), Some(length), Some(checksum)) if checksum == checksum_of(file, length) => {
            Ok(Some(Mark { file, length }))
        }
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{NAME} is damaged"),
        )),
    }
}

fn checksum_of(file: u64, length: u64) -> u64 {
    let bytes = [file.to_le_bytes(), length.to_le_bytes()].concat();
    u64::from(crc32fast::hash(&bytes))
}

/// Where the moved entries end, as their writer goes on.
#[derive(Debug, Default)]
pub(super) struct Moved(Mutex<Marks>);

#[derive(Debug, Default)]
struct Marks {
    synced: Option<Mark>,
    stored: Option<Mark>,
}

impl Moved {
    /// So much of a file is on disk.
    pub(super) fn synced(&self, path: &Path, length: u64) {
        if let Some(file) = number_of(path, REWRITE_QUEUE) {
            self.0.lock().synced = Some(Mark { file, length });
        }
    }

    /// Stores the mark, if it has changed, before originals are deleted. On a full disk it stays as it
    /// was, which is true as well: the deletion is what makes room.
    pub(super) fn store(&self, log_directory: &Path, device: &Device) -> io::Result<()> {
        let mut marks = self.0.lock();
        let Some(mark) = marks.synced.filter(|_| marks.synced != marks.stored) else {
            return Ok(());
        };
        let Mark { file, length } = mark;
        let text = format!("{file} {length} {}\n", checksum_of(file, length));
        match device.replace(&log_directory.join(NAME), text.as_bytes()) {
            Ok(()) => marks.stored = Some(mark),
            Err(error) if is_no_room(&error) => {
                tracing::warn!(%error, "no room to note how far entries were moved");
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_as_it_was_stored_and_no_damaged_one_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let read = || read(folder.path());
        assert_eq!(read().ok(), Some(None));
        let moved = Moved::default();
        moved.synced(Path::new("log/0000000000000001.raftlog"), 7);
        let stored = moved.store(folder.path(), &Device::default());
        stored.expect("nothing to store");
        assert_eq!(read().ok(), Some(None));
        let mark = Mark {
            file: 12,
            length: 345,
        };
        moved.synced(Path::new("log/0000000000000012.rewrite"), mark.length);
        let stored = moved.store(folder.path(), &Device::default());
        stored.expect("a directory");
        assert_eq!(read().ok(), Some(Some(mark)));
        for damaged in ["", "12 345", "12 346 1", "12 x 1"] {
            fs::write(folder.path().join(NAME), damaged).expect("a file");
            assert!(read().is_err(), "{damaged:?}");
        }
    }
}
