//! Starts programs so that none outlives the test: each is ended by its recorded id when it is
//! dropped, and by the kernel when the test process itself is killed.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{OnceLock, mpsc};

use anyhow::{Context as _, Result, bail};

/// What to start.
#[derive(Clone, Debug)]
pub struct Program {
    /// Path of the program.
    pub path: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Its whole environment.
    pub environment: BTreeMap<String, String>,
    /// Where its standard output and standard error are appended.
    pub log: PathBuf,
}

/// A program that runs; killed when it is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a program.
    ///
    /// # Errors
    /// When it is not there or cannot be started.
    pub fn start(program: Program) -> Result<Self> {
        let log = program.log.clone();
        let path = program.path.clone();
        let child = spawn(program).with_context(|| format!("cannot start {}", path.display()))?;
        Ok(Self { child, log })
    }

    /// How it ended; `None` while it runs.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Asks it to end in order, as a kubelet does first.
    pub fn terminate(&self) {
        let id = self.child.id().to_string();
        // Fails only when it has ended.
        let _ = Command::new("kill").args(["-TERM", &id]).status();
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The file that it logs to.
    pub fn log(&self) -> &Path {
        &self.log
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only when it has ended and has been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The folder that cargo builds programs into: where the test programs' folder lies.
///
/// # Errors
/// When this process is not one of cargo's test programs.
pub fn program_path(name: &str) -> Result<PathBuf> {
    let this = std::env::current_exe().context("cannot find this test program")?;
    let Some(folder) = this.parent().and_then(Path::parent) else {
        bail!("{} does not lie in cargo's target folder", this.display());
    };
    let path = folder.join(name);
    if !path.is_file() {
        bail!(
            "{} is not there; build it with `cargo build -p {name}`",
            path.display()
        );
    }
    Ok(path)
}

type Request = (Program, mpsc::SyncSender<std::io::Result<Child>>);

/// Starts programs from one thread that lives as long as this process: the kernel kills a program
/// when the thread that started it ends.
fn spawn(program: Program) -> Result<Child> {
    static STARTER: OnceLock<mpsc::Sender<Request>> = OnceLock::new();
    let starter = STARTER.get_or_init(|| {
        let (sender, receiver) = mpsc::channel::<Request>();
        std::thread::Builder::new()
            .name("process-starter".to_owned())
            .spawn(move || {
                for (program, answer) in receiver {
                    // The asker may have been dropped; then the child is killed.
                    if let Err(mpsc::SendError(Ok(mut child))) = answer.send(execute(&program)) {
                        let _ = child.kill();
                        let _ = child.wait();
                    }
                }
            })
            .expect("a thread can be started");
        sender
    });
    let (answer, answered) = mpsc::sync_channel(1);
    starter
        .send((program, answer))
        .context("the thread that starts programs has ended")?;
    Ok(answered
        .recv()
        .context("the thread that starts programs has ended")??)
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
        .env_clear()
        .envs(&program.environment)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
}
