//! Who may call this node: the operator at the control port; nodes of the same Store, and runtimes of
//! the namespaces that the Store allows, at the data port.

use atomix_tls::{AllowedNamespaces, Credentials, Guard, Identity, Party, Rules};
use tokio_util::sync::CancellationToken;

use crate::error::NodeError;
use crate::options::Options;

/// The node's certificate and who it serves; without a certificate everybody.
pub(crate) struct Security {
    node: Option<Secured>,
    shutdown: CancellationToken,
}

struct Secured {
    credentials: Credentials,
    identity: Identity,
    allowed: AllowedNamespaces,
}

impl Security {
    /// Reads certificate and allowed namespaces, and keeps both as they change until `shutdown`.
    ///
    /// # Errors
    /// When the folder with the certificate cannot be used, or the certificate is no node's.
    pub(crate) fn open(options: &Options, shutdown: &CancellationToken) -> Result<Self, NodeError> {
        let folder = options.tls_directory.as_deref();
        let credentials = atomix_tls::open_or_plaintext(folder, shutdown)?;
        let node = match credentials {
            None => None,
            Some(credentials) => {
                let identity = credentials.identity();
                let Some(Identity::Node { namespace, .. }) = &identity else {
                    let found = identity.map(|identity| identity.to_string());
                    let found = found.unwrap_or_default();
                    return Err(NodeError::NotANode { found });
                };
                let allowed = AllowedNamespaces::only(namespace);
                if let Some(path) = &options.allowed_namespaces {
                    tokio::spawn(allowed.clone().follow(path.clone(), shutdown.clone()));
                }
                identity.map(|identity| Secured {
                    credentials,
                    identity,
                    allowed,
                })
            }
        };
        Ok(Self {
            node,
            shutdown: shutdown.clone(),
        })
    }

    pub(crate) fn credentials(&self) -> Option<Credentials> {
        self.node.as_ref().map(|node| node.credentials.clone())
    }

    /// For the control port.
    pub(crate) fn control(&self) -> Option<Guard> {
        let node = self.node.as_ref()?;
        let operator = Party::Exactly(Identity::Operator);
        let rules = Rules::new().allow("atomix.multiraft.v1.Node", operator);
        Some(Guard::new(node.credentials.clone(), rules))
    }

    /// For the port of peers and drivers.
    pub(crate) fn data(&self) -> Option<Guard> {
        let node = self.node.as_ref()?;
        let same_store = || Party::Exactly(node.identity.clone());
        let rules = Rules::new()
            .allow("atomix.multiraft.v1.Peers", same_store())
            .allow("atomix.multiraft.v1.Plans", same_store())
            .allow("atomix.multiraft.v1.Members", same_store())
            .allow(
                "atomix.multiraft.v1.Partitions",
                Party::RuntimesOf(node.allowed.clone()),
            );
        let guard = Guard::new(node.credentials.clone(), rules);
        let enforce = guard
            .clone()
            .enforce(node.allowed.clone(), self.shutdown.clone());
        tokio::spawn(enforce);
        Some(guard)
    }
}
