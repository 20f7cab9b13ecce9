//! openraft's own tests of a log store and a state machine, on ours.
//!
//! The suite begins logs at any index. Ours begin at 0, as openraft's do outside of the suite, so
//! blank entries fill what is before, and are hidden.

use std::fmt::Debug;
use std::io::{self, Read, Write};
use std::ops::RangeBounds;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use openraft::storage::{LogState, RaftLogStorage};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::{OptionalSend, RaftLogReader, StorageError};
use tokio::sync::broadcast;

use crate::engine::{Claim, Engine};
use crate::host::{Host, HostHandle};
use crate::ids::{MemberId, PartitionId};
use crate::log::GroupLog;
use crate::machine::Machine;
use crate::options::EngineOptions;
use crate::record::{GroupRecord, Timings};
use crate::types::{Entry, IoFlushed, LogId, TypeConfig, Vote};

/// Counts the payloads.
#[derive(Default)]
struct Counter(u64);

impl Machine for Counter {
    type Output = u64;
    type Snapshot = u64;

    fn apply(&mut self, _index: u64, _term: u64, _payload: &Bytes) -> u64 {
        self.0 += 1;
        self.0
    }

    fn snapshot(&self) -> u64 {
        self.0
    }

    fn write_snapshot(snapshot: &u64, writer: &mut dyn Write) -> io::Result<()> {
        writer.write_all(&snapshot.to_le_bytes())
    }

    fn install(&mut self, reader: &mut dyn Read) -> io::Result<()> {
        let mut bytes = [0; size_of::<u64>()];
        reader.read_exact(&mut bytes)?;
        self.0 = u64::from_le_bytes(bytes);
        Ok(())
    }
}

/// A log that may begin anywhere.
#[derive(Clone)]
struct Filled {
    log: GroupLog,
    hidden: Arc<AtomicU64>,
}

impl RaftLogReader<TypeConfig> for Filled {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let mut entries = self.log.try_get_log_entries(range).await?;
        let hidden = self.hidden.load(Ordering::Relaxed);
        entries.retain(|entry| entry.log_id.index >= hidden);
        Ok(entries)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        let start = start.max(self.hidden.load(Ordering::Relaxed));
        self.log.limited_get_log_entries(start, end).await
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        self.log.read_vote().await
    }
}

impl RaftLogStorage<TypeConfig> for Filled {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        self.log.get_log_state().await
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        RaftLogStorage::save_vote(&mut self.log, vote).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        RaftLogStorage::save_committed(&mut self.log, committed).await
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        self.log.read_committed().await
    }

    async fn append<I>(&mut self, entries: I, callback: IoFlushed) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<_> = entries.into_iter().collect();
        let state = self.log.get_log_state().await?;
        if let Some(first) = entries.first()
            && state.last_log_id.is_none()
        {
            let start = first.log_id.index;
            let fill = (0..start).map(|index| Entry {
                log_id: LogId::new_term_index(0, index),
                payload: openraft::EntryPayload::Blank,
            });
            self.hidden.store(start, Ordering::Relaxed);
            self.log.append(fill.collect(), IoFlushed::noop());
        }
        RaftLogStorage::append(&mut self.log, entries, callback).await
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        RaftLogStorage::truncate_after(&mut self.log, last).await
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        RaftLogStorage::purge(&mut self.log, upto).await
    }
}

struct Builder;

type Guard = (Engine, tempfile::TempDir);

impl StoreBuilder<TypeConfig, Filled, HostHandle<Counter>, Guard> for Builder {
    async fn build(
        &self,
    ) -> Result<(Guard, Filled, HostHandle<Counter>), StorageError<TypeConfig>> {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let engine = Engine::open(EngineOptions {
            on_write_failure: crate::options::WriteFailure::Report,
            ..EngineOptions::new(directory.path())
        })
        .expect("the engine opens");
        let record = GroupRecord {
            partition_id: PartitionId(1),
            member_id: MemberId(1),
            store_uid: String::new(),
            incarnation: 1,
            initializer: None,
            members: std::collections::BTreeMap::new(),
            plan_digest: Bytes::new(),
            timings: Timings::default(),
            observer: false,
            replaces: None,
            expected_membership: None,
            admitted: false,
        };
        engine.create_group(&record).await.expect("a group");
        let Claim { log, snapshots, .. } = engine.claim(&record).expect("the group's log");
        let (events, _) = broadcast::channel(16);
        let fatal = engine.fatal().clone();
        let host = Host::new(record.partition_id, Counter(0), snapshots, events, fatal);
        let host = HostHandle(Arc::new(host.expect("a host")));
        let log = Filled {
            log,
            hidden: Arc::default(),
        };
        Ok(((engine, directory), log, host))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_and_machine_pass_the_suite_of_openraft() {
    Suite::test_all(Builder).await.expect("the suite passes");
}
