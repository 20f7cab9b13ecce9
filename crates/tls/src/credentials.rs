//! The certificate that a program shows now, and the authorities that it trusts now. Each handshake
//! takes the newest; connections that are open stay.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use parking_lot::RwLock;
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use crate::material::Configs;
use crate::{Identity, Material, MaterialError};

/// How often a folder is looked at. A kubelet changes a mounted Secret within about a minute, so
/// this adds little.
pub const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Names of the files in the folder, as in a Secret of the type `kubernetes.io/tls`.
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";
const AUTHORITIES: &str = "ca.crt";

/// Why a folder's certificates cannot be used.
#[derive(Debug, Error)]
pub enum CredentialsError {
    /// A file cannot be read.
    #[error("cannot read {}: mount the Secret with the certificates there", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What it holds is of no use.
    #[error("the certificates in {} are of no use", folder.display())]
    Material {
        /// The folder.
        folder: PathBuf,
        /// Why.
        source: MaterialError,
    },
}

/// What a program proves its identity with. Clones share it.
#[derive(Clone, Default)]
pub struct Credentials {
    current: Arc<RwLock<Option<Configs>>>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Credentials")
            .field("identity", &self.identity())
            .finish()
    }
}

/// Keeps credentials as their folder changes: a task without which the process must not go on.
pub type Following = BoxFuture<'static, Result<(), Infallible>>;

/// The credentials in the folder, and what keeps them as it changes until `shutdown`; `None` without a
/// folder, and then says in the log that everything is plain text.
///
/// # Errors
/// When the folder holds none that can be used.
pub fn open_or_plaintext(
    folder: Option<&Path>,
    shutdown: &CancellationToken,
) -> Result<Option<(Credentials, Following)>, CredentialsError> {
    let Some(folder) = folder else {
        tracing::warn!(
            "no --tls-directory: all connections are plain text, and anybody who reaches a port is \
             served; only for development"
        );
        return Ok(None);
    };
    Credentials::of_folder(folder, shutdown.clone()).map(Some)
}

impl Credentials {
    /// The credentials in a folder, and what keeps them as the folder changes. What is there in
    /// between two changes, or is of no use, is passed over.
    ///
    /// # Errors
    /// When the folder holds none that can be used.
    pub fn of_folder(
        folder: &Path,
        shutdown: CancellationToken,
    ) -> Result<(Self, Following), CredentialsError> {
        let folder = folder.to_owned();
        let first = read(&folder)?;
        let credentials = Self::default();
        credentials
            .set(&first)
            .map_err(|source| CredentialsError::Material {
                folder: folder.clone(),
                source,
            })?;
        tracing::info!(
            identity = ?credentials.identity().map(|identity| identity.to_string()),
            "connections are by mutual TLS"
        );
        let following = credentials.clone().follow(folder, first, shutdown);
        Ok((credentials, Box::pin(following)))
    }

    /// Uses this from the next handshake on.
    ///
    /// # Errors
    /// When it is of no use; the former stays.
    pub fn set(&self, material: &Material) -> Result<(), MaterialError> {
        let configs = Configs::new(material)?;
        *self.current.write() = Some(configs);
        Ok(())
    }

    /// Whose they are; `None` before the first [`Self::set`].
    #[must_use]
    pub fn identity(&self) -> Option<Identity> {
        self.current
            .read()
            .as_ref()
            .map(|configs| configs.identity.clone())
    }

    pub(crate) fn configs(&self) -> Option<Configs> {
        self.current.read().clone()
    }

    async fn follow(
        self,
        folder: PathBuf,
        first: Material,
        shutdown: CancellationToken,
    ) -> Result<(), Infallible> {
        let mut used = first;
        let mut passed_over = None;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            // A few small files in memory.
            let found = match read(&folder) {
                Ok(found) if found == used || passed_over.as_ref() == Some(&found) => continue,
                Ok(found) => found,
                Err(error) => {
                    tracing::debug!(%error, "the certificates are not looked at now");
                    continue;
                }
            };
            match self.set(&found) {
                Ok(()) => {
                    tracing::info!("the certificates have changed");
                    used = found;
                    passed_over = None;
                }
                Err(error) => {
                    tracing::warn!(%error, folder = %folder.display(), "the new certificates are not used");
                    passed_over = Some(found);
                }
            }
        }
    }
}

fn read(folder: &Path) -> Result<Material, CredentialsError> {
    let file = |name: &str| {
        let path = folder.join(name);
        std::fs::read(&path).map_err(|source| CredentialsError::Read { path, source })
    };
    Ok(Material {
        certificate: file(CERTIFICATE)?,
        key: file(KEY)?,
        authorities: file(AUTHORITIES)?,
    })
}
