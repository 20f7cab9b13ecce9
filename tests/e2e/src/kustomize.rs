//! The operator installed by kustomize instead of Helm, as docs/install.md tells.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::cluster::{Cluster, SYSTEM_NAMESPACE};

/// For an operator of all namespaces; overlays build on it.
pub const BASE: &str = "deploy/kustomize/base";

/// For an operator of one namespace.
pub const SINGLE_NAMESPACE: &str = "deploy/kustomize/single-namespace";

/// The namespace for which [`SINGLE_NAMESPACE`] is written.
const SERVED: &str = "applications";

impl Cluster {
    /// Applies a kustomization with the images under test, and waits for the operator. An operator of one
    /// namespace serves `served`.
    ///
    /// # Errors
    /// What kubectl says.
    pub fn install_by_kustomize(&self, folder: &str, served: &str) -> Result<()> {
        let rendered = self.kubectl(&["kustomize", folder], "")?;
        let apply = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
        self.kubectl(&apply, &self.for_this_cluster(&rendered, served))?;
        let operator = "deployment/atomix-operator";
        let rollout = ["rollout", "status", operator, "--timeout=3m"];
        self.kubectl(&[&rollout[..], &["-n", SYSTEM_NAMESPACE]].concat(), "")?;
        Ok(())
    }

    /// Deletes what a kustomization without overlays made, but for its CRDs and its namespace.
    ///
    /// # Errors
    /// What kubectl says.
    pub fn uninstall_by_kustomize(&self, folder: &str, served: &str) -> Result<()> {
        let written = self.source().join(folder).join("operator.yaml");
        let written = fs::read_to_string(&written)
            .with_context(|| format!("cannot read {}", written.display()))?;
        let delete = ["delete", "--wait", "-f", "-"];
        self.kubectl(&delete, &self.for_this_cluster(&written, served))?;
        Ok(())
    }

    fn for_this_cluster(&self, manifest: &str, served: &str) -> String {
        let lines = manifest.lines().map(|line| {
            if let Some((before, reference)) = line.split_once("ghcr.io/atomix/") {
                let program = reference.split(':').next().unwrap_or(reference);
                return format!("{before}{}\n", self.image(program));
            }
            let line = line.replace(&format!("[{SERVED}]"), &format!("[{served}]"));
            let before = line.strip_suffix(SERVED);
            let before = before.filter(|before| before.ends_with([' ', '=']));
            before.map_or(format!("{line}\n"), |before| format!("{before}{served}\n"))
        });
        lines.collect()
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
