//! What somebody else makes, as cert-manager does: certificates of a webhook, a certificate and its key
//! in a Secret, the authority in the caBundle; and authorities of nodes and runtimes.

use std::time::{Duration, SystemTime};

use anyhow::Result;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{Patch, PatchParams};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::pki_types::CertificateDer;
use serde_json::json;

/// An authority that signs certificates of webhooks.
#[derive(Debug)]
pub struct WebhookIssuer {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate, in PEM.
    pub authority: String,
}

impl WebhookIssuer {
    /// A new authority.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new(name: &str) -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let authority = params.self_signed(&key)?.pem();
        Ok(Self {
            issuer: Issuer::new(params, key),
            authority,
        })
    }

    /// Writes a new certificate for `host` into the Secret, and returns it.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn issue(
        &self,
        secrets: &Api<Secret>,
        name: &str,
        host: &str,
    ) -> Result<CertificateDer<'static>> {
        let key = KeyPair::generate()?;
        let params = CertificateParams::new(vec![host.to_owned()])?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let bytes = |text: String| ByteString(text.into_bytes());
        let secret = json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "kubernetes.io/tls",
            "metadata": {"name": name},
            "data": {
                "tls.crt": bytes(certificate.pem()),
                "tls.key": bytes(key.serialize_pem()),
                "ca.crt": bytes(self.authority.clone()),
            },
        });
        let parameters = PatchParams::apply("cert-manager").force();
        secrets
            .patch(name, &parameters, &Patch::Apply(&secret))
            .await?;
        Ok(certificate.der().clone())
    }
}

/// Writes an authority into the Secret, as cert-manager does for a Certificate with `isCA: true`: each has
/// the same name and a key of its own. Returns its certificate, in PEM.
///
/// # Errors
/// When the API server refuses.
pub async fn write_authority(secrets: &Api<Secret>, name: &str, life: Duration) -> Result<String> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(Vec::new())?;
    params
        .distinguished_name
        .push(DnType::CommonName, "garden authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let now = SystemTime::now();
    params.not_before = time::OffsetDateTime::from(now);
    params.not_after = time::OffsetDateTime::from(now + life);
    let certificate = params.self_signed(&key)?.pem();
    let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
    let secret = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": {"name": name},
        "data": {
            "tls.crt": bytes(&certificate),
            "tls.key": bytes(&key.serialize_pem()),
            "ca.crt": bytes(&certificate),
        },
    });
    let parameters = PatchParams::apply("cert-manager").force();
    secrets
        .patch(name, &parameters, &Patch::Apply(&secret))
        .await?;
    Ok(certificate)
}
