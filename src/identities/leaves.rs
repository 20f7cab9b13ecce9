//! The certificates in one Secret: which of them are good, and the Secret with new ones in the place
//! of the others. Pure but for keys.

use std::collections::BTreeMap;
use std::time::SystemTime;

use k8s_openapi::ByteString;

use super::authority::{AUTHORITIES, Authority, Data, Lifetimes, field, key_of};
use crate::certificates::x509::{Certificate, Pair, X509Error};
use atomix_tls::Identity;

/// Whose certificates a Secret holds, by the beginning of their fields' names: `tls` for `tls.crt`
/// and `tls.key`.
pub(super) type Wanted = BTreeMap<String, Identity>;

/// What a Secret should hold.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Renewed {
    /// Its whole data; `None` = it is as it should be.
    pub(super) data: Option<Data>,
    /// When the first of its certificates must be replaced.
    pub(super) until: SystemTime,
}

/// Keeps what is good, makes anew what is not, and leaves out what is not wanted.
pub(super) fn renew(
    found: &Data,
    wanted: &Wanted,
    authority: &Authority,
    now: SystemTime,
    lifetimes: &Lifetimes,
) -> Result<Renewed, X509Error> {
    let text = |text: String| ByteString(text.into_bytes());
    let mut data = Data::from([(AUTHORITIES.to_owned(), text(authority.bundle()))]);
    let mut until = authority.expires();
    for (name, identity) in wanted {
        let (certificate, key) = (format!("{name}.crt"), format!("{name}.key"));
        let known = read(field(found, &certificate), field(found, &key));
        let good = known.filter(|known| is_good(known, identity, authority, now));
        let pair = match good {
            Some(good) => good,
            None => authority.sign(identity, now, lifetimes)?,
        };
        until = until.min(authority.renew_at(&pair.certificate));
        data.insert(certificate, text(pair.certificate.pem));
        data.insert(key, text(pair.key));
    }
    let data = Some(data).filter(|data| data != found);
    Ok(Renewed { data, until })
}

fn read(certificate: &[u8], key: &[u8]) -> Option<Pair> {
    let key = key_of(key, "the Secret's key").ok()?;
    let chain = Certificate::all_of("the Secret's certificate", certificate).ok()?;
    let [only] = <[Certificate; 1]>::try_from(chain).ok()?;
    only.has_key(&key).then(|| Pair {
        certificate: only,
        key: key.serialize_pem(),
    })
}

fn is_good(known: &Pair, identity: &Identity, authority: &Authority, now: SystemTime) -> bool {
    let certificate = &known.certificate;
    let signing = &authority.signing.certificate;
    certificate.names.iter().eq([&identity.to_string()])
        && now < authority.renew_at(certificate)
        && certificate.is_trusted_by(signing, now).is_ok()
}

#[cfg(test)]
mod tests;
