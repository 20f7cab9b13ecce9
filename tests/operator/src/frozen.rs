//! A pod's process that stands still: it keeps its connections, and answers nothing.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use crate::test_bed::TestBed;
use crate::wait::until;

/// For how long a thread may wait for a processor.
const LIMIT: Duration = Duration::from_secs(30);

/// A process that was stopped; it ends with its pod.
#[derive(Debug)]
pub struct Frozen {
    id: u32,
}

impl Frozen {
    /// Stops the sidecar of an application's pod, or the node of a storage pod; returns when all of it
    /// stands still.
    ///
    /// # Errors
    /// When the pod runs no process.
    pub async fn stop(bed: &TestBed, pod: &str) -> Result<Self> {
        let pod = bed.pods().get(pod).await?;
        let id = process(&pod).context("the pod runs no process")?;
        signal("-STOP", id)?;
        // One thread takes the signal when it gets a processor; until then the others run on.
        until("a process to stand still", LIMIT, async || stands_still(id)).await?;
        Ok(Self { id })
    }

    /// Ends it, so that its pod does not wait for it when it is deleted.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn kill(self) -> Result<()> {
        signal("-KILL", self.id)
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn go_on(self) -> Result<()> {
        signal("-CONT", self.id)
    }
}

fn process(pod: &Pod) -> Option<u32> {
    let status = pod.status.as_ref()?;
    let statuses = status.init_container_statuses.iter();
    let mut statuses = statuses.chain(&status.container_statuses).flatten();
    statuses.find_map(|status: &ContainerStatus| {
        let id = status.container_id.as_deref()?.strip_prefix("process://")?;
        id.parse().ok()
    })
}

fn stands_still(id: u32) -> Result<()> {
    for thread in std::fs::read_dir(format!("/proc/{id}/task"))? {
        let stat = std::fs::read_to_string(thread?.path().join("stat"))?;
        // `ID (NAME) STATE …`; a name may hold anything.
        let state = stat.rsplit_once(") ").map(|(_, rest)| rest);
        ensure!(state.is_some_and(|state| state.starts_with('T')), "{stat}");
    }
    Ok(())
}

fn signal(signal: &str, id: u32) -> Result<()> {
    let sent = Command::new("kill")
        .args([signal, &id.to_string()])
        .status()?;
    ensure!(sent.success(), "the process {id} does not take {signal}");
    Ok(())
}
