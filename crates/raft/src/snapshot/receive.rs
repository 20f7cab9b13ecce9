//! Receives a snapshot in chunks.

use std::io::{self, Write};

use atomix_proto::multiraft::v1 as pb;

use super::{SnapshotFile, SnapshotStore};
use crate::codec;
use crate::device::DeviceFile;

#[derive(Debug, thiserror::Error)]
pub(crate) enum ReceiveError {
    /// The sender must begin anew.
    #[error("{0}")]
    Broken(String),
    #[error("cannot write a received snapshot: {0}")]
    Io(#[from] io::Error),
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
            let file = self.store.device.create(&self.store.temporary("receive"))?;
            self.transfer = Some(Transfer {
                id,
                file,
                received: 0,
            });
        }
        let Some(transfer) = self.transfer.as_mut().filter(|transfer| transfer.id == id) else {
            return Err(ReceiveError::Broken(
                "the transfer is not known here".to_owned(),
            ));
        };
        if transfer.received != chunk.offset {
            let expected = transfer.received;
            return Err(self.broken(&format!("byte {expected} is missing")));
        }
        transfer.file.write_all(&chunk.data)?;
        transfer.received += chunk.data.len() as u64;
        let received = transfer.received;
        let Some(end) = &chunk.end else {
            return Ok(Progress::More(received));
        };
        if end.length != received {
            return Err(self.broken("the length does not match"));
        }
        transfer.file.sync()?;
        self.transfer = None;
        self.finish(end).map(Progress::Whole)
    }

    fn finish(&self, end: &pb::SnapshotEnd) -> Result<SnapshotFile, ReceiveError> {
        let broken = |error: &dyn std::fmt::Display| ReceiveError::Broken(error.to_string());
        let meta = end.meta.as_ref().ok_or_else(|| broken(&"no meta data"))?;
        let meta = codec::snapshot_meta_from_pb(meta).map_err(|error| broken(&error))?;
        let temporary = self.store.temporary("receive");
        let file = SnapshotFile::open(&temporary).map_err(|error| broken(&error))?;
        file.check().map_err(|error| broken(&error))?;
        if *file.meta() != meta {
            return Err(broken(&"the file is another snapshot than announced"));
        }
        Ok(file)
    }

    fn broken(&mut self, reason: &str) -> ReceiveError {
        self.transfer = None;
        ReceiveError::Broken(reason.to_owned())
    }
}

pub(crate) enum Progress {
    /// How many bytes have arrived.
    More(u64),
    Whole(SnapshotFile),
}
