//! Thousands of runtimes, each on a loopback address of its own, in several processes of this program:
//! one may not have enough files open for all of them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Stdio;

use anyhow::{Context as _, ensure};
use atomix_runtime::{Options as RuntimeOptions, Sidecar, built_in_drivers};
use clap::{Args, Parser as _};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

/// Each listens three times and serves a connection or two: within the usual 20,000 open files.
const OF_ONE_PROCESS: usize = 2_500;
const READY: &str = "all runtimes listen";

/// Which runtimes one process has.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The number of the first.
    #[arg(long)]
    first: usize,
    /// How many.
    #[arg(long)]
    count: usize,
}

/// Runs them until whoever started this process closes its standard input, or ends.
pub(crate) async fn run(options: &Options) -> anyhow::Result<()> {
    let shutdown = CancellationToken::new();
    let mut runtimes = Vec::with_capacity(options.count);
    for at in options.first..options.first + options.count {
        runtimes.push(start(at, &shutdown).await?);
    }
    println!("{READY}");
    tokio::io::copy(&mut tokio::io::stdin(), &mut tokio::io::sink()).await?;
    shutdown.cancel();
    Ok(())
}

async fn start(at: usize, shutdown: &CancellationToken) -> anyhow::Result<Sidecar> {
    let at_port = |port| SocketAddr::new(IpAddr::V4(address(at)), port);
    let mut options = RuntimeOptions::try_parse_from(["atomix-runtime"])?;
    options.control_addr = at_port(5679);
    options.app_addr = vec![at_port(5678)];
    options.admin_addr = at_port(5677);
    Ok(Sidecar::start(&options, built_in_drivers, shutdown.clone()).await?)
}

/// The address of a runtime.
pub(crate) fn address(at: usize) -> Ipv4Addr {
    let part = |value: usize| u8::try_from(value).unwrap_or(u8::MAX);
    Ipv4Addr::new(
        127,
        64 + part(at / 62_500),
        part(at / 250 % 250),
        1 + part(at % 250),
    )
}

/// Processes with runtimes; they end when this is dropped.
pub(crate) struct Runtimes {
    _processes: Vec<Child>,
}

impl Runtimes {
    /// Starts `count` runtimes and waits until all listen.
    pub(crate) async fn start(count: usize) -> anyhow::Result<Self> {
        let mut processes = Vec::new();
        for first in (0..count).step_by(OF_ONE_PROCESS) {
            let here = OF_ONE_PROCESS.min(count - first);
            processes.push(start_process(first, here)?);
        }
        for process in &mut processes {
            let output = process.stdout.take().context("no standard output")?;
            let said = BufReader::new(output).lines().next_line().await?;
            ensure!(
                said.as_deref() == Some(READY),
                "a process with runtimes ended before they listened"
            );
        }
        Ok(Self {
            _processes: processes,
        })
    }
}

fn start_process(first: usize, count: usize) -> anyhow::Result<Child> {
    let program = std::env::current_exe()?;
    Command::new(&program)
        .arg("runtimes")
        .args(["--first", &first.to_string()])
        .args(["--count", &count.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))
}
