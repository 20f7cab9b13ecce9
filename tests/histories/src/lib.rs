//! Records what clients of a real Store were told while its nodes and sidecars are killed, stopped and
//! parted. Not for judging that: `tests/porcupine` does.

mod address;
mod clients;
mod cluster;
mod fault;
mod history;
mod link;
mod party;
mod process;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Parser;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::time::Instant;

use crate::clients::{Clients, Shared, audit};
use crate::cluster::{Cluster, Size};
use crate::history::{Clock, Histories, Lasts, Outcome, Use};

/// Answers a second of each use without which a run proves too little.
const FEWEST_ANSWERS: u64 = 2;

/// Records histories of a Store's objects under faults.
#[derive(Debug, Parser)]
#[command(name = "atomix-histories")]
pub struct Options {
    /// An empty folder: histories, faults, logs and data go there.
    #[arg(long)]
    output: PathBuf,
    /// What the faults and the clients' choices follow from; by default any.
    #[arg(long)]
    seed: Option<u64>,
    /// For how long things go wrong.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=9))]
    nodes: u8,
    /// The last one is for clients that only read.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=9))]
    sidecars: u8,
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=64))]
    partitions: u32,
    /// Clients that change each kind of object.
    #[arg(long, default_value_t = 4)]
    clients: usize,
    /// Operations on one object, after which the next one is used.
    #[arg(long, default_value_t = 1000)]
    operations: u64,
    /// Seconds after which it is in any case.
    #[arg(long, default_value_t = 8)]
    age: u64,
}

/// Records a run into an empty folder.
///
/// # Errors
/// When the Store cannot be started, a program ends by itself, or too little has happened.
pub async fn record(options: &Options) -> anyhow::Result<()> {
    let seed = options.seed.unwrap_or_else(rand::random);
    println!("seed {seed}");
    Box::pin(run(options, seed)).await
}

async fn run(options: &Options, seed: u64) -> anyhow::Result<()> {
    let folder = options.output.join("histories");
    let lasts = Lasts {
        operations: options.operations,
        time: Duration::from_secs(options.age),
    };
    let histories = Histories::create(folder, seed, lasts)?;
    let shared = Shared::new(Clock::start(), histories);
    let size = Size {
        nodes: options.nodes,
        sidecars: options.sidecars,
        partitions: options.partitions,
    };
    let mut cluster = Cluster::start(size, &options.output.join("processes")).await?;
    let sidecars = cluster.applications();
    let clients = Clients::start(&shared, &sidecars, options.clients, seed);
    clients.have_begun().await?;

    let until = Instant::now() + Duration::from_secs(options.seconds);
    let faults = options.output.join("faults.jsonl");
    let mut random = StdRng::seed_from_u64(seed);
    let faults = fault::disturb(&mut cluster, &mut random, shared.clock, until, &faults).await?;
    clients.stop().await?;
    let sidecar = sidecars.first().context("no sidecar")?;
    audit(&shared, *sidecar).await?;
    cluster.is_well()?;
    report(&shared.histories, faults, options)
}

/// # Errors
/// When too little has happened.
fn report(histories: &Histories, faults: usize, options: &Options) -> anyhow::Result<()> {
    println!(
        "{:10} {:>8} {:>8} {:>8} {:>8}",
        "use", "answered", "refused", "failed", "unknown"
    );
    for used_as in Use::ALL {
        let counted = |outcome| histories.counted(used_as, outcome);
        println!(
            "{:10} {:>8} {:>8} {:>8} {:>8}",
            used_as.name(),
            counted(Outcome::Ok),
            counted(Outcome::Refused),
            counted(Outcome::Failed),
            counted(Outcome::Unknown),
        );
        let wanted = FEWEST_ANSWERS * options.seconds;
        ensure!(
            histories.answered(used_as) >= wanted,
            "a run of {} s with fewer than {wanted} answers for a {} proves too little",
            options.seconds,
            used_as.name()
        );
    }
    println!("{faults} faults");
    ensure!(faults > 0, "nothing went wrong, so the run proves nothing");
    Ok(())
}
