//! kubectl-atomix, as kubectl starts it.

use std::env;
use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::cluster::Namespace;

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
}
