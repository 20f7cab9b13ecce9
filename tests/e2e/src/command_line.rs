//! kubectl-atomix, as kubectl starts it.

use std::env;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, anyhow, ensure};

use crate::cluster::Namespace;
use crate::wait::until;

const SOON: Duration = Duration::from_secs(120);

impl Namespace {
    /// Runs `kubectl atomix` in this namespace; returns what it prints.
    ///
    /// # Errors
    /// When it fails, with what it says.
    pub fn kubectl_atomix(&self, arguments: &[&str]) -> anyhow::Result<String> {
        // Tests are in target/PROFILE/deps, programs one folder above.
        let tests = env::current_exe()?;
        let folder = tests.parent().and_then(|deps| deps.parent());
        let program = folder
            .context("the test has no target folder")?
            .join("kubectl-atomix");
        let output = Command::new(&program)
            .env("KUBECONFIG", self.cluster().kubeconfig())
            .args(["--namespace", self.name()])
            .args(arguments)
            .output()
            .with_context(|| {
                format!(
                    "cannot run {}: build it by `cargo build --workspace --bins`",
                    program.display()
                )
            })?;
        ensure!(
            output.status.success(),
            "kubectl atomix {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8(output.stdout)?)
    }

    /// What a command says once it is done. Busy nodes may not have answered the operator in time: then
    /// nothing was done, and it is run again.
    ///
    /// # Errors
    /// When it is not done within two minutes.
    pub async fn done(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let what = format!("kubectl atomix {} to be done", arguments.join(" "));
        let told = until(&what, SOON, async || {
            match self.kubectl_atomix(arguments) {
                // It was begun, and must not be done twice.
                Err(error) if error.to_string().contains("cannot delete") => Ok(Some(Err(error))),
                told => Ok(Some(Ok(told?))),
            }
        });
        told.await?
    }

    /// Waits until a command is refused with these words.
    ///
    /// # Errors
    /// When it is not refused.
    pub async fn refused_command(&self, arguments: &[&str], words: &str) -> anyhow::Result<()> {
        let what = format!("kubectl atomix {} to be refused", arguments.join(" "));
        let refusal = until(&what, SOON, async || match self.kubectl_atomix(arguments) {
            Ok(said) => Ok(Some(Err(anyhow!("it was not refused: {said}")))),
            Err(error) if error.to_string().contains(words) => Ok(Some(Ok(()))),
            Err(error) => Err(error),
        });
        refusal.await?
    }
}
