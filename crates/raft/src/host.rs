//! A machine as openraft drives it: applies, snapshots, installs.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{broadcast, watch};

use crate::device::is_no_room;
use crate::fatal::{FatalReporter, PanicGuard};
use crate::ids::PartitionId;
use crate::machine::Machine;
use crate::snapshot::{self, SnapshotFile, SnapshotStore};
use crate::status::GroupEvent;
use crate::types::{Answer, LogId, Payload, SnapshotMeta, StoredMembership, TypeConfig};

/// How long a snapshot waits for room on a full disk before it is tried again, at first and at most:
/// each attempt may have to go through the whole state.
const FULL_DISK_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_FULL_DISK_PAUSE: Duration = Duration::from_secs(16);

/// Who panics, if it is the machine.
const MACHINE: &str = "the state machine";

type Snapshot = openraft::type_config::alias::SnapshotOf<TypeConfig, SnapshotFile>;

/// The machine with what is known about it.
pub(crate) struct Host<M: Machine> {
    partition: PartitionId,
    state: RwLock<Applied<M>>,
    /// The last applied index.
    progress: watch::Sender<u64>,
    pub(crate) snapshots: SnapshotStore,
    current: Mutex<Option<SnapshotFile>>,
    /// The last index of the newest snapshot.
    snapshot_progress: watch::Sender<u64>,
    /// The last index of the older of the two kept snapshots.
    older: AtomicU64,
    events: broadcast::Sender<GroupEvent>,
    fatal: FatalReporter,
    /// Payload bytes applied since the start of the process.
    applied_bytes: AtomicU64,
}

struct Applied<M> {
    machine: M,
    last: Option<LogId>,
    membership: StoredMembership,
}

impl<M: Machine> Host<M> {
    pub(crate) fn new(
        partition: PartitionId,
        machine: M,
        snapshots: SnapshotStore,
        events: broadcast::Sender<GroupEvent>,
        fatal: FatalReporter,
    ) -> io::Result<Self> {
        let mut whole = snapshots.list()?.into_iter();
        let current = whole.next();
        let older = whole.next().map_or(0, |file| file.last_index());
        let newest = current.as_ref().map_or(0, SnapshotFile::last_index);
        Ok(Self {
            partition,
            state: RwLock::new(Applied {
                machine,
                last: None,
                membership: StoredMembership::default(),
            }),
            progress: watch::Sender::new(0),
            snapshots,
            current: Mutex::new(current),
            snapshot_progress: watch::Sender::new(newest),
            older: AtomicU64::new(older),
            events,
            fatal,
            applied_bytes: AtomicU64::new(0),
        })
    }

    /// Reports what the group does not survive.
    pub(crate) fn fail(&self, reason: impl Into<String>) {
        self.fatal.report(Some(self.partition), reason);
    }

    /// Reports a panic of whoever holds it.
    pub(crate) fn panic_guard(&self, name: &'static str) -> PanicGuard {
        self.fatal.panic_guard(Some(self.partition), name)
    }

    pub(crate) fn with_machine<R>(&self, read: impl FnOnce(&M) -> R) -> R {
        read(&self.state.read().machine)
    }

    /// The members by what was applied.
    pub(crate) fn membership(&self) -> StoredMembership {
        self.state.read().membership.clone()
    }

    pub(crate) fn progress(&self) -> watch::Receiver<u64> {
        self.progress.subscribe()
    }

    pub(crate) fn snapshot_progress(&self) -> watch::Receiver<u64> {
        self.snapshot_progress.subscribe()
    }

    pub(crate) fn applied_bytes(&self) -> u64 {
        self.applied_bytes.load(Ordering::Relaxed)
    }

    /// The last index of the older kept snapshot; 0 = there are not two.
    pub(crate) fn older_snapshot(&self) -> u64 {
        self.older.load(Ordering::Relaxed)
    }

    /// The last index and the length in bytes of the newest snapshot.
    pub(crate) fn newest_snapshot(&self) -> (u64, u64) {
        self.current
            .lock()
            .as_ref()
            .map_or((0, 0), |file| (file.last_index(), file.length()))
    }

    /// The last compacted entry of the log, if no whole snapshot reaches it.
    pub(crate) fn compacted_beyond_snapshots(&self, compacted: Option<LogId>) -> Option<u64> {
        snapshot::compacted_beyond(compacted, self.current.lock().as_ref())
    }

    fn set_current(&self, file: SnapshotFile) {
        let mut current = self.current.lock();
        let previous = current.as_ref().map_or(0, SnapshotFile::last_index);
        if previous < file.last_index() {
            self.older.store(previous, Ordering::Relaxed);
        }
        let index = file.last_index();
        *current = Some(file);
        drop(current);
        self.snapshot_progress.send_replace(index);
    }

    fn apply(
        &self,
        index: u64,
        term: u64,
        payload: &EntryPayload<Payload, u64, crate::types::Peer>,
    ) -> Answer {
        let mut state = self.state.write();
        let log_id = LogId::new_term_index(term, index);
        let answer = match payload {
            EntryPayload::Blank => Answer::none(),
            EntryPayload::Normal(Payload(bytes)) => {
                self.applied_bytes
                    .fetch_add(bytes.len() as u64, Ordering::Relaxed);
                Answer::of(state.machine.apply(index, term, bytes))
            }
            EntryPayload::Membership(membership) => {
                state.membership = StoredMembership::new(Some(log_id), membership.clone());
                Answer::none()
            }
        };
        state.last = Some(log_id);
        answer
    }

    fn view(&self) -> (SnapshotMeta, M::Snapshot) {
        let state = self.state.read();
        let meta = SnapshotMeta {
            last_log_id: state.last,
            last_membership: state.membership.clone(),
        };
        (meta, state.machine.snapshot())
    }

    fn install(&self, file: SnapshotFile) -> io::Result<()> {
        let file = self.snapshots.adopt(file)?;
        let meta = file.meta().clone();
        let mut reader = file.reader()?;
        {
            let mut state = self.state.write();
            state.machine.install(&mut reader)?;
            state.last = meta.last_log_id;
            state.membership = meta.last_membership;
        }
        let index = file.last_index();
        self.set_current(file);
        self.progress.send_replace(index);
        // Nobody listens, or whoever lags learns it from the receiver.
        let _ = self.events.send(GroupEvent::SnapshotInstalled { index });
        Ok(())
    }
}

/// openraft's handle to the host.
pub(crate) struct HostHandle<M: Machine>(pub(crate) Arc<Host<M>>);

impl<M: Machine> RaftStateMachine<TypeConfig> for HostHandle<M> {
    type SnapshotData = SnapshotFile;
    type SnapshotBuilder = Builder<M>;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let state = self.0.state.read();
        Ok((state.last, state.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        let host = &self.0;
        let _guard = host.panic_guard(MACHINE);
        while let Some(item) = entries.next().await {
            let (entry, responder) = item?;
            let (index, term) = (entry.log_id.index, entry.log_id.leader_id.term);
            let answer = host.apply(index, term, &entry.payload);
            // First: whoever has the answer may ask for what is applied.
            host.progress.send_replace(index);
            if let Some(responder) = responder {
                responder.send(answer);
            }
        }
        Ok(())
    }

    async fn try_create_snapshot_builder(&mut self, _force: bool) -> Option<Builder<M>> {
        Some(self.get_snapshot_builder().await)
    }

    async fn get_snapshot_builder(&mut self) -> Builder<M> {
        let (meta, view) = self.0.view();
        Builder {
            host: self.0.clone(),
            view: Mutex::new(Some((meta, view))),
        }
    }

    async fn install_snapshot(
        &mut self,
        _meta: &SnapshotMeta,
        snapshot: SnapshotFile,
    ) -> Result<(), io::Error> {
        let host = self.0.clone();
        blocking(move || {
            let _guard = host.panic_guard(MACHINE);
            host.install(snapshot)
        })
        .await
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        let current = self.0.current.lock().clone();
        Ok(current.map(into_snapshot))
    }
}

fn into_snapshot(file: SnapshotFile) -> Snapshot {
    Snapshot {
        meta: file.meta().clone(),
        snapshot: file,
    }
}

async fn blocking<R: Send + 'static>(
    work: impl FnOnce() -> io::Result<R> + Send + 'static,
) -> io::Result<R> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error)))
}

/// Writes a view of the machine beside the apply path.
pub(crate) struct Builder<M: Machine> {
    host: Arc<Host<M>>,
    view: Mutex<Option<(SnapshotMeta, M::Snapshot)>>,
}

impl<M: Machine> RaftSnapshotBuilder<TypeConfig> for Builder<M> {
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let taken = self.view.lock().take();
        let mut view = taken.ok_or_else(|| io::Error::other("a snapshot was built twice"))?;
        let mut pause = FULL_DISK_PAUSE;
        let file = loop {
            let host = self.host.clone();
            let (meta, state) = view;
            let created = blocking(move || {
                let _guard = host.panic_guard(MACHINE);
                // The state is about as large as when it was last written.
                let (_, expected) = host.newest_snapshot();
                let write = |writer: &mut dyn io::Write| M::write_snapshot(&state, writer);
                Ok(host.snapshots.create(&meta, expected, write))
            })
            .await?;
            match created {
                // An error would end the group, so a full disk is waited out.
                Err(error) if is_no_room(&error) => {
                    tracing::warn!(partition = %self.host.partition, "no room for a snapshot");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_FULL_DISK_PAUSE);
                    // What was deleted meanwhile needs no room.
                    let host = self.host.clone();
                    view = blocking(move || Ok(host.view())).await?;
                }
                created => break created?,
            }
        };
        let index = file.last_index();
        self.host.set_current(file.clone());
        let _ = self.host.events.send(GroupEvent::SnapshotCreated { index });
        Ok(into_snapshot(file))
    }
}
