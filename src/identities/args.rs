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
    /// How long certificates are valid, in seconds; they are renewed after two thirds of that, so an
    /// operator may be away for the last third.
    #[arg(long, env = "ATOMIX_TLS_CERTIFICATE_LIFE", default_value = "1209600", value_parser = seconds)]
    pub tls_certificate_life: Duration,
    /// How long the authority is valid, in seconds; at least three times as long.
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
        if lifetimes.authority < lifetimes.certificate * 3 {
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
