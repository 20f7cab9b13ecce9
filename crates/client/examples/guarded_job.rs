//! A job that only one replica runs at a time: under a lock, and with its fencing token.
//!
//! Start it in several pods, or several times on one machine with a sidecar: the runs take turns.

use std::time::Duration;

use atomix_client::{Client, Error, LockGuard, Map, WriteOptions};
use clap::Parser;

/// Runs a job under a lock.
#[derive(Debug, Parser)]
struct Options {
    /// The name of the lock.
    #[arg(long, default_value = "nightly-report")]
    lock: String,
    /// How often the job runs.
    #[arg(long, default_value_t = 3)]
    runs: u32,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let client = Client::connect().await?;
    run(&client, &options.lock, options.runs).await
}

/// Runs the job so often, each time when it has the lock.
pub async fn run(client: &Client, lock: &str, runs: u32) -> anyhow::Result<()> {
    let lock = client.lock(lock);
    let reports = client.map::<String, Report>("reports");
    for _ in 0..runs {
        let guard = lock.lock().await?;
        tokio::select! {
            done = write_report(&reports, lock.name(), &guard) => {
                println!("report {} is written under grant {}", done?, guard.version());
                guard.unlock().await?;
            }
            () = guard.lost() => println!("the lock is lost: another may write now"),
        }
    }
    Ok(())
}

/// What the job writes.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub struct Report {
    /// How many were written before and with this one.
    pub number: u64,
    /// The grant under which it was written.
    pub grant: u64,
}

/// Writes the next report, unless a later grant has written one already. A process that was paused
/// while it held the lock is stopped by that, not by the lock.
async fn write_report(
    reports: &Map<String, Report>,
    name: &str,
    guard: &LockGuard,
) -> anyhow::Result<u64> {
    let grant = guard.version();
    loop {
        let seen = reports.get(name).await?;
        if let Some(seen) = &seen
            && seen.value.grant > grant
        {
            anyhow::bail!("grant {grant} is over: {} has written", seen.value.grant);
        }
        // The work itself.
        tokio::time::sleep(Duration::from_millis(1)).await;
        let number = seen.as_ref().map_or(1, |seen| seen.value.number + 1);
        let report = Report { number, grant };
        let written = match seen {
            None => reports.insert(name, &report).await,
            Some(seen) => {
                let unchanged = WriteOptions::default().if_version(seen.version);
                let updated = reports.update_with(name, &report, unchanged);
                updated.await.map(|written| written.version)
            }
        };
        match written {
            Ok(_) => return Ok(number),
            Err(Error::Conflict(_) | Error::AlreadyExists(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
