//! For tests: authorities as somebody else makes them, whose names stay when their keys change.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use time::OffsetDateTime;

use super::authority::key_of;
use crate::certificates::x509::{Certificate, Pair};

/// What an authority's certificate says.
pub(super) fn params(now: SystemTime, life: Duration) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params
        .distinguished_name
        .push(DnType::CommonName, "garden authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.not_before = OffsetDateTime::from(now);
    params.not_after = OffsetDateTime::from(now + life);
    params
}

/// A new authority.
pub(super) fn authority(now: SystemTime, life: Duration) -> Pair {
    self_signed(&params(now, life), &KeyPair::generate().unwrap())
}

/// The same key with a new certificate.
pub(super) fn renewed(old: &Pair, now: SystemTime, life: Duration) -> Pair {
    let key = key_of(old.key.as_bytes(), "").unwrap();
    self_signed(&params(now, life), &key)
}

pub(super) fn self_signed(params: &CertificateParams, key: &KeyPair) -> Pair {
    let certificate = params.self_signed(key).unwrap();
    pair(&certificate.pem(), key)
}

/// One that another authority signed.
pub(super) fn intermediate(above: &Pair, params: &CertificateParams) -> Pair {
    let signer = key_of(above.key.as_bytes(), "").unwrap();
    let issuer = Issuer::from_ca_cert_der(&above.certificate.der, signer).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    pair(&certificate.pem(), &key)
}

fn pair(pem: &str, key: &KeyPair) -> Pair {
    let mut read = Certificate::all_of("", pem.as_bytes()).unwrap();
    Pair {
        certificate: read.remove(0),
        key: key.serialize_pem(),
    }
}
