//! Certificates and keys: made, read, and judged as a client judges them. Knows no Kubernetes.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData as _, SanType,
};
use rustls::client::danger::ServerCertVerifier as _;
use rustls::client::{WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, RootCertStore};
use thiserror::Error;
use time::OffsetDateTime;
use x509_parser::extensions::GeneralName;

/// How long before it is made a certificate is valid: clocks of machines differ.
const BACKDATE: Duration = Duration::from_secs(300);

/// A certificate that cannot be made or used.
#[derive(Debug, Error)]
pub(crate) enum X509Error {
    /// It could not be made.
    #[error("cannot make a certificate: {0}")]
    Making(#[from] rcgen::Error),
    /// A time is outside of what a certificate can say.
    #[error("cannot make a certificate: {0}")]
    Time(#[from] time::error::ComponentRange),
    /// It could not be read.
    #[error("cannot read {what}: {reason}")]
    Reading {
        /// What was read.
        what: &'static str,
        /// Why it cannot be used.
        reason: String,
    },
}

pub(crate) fn unreadable(what: &'static str, reason: impl ToString) -> X509Error {
    let reason = reason.to_string();
    X509Error::Reading { what, reason }
}

/// A certificate that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Certificate {
    pub(crate) pem: String,
    pub(crate) der: CertificateDer<'static>,
    starts: SystemTime,
    pub(crate) expires: SystemTime,
    /// Host names, addresses and URIs that it is for.
    pub(crate) names: BTreeSet<String>,
    /// It is an authority's.
    pub(crate) may_sign: bool,
    common_name: String,
    public_key: Vec<u8>,
    /// Of the certificate and of its signer, as encoded.
    subject: Vec<u8>,
    issuer: Vec<u8>,
}

impl Certificate {
    /// All certificates of a PEM text, in its order.
    pub(crate) fn all_of(what: &'static str, pem: &[u8]) -> Result<Vec<Self>, X509Error> {
        CertificateDer::pem_slice_iter(pem)
            .map(|der| {
                let der = der.map_err(|error| unreadable(what, error))?;
                Self::of(what, der)
            })
            .collect()
    }

    fn of(what: &'static str, der: CertificateDer<'static>) -> Result<Self, X509Error> {
        let (_rest, parsed) =
            x509_parser::parse_x509_certificate(&der).map_err(|error| unreadable(what, error))?;
        let alternatives = parsed
            .subject_alternative_name()
            .map_err(|error| unreadable(what, error))?;
        let names = alternatives
            .iter()
            .flat_map(|extension| &extension.value.general_names)
            .filter_map(shown)
            .collect();
        let usage = parsed
            .key_usage()
            .map_err(|error| unreadable(what, error))?;
        let signs_certificates = usage.is_none_or(|usage| usage.value.key_cert_sign());
        let may_sign = parsed.is_ca() && signs_certificates;
        let common_name = parsed.subject().iter_common_name().next();
        let common_name = common_name.and_then(|name| name.as_str().ok());
        Ok(Self {
            may_sign,
            common_name: common_name.unwrap_or_default().to_owned(),
            starts: at(parsed.validity().not_before.timestamp()),
            expires: at(parsed.validity().not_after.timestamp()),
            names,
            public_key: parsed.public_key().raw.to_vec(),
            subject: parsed.subject().as_raw().to_vec(),
            issuer: parsed.issuer().as_raw().to_vec(),
            pem: pem_of(&der),
            der,
        })
    }

    /// When it was made, if we made it.
    pub(crate) fn issued(&self) -> SystemTime {
        self.starts + BACKDATE
    }

    /// When two thirds of its life are over.
    pub(crate) fn renew_at(&self) -> SystemTime {
        let life = self.expires.duration_since(self.issued());
        self.issued() + life.unwrap_or_default() * 2 / 3
    }

    /// From its first moment to its last.
    pub(crate) fn life(&self) -> Duration {
        self.expires.duration_since(self.starts).unwrap_or_default()
    }

    /// Whether [`new_authority_of`] made it for this.
    pub(crate) fn is_authority_of(&self, what: &str) -> bool {
        self.common_name.starts_with(&authority_name(what))
    }

    /// Whether who trusts this authority alone takes it now. Names do not tell authorities apart: one
    /// that somebody else renews keeps its name.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn is_trusted_by(
        &self,
        authority: &Self,
        now: SystemTime,
    ) -> Result<(), rustls::Error> {
        if self.issuer != authority.subject {
            return Err(CertificateError::UnknownIssuer.into());
        }
        let mut roots = RootCertStore::empty();
        roots.add(authority.der.clone())?;
        let now = UnixTime::since_unix_epoch(since_epoch(now));
        let algorithms = ring::default_provider().signature_verification_algorithms;
        let parsed = ParsedCertificate::try_from(&self.der)?;
        verify_server_cert_signed_by_trust_anchor(&parsed, &roots, &[], now, algorithms.all)
    }

    pub(crate) fn has_key(&self, key: &KeyPair) -> bool {
        key.subject_public_key_info() == self.public_key
    }
}

fn at(seconds: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

fn shown(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) | GeneralName::URI(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => {
            let four = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
            let address = four.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from));
            address.ok().map(|address| address.to_string())
        }
        _ => None,
    }
}

fn pem_of(der: &CertificateDer<'_>) -> String {
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new("CERTIFICATE", der.to_vec()), config)
}

/// A certificate with its private key.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) certificate: Certificate,
    /// In PEM.
    pub(crate) key: String,
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Pair")
            .field("certificate", &self.certificate)
            .finish_non_exhaustive()
    }
}

/// A certificate that signs others and itself.
pub(crate) fn new_authority(now: SystemTime, life: Duration) -> Result<Pair, X509Error> {
    new_authority_of("webhook", now, life)
}

/// As [`new_authority`]; `what` says what it is for.
pub(crate) fn new_authority_of(
    what: &str,
    now: SystemTime,
    life: Duration,
) -> Result<Pair, X509Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(Vec::new())?;
    // Clients tell authorities apart by their names.
    let name = format!("{} {:016x}", authority_name(what), rand::random::<u64>());
    params.distinguished_name = named(&name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    params.not_before = time_of(now - BACKDATE)?;
    params.not_after = time_of(now + life)?;
    let made = params.self_signed(&key)?;
    Ok(Pair {
        certificate: Certificate::of("the new authority", made.der().clone())?,
        key: key.serialize_pem(),
    })
}

/// A certificate for a server with these names; it ends with its authority at the latest.
pub(crate) fn new_serving(
    now: SystemTime,
    life: Duration,
    names: &BTreeSet<String>,
    authority: &Pair,
) -> Result<Pair, X509Error> {
    let signer = KeyPair::from_pem(&authority.key)?;
    let issuer = Issuer::from_ca_cert_der(&authority.certificate.der, signer)?;
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(names.iter().cloned().collect::<Vec<_>>())?;
    params.distinguished_name = named("atomix webhook");
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.not_before = time_of(now - BACKDATE)?;
    params.not_after = time_of((now + life).min(authority.certificate.expires))?;
    let made = params.signed_by(&key, &issuer)?;
    Ok(Pair {
        certificate: Certificate::of("the new certificate", made.der().clone())?,
        key: key.serialize_pem(),
    })
}

/// A certificate for both ends of connections that names its owner by one URI; it ends with its
/// authority at the latest.
pub(crate) fn new_identity(
    now: SystemTime,
    life: Duration,
    uri: &str,
    authority: &Pair,
) -> Result<Pair, X509Error> {
    let signer = KeyPair::from_pem(&authority.key)?;
    let issuer = Issuer::from_ca_cert_der(&authority.certificate.der, signer)?;
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(Vec::new())?;
    params.subject_alt_names = vec![SanType::URI(uri.try_into()?)];
    params.distinguished_name = named("atomix");
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params.not_before = time_of(now - BACKDATE)?;
    params.not_after = time_of((now + life).min(authority.certificate.expires))?;
    let made = params.signed_by(&key, &issuer)?;
    Ok(Pair {
        certificate: Certificate::of("the new certificate", made.der().clone())?,
        key: key.serialize_pem(),
    })
}

fn authority_name(what: &str) -> String {
    format!("atomix {what} authority")
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

fn time_of(time: SystemTime) -> Result<OffsetDateTime, time::error::ComponentRange> {
    let seconds = since_epoch(time).as_secs();
    OffsetDateTime::from_unix_timestamp(i64::try_from(seconds).unwrap_or(i64::MAX))
}

fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The cryptography of this process.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// Whether a client that trusts exactly `authorities` (PEM) would talk to a server of this name
/// that shows this chain.
///
/// # Errors
/// Why it would not.
pub(crate) fn check_trust(
    authorities: &[u8],
    chain: &[CertificateDer<'static>],
    name: &str,
    now: SystemTime,
) -> Result<(), String> {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(authorities) {
        let root = root.map_err(|error| format!("its authorities cannot be read: {error}"))?;
        roots.add(root).map_err(|error| error.to_string())?;
    }
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .map_err(|error| error.to_string())?;
    let Some((first, rest)) = chain.split_first() else {
        return Err("there is no certificate".to_owned());
    };
    let name = ServerName::try_from(name.to_owned()).map_err(|error| error.to_string())?;
    let now = UnixTime::since_unix_epoch(since_epoch(now));
    let verified = verifier.verify_server_cert(first, rest, &name, &[], now);
    verified.map(|_| ()).map_err(|error| error.to_string())
}
