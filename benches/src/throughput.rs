//! Durable writes of both sides, in turn, in one run.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use tonic::transport::Channel;

use crate::atomix::{self, Atomix};
use crate::etcd::{self, Etcd};
use crate::identities::Identities;
use crate::load::{self, Call, Measured};

/// What to measure and with which programs.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Folder with atomix-node and atomix-runtime.
    #[arg(long)]
    binaries: PathBuf,
    /// The etcd server.
    #[arg(long)]
    etcd: PathBuf,
    /// Folder for the servers' data: on the disk that is to be measured.
    #[arg(long)]
    data: PathBuf,
    /// Seconds measured for each row and run, after 2 s of warm-up.
    #[arg(long, default_value_t = 8)]
    seconds: u64,
    /// Alternating runs of each row.
    #[arg(long, default_value_t = 3)]
    runs: usize,
}

const CLIENTS: [usize; 3] = [1, 64, 256];
const WARM_UP: Duration = Duration::from_secs(2);

struct Side {
    name: &'static str,
    channels: Vec<Channel>,
    call: &'static Call,
}

pub(crate) async fn run(options: &Options) -> anyhow::Result<()> {
    std::fs::create_dir_all(&options.data)?;
    let folder = tempfile::tempdir_in(&options.data)?;
    let etcd_folder = folder.path().join("etcd");
    let one_folder = folder.path().join("one");
    let eight_folder = folder.path().join("eight");
    let secured_folder = folder.path().join("secured");
    for each in [&etcd_folder, &one_folder, &eight_folder, &secured_folder] {
        std::fs::create_dir(each)?;
    }
    let etcd = Etcd::start(&options.etcd, &etcd_folder).await?;
    let one = Atomix::start(&options.binaries, &one_folder, 1, None).await?;
    let eight = Atomix::start(&options.binaries, &eight_folder, 8, None).await?;
    let identities = Identities::new()?;
    let secured = Atomix::start(&options.binaries, &secured_folder, 8, Some(&identities)).await?;
    let sides = [
        Side {
            name: "etcd put (256 B), leader",
            channels: load::connect(&etcd.leader).await?,
            call: etcd::put(),
        },
        Side {
            name: "Atomix increment through the sidecar, 1 partition",
            channels: load::connect(&one.application).await?,
            call: atomix::increment(),
        },
        Side {
            name: "Atomix increment through the sidecar, 8 partitions",
            channels: load::connect(&eight.application).await?,
            call: atomix::increment(),
        },
        Side {
            name: "Atomix increment through the sidecar, 8 partitions, mutual TLS",
            channels: load::connect(&secured.application).await?,
            call: atomix::increment(),
        },
    ];

    println!("| clients | work | writes/s, median (min to max) | p50 | p99 | failed |");
    println!("|---|---|---|---|---|---|");
    for clients in CLIENTS {
        let mut measured: Vec<Vec<Measured>> = sides.iter().map(|_| Vec::new()).collect();
        for run in 0..options.runs {
            for (side, results) in sides.iter().zip(&mut measured) {
                eprintln!("run {}, {clients} clients: {}", run + 1, side.name);
                let duration = Duration::from_secs(options.seconds);
                results
                    .push(load::run(&side.channels, clients, WARM_UP, duration, side.call).await?);
            }
        }
        for (side, mut results) in sides.iter().zip(measured) {
            results.sort_by(|a, b| a.per_second.total_cmp(&b.per_second));
            print_row(clients, side.name, &results);
        }
    }
    Ok(())
}

fn print_row(clients: usize, name: &str, sorted: &[Measured]) {
    let (Some(least), Some(median), Some(most)) =
        (sorted.first(), sorted.get(sorted.len() / 2), sorted.last())
    else {
        return;
    };
    let failed: u64 = sorted.iter().map(|run| run.failed).sum();
    println!(
        "| {clients} | {name} | {:.0} ({:.0} to {:.0}) | {:.2} ms | {:.2} ms | {failed} |",
        median.per_second,
        least.per_second,
        most.per_second,
        median.p50.as_secs_f64() * 1e3,
        median.p99.as_secs_f64() * 1e3,
    );
}
