//! Who a program is: one URI among the alternative names of its certificate.

use std::fmt;
use std::str::FromStr;

use rustls::pki_types::CertificateDer;
use thiserror::Error;

const TRUST_DOMAIN: &str = "spiffe://atomix.io/";

/// Who a program is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Identity {
    /// The operator.
    Operator,
    /// A storage node of a Store. All nodes of a Store have the same.
    Node {
        /// The Store's namespace.
        namespace: String,
        /// The Store's name.
        store: String,
    },
    /// A runtime sidecar of a namespace's pods.
    Runtime {
        /// The pods' namespace.
        namespace: String,
    },
    /// The registry of drivers.
    Registry,
}

/// A text that is no identity.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is not an identity of Atomix such as spiffe://atomix.io/operator")]
pub struct InvalidIdentity(String);

impl Identity {
    /// The identity of a certificate; `None` when it names none, or more than one.
    #[must_use]
    pub fn of_certificate(certificate: &CertificateDer<'_>) -> Option<Self> {
        let parsed = webpki::EndEntityCert::try_from(certificate).ok()?;
        let mut ours = parsed
            .valid_uri_names()
            .filter(|uri| uri.starts_with(TRUST_DOMAIN));
        match (ours.next(), ours.next()) {
            (Some(only), None) => only.parse().ok(),
            _ => None,
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(TRUST_DOMAIN)?;
        match self {
            Self::Operator => formatter.write_str("operator"),
            Self::Node { namespace, store } => write!(formatter, "node/{namespace}/{store}"),
            Self::Runtime { namespace } => write!(formatter, "runtime/{namespace}"),
            Self::Registry => formatter.write_str("registry"),
        }
    }
}

impl FromStr for Identity {
    type Err = InvalidIdentity;

    fn from_str(text: &str) -> Result<Self, InvalidIdentity> {
        let invalid = || InvalidIdentity(text.to_owned());
        let path = text.strip_prefix(TRUST_DOMAIN).ok_or_else(invalid)?;
        let parts: Vec<&str> = path.split('/').collect();
        let name = |part: &str| is_name(part).then(|| part.to_owned()).ok_or_else(invalid);
        match parts.as_slice() {
            ["operator"] => Ok(Self::Operator),
            ["registry"] => Ok(Self::Registry),
            ["runtime", namespace] => Ok(Self::Runtime {
                namespace: name(namespace)?,
            }),
            ["node", namespace, store] => Ok(Self::Node {
                namespace: name(namespace)?,
                store: name(store)?,
            }),
            _ => Err(invalid()),
        }
    }
}

/// A name as Kubernetes gives it to a namespace or a Store.
fn is_name(text: &str) -> bool {
    let valid = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && text.len() <= 63 && text.bytes().all(valid)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn an_identity_is_read_as_it_is_written_and_nothing_else_is() {
        let node = Identity::Node {
            namespace: "meadow".to_owned(),
            store: "tulip".to_owned(),
        };
        let runtime = Identity::Runtime {
            namespace: "meadow".to_owned(),
        };
        for (identity, text) in [
            (Identity::Operator, "spiffe://atomix.io/operator"),
            (Identity::Registry, "spiffe://atomix.io/registry"),
            (runtime, "spiffe://atomix.io/runtime/meadow"),
            (node, "spiffe://atomix.io/node/meadow/tulip"),
        ] {
            assert_eq!(identity.to_string(), text);
            assert_eq!(text.parse::<Identity>().unwrap(), identity);
        }
        for wrong in [
            "",
            "operator",
            "https://atomix.io/operator",
            "spiffe://other.io/operator",
            "spiffe://atomix.io/operator/",
            "spiffe://atomix.io/Operator",
            "spiffe://atomix.io/runtime",
            "spiffe://atomix.io/runtime/",
            "spiffe://atomix.io/runtime/a/b",
            "spiffe://atomix.io/runtime/a%2fb",
            "spiffe://atomix.io/node/a",
            "spiffe://atomix.io/node/a/b/c",
            "spiffe://atomix.io/node/../b",
        ] {
            assert!(wrong.parse::<Identity>().is_err(), "{wrong}");
        }
    }
}
