//! Programs that a run starts. None outlives it: each is ended by its recorded id when it is dropped,
//! and by the kernel when the run itself is killed.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{OnceLock, mpsc};

use anyhow::{Context as _, bail, ensure};

/// What to start.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    pub(crate) path: PathBuf,
    pub(crate) arguments: Vec<String>,
    /// Where its output is appended.
    pub(crate) log: PathBuf,
}

/// A program that runs; killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    pub(crate) fn start(program: &Program) -> anyhow::Result<Self> {
        let child = spawn(program.clone());
        let child = child.with_context(|| format!("cannot start {}", program.path.display()))?;
        Ok(Self {
            child,
            log: program.log.clone(),
        })
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) -> anyhow::Result<()> {
        self.is_running()?;
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// It stands still until [`Self::resume`].
    pub(crate) fn stop(&self) -> anyhow::Result<()> {
        self.signal("STOP")
    }

    pub(crate) fn resume(&self) -> anyhow::Result<()> {
        self.signal("CONT")
    }

    fn signal(&self, name: &str) -> anyhow::Result<()> {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &id]).status()?;
        ensure!(sent.success(), "cannot send SIG{name} to process {id}");
        Ok(())
    }

    /// # Errors
    /// When it has ended by itself.
    pub(crate) fn is_running(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!(
                "process {} ended by itself: {status}; its log is {}",
                self.child.id(),
                self.log.display()
            );
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only when it has ended and was waited for.
        let _ = self.child.kill();
        let _: std::io::Result<ExitStatus> = self.child.wait();
    }
}

/// Where cargo has put a program: beside this one.
pub(crate) fn built(name: &str) -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let path = own.parent().unwrap_or(Path::new("")).join(name);
    ensure!(
        path.is_file(),
        "{} is not there; build it with `cargo build -p {name}`",
        path.display()
    );
    Ok(path)
}

type Order = (Program, mpsc::SyncSender<std::io::Result<Child>>);

/// Starts programs from one thread that lives as long as this process: the kernel kills a program when
/// the thread that started it ends.
fn spawn(program: Program) -> anyhow::Result<Child> {
    static STARTER: OnceLock<mpsc::Sender<Order>> = OnceLock::new();
    let starter = STARTER.get_or_init(|| {
        let (orders, received) = mpsc::channel::<Order>();
        std::thread::spawn(move || {
            for (program, answer) in received {
                // Whoever asks waits for the answer.
                let _ = answer.send(execute(&program));
            }
        });
        orders
    });
    let (answer, answered) = mpsc::sync_channel(1);
    starter.send((program, answer)).context("nobody starts")?;
    Ok(answered.recv().context("nobody starts")??)
}

fn execute(program: &Program) -> std::io::Result<Child> {
    let log = File::options()
        .create(true)
        .append(true)
        .open(&program.log)?;
    Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "--"])
        .arg(&program.path)
        .args(&program.arguments)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
}
