//! What to do next about the certificates. Pure: what is there and the time in, one step out.
//!
//! A new authority is trusted before it signs and an old one until nothing that it signed can be in
//! use: so whatever mix of old and new the replicas and the API server hold, they agree. One step a
//! pass, each computed from what is stored: a crash between two loses nothing.

use std::time::{Duration, SystemTime};

use super::material::{Material, Wish};

/// How long the authorities must have been seen in the webhook configuration before a certificate
/// is signed by the newest: the time in which every API server hears of it.
const SETTLE: Duration = Duration::from_secs(10);

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Write a Secret with a first authority.
    Begin,
    /// Write a new authority into the Secret, beside the old ones.
    ReplaceAuthority,
    /// Write the Secret's authorities into the webhook configuration.
    Trust,
    /// Write a new certificate into the Secret.
    Renew,
    /// Take authorities out of the Secret that have expired.
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

/// What is there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen<'a> {
    pub(super) now: SystemTime,
    /// Of the Secret; `None` = there is none, or none of use.
    pub(super) material: Option<&'a Material>,
    /// For how long the Secret's authorities have been seen in the webhook configuration; `None` =
    /// others, or none, are there.
    pub(super) trusted_for: Option<Duration>,
}

pub(super) fn plan(seen: Seen<'_>, wish: &Wish) -> Plan {
    let now = seen.now;
    let Some(material) = seen.material else {
        return Plan::Do(Step::Begin);
    };
    let authority = &material.authority.certificate;
    if authority.expires <= now {
        return Plan::Do(Step::Begin);
    }
    if authority.renew_at() <= now {
        return Plan::Do(Step::ReplaceAuthority);
    }
    let Some(trusted_for) = seen.trusted_for else {
        return Plan::Do(Step::Trust);
    };
    let Some(serving) = &material.serving else {
        return Plan::Do(Step::Renew);
    };
    if !material.is_trusted(&wish.names, now) {
        return Plan::Do(Step::Renew);
    }
    let mut next = authority.renew_at();
    let is_wrong = serving.certificate.names != wish.names;
    let renew_at = serving.certificate.renew_at();
    if is_wrong || renew_at <= now {
        let settle = settle(wish);
        if trusted_for >= settle {
            return Plan::Do(Step::Renew);
        }
        next = next.min(now + (settle - trusted_for));
    } else {
        next = next.min(renew_at);
    }
    for former in &material.former {
        if former.expires <= now {
            return Plan::Do(Step::DropExpired);
        }
        next = next.min(former.expires);
    }
    Plan::WaitUntil(next)
}

/// Certificates that live for seconds, in tests, cannot wait for ten.
pub(super) fn settle(wish: &Wish) -> Duration {
    SETTLE.min(wish.lifetimes.certificate / 10)
}

#[cfg(test)]
mod tests;
