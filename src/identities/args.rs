//! Command line and environment of the identities.

use std::time::Duration;

use clap::Args;

use super::{IdentityOptions, Lifetimes};
use atomix_controller::ObjectKey;
use atomix_tls::Credentials;

/// Mutual TLS between operator, nodes and runtimes.
#[derive(Clone, Debug, Args)]
pub struct IdentityArgs {
    /// Name of the Secret with the operator's authority, in the operator's own namespace: new Stores
    /// and injected runtimes then speak mutual TLS. Without it everything is plain text, for
    /// development only.
    #[arg(long, env = "ATOMIX_TLS_AUTHORITY")]
    pub tls_authority: Option<String>,
    /// Name of a Secret in the operator's own namespace with an authority that somebody else makes and
    /// renews, such as cert-manager by a Certificate with isCA: true. tls.crt holds its certificate
    /// first, tls.key its key; whoever has that key is trusted as anybody. The operator makes none
    /// then: each one that it finds there is trusted everywhere for ten minutes before it signs. It
    /// should live at least three times as long as certificates; none outlives it. Setting and
    /// unsetting this cuts nobody off.
    #[arg(long, env = "ATOMIX_TLS_AUTHORITY_SOURCE", requires = "tls_authority")]
    pub tls_authority_source: Option<String>,
    /// How long certificates are valid, in seconds; they are renewed after two thirds of that, so an
    /// operator may be away for the last third.
    #[arg(long, env = "ATOMIX_TLS_CERTIFICATE_LIFE", default_value = "1209600", value_parser = seconds)]
    pub tls_certificate_life: Duration,
    /// How long an authority that the operator makes is valid, in seconds; at least three times as
    /// long.
    #[arg(long, env = "ATOMIX_TLS_AUTHORITY_LIFE", default_value = "31536000", value_parser = seconds)]
    pub tls_authority_life: Duration,
}

impl IdentityArgs {
    /// The options; `None` = plain text.
    ///
    /// # Errors
    /// When the lifetimes do not fit.
    pub fn options(self, namespace: &str) -> Result<Option<IdentityOptions>, String> {
        let Some(name) = self.tls_authority else {
            tracing::warn!(
                "no --tls-authority: connections to nodes and runtimes are plain text; only for \
                 development"
            );
            return Ok(None);
        };
        let lifetimes = Lifetimes {
            authority: self.tls_authority_life,
            certificate: self.tls_certificate_life,
            ..Lifetimes::default()
        };
        if self.tls_authority_source.as_ref() == Some(&name) {
            return Err(format!(
                "the operator keeps its own copy in the Secret {name}: let --tls-authority-source \
                 name another one, which somebody else writes"
            ));
        }
        let source = self.tls_authority_source;
        if source.is_none() && lifetimes.authority < lifetimes.certificate * 3 {
            return Err(format!(
                "an authority that lives {:?} cannot sign certificates that live {:?}: make \
                 --tls-authority-life at least three times --tls-certificate-life",
                lifetimes.authority, lifetimes.certificate
            ));
        }
        // Kubelets need a while to bring a Secret to the pods.
        if lifetimes.certificate < lifetimes.settle * 3 {
            return Err(format!(
                "certificates that live {:?} cannot be renewed in time: make \
                 --tls-certificate-life at least {:?}",
                lifetimes.certificate,
                lifetimes.settle * 3
            ));
        }
        Ok(Some(IdentityOptions {
            authority: ObjectKey::new(namespace, name),
            source: source.map(|source| ObjectKey::new(namespace, source)),
            lifetimes,
            credentials: Credentials::default(),
        }))
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("expected a whole number of seconds above 0".to_owned()),
        Ok(seconds) => Ok(Duration::from_secs(seconds)),
    }
}
