//! The cluster of a benchmark that needs one with everything in it.

use std::path::PathBuf;

use clap::Args;

/// A cluster in which the chart is installed and the images are loaded.
#[derive(Debug, Args)]
pub(crate) struct Installed {
    #[arg(long)]
    pub(crate) kubeconfig: PathBuf,
    /// `<registry>/atomix-node:<tag>` and so on are the images.
    #[arg(long)]
    registry: String,
    #[arg(long)]
    tag: String,
}

impl Installed {
    /// The image of a program.
    pub(crate) fn image(&self, program: &str) -> String {
        format!("{}/{program}:{}", self.registry, self.tag)
    }
}
