//! Receives a snapshot in chunks.

use std::io::{self, Write};
use std::sync::Arc;

use atomix_proto::multiraft::v1 as pb;

use super::temporary::Temporary;
use super::{SnapshotFile, SnapshotStore};
use crate::codec;
use crate::device::{DeviceFile, is_no_room};

/// Nothing of the transfer is left.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReceiveError {
    /// The sender must begin anew.
    #[error("{0}")]
    Broken(String),
    /// The sender must begin anew, and may find some.
    #[error("no room for a received snapshot: {0}")]
    NoRoom(io::Error),
    /// Nobody knows what the disk holds: the process must end.
    #[error("cannot write a received snapshot: {0}")]
    Disk(io::Error),
}

impl From<io::Error> for ReceiveError {
    fn from(error: io::Error) -> Self {
        if is_no_room(&error) {
            Self::NoRoom(error)
        } else {
            Self::Disk(error)
        }
    }
}

/// The transfer that goes on, if any; a new one takes its place.
pub(crate) struct Receiver {
    store: SnapshotStore,
    transfer: Option<Transfer>,
}

struct Transfer {
    /// The sender's vote and its number of the transfer.
    id: (u64, u64, u64),
    file: DeviceFile,
    received: u64,
    /// Goes with the transfer, or becomes the whole file's.
    temporary: Temporary,
}

impl Receiver {
    pub(crate) fn new(store: SnapshotStore) -> Self {
        Self {
            store,
            transfer: None,
        }
    }

    /// Takes a chunk; answers the whole, checked file with the last one. Blocks.
    pub(crate) fn receive(&mut self, chunk: &pb::SnapshotChunk) -> Result<Progress, ReceiveError> {
        let vote = chunk.vote.unwrap_or_default();
        let id = (vote.term, vote.member_id, chunk.transfer_id);
        if crc32fast::hash(&chunk.data) != chunk.crc {
            return Err(self.broken("a chunk was damaged on the way"));
        }
        if chunk.offset == 0 {
            // First: it may be what takes the room.
            self.transfer = None;
            self.transfer = Some(Transfer::begin(&self.store, id)?);
        }
        // Back in its place only when more is to come: after any failure its file goes.
        let transfer = self.transfer.take_if(|transfer| transfer.id == id);
        let Some(mut transfer) = transfer else {
            return Err(ReceiveError::Broken(
                "the transfer is not known here".to_owned(),
            ));
        };
        let received = transfer.take(chunk)?;
        let Some(end) = &chunk.end else {
            self.transfer = Some(transfer);
            return Ok(Progress::More(received));
        };
        transfer.finish(end).map(Progress::Whole)
    }

    fn broken(&mut self, reason: &str) -> ReceiveError {
        self.transfer = None;
        ReceiveError::Broken(reason.to_owned())
    }
}

impl Transfer {
    fn begin(store: &SnapshotStore, id: (u64, u64, u64)) -> io::Result<Self> {
        let temporary = Temporary::new(store);
        let file = store.device.create(temporary.path())?;
        Ok(Self {
            id,
            file,
            received: 0,
            temporary,
        })
    }

    /// Writes a chunk; answers how many bytes have arrived.
    fn take(&mut self, chunk: &pb::SnapshotChunk) -> Result<u64, ReceiveError> {
        if self.received != chunk.offset {
            let reason = format!("byte {} is missing", self.received);
            return Err(ReceiveError::Broken(reason));
        }
        self.file.write_all(&chunk.data)?;
        self.received += chunk.data.len() as u64;
        Ok(self.received)
    }

    /// Syncs and checks a file of which everything should have arrived.
    fn finish(self, end: &pb::SnapshotEnd) -> Result<SnapshotFile, ReceiveError> {
        let broken = |error: &dyn std::fmt::Display| ReceiveError::Broken(error.to_string());
        if end.length != self.received {
            return Err(broken(&"the length does not match"));
        }
        self.file.sync()?;
        let meta = end.meta.as_ref().ok_or_else(|| broken(&"no meta data"))?;
        let meta = codec::snapshot_meta_from_pb(meta).map_err(|error| broken(&error))?;
        let file = SnapshotFile::open(self.temporary.path()).map_err(|error| broken(&error))?;
        file.check().map_err(|error| broken(&error))?;
        if *file.meta() != meta {
            return Err(broken(&"the file is another snapshot than announced"));
        }
        Ok(SnapshotFile {
            received: Some(Arc::new(self.temporary)),
            ..file
        })
    }
}

#[derive(Debug)]
pub(crate) enum Progress {
    /// How many bytes have arrived.
    More(u64),
    Whole(SnapshotFile),
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::path::Path;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::device::{Device, DiskFaults};
    use crate::types::{LogId, SnapshotMeta, StoredMembership};

    const CHUNK: usize = 100;

    /// A group that sends snapshots and one that receives them.
    struct Bed {
        folder: tempfile::TempDir,
        receiver: Receiver,
    }

    impl Bed {
        fn new() -> Self {
            Self::on(Device::default())
        }

        fn on(device: Device) -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let store = SnapshotStore::open(folder.path().join("to"), device);
            let receiver = Receiver::new(store.expect("a directory"));
            Self { folder, receiver }
        }

        /// The chunks of a snapshot up to `index` with these contents.
        fn chunks(&self, transfer_id: u64, index: u64, contents: &[u8]) -> Vec<pb::SnapshotChunk> {
            let meta = SnapshotMeta {
                last_log_id: Some(LogId::new_term_index(1, index)),
                last_membership: StoredMembership::default(),
            };
            let from = store(&self.folder.path().join(format!("from-{transfer_id}")));
            let file = from.create(&meta, 0, |writer| writer.write_all(contents));
            let file = file.expect("a snapshot");
            let all = file
                .read_chunk(0, usize::MAX)
                .expect("the snapshot's bytes");
            let mut chunks = Vec::new();
            for (number, data) in all.chunks(CHUNK).enumerate() {
                chunks.push(pb::SnapshotChunk {
                    vote: None,
                    transfer_id,
                    offset: (number * CHUNK) as u64,
                    crc: crc32fast::hash(data),
                    data: data.to_vec().into(),
                    end: None,
                });
            }
            let last = chunks.last_mut().expect("a chunk");
            last.end = Some(pb::SnapshotEnd {
                length: all.len() as u64,
                meta: Some(codec::snapshot_meta_to_pb(&meta)),
            });
            chunks
        }

        fn all(&mut self, chunks: &[pb::SnapshotChunk]) -> SnapshotFile {
            let (last, others) = chunks.split_last().expect("a chunk");
            for chunk in others {
                let progress = self.receiver.receive(chunk).expect("a good chunk");
                let next = chunk.offset + chunk.data.len() as u64;
                assert!(matches!(progress, Progress::More(more) if more == next));
            }
            match self.receiver.receive(last).expect("the last chunk") {
                Progress::Whole(file) => file,
                Progress::More(more) => panic!("{more} bytes are not all"),
            }
        }

        fn refuses(&mut self, chunk: &pb::SnapshotChunk, reason: &str) {
            match self.receiver.receive(chunk) {
                Err(ReceiveError::Broken(said)) => assert!(said.contains(reason), "{said}"),
                other => panic!("expected {reason:?}, not {other:?}"),
            }
        }

        /// The files of the receiving group.
        fn files(&self) -> Vec<String> {
            let folder = std::fs::read_dir(self.folder.path().join("to")).expect("the folder");
            let mut names: Vec<String> = folder
                .map(|entry| entry.expect("an entry").file_name())
                .map(|name| name.to_string_lossy().into_owned())
                .collect();
            names.sort();
            names
        }
    }

    fn store(directory: &Path) -> SnapshotStore {
        SnapshotStore::open(directory.to_owned(), Device::default()).expect("a directory")
    }

    fn contents(file: &SnapshotFile) -> Vec<u8> {
        let mut contents = Vec::new();
        let mut reader = file.reader().expect("a reader");
        reader.read_to_end(&mut contents).expect("a whole file");
        contents
    }

    #[test]
    fn a_transfer_arrives_whole_and_is_adopted_under_its_name() {
        let mut bed = Bed::new();
        let chunks = bed.chunks(1, 7, &[5; 1000]);
        assert!(chunks.len() > 2);
        let file = bed.all(&chunks);
        assert_eq!(contents(&file), [5; 1000]);
        let copy = file.clone();
        let adopted = bed.receiver.store.adopt(file).expect("it is adopted");
        drop(copy);
        assert_eq!(contents(&adopted), [5; 1000]);
        drop(adopted);
        let files = bed.files();
        assert_eq!(files.len(), 1, "{files:?}");
        assert!(files.iter().all(|name| name.ends_with(".snapshot")));
    }

    #[test]
    fn a_transfer_that_begins_before_another_is_adopted_does_not_touch_its_file() {
        let mut bed = Bed::new();
        let first = bed.chunks(1, 7, &[5; 1000]);
        let second = bed.chunks(2, 9, &[6; 2000]);
        let whole = bed.all(&first);
        // A new leader, or the same after its stream broke, while the first is installed.
        let (begin, rest) = second.split_at(1);
        for chunk in begin {
            bed.receiver.receive(chunk).expect("it begins");
        }
        let adopted = bed.receiver.store.adopt(whole).expect("it is adopted");
        assert_eq!(contents(&adopted), [5; 1000], "the first is as it was");
        let whole = bed.all(rest);
        let adopted = bed.receiver.store.adopt(whole).expect("it is adopted, too");
        assert_eq!(contents(&adopted), [6; 2000]);
        assert_eq!(bed.files().len(), 2);
    }

    #[test]
    fn what_is_received_and_never_adopted_goes() {
        let mut bed = Bed::new();
        let chunks = bed.chunks(1, 7, &[5; 1000]);
        let whole = bed.all(&chunks);
        assert_eq!(bed.files().len(), 1);
        drop(whole);
        assert_eq!(bed.files(), [""; 0]);
    }

    #[test]
    fn a_broken_transfer_leaves_nothing_and_must_begin_anew() {
        type Damage = fn(&mut pb::SnapshotChunk);
        let damages: [(Damage, &str); 5] = [
            (|chunk| chunk.crc ^= 1, "damaged on the way"),
            (|chunk| chunk.offset += 1, "is missing"),
            (
                |chunk| {
                    chunk.end = Some(pb::SnapshotEnd {
                        length: 1,
                        meta: None,
                    });
                },
                "length does not match",
            ),
            (
                |chunk| {
                    let length = chunk.offset + chunk.data.len() as u64;
                    chunk.end = Some(pb::SnapshotEnd { length, meta: None });
                },
                "no meta data",
            ),
            (
                |chunk| {
                    // Ends too early, in the middle of a frame.
                    let length = chunk.offset + chunk.data.len() as u64;
                    let meta = Some(codec::snapshot_meta_to_pb(&SnapshotMeta::default()));
                    chunk.end = Some(pb::SnapshotEnd { length, meta });
                },
                "",
            ),
        ];
        for (damage, reason) in damages {
            let mut bed = Bed::new();
            let chunks = bed.chunks(1, 7, &[5; 1000]);
            bed.receiver.receive(&chunks[0]).expect("it begins");
            let mut damaged = chunks[1].clone();
            damage(&mut damaged);
            bed.refuses(&damaged, reason);
            assert_eq!(bed.files(), [""; 0], "{reason}");
            bed.refuses(&chunks[1], "not known here");
            let whole = bed.all(&chunks);
            assert_eq!(contents(&whole), [5; 1000], "the sender began anew");
        }
    }

    /// Fails one operation on received files, from some write on.
    struct Faulty {
        writes_left: AtomicU64,
        write: Option<io::ErrorKind>,
        sync: Option<io::ErrorKind>,
    }

    impl DiskFaults for Faulty {
        fn write(&self, _path: &Path, length: usize) -> io::Result<usize> {
            let left = self.writes_left.load(Ordering::Relaxed);
            self.writes_left
                .store(left.saturating_sub(1), Ordering::Relaxed);
            match self.write {
                Some(kind) if left == 0 => Err(kind.into()),
                _ => Ok(length),
            }
        }

        fn sync(&self, path: &Path) -> io::Result<()> {
            match self.sync {
                Some(kind) if path.extension().is_some_and(|suffix| suffix == "tmp") => {
                    Err(kind.into())
                }
                _ => Ok(()),
            }
        }
    }

    #[test]
    fn a_failed_write_or_sync_leaves_nothing_and_only_a_full_disk_is_no_failure_of_it() {
        const FULL: io::ErrorKind = io::ErrorKind::StorageFull;
        const OTHER: io::ErrorKind = io::ErrorKind::Other;
        // What fails, whether the process must end.
        let table = [
            (Some(FULL), None, false),
            (Some(io::ErrorKind::QuotaExceeded), None, false),
            (Some(OTHER), None, true),
            (None, Some(FULL), false),
            (None, Some(OTHER), true),
        ];
        for (write, sync, is_fatal) in table {
            for writes_left in [0, 1, 5] {
                let faults = Arc::new(Faulty {
                    writes_left: AtomicU64::new(writes_left),
                    write,
                    sync,
                });
                let mut bed = Bed::on(Device::new(Some(faults)));
                let chunks = bed.chunks(1, 7, &[5; 1000]);
                let failed = chunks
                    .iter()
                    .find_map(|chunk| bed.receiver.receive(chunk).err());
                match failed {
                    Some(ReceiveError::Disk(_)) => assert!(is_fatal, "{write:?}, {sync:?}"),
                    Some(ReceiveError::NoRoom(_)) => assert!(!is_fatal, "{write:?}, {sync:?}"),
                    other => panic!("{write:?}, {sync:?}: {other:?}"),
                }
                assert_eq!(bed.files(), [""; 0], "{write:?}, {sync:?}");
            }
        }
    }

    #[test]
    fn a_file_that_was_damaged_before_it_was_sent_is_refused() {
        let mut bed = Bed::new();
        let mut chunks = bed.chunks(1, 7, &[5; 1000]);
        let mut data = chunks[4].data.to_vec();
        data[0] ^= 1;
        chunks[4].crc = crc32fast::hash(&data);
        chunks[4].data = data.into();
        let (last, others) = chunks.split_last().expect("a chunk");
        for chunk in others {
            bed.receiver.receive(chunk).expect("it arrives as sent");
        }
        bed.refuses(last, "a checksum does not match");
        assert_eq!(bed.files(), [""; 0]);
    }

    #[test]
    fn another_snapshot_than_announced_is_refused() {
        let mut bed = Bed::new();
        let mut chunks = bed.chunks(1, 7, &[5; 1000]);
        let other = SnapshotMeta {
            last_log_id: Some(LogId::new_term_index(1, 8)),
            last_membership: StoredMembership::default(),
        };
        let last = chunks.pop().expect("a last chunk");
        for chunk in &chunks {
            bed.receiver.receive(chunk).expect("a good chunk");
        }
        let end = last.end.clone().map(|end| pb::SnapshotEnd {
            meta: Some(codec::snapshot_meta_to_pb(&other)),
            ..end
        });
        bed.refuses(&pb::SnapshotChunk { end, ..last }, "another snapshot");
        assert_eq!(bed.files(), [""; 0]);
    }

    #[test]
    fn a_chunk_of_another_transfer_is_refused_and_a_new_beginning_takes_over() {
        let mut bed = Bed::new();
        let first = bed.chunks(1, 7, &[5; 1000]);
        let second = bed.chunks(2, 9, &[6; 2000]);
        bed.receiver.receive(&first[0]).expect("it begins");
        bed.refuses(&second[1], "not known here");
        bed.receiver.receive(&first[1]).expect("it goes on");

        let mut other_vote = first[2].clone();
        other_vote.vote = Some(pb::Vote {
            term: 3,
            member_id: 4,
            ..pb::Vote::default()
        });
        bed.refuses(&other_vote, "not known here");

        bed.receiver.receive(&second[0]).expect("it takes over");
        bed.refuses(&first[2], "not known here");
        assert_eq!(bed.files().len(), 1, "the replaced file is gone");
        bed.receiver.receive(&second[0]).expect("it begins anew");
        let whole = bed.all(&second);
        assert_eq!(contents(&whole), [6; 2000]);
        assert_eq!(bed.files().len(), 1);
    }
}
