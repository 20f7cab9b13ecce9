//! The operator installed by kustomize instead of Helm, as docs/install.md tells.

use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::cluster::{Cluster, SYSTEM_NAMESPACE};

const BASE: &str = "deploy/kustomize/base/operator.yaml";

impl Cluster {
    /// Applies a kustomization with the images under test, and waits for the operator.
    ///
    /// # Errors
    /// What kubectl says.
    pub fn install_by_kustomize(&self, folder: &str) -> Result<()> {
        let rendered = self.kubectl(&["kustomize", folder], "")?;
        let manifest = rendered.lines().map(|line| {
            let Some((before, reference)) = line.split_once("ghcr.io/atomix/") else {
                return format!("{line}\n");
            };
            let program = reference.split(':').next().unwrap_or(reference);
            format!("{before}{}\n", self.image(program))
        });
        let manifest: String = manifest.collect();
        let apply = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
        self.kubectl(&apply, &manifest)?;
        let operator = "deployment/atomix-operator";
        let rollout = ["rollout", "status", operator, "--timeout=3m"];
        self.kubectl(&[&rollout[..], &["-n", SYSTEM_NAMESPACE]].concat(), "")?;
        Ok(())
    }

    /// Deletes what the base made, but for its CRDs and its namespace.
    ///
    /// # Errors
    /// What kubectl says.
    pub fn uninstall_by_kustomize(&self) -> Result<()> {
        self.kubectl(&["delete", "--wait", "-f", BASE], "")?;
        Ok(())
    }

    /// Runs kubectl in the source's folder.
    fn kubectl(&self, arguments: &[&str], input: &str) -> Result<String> {
        let mut command = Command::new("kubectl");
        command
            .arg("--kubeconfig")
            .arg(self.kubeconfig())
            .args(arguments)
            .current_dir(self.source())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().context("cannot run kubectl")?;
        let mut stdin = child.stdin.take().context("kubectl takes no input")?;
        stdin.write_all(input.as_bytes())?;
        drop(stdin);
        let output = child.wait_with_output()?;
        ensure!(
            output.status.success(),
            "{command:?} failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8(output.stdout)?)
    }
}
