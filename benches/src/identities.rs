//! Certificates for the servers of a benchmark, as the operator makes them.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use atomix_tls::{Credentials, Identity, Material};
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
};
use tonic::transport::{Channel, Endpoint};

/// The Store of every benchmark.
pub(crate) const STORE: (&str, &str) = ("bench", "bench");

/// An authority, and the credentials of an operator.
pub(crate) struct Identities {
    issuer: Issuer<'static, KeyPair>,
    authority: String,
    operator: Credentials,
}

impl Identities {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let key = KeyPair::generate()?;
        let authority = params.self_signed(&key)?.pem();
        let mut identities = Self {
            issuer: Issuer::new(params, key),
            authority,
            operator: Credentials::default(),
        };
        let operator = identities.sign(&Identity::Operator)?;
        identities.operator = Credentials::default();
        identities.operator.set(&operator)?;
        Ok(identities)
    }

    fn sign(&self, identity: &Identity) -> anyhow::Result<Material> {
        let mut params = CertificateParams::new(Vec::new())?;
        let uri = Ia5String::try_from(identity.to_string())?;
        params.subject_alt_names = vec![SanType::URI(uri)];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Material {
            certificate: certificate.pem().into_bytes(),
            key: key.serialize_pem().into_bytes(),
            authorities: self.authority.clone().into_bytes(),
        })
    }

    /// A folder with a certificate, as a Secret is mounted.
    pub(crate) fn folder(&self, identity: &Identity, folder: PathBuf) -> anyhow::Result<PathBuf> {
        let material = self.sign(identity)?;
        std::fs::create_dir_all(&folder)?;
        for (name, bytes) in [
            ("tls.crt", material.certificate),
            ("tls.key", material.key),
            ("ca.crt", material.authorities),
        ] {
            std::fs::write(folder.join(name), bytes)?;
        }
        Ok(folder)
    }
}

/// Of the Store's nodes.
pub(crate) fn node() -> Identity {
    let (namespace, store) = STORE;
    Identity::Node {
        namespace: namespace.to_owned(),
        store: store.to_owned(),
    }
}

/// Of the sidecar.
pub(crate) fn runtime() -> Identity {
    Identity::Runtime {
        namespace: STORE.0.to_owned(),
    }
}

/// Connects as the operator does; without identities in plain text.
pub(crate) async fn connect(
    address: &str,
    identities: Option<&Identities>,
    expected: &Identity,
) -> anyhow::Result<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
    let credentials = identities.map(|identities| &identities.operator);
    atomix_tls::connect(endpoint, credentials, expected)
        .await
        .with_context(|| format!("cannot connect to {address}"))
}

/// The argument that makes a program speak TLS, if it is to.
pub(crate) fn argument(
    identities: Option<&Identities>,
    identity: &Identity,
    folder: &Path,
) -> anyhow::Result<Option<String>> {
    let Some(identities) = identities else {
        return Ok(None);
    };
    let folder = identities.folder(identity, folder.to_owned())?;
    Ok(Some(format!("--tls-directory={}", folder.display())))
}
