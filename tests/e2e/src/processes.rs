//! Kills the process of one container with SIGKILL, as an out-of-memory kill or a crash would.
//!
//! Works where the cluster's containers are processes of this machine, as in `make cluster`.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;

/// Kills the pod's process whose executable has this name.
///
/// # Errors
/// When there is not exactly one such process on this machine, or it cannot be killed.
pub fn kill_in_pod(pod: &Pod, executable: &str) -> anyhow::Result<()> {
    let uid = pod.uid().context("the pod has no UID")?;
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        let Some(process_id) = process_id(&path) else {
            continue;
        };
        if belongs_to_pod(&path, &uid) && runs(&path, executable) {
            found.push(process_id);
        }
    }
    ensure!(
        found.len() == 1,
        "expected one process {executable} of pod {} on this machine, found {found:?}",
        pod.name_any()
    );
    for process_id in found {
        let status = Command::new("kill")
            .args(["-KILL", &process_id.to_string()])
            .status()?;
        ensure!(status.success(), "cannot kill process {process_id}");
    }
    Ok(())
}

fn process_id(path: &Path) -> Option<u32> {
    path.file_name()?.to_str()?.parse().ok()
}

/// The kubelet puts every container of a pod into cgroups that carry the pod's UID. A process that
/// has ended meanwhile has no such file.
fn belongs_to_pod(process: &Path, uid: &str) -> bool {
    fs::read_to_string(process.join("cgroup")).is_ok_and(|cgroup| cgroup.contains(uid))
}

fn runs(process: &Path, executable: &str) -> bool {
    fs::read(process.join("cmdline")).is_ok_and(|command_line| {
        let first = command_line
            .split(|byte| *byte == 0)
            .next()
            .unwrap_or_default();
        String::from_utf8_lossy(first)
            .rsplit('/')
            .next()
            .is_some_and(|name| name == executable)
    })
}
