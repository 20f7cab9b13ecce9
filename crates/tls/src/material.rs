//! A certificate, its key and the authorities to trust, as PEM texts, made into what rustls wants.

use std::fmt;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use thiserror::Error;

use crate::Identity;
use crate::client::ExpectsIdentity;

/// HTTP/2, the only protocol that is spoken.
const PROTOCOL: &[u8] = b"h2";

/// Certificates that cannot be used.
#[derive(Debug, Error)]
pub enum MaterialError {
    /// A text is not what it should be.
    #[error("cannot read {what}: {reason}")]
    Unreadable {
        /// Which text.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// The certificate does not say who its owner is.
    #[error(
        "the certificate names no identity of Atomix: it needs one URI such as spiffe://atomix.io/operator among its alternative names"
    )]
    NoIdentity,
    /// rustls refuses them.
    #[error("cannot use the certificate: {0}")]
    Unusable(#[from] rustls::Error),
}

fn unreadable(what: &'static str, reason: impl ToString) -> MaterialError {
    let reason = reason.to_string();
    MaterialError::Unreadable { what, reason }
}

/// A certificate, its key and the authorities to trust, in PEM.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Material {
    /// The certificate, and what is between it and its authority.
    pub certificate: Vec<u8>,
    /// Its key.
    pub key: Vec<u8>,
    /// The authorities whose certificates are trusted: several while one replaces another.
    pub authorities: Vec<u8>,
}

impl fmt::Debug for Material {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Material").finish_non_exhaustive()
    }
}

/// What handshakes use.
#[derive(Clone)]
pub(crate) struct Configs {
    /// Whose certificate it is.
    pub(crate) identity: Identity,
    pub(crate) server: Arc<ServerConfig>,
    shown: Arc<SingleCertAndKey>,
    roots: Arc<RootCertStore>,
}

impl Configs {
    /// # Errors
    /// What of it is of no use.
    pub(crate) fn new(material: &Material) -> Result<Self, MaterialError> {
        let chain = certificates("the certificate", &material.certificate)?;
        let first = chain
            .first()
            .ok_or_else(|| unreadable("the certificate", "it is empty"))?;
        let identity = Identity::of_certificate(first).ok_or(MaterialError::NoIdentity)?;
        let key = PrivateKeyDer::from_pem_slice(&material.key)
            .map_err(|error| unreadable("the certificate's key", error))?;
        // Fails when the key is another certificate's: the folder is being changed.
        let certified = CertifiedKey::from_der(chain, key, &provider())?;
        let shown = Arc::new(SingleCertAndKey::from(certified));
        let mut roots = RootCertStore::empty();
        for root in certificates("the authorities", &material.authorities)? {
            roots.add(root)?;
        }
        let roots = Arc::new(roots);
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), provider())
            // Who shows none is told what is missing, by the guard.
            .allow_unauthenticated()
            .build()
            .map_err(|error| unreadable("the authorities", error))?;
        let mut server = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(clients)
            .with_cert_resolver(shown.clone());
        server.alpn_protocols = vec![PROTOCOL.to_vec()];
        // A session that is resumed is not verified anew.
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        Ok(Self {
            identity,
            server: Arc::new(server),
            shown,
            roots,
        })
    }

    /// For a connection to a peer with this identity.
    ///
    /// # Errors
    /// When the cryptography of this process does not speak TLS 1.3.
    pub(crate) fn client(&self, expected: Identity) -> Result<ClientConfig, rustls::Error> {
        let verifier = ExpectsIdentity::new(expected, Arc::clone(&self.roots), provider());
        let mut client = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(self.shown.clone());
        client.alpn_protocols = vec![PROTOCOL.to_vec()];
        client.resumption = Resumption::disabled();
        // The expected identity is no host name.
        client.enable_sni = false;
        Ok(client)
    }
}

fn certificates(
    what: &'static str,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, MaterialError> {
    CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| unreadable(what, error))
}

/// The cryptography of this process.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}
