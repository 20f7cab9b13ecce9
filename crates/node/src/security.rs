//! Who may call this node: the operator at the control port; nodes of the same Store, and runtimes of
//! the namespaces that the Store allows, at the data port.

use atomix_process::tasks::Tasks;
use atomix_tls::{AllowedNamespaces, Credentials, Guard, Identity, Party, Rules};

use crate::error::NodeError;
use crate::options::Options;

/// The node's certificate and who it serves; without a certificate everybody.
pub(crate) struct Security {
    node: Option<Secured>,
}

struct Secured {
    credentials: Credentials,
    identity: Identity,
    allowed: AllowedNamespaces,
}

impl Security {
    /// Reads certificate and allowed namespaces; `tasks` keep both as they change.
    ///
    /// # Errors
    /// When the folder with the certificate cannot be used, or the certificate is no node's.
    pub(crate) fn open(options: &Options, tasks: &mut Tasks) -> Result<Self, NodeError> {
        let folder = options.tls_directory.as_deref();
        let shutdown = tasks.shutdown().clone();
        let Some((credentials, follow)) = atomix_tls::open_or_plaintext(folder, &shutdown)? else {
            return Ok(Self { node: None });
        };
        tasks.spawn("certificates", follow);
        let (namespace, store) = match credentials.identity() {
            Some(Identity::Node { namespace, store }) => (namespace, store),
            other => {
                let found = other.map(|identity| identity.to_string());
                let found = found.unwrap_or_default();
                return Err(NodeError::NotANode { found });
            }
        };
        let allowed = AllowedNamespaces::only(&namespace);
        if let Some(path) = &options.allowed_namespaces {
            let follow = allowed.clone().follow(path.clone(), shutdown);
            tasks.spawn("allowed namespaces", follow);
        }
        Ok(Self {
            node: Some(Secured {
                credentials,
                identity: Identity::Node { namespace, store },
                allowed,
            }),
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

    /// For the port of peers and drivers; `tasks` end the connections of those who lost their
    /// permission.
    pub(crate) fn data(&self, tasks: &mut Tasks) -> Option<Guard> {
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
        let shutdown = tasks.shutdown().clone();
        let enforce = guard.clone().enforce(node.allowed.clone(), shutdown);
        tasks.spawn("permissions", enforce);
        Some(guard)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use std::fs::write;
    use std::path::Path;
    use std::time::Duration;

    use atomix_process::panics::panics_at;
    use atomix_process::tasks::TaskError;
    use clap::Parser as _;
    use rcgen::string::Ia5String;
    use rcgen::{CertificateParams, KeyPair, SanType};
    use tokio_util::sync::CancellationToken;

    use super::*;

    /// A node would go on with the permissions and the certificate of then.
    #[tokio::test(start_paused = true)]
    async fn what_keeps_permissions_and_certificate_ends_the_node_when_it_panics() {
        for (place, expected) in [
            ("atomix_tls::credentials", "certificates"),
            ("atomix_tls::allowed", "allowed namespaces"),
            ("atomix_tls::guard", "permissions"),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let allowed = folder.path().join("allowed");
            write_certificate(folder.path());
            write(&allowed, "").unwrap();
            let mut tasks = Tasks::new(CancellationToken::new());
            let security = Security::open(&options(folder.path(), &allowed), &mut tasks).unwrap();
            let _guard = security.data(&mut tasks).unwrap();
            // Each of them looks, and sees what is there.
            tokio::task::yield_now().await;

            let _panics = panics_at(place);
            write_certificate(folder.path());
            write(&allowed, "meadow\n").unwrap();
            let ended = tokio::time::timeout(Duration::from_secs(60), tasks.join()).await;
            match ended {
                Ok(Err(TaskError::Panicked { name, .. })) => assert_eq!(name, expected),
                other => panic!("a panic in {place}: {other:?}"),
            }
        }
    }

    fn options(folder: &Path, allowed: &Path) -> Options {
        Options::parse_from([
            "atomix-node",
            &format!("--data-dir={}", folder.display()),
            &format!("--tls-directory={}", folder.display()),
            &format!("--allowed-namespaces={}", allowed.display()),
        ])
    }

    fn write_certificate(folder: &Path) {
        let mut params = CertificateParams::default();
        let identity = Ia5String::try_from("spiffe://atomix.io/node/garden/tulip").unwrap();
        params.subject_alt_names = vec![SanType::URI(identity)];
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().pem();
        write(folder.join("tls.key"), key.serialize_pem()).unwrap();
        for name in ["tls.crt", "ca.crt"] {
            write(folder.join(name), &certificate).unwrap();
        }
    }
}
