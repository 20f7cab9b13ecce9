//! The operator that is measured: a process of its own, and what its metrics say.

use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

use anyhow::bail;
use tokio::time::Instant;

use super::LIMIT;
use crate::metrics::Metrics;
use crate::process::{self, Process};
use crate::servers;

/// Nothing changed for so long: the operator has converged.
const QUIET: Duration = Duration::from_secs(5);

/// A running operator.
pub(super) struct Operator {
    pub(super) process: Process,
    address: String,
}

impl Operator {
    /// Starts one for a namespace.
    pub(super) async fn start(
        program: &Path,
        kubeconfig: &OsStr,
        namespace: &str,
        log: &Path,
    ) -> anyhow::Result<Self> {
        let (admin, api) = (servers::free_port()?, servers::free_port()?);
        let process = Process::start(
            program,
            &[
                format!("--namespace={namespace}"),
                format!("--admin-addr=127.0.0.1:{admin}"),
                format!("--api-addr=127.0.0.1:{api}"),
            ],
            &[("KUBECONFIG", kubeconfig)],
            log,
        )?;
        let address = format!("127.0.0.1:{admin}");
        servers::listening(&address).await?;
        Ok(Self { process, address })
    }

    /// What it has done so far.
    pub(super) async fn metrics(&self) -> anyhow::Result<Metrics> {
        Metrics::read(&process::get(&self.address, "/metrics").await?)
    }

    /// Waits until there are no requests any more; the time from the start to the last one.
    pub(super) async fn until_quiet(&self) -> anyhow::Result<Duration> {
        let deadline = Instant::now() + LIMIT;
        let mut last = self.metrics().await?.requests;
        let mut changed = Instant::now();
        while changed.elapsed() < QUIET {
            if Instant::now() > deadline {
                bail!("the operator does not come to rest within {LIMIT:?}");
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
            let now = self.metrics().await?.requests;
            if now != last {
                (last, changed) = (now, Instant::now());
            }
        }
        Ok(changed - self.process.started())
    }

    /// Resident memory now, and the most that it was.
    pub(super) fn memory(&self) -> anyhow::Result<String> {
        Ok(format!(
            "{} MiB, {} MiB",
            self.process.resident_mib()?,
            self.process.peak_mib()?
        ))
    }

    pub(super) async fn end(self) -> anyhow::Result<()> {
        self.process.terminate().await
    }
}
