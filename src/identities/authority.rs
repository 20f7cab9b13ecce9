//! The authority of the operator: what its Secret holds, and what to do next about it. Pure but for
//! keys: what is there and the time in, one step out.
//!
//! A new authority is trusted before it signs, and an old one until nothing that it signed can be in
//! use: so whatever mix of old and new certificates nodes and runtimes hold, they agree. A crash
//! between two steps loses nothing: each is computed from what is stored.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use k8s_openapi::ByteString;
use rcgen::KeyPair;

use crate::certificates::x509::{
    Certificate, Pair, X509Error, new_authority_of, new_identity, unreadable,
};
use atomix_tls::{Identity, Material};

/// What a Secret holds.
pub(super) type Data = BTreeMap<String, ByteString>;

/// The certificates of authorities, in every Secret of ours.
pub(super) const AUTHORITIES: &str = "ca.crt";
const SIGNING_KEY: &str = "ca.key";
const NEXT_KEY: &str = "next.key";

/// How long certificates are valid. Each is replaced after two thirds of its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    /// Of an authority; much longer than a certificate's.
    pub authority: Duration,
    /// Of a certificate of a node, a runtime or the operator: they go on for a third of it while no
    /// operator is there.
    pub certificate: Duration,
    /// How long a new authority is trusted before it signs: longer than kubelets take to bring a
    /// Secret to the pods that mount it.
    pub settle: Duration,
}

impl Default for Lifetimes {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(24 * 3600);
        Self {
            authority: 365 * DAY,
            certificate: 14 * DAY,
            settle: Duration::from_secs(600),
        }
    }
}

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A first authority, or one anew.
    Begin,
    /// A new authority that is trusted and does not sign yet.
    AddNext,
    /// The new authority signs.
    Promote,
    /// Authorities that have expired are trusted no more.
    DropExpired,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// This.
    Do(Step),
    /// Nothing before this time.
    WaitUntil(SystemTime),
}

/// The authorities that there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Authority {
    /// The one that signs.
    pub(super) signing: Pair,
    /// The one that will sign.
    next: Option<Pair>,
    /// Those that signed before.
    former: Vec<Certificate>,
}

/// `trusted_for` = for how long every Secret that carries certificates has been seen to name exactly
/// these authorities; `None` = one does not.
pub(super) fn plan(
    now: SystemTime,
    authority: Option<&Authority>,
    trusted_for: Option<Duration>,
    lifetimes: &Lifetimes,
) -> Plan {
    let Some(authority) = authority else {
        return Plan::Do(Step::Begin);
    };
    let signing = &authority.signing.certificate;
    if signing.expires <= now {
        return Plan::Do(Step::Begin);
    }
    let mut until = match &authority.next {
        Some(_) => match trusted_for {
            Some(known) if known >= lifetimes.settle => return Plan::Do(Step::Promote),
            Some(known) => now + (lifetimes.settle - known),
            // A Secret that does not name it yet is about to be written.
            None => now + lifetimes.settle,
        },
        None if signing.renew_at() <= now => return Plan::Do(Step::AddNext),
        None => signing.renew_at(),
    };
    for former in &authority.former {
        if former.expires <= now {
            return Plan::Do(Step::DropExpired);
        }
        until = until.min(former.expires);
    }
    Plan::WaitUntil(until)
}

impl Authority {
    /// Carries out a step; `old` is what is there.
    pub(super) fn after(
        step: Step,
        old: Option<Self>,
        now: SystemTime,
        lifetimes: &Lifetimes,
    ) -> Result<Self, X509Error> {
        let new = || new_authority_of("identity", now, lifetimes.authority);
        let Some(old) = old.filter(|_| step != Step::Begin) else {
            return Ok(Self {
                signing: new()?,
                next: None,
                former: Vec::new(),
            });
        };
        let Self {
            signing,
            next,
            mut former,
        } = old;
        match step {
            Step::Begin | Step::AddNext => Ok(Self {
                signing,
                next: Some(new()?),
                former,
            }),
            Step::Promote => match next {
                Some(next) => {
                    former.insert(0, signing.certificate);
                    Ok(Self {
                        signing: next,
                        next: None,
                        former,
                    })
                }
                None => Ok(Self {
                    signing,
                    next,
                    former,
                }),
            },
            Step::DropExpired => {
                former.retain(|former| former.expires > now);
                Ok(Self {
                    signing,
                    next,
                    former,
                })
            }
        }
    }

    /// All that are trusted, in PEM; the one that signs first.
    pub(super) fn bundle(&self) -> String {
        let signing = std::iter::once(&self.signing.certificate);
        let next = self.next.iter().map(|next| &next.certificate);
        let all = signing.chain(next).chain(&self.former);
        all.map(|authority| authority.pem.as_str()).collect()
    }

    /// A new certificate.
    pub(super) fn sign(
        &self,
        identity: &Identity,
        now: SystemTime,
        lifetimes: &Lifetimes,
    ) -> Result<Pair, X509Error> {
        let life = lifetimes.certificate;
        new_identity(now, life, &identity.to_string(), &self.signing)
    }

    /// The same for a program's own use, and when it must be replaced.
    pub(super) fn material(
        &self,
        identity: &Identity,
        now: SystemTime,
        lifetimes: &Lifetimes,
    ) -> Result<(Material, SystemTime), X509Error> {
        let pair = self.sign(identity, now, lifetimes)?;
        let until = pair.certificate.renew_at();
        let material = Material {
            certificate: pair.certificate.pem.into_bytes(),
            key: pair.key.into_bytes(),
            authorities: self.bundle().into_bytes(),
        };
        Ok((material, until))
    }

    /// As the Secret's data.
    pub(super) fn data(&self) -> Data {
        let mut fields = vec![
            (AUTHORITIES, self.bundle()),
            (SIGNING_KEY, self.signing.key.clone()),
        ];
        if let Some(next) = &self.next {
            fields.push((NEXT_KEY, next.key.clone()));
        }
        fields
            .into_iter()
            .map(|(name, text)| (name.to_owned(), ByteString(text.into_bytes())))
            .collect()
    }

    /// Reads the Secret's data.
    ///
    /// # Errors
    /// When it has no authority that can sign.
    pub(super) fn of(data: &Data) -> Result<Self, X509Error> {
        let what = "the Secret's authorities";
        let mut all = Certificate::all_of(what, field(data, AUTHORITIES))?;
        let mut take = |name: &'static str| -> Result<Pair, X509Error> {
            let key = key(data, name)?;
            let position = all.iter().position(|authority| authority.has_key(&key));
            let position =
                position.ok_or_else(|| unreadable(what, format!("none of them has {name}")))?;
            Ok(Pair {
                certificate: all.remove(position),
                key: key.serialize_pem(),
            })
        };
        let signing = take(SIGNING_KEY)?;
        // One that cannot be read is trusted on, and a new one is made.
        let next = data.get(NEXT_KEY).and_then(|_| take(NEXT_KEY).ok());
        Ok(Self {
            signing,
            next,
            former: all,
        })
    }
}

pub(super) fn key(data: &Data, name: &'static str) -> Result<KeyPair, X509Error> {
    key_of(field(data, name), name)
}

pub(super) fn key_of(pem: &[u8], what: &'static str) -> Result<KeyPair, X509Error> {
    let text = std::str::from_utf8(pem).map_err(|error| unreadable(what, error))?;
    KeyPair::from_pem(text).map_err(|error| unreadable(what, error))
}

/// Empty when there is no such field.
pub(super) fn field<'a>(data: &'a Data, name: &str) -> &'a [u8] {
    data.get(name).map_or(&[], |bytes| bytes.0.as_slice())
}
