//! The authority of the operator: what its Secret holds, and what to do next about it. Pure but for
//! keys: what is there and the time in, one step out.
//!
//! A new authority is trusted before it signs, and an old one until nothing that it signed can be in
//! use: so whatever mix of old and new certificates nodes and runtimes hold, they agree. A crash
//! between two steps loses nothing: each is computed from what is stored. All this holds whether
//! authorities are made here or taken over from somebody else (`source`), at any time.

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
/// Until when each of those that signed before is trusted, in seconds since 1970, in their order.
const FORMER_UNTIL: &str = "former.until";

/// In the names of authorities that are made here.
const PURPOSE: &str = "identity";

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
    /// A new authority that is trusted and does not sign yet, in the place of one that has not
    /// signed either.
    AddNext,
    /// The new authority signs.
    Promote,
    /// Authorities are trusted no more that have expired, or whose certificates all have.
    DropExpired,
}

/// Where new authorities come from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Origin<'a> {
    /// They are made here.
    Own,
    /// Somebody else makes them, this one now; `None` = there is none of use.
    Source(Option<&'a Pair>),
}

impl Origin<'_> {
    /// # Errors
    /// When there is none; no plan asks for one then.
    fn new_authority(self, now: SystemTime, lifetimes: &Lifetimes) -> Result<Pair, X509Error> {
        match self {
            Self::Own => new_authority_of(PURPOSE, now, lifetimes.authority),
            Self::Source(found) => {
                let found = found.cloned();
                found.ok_or_else(|| unreadable("the next authority", "there is none"))
            }
        }
    }

    /// Whether there is none that should follow this one, but for its age.
    fn is_content_with(self, authority: &Certificate) -> bool {
        match self {
            Self::Own => authority.is_authority_of(PURPOSE),
            Self::Source(Some(found)) => found.certificate == *authority,
            Self::Source(None) => true,
        }
    }
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// This.
    Do(Step),
    /// Nothing before this time.
    WaitUntil(SystemTime),
    /// Nothing before somebody else makes an authority: there is none that could sign.
    WaitForSource,
}

/// The authorities that there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Authority {
    /// The one that signs.
    pub(super) signing: Pair,
    /// The one that will sign.
    next: Option<Pair>,
    /// Those that signed before, the last one first.
    former: Vec<Former>,
}

/// An authority that signs no more.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Former {
    certificate: Certificate,
    /// When nothing that it signed can be in use.
    until: SystemTime,
}

/// `origin` = where new authorities come from; `trusted_for` = for how long every Secret that carries
/// certificates has been seen to name exactly these authorities; `None` = one does not.
pub(super) fn plan(
    now: SystemTime,
    authority: Option<&Authority>,
    origin: Origin<'_>,
    trusted_for: Option<Duration>,
    lifetimes: &Lifetimes,
) -> Plan {
    let begin = match origin {
        Origin::Own | Origin::Source(Some(_)) => Plan::Do(Step::Begin),
        Origin::Source(None) => Plan::WaitForSource,
    };
    let Some(authority) = authority else {
        return begin;
    };
    let signing = &authority.signing.certificate;
    let next = authority.next.as_ref().map(|next| &next.certificate);
    let next = next.filter(|next| next.expires > now);
    if signing.expires <= now {
        // Nothing that it signed is valid any more, so haste does no harm.
        return next.map_or(begin, |_| Plan::Do(Step::Promote));
    }
    let is_old = match origin {
        Origin::Own => next.is_none() && signing.renew_at() <= now,
        Origin::Source(_) => false,
    };
    if is_old || !origin.is_content_with(next.unwrap_or(signing)) {
        return Plan::Do(Step::AddNext);
    }
    let mut until = match next {
        Some(_) => match trusted_for {
            Some(known) if known >= lifetimes.settle => return Plan::Do(Step::Promote),
            Some(known) => now + (lifetimes.settle - known),
            // A Secret that does not name it yet is about to be written.
            None => now + lifetimes.settle,
        },
        None => match origin {
            Origin::Own => signing.renew_at(),
            Origin::Source(_) => {
                let overdue = authority.overdue_at(lifetimes);
                overdue.filter(|at| *at > now).unwrap_or(signing.expires)
            }
        },
    };
    until = until.min(signing.expires);
    if authority.next.is_some() && next.is_none() {
        return Plan::Do(Step::DropExpired);
    }
    for former in &authority.former {
        if former.until <= now {
            return Plan::Do(Step::DropExpired);
        }
        until = until.min(former.until);
    }
    Plan::WaitUntil(until)
}

impl Authority {
    /// Carries out a step; `old` is what is there.
    pub(super) fn after(
        step: Step,
        old: Option<Self>,
        origin: Origin<'_>,
        now: SystemTime,
        lifetimes: &Lifetimes,
    ) -> Result<Self, X509Error> {
        let new = || origin.new_authority(now, lifetimes);
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
            Step::Begin | Step::AddNext => {
                // The one that signs may be wanted again before another has followed it.
                let next = Some(new()?).filter(|new| new.certificate != signing.certificate);
                Ok(Self {
                    signing,
                    next,
                    former,
                })
            }
            Step::Promote => match next {
                Some(next) => {
                    former.insert(0, Former::new(signing.certificate, now, lifetimes));
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
                former.retain(|former| former.until > now);
                Ok(Self {
                    signing,
                    next: next.filter(|next| next.certificate.expires > now),
                    former,
                })
            }
        }
    }

    /// Whether certificates that it signs are of use.
    pub(super) fn can_sign(&self, now: SystemTime) -> bool {
        now < self.signing.certificate.expires
    }

    /// When the one that signs should have been followed by another: from then on the certificates
    /// that it signs are shorter-lived than they should be, and an operator may be away for less.
    /// `None` = another follows.
    pub(super) fn overdue_at(&self, lifetimes: &Lifetimes) -> Option<SystemTime> {
        let signing = &self.signing.certificate;
        let early = lifetimes.certificate.min(signing.life() / 6);
        self.next.is_none().then(|| signing.expires - early)
    }

    /// When the one that signs expires.
    pub(super) fn expires(&self) -> SystemTime {
        self.signing.certificate.expires
    }

    /// When a certificate that the one that signs has signed must be replaced. One that ends with it
    /// never: a new one would, too.
    pub(super) fn renew_at(&self, certificate: &Certificate) -> SystemTime {
        if certificate.expires >= self.expires() {
            return self.expires();
        }
        certificate.renew_at()
    }

    /// All that are trusted, in PEM; the one that signs first.
    pub(super) fn bundle(&self) -> String {
        let signing = std::iter::once(&self.signing.certificate);
        let next = self.next.iter().map(|next| &next.certificate);
        let former = self.former.iter().map(|former| &former.certificate);
        let all = signing.chain(next).chain(former);
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
        let until = self.renew_at(&pair.certificate);
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
        if !self.former.is_empty() {
            let untils = self.former.iter().map(|former| seconds_of(former.until));
            let untils: Vec<String> = untils.map(|until| until.to_string()).collect();
            fields.push((FORMER_UNTIL, untils.join(" ")));
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
        // From behind: one whose key cannot be read stands before them.
        let untils = std::str::from_utf8(field(data, FORMER_UNTIL)).unwrap_or_default();
        let mut untils = untils.split_whitespace().rev().map(time_of);
        let mut former: Vec<Former> = all
            .into_iter()
            .rev()
            .map(|certificate| Former {
                until: untils.next().flatten().unwrap_or(certificate.expires),
                certificate,
            })
            .collect();
        former.reverse();
        Ok(Self {
            signing,
            next,
            former,
        })
    }
}

impl Former {
    /// One that signs no more from now on. A replica that hears late that another one does may sign
    /// for some time yet: twice the life of a certificate is enough for both.
    fn new(certificate: Certificate, now: SystemTime, lifetimes: &Lifetimes) -> Self {
        let until = certificate.expires.min(now + lifetimes.certificate * 2);
        Self { certificate, until }
    }
}

/// Whole seconds since 1970, as certificates know them.
fn seconds_of(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}

fn time_of(seconds: &str) -> Option<SystemTime> {
    let since = Duration::from_secs(seconds.parse().ok()?);
    SystemTime::UNIX_EPOCH.checked_add(since)
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
