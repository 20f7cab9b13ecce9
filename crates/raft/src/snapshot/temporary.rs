//! A file that is received: it has a name of its own, and is removed unless it becomes a snapshot.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::SnapshotStore;
use crate::device::Device;

/// Names count through the whole process: no transfer ever writes into a file that another one
/// received, be it still read, installed or waiting to be.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// Removes its file when it is dropped, unless that was kept.
#[derive(Debug)]
pub(super) struct Temporary {
    path: PathBuf,
    device: Device,
    is_kept: AtomicBool,
}

impl Temporary {
    /// Chooses a name that no other transfer has; makes no file.
    pub(super) fn new(store: &SnapshotStore) -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self {
            path: store.temporary(&format!("receive-{number:020}")),
            device: store.device.clone(),
            is_kept: AtomicBool::new(false),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The file has another name now.
    pub(super) fn keep(&self) {
        self.is_kept.store(true, Ordering::Relaxed);
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if self.is_kept.load(Ordering::Relaxed) {
            return;
        }
        // What stays is removed at the next start.
        if let Err(error) = self.device.remove_file(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "a received file stays for now");
        }
    }
}
