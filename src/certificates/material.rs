//! What the Secret holds: the authorities that are trusted, the key of the newest one, and the
//! webhook's certificate. Made, replaced and renewed here; *when*, says `plan`. Pure but for keys.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use rcgen::KeyPair;

use super::x509::{
    Certificate, Pair, X509Error, check_trust, new_authority, new_serving, unreadable,
};

const AUTHORITIES: &str = "ca.crt";
const AUTHORITY_KEY: &str = "ca.key";
/// The certificate's chain, as in any Secret of the type `kubernetes.io/tls`.
pub(super) const CHAIN: &str = "tls.crt";
/// Its key.
pub(super) const KEY: &str = "tls.key";

/// How long certificates are valid. Each is replaced after two thirds of its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    /// Of an authority; much longer than a certificate's.
    pub authority: Duration,
    /// Of the webhook's certificate.
    pub certificate: Duration,
}

impl Default for Lifetimes {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(24 * 3600);
        Self {
            authority: 365 * DAY,
            certificate: 30 * DAY,
        }
    }
}

/// What the certificate is to be.
#[derive(Clone, Debug)]
pub(super) struct Wish {
    /// Host names and addresses; not empty.
    pub(super) names: BTreeSet<String>,
    pub(super) lifetimes: Lifetimes,
}

/// What the Secret holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Material {
    /// The newest authority, which signs.
    pub(super) authority: Pair,
    /// Those before it that certificates in use may be signed by.
    pub(super) former: Vec<Certificate>,
    /// The webhook's certificate; `None` = what is there is of no use.
    pub(super) serving: Option<Pair>,
}

impl Material {
    /// A first authority with a certificate.
    pub(super) fn begin(now: SystemTime, wish: &Wish) -> Result<Self, X509Error> {
        let authority = new_authority(now, wish.lifetimes.authority)?;
        let first = Self {
            authority,
            former: Vec::new(),
            serving: None,
        };
        first.renew(now, wish)
    }

    /// The same authorities with a new certificate, signed by the newest one.
    pub(super) fn renew(&self, now: SystemTime, wish: &Wish) -> Result<Self, X509Error> {
        let life = wish.lifetimes.certificate;
        let serving = new_serving(now, life, &wish.names, &self.authority)?;
        Ok(Self {
            serving: Some(serving),
            ..self.clone()
        })
    }

    /// A new authority beside the old ones. Nobody trusts it yet, so the old one signs one more
    /// certificate, which lasts until everybody does; after that its key is needed no more.
    pub(super) fn replace_authority(
        &self,
        now: SystemTime,
        wish: &Wish,
    ) -> Result<Self, X509Error> {
        let renewed = self.renew(now, wish)?;
        let mut former = vec![renewed.authority.certificate];
        former.extend(renewed.former);
        let replaced = Self {
            authority: new_authority(now, wish.lifetimes.authority)?,
            former,
            serving: renewed.serving,
        };
        Ok(replaced.without_expired(now))
    }

    /// Without the former authorities that no valid certificate can be signed by.
    pub(super) fn without_expired(mut self, now: SystemTime) -> Self {
        self.former.retain(|former| former.expires > now);
        self
    }

    /// The authorities as clients are told of them, in PEM, newest first.
    pub(super) fn bundle(&self) -> String {
        let former = self.former.iter().map(|former| former.pem.as_str());
        let newest = std::iter::once(self.authority.certificate.pem.as_str());
        newest.chain(former).collect()
    }

    /// Whether a client that trusts the authorities would take the certificate for all its names.
    pub(super) fn is_trusted(&self, names: &BTreeSet<String>, now: SystemTime) -> bool {
        let Some(serving) = &self.serving else {
            return false;
        };
        let chain = [serving.certificate.der.clone()];
        let bundle = self.bundle();
        names
            .iter()
            .all(|name| check_trust(bundle.as_bytes(), &chain, name, now).is_ok())
    }

    /// As the Secret's data.
    pub(super) fn data(&self) -> BTreeMap<String, ByteString> {
        let serving = self.serving.as_ref();
        let chain = serving.map(|serving| serving.certificate.pem.clone());
        let key = serving.map(|serving| serving.key.clone());
        [
            (AUTHORITIES, self.bundle()),
            (AUTHORITY_KEY, self.authority.key.clone()),
            (CHAIN, chain.unwrap_or_default()),
            (KEY, key.unwrap_or_default()),
        ]
        .into_iter()
        .map(|(name, text)| (name.to_owned(), ByteString(text.into_bytes())))
        .collect()
    }

    /// Reads the Secret.
    ///
    /// # Errors
    /// When it has no authority that can sign.
    pub(super) fn of(secret: &Secret) -> Result<Self, X509Error> {
        let what = "the Secret's authorities";
        let mut authorities = Certificate::all_of(what, field(secret, AUTHORITIES))?;
        let key = key(secret, AUTHORITY_KEY)?;
        let newest = authorities
            .iter()
            .position(|authority| authority.has_key(&key))
            .ok_or_else(|| unreadable(what, "none of them has the Secret's key"))?;
        Ok(Self {
            authority: Pair {
                certificate: authorities.remove(newest),
                key: key.serialize_pem(),
            },
            former: authorities,
            serving: serving(secret).ok(),
        })
    }
}

fn serving(secret: &Secret) -> Result<Pair, X509Error> {
    let what = "the Secret's certificate";
    let key = key(secret, KEY)?;
    let chain = Certificate::all_of(what, field(secret, CHAIN))?;
    let certificate = chain
        .into_iter()
        .next()
        .filter(|certificate| certificate.has_key(&key))
        .ok_or_else(|| unreadable(what, "it does not have the Secret's key"))?;
    Ok(Pair {
        certificate,
        key: key.serialize_pem(),
    })
}

fn key(secret: &Secret, name: &'static str) -> Result<KeyPair, X509Error> {
    let text = std::str::from_utf8(field(secret, name)).map_err(|error| unreadable(name, error))?;
    KeyPair::from_pem(text).map_err(|error| unreadable(name, error))
}

/// Empty when the Secret has no such field.
pub(super) fn field<'a>(secret: &'a Secret, name: &str) -> &'a [u8] {
    let data = secret.data.as_ref();
    let found = data.and_then(|data| data.get(name));
    found.map_or(&[], |bytes| bytes.0.as_slice())
}
