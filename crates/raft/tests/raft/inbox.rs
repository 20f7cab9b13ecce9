//! A group that cannot keep up: others are told at once, and it recovers.

use std::io;
use std::path::Path;
use std::sync::Arc;

use atomix_proto::multiraft::v1::peer_reply::Body as Reply;
use atomix_raft::{DiskFaults, EngineOptions, Group, PeerReply, peer_refusal::Reason};
use futures::FutureExt as _;
use parking_lot::{Condvar, Mutex};

use crate::support::machine::Journal;
use crate::support::network::Network;
use crate::support::others::{History, Others};
use crate::support::{follower_record, open, options, soon};

/// A disk that stands still for a while.
#[derive(Default)]
struct Standstill {
    stands: Mutex<bool>,
    moves: Condvar,
}

impl Standstill {
    fn set(&self, stands: bool) {
        *self.stands.lock() = stands;
        self.moves.notify_all();
    }
}

impl DiskFaults for Standstill {
    fn sync(&self, _path: &Path) -> io::Result<()> {
        let mut stands = self.stands.lock();
        self.moves.wait_while(&mut stands, |stands| *stands);
        Ok(())
    }
}

fn is_busy(reply: &PeerReply) -> bool {
    matches!(&reply.body, Some(Reply::Refusal(refusal)) if refusal.reason() == Reason::Busy)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_inbox_answers_busy_at_once_and_the_group_recovers() {
    const LEADER: (u64, u64) = (1, 2);
    let root = tempfile::tempdir().unwrap();
    let disk = Arc::new(Standstill::default());
    let engine = open(EngineOptions {
        faults: Some(disk.clone()),
        ..options(root.path())
    })
    .await;
    let record = follower_record();
    engine.create_group(&record).await.unwrap();
    let group: Group<Journal> = Group::start(&engine, record, Journal::default(), Network::new())
        .await
        .unwrap();
    let others = Others::of(&group);
    let mut history = History::first_entries();
    assert!(others.replicate(LEADER, &history, 0, 1).await);

    // Nothing gets on disk, so no append is answered; the inbox fills, and is full.
    disk.set(true);
    let mut waiting = Vec::new();
    let mut busy = 0;
    while busy < 100 {
        let from = history.0.len();
        let longer = history.with(1, &[&format!("line {from}")]);
        let body = others.append(LEADER, &longer, from, 1);
        let mut reply = Box::pin(group.handle(others.message(LEADER.1, body)));
        match reply.as_mut().now_or_never() {
            Some(refused) => {
                assert!(is_busy(&refused), "{refused:?}");
                busy += 1;
            }
            None => {
                history = longer;
                waiting.push(reply);
            }
        }
        assert!(waiting.len() < 10_000, "the inbox has no bound");
    }
    assert!(waiting.len() >= 512, "{} wait", waiting.len());

    // What was accepted is carried out in its order, and there is room again.
    disk.set(false);
    for reply in waiting {
        let reply = tokio::time::timeout_at(soon(), reply).await.unwrap();
        assert!(
            matches!(reply.body, Some(Reply::AppendEntries(_))),
            "{reply:?}"
        );
    }
    let from = history.0.len();
    let longer = history.with(1, &["last"]);
    assert!(others.replicate(LEADER, &longer, from, from).await);
    assert!(group.wait_applied(from as u64, soon()).await);
    let found = group.with_machine(|journal| journal.lines.clone());
    assert_eq!(found, longer.lines());
    group.shutdown().await;
}
