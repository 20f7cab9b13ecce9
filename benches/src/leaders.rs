//! How long an application waits when the leader of its partition changes: handed over, and killed.
//!
//! One client increments without a pause. Measured is the longest time between two answers around the
//! change, and the time from when the new leader leads to the next answer.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use atomix_proto::multiraft::v1::group_status::Role;
use atomix_proto::multiraft::v1::{GroupStatus, TransferLeadershipRequest};
use clap::Args;
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use crate::atomix::{self, Atomix};
use crate::{load, report};

const LIMIT: Duration = Duration::from_secs(30);
const BETWEEN_LOOKS: Duration = Duration::from_millis(2);
/// Between two changes, so that each meets a group at rest.
const PAUSE: Duration = Duration::from_secs(1);

/// What to measure and with which programs.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Folder with atomix-node and atomix-runtime.
    #[arg(long)]
    binaries: PathBuf,
    /// Folder for the servers' data.
    #[arg(long)]
    data: PathBuf,
    /// Changes of each kind.
    #[arg(long, default_value_t = 10)]
    runs: usize,
}

pub(crate) async fn run(options: &Options) -> anyhow::Result<()> {
    std::fs::create_dir_all(&options.data)?;
    let folder = tempfile::tempdir_in(&options.data)?;
    let mut store = Atomix::start(&options.binaries, folder.path(), 1, None).await?;
    let channels = load::connect(&store.application).await?;
    let channel = channels.into_iter().next().context("no connection")?;
    let answers = Answers::default();
    let stop = CancellationToken::new();
    let _end = stop.clone().drop_guard();
    tokio::spawn(count(channel, answers.clone(), stop));

    println!("| what | median | all |");
    println!("|---|---|---|");
    for is_killed in [false, true] {
        let (mut gaps, mut follows) = (Vec::new(), Vec::new());
        for run in 0..options.runs {
            eprintln!("run {}: killed: {is_killed}", run + 1);
            tokio::time::sleep(PAUSE).await;
            let (leader, _) = leader(&store).await?;
            let began = Instant::now();
            if is_killed {
                store.kill_node(leader).await?;
            } else {
                hand_over(&store, leader).await?;
            }
            let leads = new_leader(&store, leader).await?;
            answers.after(leads).await?;
            gaps.push(answers.longest_gap_since(began).as_secs_f64() * 1e3);
            let next = answers.after(leads).await?;
            follows.push((next - leads).as_secs_f64() * 1e3);
            if is_killed {
                store.start_node(leader)?;
                level(&store).await?;
            }
        }
        let how = if is_killed { "killed" } else { "handed over" };
        report::row(&format!("leader {how}: no answer for"), "ms", &gaps);
        report::row(
            &format!("leader {how}: new leader to next answer"),
            "ms",
            &follows,
        );
    }
    Ok(())
}

/// When increments were answered.
#[derive(Debug, Clone, Default)]
struct Answers(Arc<Mutex<Vec<Instant>>>);

impl Answers {
    /// The first one after this time.
    async fn after(&self, moment: Instant) -> anyhow::Result<Instant> {
        let deadline = Instant::now() + LIMIT;
        loop {
            let found = {
                let answers = self.0.lock();
                let at = answers.partition_point(|answer| *answer <= moment);
                answers.get(at).copied()
            };
            if let Some(found) = found {
                return Ok(found);
            }
            if Instant::now() > deadline {
                bail!("no increment is answered within {LIMIT:?}");
            }
            tokio::time::sleep(BETWEEN_LOOKS).await;
        }
    }

    /// The longest time between two answers, the last one before `moment` included.
    fn longest_gap_since(&self, moment: Instant) -> Duration {
        let answers = self.0.lock();
        let from = answers.partition_point(|answer| *answer <= moment);
        let since = answers.get(from.saturating_sub(1)..).unwrap_or_default();
        let gaps = since.iter().zip(since.iter().skip(1));
        gaps.map(|(earlier, later)| *later - *earlier)
            .max()
            .unwrap_or_default()
    }
}

async fn count(channel: Channel, answers: Answers, stop: CancellationToken) {
    while !stop.is_cancelled() {
        if atomix::increment()(channel.clone(), 0, 0).await.is_ok() {
            answers.0.lock().push(Instant::now());
        } else {
            tokio::time::sleep(BETWEEN_LOOKS).await;
        }
    }
}

/// The node that leads, and its group.
async fn leader(store: &Atomix) -> anyhow::Result<(usize, GroupStatus)> {
    let deadline = Instant::now() + LIMIT;
    loop {
        for node in 0..store.size() {
            // A node that does not answer does not lead.
            let group = store.group(node).await.ok();
            if let Some(group) = group.filter(|group| group.role() == Role::Leader) {
                return Ok((node, group));
            }
        }
        if Instant::now() > deadline {
            bail!("nobody leads within {LIMIT:?}");
        }
        tokio::time::sleep(BETWEEN_LOOKS).await;
    }
}

async fn hand_over(store: &Atomix, leader: usize) -> anyhow::Result<()> {
    let to = (leader + 1) % store.size();
    let member_id = store.group(to).await?.member_id;
    let request = TransferLeadershipRequest {
        partition_id: 1,
        member_id,
    };
    store.node(to).await?.transfer_leadership(request).await?;
    Ok(())
}

/// When another node was first seen to lead.
async fn new_leader(store: &Atomix, old: usize) -> anyhow::Result<Instant> {
    let deadline = Instant::now() + LIMIT;
    loop {
        let (found, _) = leader(store).await?;
        if found != old {
            return Ok(Instant::now());
        }
        if Instant::now() > deadline {
            bail!("node {old} still leads");
        }
        tokio::time::sleep(BETWEEN_LOOKS).await;
    }
}

/// Waits until every node has what the leader has, so that any of them may lead next.
async fn level(store: &Atomix) -> anyhow::Result<()> {
    let deadline = Instant::now() + LIMIT;
    loop {
        let (_, leader) = leader(store).await?;
        let mut are_level = true;
        for node in 0..store.size() {
            let group = store.group(node).await.unwrap_or_default();
            are_level &= group.applied >= leader.applied;
        }
        if are_level {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("a node does not catch up");
        }
        tokio::time::sleep(BETWEEN_LOOKS).await;
    }
}
