//! Random work on several logs in one engine with small files, so that files are rewritten and
//! deleted all the time: after every reopening each log is, byte for byte, what a model says.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use openraft::EntryPayload;
use openraft::RaftLogReader as _;
use openraft::storage::{RaftLogStorage as _, RaftLogStorageExt as _};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::GroupLog;
use super::tests::record;
use crate::engine::{Claim, Engine};
use crate::ids::PartitionId;
use crate::options::{EngineOptions, WriteFailure};
use crate::record::GroupRecord;
use crate::types::{Entry, LogId, Payload, Vote};

const GROUPS: u32 = 5;
const REOPENINGS: u64 = 6;
const STEPS: usize = 120;

fn options(directory: &Path) -> EngineOptions {
    EngineOptions {
        on_write_failure: WriteFailure::Report,
        log_file_size: 16 << 10,
        purge_threshold: 48 << 10,
        purge_interval: Duration::from_millis(5),
        ..EngineOptions::new(directory)
    }
}

/// What a log must hold.
#[derive(Default)]
struct Model {
    vote: Option<Vote>,
    purged: Option<LogId>,
    entries: BTreeMap<u64, (LogId, Bytes)>,
}

impl Model {
    fn last(&self) -> Option<LogId> {
        let last = self.entries.last_key_value().map(|(_, (id, _))| *id);
        last.or(self.purged)
    }

    fn next(&self) -> u64 {
        self.last().map_or(0, |last| last.index + 1)
    }
}

fn group(number: u32) -> GroupRecord {
    GroupRecord {
        partition_id: PartitionId(number + 1),
        ..record()
    }
}

async fn open(directory: &Path) -> (Engine, Vec<GroupLog>) {
    let engine = Engine::open(options(directory)).unwrap();
    let mut logs = Vec::new();
    for number in 0..GROUPS {
        engine.create_group(&group(number)).await.unwrap();
        let Claim { log, .. } = engine.claim(&group(number)).unwrap();
        logs.push(log);
    }
    (engine, logs)
}

async fn step(random: &mut StdRng, term: u64, log: &mut GroupLog, model: &mut Model) {
    match random.random_range(0..10) {
        0 => {
            let vote = Vote::new(term, random.random_range(1..4));
            log.save_vote(&vote).await.unwrap();
            model.vote = Some(vote);
        }
        1 if model.entries.len() > 1 => {
            let last = *model.entries.keys().nth(model.entries.len() / 2).unwrap();
            let last = model.entries[&last].0;
            log.truncate_after(Some(last)).await.unwrap();
            model.entries.split_off(&(last.index + 1));
        }
        2 if model.entries.len() > 20 => {
            let keep = random.random_range(1..20);
            let upto = *model.entries.keys().nth_back(keep).unwrap();
            let upto = model.entries[&upto].0;
            log.purge(upto).await.unwrap();
            model.entries = model.entries.split_off(&(upto.index + 1));
            model.purged = Some(upto);
        }
        3 if random.random_bool(0.1) => {
            // As after a snapshot from a leader that is far ahead.
            let upto = LogId::new_term_index(term, model.next() + 10);
            log.purge(upto).await.unwrap();
            model.entries.clear();
            model.purged = Some(upto);
        }
        _ => {
            let first = model.next();
            let count = random.random_range(1..8);
            let entries: Vec<Entry> = (first..first + count)
                .map(|index| {
                    let payload = vec![random.random(); random.random_range(1..600)];
                    Entry {
                        log_id: LogId::new_term_index(term, index),
                        payload: EntryPayload::Normal(Payload(payload.into())),
                    }
                })
                .collect();
            for entry in &entries {
                let EntryPayload::Normal(Payload(bytes)) = &entry.payload else {
                    panic!("only commands are appended");
                };
                let stored = (entry.log_id, bytes.clone());
                model.entries.insert(entry.log_id.index, stored);
            }
            log.blocking_append(entries).await.unwrap();
        }
    }
}

async fn compare(log: &mut GroupLog, model: &Model, context: &str) {
    let state = log.get_log_state().await.unwrap();
    assert_eq!(state.last_purged_log_id, model.purged, "{context}");
    assert_eq!(state.last_log_id, model.last(), "{context}");
    assert_eq!(log.read_vote().await.unwrap(), model.vote, "{context}");
    let entries = log.try_get_log_entries(..).await.unwrap();
    let found: Vec<_> = entries
        .into_iter()
        .map(|entry| match entry.payload {
            EntryPayload::Normal(Payload(bytes)) => (entry.log_id, bytes),
            other => panic!("{context}: found {other:?}"),
        })
        .collect();
    let expected: Vec<_> = model.entries.values().cloned().collect();
    assert!(found == expected, "{context}: the entries differ");
    // From the disk, too, not from memory alone.
    if let (Some(first), Some(next)) = (model.entries.keys().next(), model.entries.keys().last()) {
        let on_disk = log.read_from_disk(*first..next + 1).unwrap();
        assert!(
            on_disk
                .iter()
                .map(|entry| entry.log_id)
                .eq(model.entries.values().map(|(id, _)| *id)),
            "{context}: the disk differs"
        );
    }
}

fn first_file(directory: &Path, suffix: &str) -> Option<String> {
    let files = std::fs::read_dir(directory.join("log")).unwrap();
    let names = files.map(|file| file.unwrap().file_name().to_string_lossy().into_owned());
    names.filter(|name| name.ends_with(suffix)).min()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_are_what_a_model_says_while_their_files_are_rewritten_and_deleted() {
    let seed: u64 = rand::rng().random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let directory = tempfile::tempdir().unwrap();
    let mut models: Vec<Model> = (0..GROUPS).map(|_| Model::default()).collect();
    for reopening in 0..REOPENINGS {
        let (engine, mut logs) = open(directory.path()).await;
        for (number, (log, model)) in logs.iter_mut().zip(&models).enumerate() {
            compare(log, model, &format!("opening {reopening}, group {number}")).await;
        }
        for _ in 0..STEPS {
            // The last group does little: its old entries must be moved out of old files.
            let number = random.random_range(0..GROUPS * 8) as usize;
            let number = if number == 0 {
                GROUPS as usize - 1
            } else {
                number % (GROUPS as usize - 1)
            };
            step(
                &mut random,
                reopening + 1,
                &mut logs[number],
                &mut models[number],
            )
            .await;
        }
        for (number, (log, model)) in logs.iter_mut().zip(&models).enumerate() {
            compare(log, model, &format!("end of {reopening}, group {number}")).await;
        }
        assert_eq!(engine.failure(), None);
        drop((logs, engine));
    }
    let first = first_file(directory.path(), ".raftlog").unwrap();
    assert_ne!(first, "0000000000000001.raftlog", "old files are deleted");
    let rewritten = directory
        .path()
        .join("log")
        .join(first_file(directory.path(), ".rewrite").unwrap());
    assert!(
        rewritten.metadata().unwrap().len() > 100,
        "live entries were moved"
    );
}
