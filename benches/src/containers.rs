//! When programs in the cluster's containers were started. The cluster runs on this machine, so their
//! processes are in its /proc; the kubelet tells whole seconds only.

use std::fs;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;

use crate::process::{START_TIME, time_in_stat};

/// Knows when the machine was booted: processes tell their start since then.
#[derive(Debug)]
pub(crate) struct Starts {
    boot: SystemTime,
}

impl Starts {
    /// Looks at the clocks, for up to a hundredth of a second.
    pub(crate) fn new() -> anyhow::Result<Self> {
        // It is told in hundredths, so it is right when it changes.
        let before = time_since_boot()?;
        loop {
            let now = time_since_boot()?;
            if now != before {
                let boot = SystemTime::now().checked_sub(now);
                let boot = boot.context("the machine was booted before its clock began")?;
                return Ok(Self { boot });
            }
        }
    }

    /// When the container's program was started: up to a hundredth of a second earlier than in truth.
    /// `container` is its id in the pod's status.
    pub(crate) fn of(&self, program: &str, container: &str) -> anyhow::Result<SystemTime> {
        let id = container.rsplit('/').next().unwrap_or(container);
        let stat = stat_of(program, id).with_context(|| {
            format!(
                "no process of {program} in container {id}: \
                 is the cluster on this machine, and may its processes be read?"
            )
        })?;
        Ok(self.boot + time_in_stat(&stat, START_TIME)?)
    }
}

fn time_since_boot() -> anyhow::Result<Duration> {
    let text = fs::read_to_string("/proc/uptime")?;
    let seconds = text.split(' ').next().unwrap_or_default();
    Ok(Duration::from_secs_f64(seconds.parse()?))
}

/// Processes that end meanwhile are others.
fn stat_of(program: &str, container: &str) -> Option<String> {
    let processes = fs::read_dir("/proc").ok()?;
    processes.flatten().find_map(|process| {
        let read = |file: &str| fs::read_to_string(process.path().join(file)).ok();
        let is_it = read("comm")?.trim() == program && read("cgroup")?.contains(container);
        if is_it { read("stat") } else { None }
    })
}
