//! The injection webhook: a pod that carries the label `atomix.io/inject: "true"` gets a runtime
//! sidecar when it is created.
//!
//! Every replica serves it, without the lease, without the custom resources and without looking at
//! any object but the pod: it never waits for a Session. What the API server trusts is kept by
//! [`crate::certificates`]; what is asked is in the chart's MutatingWebhookConfiguration.

pub mod args;
pub mod inject;
pub mod review;
mod server;
pub mod sidecar;

use std::net::TcpListener;

use atomix_process::tasks::Tasks;

pub use server::PATH;
pub use sidecar::SidecarOptions;

use crate::certificates::{CertificateOptions, Certificates};
use crate::context::Context;

/// Name of the webhook among what the process's readiness is made of. The chart's readiness probe
/// asks for this part alone: neither the lease nor missing custom resources may stop the webhook.
pub const READINESS: &str = "webhook";

/// What the webhook needs.
#[derive(Clone, Debug)]
pub struct WebhookOptions {
    /// The sidecar.
    pub sidecar: SidecarOptions,
    /// The certificates.
    pub certificates: CertificateOptions,
}

/// A webhook that can be started.
#[derive(Debug)]
pub struct Webhook {
    options: WebhookOptions,
    certificates: Certificates,
}

impl Webhook {
    /// A webhook.
    #[must_use]
    pub fn new(context: &Context, options: WebhookOptions) -> Self {
        let certificates = Certificates::new(context, options.certificates.clone(), READINESS);
        Self {
            options,
            certificates,
        }
    }

    /// Its certificates.
    #[must_use]
    pub fn certificates(&self) -> &Certificates {
        &self.certificates
    }

    /// Serves on `listener` and follows the certificates, until the tasks' shutdown.
    ///
    /// # Errors
    /// When the cryptography of this process speaks no version of TLS.
    pub fn start(
        &self,
        context: &Context,
        listener: TcpListener,
        tasks: &mut Tasks,
    ) -> Result<(), rustls::Error> {
        let tls = self.certificates.tls()?;
        self.certificates.watch(tasks);
        let shutdown = tasks.shutdown().clone();
        let scope = context.scope.clone();
        let sidecar = self.options.sidecar.clone();
        tasks.spawn(
            "webhook server",
            server::serve(listener, tls, scope, sidecar, shutdown),
        );
        Ok(())
    }
}
