//! An authority that somebody else makes, such as cert-manager: read from their Secret, and tried
//! whether it can sign for nodes and runtimes. Pure but for keys.
//!
//! Only the first certificate of `tls.crt` is trusted. What stands above it is not: it may have signed
//! others, who are no authority here.

use std::time::{Duration, SystemTime};

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use thiserror::Error;

use super::authority::{Data, Lifetimes, field};
use crate::certificates::foreign_key;
use crate::certificates::x509::{Certificate, Pair, X509Error, new_identity};
use atomix_controller::ObjectKey;
use atomix_tls::Identity;

/// Of a Secret of the type `kubernetes.io/tls`.
const CHAIN: &str = "tls.crt";
const KEY: &str = "tls.key";

/// Why an authority cannot be taken over.
#[derive(Debug, Error)]
pub(super) enum SourceError {
    #[error(
        "there is no Secret {0} to take the authority from: let a Certificate of cert-manager with \
         isCA: true write it, or create it with tls.crt and tls.key"
    )]
    Missing(ObjectKey),
    #[error("the Secret {secret} holds no authority that can be taken over: {fault}")]
    Unusable { secret: ObjectKey, fault: Fault },
}

/// What is wrong with an authority.
#[derive(Debug, Error)]
pub(super) enum Fault {
    #[error(transparent)]
    Reading(#[from] X509Error),
    #[error("tls.crt has no certificate: put the authority's there, in PEM")]
    Empty,
    #[error("tls.key is not the key of the first certificate in tls.crt: put both there together")]
    OtherKey,
    #[error(
        "the first certificate in tls.crt may not sign others: make it one of an authority \
         (cert-manager: isCA: true)"
    )]
    NoAuthority,
    #[error("it expired at {}: renew it", shown(*.0))]
    Expired(SystemTime),
    #[error(
        "it lives {}, which is too short to bring it to all pods: make it at least {}",
        seconds(*.life), seconds(*.least)
    )]
    ShortLived { life: Duration, least: Duration },
    #[error("nobody who trusts it takes what it signs: {0}")]
    Refused(String),
}

/// The authority in the Secret `key`.
///
/// When it begins to be valid is not asked: clocks differ, and nobody who verifies looks at it.
pub(super) fn read(
    key: &ObjectKey,
    secret: Option<&Secret>,
    now: SystemTime,
    lifetimes: &Lifetimes,
) -> Result<Pair, SourceError> {
    let secret = secret.ok_or_else(|| SourceError::Missing(key.clone()))?;
    let nothing = Data::new();
    let data = secret.data.as_ref().unwrap_or(&nothing);
    authority_of(data, now, lifetimes).map_err(|fault| SourceError::Unusable {
        secret: key.clone(),
        fault,
    })
}

fn authority_of(data: &Data, now: SystemTime, lifetimes: &Lifetimes) -> Result<Pair, Fault> {
    let chain = Certificate::all_of(CHAIN, field(data, CHAIN))?;
    let certificate = chain.into_iter().next().ok_or(Fault::Empty)?;
    let key = foreign_key::read(KEY, field(data, KEY))?;
    if !certificate.has_key(&key) {
        return Err(Fault::OtherKey);
    }
    if !certificate.may_sign {
        return Err(Fault::NoAuthority);
    }
    if certificate.expires <= now {
        return Err(Fault::Expired(certificate.expires));
    }
    let (life, least) = (certificate.life(), lifetimes.settle * 3);
    if life < least {
        return Err(Fault::ShortLived { life, least });
    }
    let pair = Pair {
        certificate,
        key: key.serialize_pem(),
    };
    try_out(&pair, now)?;
    Ok(pair)
}

/// Signs as for the operator, and verifies that as its peers do: they may not know the kind of its
/// key, and it may be limited to other names.
fn try_out(authority: &Pair, now: SystemTime) -> Result<(), Fault> {
    let life = Duration::from_secs(60);
    let tried = new_identity(now, life, &Identity::Operator.to_string(), authority)?;
    let verified = tried.certificate.is_trusted_by(&authority.certificate, now);
    verified.map_err(|error| Fault::Refused(error.to_string()))
}

/// For people.
pub(super) fn shown(time: SystemTime) -> String {
    Timestamp::try_from(time).map_or_else(|_| "an unknown time".to_owned(), |time| time.to_string())
}

fn seconds(duration: Duration) -> String {
    format!("{} s", duration.as_secs())
}

#[cfg(test)]
mod tests;
