//! The namespaces whose runtimes a node serves: its own, and those listed in a file that is read
//! again when it changes.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::LOOK_EVERY;

/// Namespaces whose runtimes are served. Clones share them.
#[derive(Debug, Clone)]
pub struct AllowedNamespaces {
    own: Arc<str>,
    others: Arc<watch::Sender<BTreeSet<String>>>,
}

impl AllowedNamespaces {
    /// Only this namespace, so far.
    #[must_use]
    pub fn only(own: &str) -> Self {
        Self {
            own: Arc::from(own),
            others: Arc::new(watch::Sender::new(BTreeSet::new())),
        }
    }

    /// Whether runtimes of this namespace are served now.
    #[must_use]
    pub fn contains(&self, namespace: &str) -> bool {
        *self.own == *namespace || self.others.borrow().contains(namespace)
    }

    /// Changes the namespaces beside the own one.
    pub fn set(&self, others: BTreeSet<String>) {
        self.others.send_if_modified(|known| {
            let changed = *known != others;
            if changed {
                tracing::info!(namespaces = ?others, "runtimes of other namespaces are served");
                *known = others;
            }
            changed
        });
    }

    /// Tells of changes.
    pub(crate) fn changes(&self) -> watch::Receiver<BTreeSet<String>> {
        self.others.subscribe()
    }

    /// Reads the file, one name a line, now and whenever it changes, until `shutdown`. While it
    /// cannot be read, what was known counts: a volume that is gone for a moment cuts nobody off.
    /// The process must not go on without this task.
    ///
    /// # Errors
    /// None.
    pub async fn follow(
        self,
        path: PathBuf,
        shutdown: CancellationToken,
    ) -> Result<(), Infallible> {
        loop {
            match read(&path) {
                Ok(others) => self.set(others),
                Err(error) => {
                    tracing::debug!(%error, path = %path.display(), "the list of allowed namespaces is not looked at now");
                }
            }
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }
}

fn read(path: &Path) -> std::io::Result<BTreeSet<String>> {
    let text = std::fs::read_to_string(path)?;
    let names = text.lines().map(str::trim).filter(|line| !line.is_empty());
    Ok(names.map(ToOwned::to_owned).collect())
}
