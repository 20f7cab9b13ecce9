//! A program that is measured: its processor time and memory as Linux counts them.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::Instant;

/// Clock ticks a second in /proc: the same on every Linux that we run on.
const TICKS_PER_SECOND: u64 = 100;

// Fields of /proc/PID/stat by their numbers in proc(5).
const USER_TIME: usize = 14;
const SYSTEM_TIME: usize = 15;
/// When the process was started, since the machine's boot.
pub(crate) const START_TIME: usize = 22;

/// A process that is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    started: Instant,
}

impl Process {
    /// Starts a program whose output goes to a file.
    pub(crate) fn start(
        program: &Path,
        arguments: &[String],
        environment: &[(&str, &OsStr)],
        log: &Path,
    ) -> anyhow::Result<Self> {
        let output = std::fs::File::create(log)?;
        let child = Command::new(program)
            .args(arguments)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        Ok(Self {
            child,
            started: Instant::now(),
        })
    }

    /// When it was started.
    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    /// Processor time so far, of all threads.
    pub(crate) fn processor_time(&self) -> anyhow::Result<Duration> {
        let stat = self.proc("stat")?;
        Ok(time_in_stat(&stat, USER_TIME)? + time_in_stat(&stat, SYSTEM_TIME)?)
    }

    /// Resident memory now.
    pub(crate) fn resident_mib(&self) -> anyhow::Result<u64> {
        self.status_mib("VmRSS:")
    }

    /// The most that was ever resident.
    pub(crate) fn peak_mib(&self) -> anyhow::Result<u64> {
        self.status_mib("VmHWM:")
    }

    fn status_mib(&self, field: &str) -> anyhow::Result<u64> {
        let status = self.proc("status")?;
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
        Ok(kib.context("no such field")?.parse::<u64>()? / 1024)
    }

    fn proc(&self, file: &str) -> anyhow::Result<String> {
        let id = self.child.id().context("the program has ended")?;
        Ok(std::fs::read_to_string(format!("/proc/{id}/{file}"))?)
    }

    /// Kills it at once.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        Ok(self.child.start_kill()?)
    }

    /// Tells it to end in order.
    pub(crate) async fn tell(&self) -> anyhow::Result<()> {
        let id = self.child.id().context("the program has ended")?;
        let told = Command::new("kill").arg(id.to_string()).status().await?;
        if !told.success() {
            bail!("cannot end the program");
        }
        Ok(())
    }

    /// Waits until it has ended.
    pub(crate) async fn ended(&mut self) -> anyhow::Result<()> {
        let ended = tokio::time::timeout(Duration::from_secs(30), self.child.wait()).await;
        ended.context("the program does not end")??;
        Ok(())
    }

    /// Ends it in order.
    pub(crate) async fn terminate(mut self) -> anyhow::Result<()> {
        self.tell().await?;
        self.ended().await
    }
}

/// A field of /proc/PID/stat that is a time.
pub(crate) fn time_in_stat(stat: &str, field: usize) -> anyhow::Result<Duration> {
    // The program's name, the second field, is in parentheses and may hold blanks.
    let (_, fields) = stat.rsplit_once(") ").context("a stat without name")?;
    let value = fields.split(' ').nth(field - 3);
    let ticks: u64 = value.context("a stat that is too short")?.parse()?;
    Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}

/// Asks by HTTP; the body of the answer, which must be OK.
pub(crate) async fn get(address: &str, path: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .context("an answer without body")?;
    if !head.starts_with("HTTP/1.1 200 ") {
        bail!("{path}: {head}");
    }
    Ok(body.to_owned())
}
