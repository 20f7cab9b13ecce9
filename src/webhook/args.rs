//! Command line and environment of the webhook.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use clap::{Args, ValueEnum};
use k8s_openapi::api::core::v1::ResourceRequirements;

use super::{SidecarOptions, WebhookOptions};
use crate::certificates::{CertificateOptions, CertificateSource, Lifetimes};
use atomix_controller::ObjectKey;

/// Who makes the webhook's certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, ValueEnum)]
pub enum Source {
    /// The operator.
    #[default]
    Operator,
    /// Somebody else, such as cert-manager, writes Secret and caBundle.
    External,
}

/// The injection webhook.
#[derive(Clone, Debug, Args)]
pub struct WebhookArgs {
    /// Where the injection webhook is served; default: nowhere.
    #[arg(long, env = "ATOMIX_WEBHOOK_ADDR")]
    pub webhook_addr: Option<SocketAddr>,
    /// Name of the Service by which the API server reaches the webhook, in the operator's own
    /// namespace; the Secret with its certificates has the same name.
    #[arg(
        long,
        env = "ATOMIX_WEBHOOK_SERVICE",
        default_value = "atomix-operator-webhook"
    )]
    pub webhook_service: String,
    /// Name of the MutatingWebhookConfiguration.
    #[arg(
        long,
        env = "ATOMIX_WEBHOOK_CONFIGURATION",
        default_value = "atomix-operator"
    )]
    pub webhook_configuration: String,
    /// Who makes the webhook's certificates.
    #[arg(long, env = "ATOMIX_WEBHOOK_CERTIFICATES", value_enum, default_value_t)]
    pub webhook_certificates: Source,
    /// How long a certificate is valid, in seconds; it is renewed after two thirds of that.
    #[arg(long, env = "ATOMIX_WEBHOOK_CERTIFICATE_LIFE", default_value = "2592000", value_parser = seconds)]
    pub webhook_certificate_life: Duration,
    /// How long the authority that signs it is valid, in seconds; at least three times as long.
    #[arg(long, env = "ATOMIX_WEBHOOK_AUTHORITY_LIFE", default_value = "31536000", value_parser = seconds)]
    pub webhook_authority_life: Duration,
    /// Image of injected runtimes.
    #[arg(
        long,
        env = "ATOMIX_RUNTIME_IMAGE",
        default_value = "atomix-runtime:latest"
    )]
    pub runtime_image: String,
    /// When the image of injected runtimes is pulled: Always, IfNotPresent or Never.
    #[arg(long, env = "ATOMIX_RUNTIME_IMAGE_PULL_POLICY")]
    pub runtime_image_pull_policy: Option<String>,
    /// CPU and memory of injected runtimes, as JSON: {"requests": {"cpu": "20m"}}.
    #[arg(
        long,
        env = "ATOMIX_RUNTIME_RESOURCES",
        default_value = r#"{"requests":{"cpu":"20m","memory":"32Mi"}}"#,
        value_parser = resources
    )]
    pub runtime_resources: ResourceRequirements,
}

impl WebhookArgs {
    /// The webhook's options and where it is served; `None` = it is not.
    ///
    /// # Errors
    /// When the address cannot be listened on, or the lifetimes do not fit.
    pub fn open(
        self,
        namespace: &str,
        tls: bool,
    ) -> Result<Option<(TcpListener, WebhookOptions)>, String> {
        let Some(address) = self.webhook_addr else {
            return Ok(None);
        };
        let lifetimes = Lifetimes {
            authority: self.webhook_authority_life,
            certificate: self.webhook_certificate_life,
        };
        if lifetimes.authority < lifetimes.certificate * 3 {
            return Err(format!(
                "an authority that lives {:?} cannot sign certificates that live {:?}: make \
                 --webhook-authority-life at least three times --webhook-certificate-life",
                lifetimes.authority, lifetimes.certificate
            ));
        }
        let listener = TcpListener::bind(address)
            .map_err(|error| format!("cannot serve the webhook on {address}: {error}"))?;
        let service = &self.webhook_service;
        let options = WebhookOptions {
            sidecar: SidecarOptions {
                image: self.runtime_image,
                image_pull_policy: self.runtime_image_pull_policy,
                resources: self.runtime_resources,
                tls,
            },
            certificates: CertificateOptions {
                secret: ObjectKey::new(namespace, service.clone()),
                configuration: self.webhook_configuration,
                // The first is what the API server asks for.
                names: vec![
                    format!("{service}.{namespace}.svc"),
                    format!("{service}.{namespace}"),
                    service.clone(),
                ],
                source: match self.webhook_certificates {
                    Source::Operator => CertificateSource::Operator(lifetimes),
                    Source::External => CertificateSource::External,
                },
            },
        };
        Ok(Some((listener, options)))
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds @ 20..) => Ok(Duration::from_secs(seconds)),
        Ok(_) | Err(_) => Err("expected a whole number of seconds, at least 20".to_owned()),
    }
}

fn resources(text: &str) -> Result<ResourceRequirements, String> {
    serde_json::from_str(text).map_err(|error| format!("expected resources as JSON: {error}"))
}
