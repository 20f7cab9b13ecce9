//! The side that connects: to a peer whose certificate names exactly the expected identity. Names of
//! hosts do not count: pods have none of their own, and addresses are used again by other pods.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, PeerIncompatible, RootCertStore,
    SignatureScheme,
};
use thiserror::Error as ThisError;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};
use tower::Service;

use crate::{Credentials, Identity};

/// What a connector opens, as hyper takes it.
pub type Dialed = TokioIo<TlsStream<TcpStream>>;

/// Connects the endpoint: with credentials by TLS and only to a peer of this identity, without them
/// in plain text.
///
/// # Errors
/// When nobody answers there, or somebody else.
pub async fn connect(
    endpoint: Endpoint,
    credentials: Option<&Credentials>,
    expected: &Identity,
) -> Result<Channel, tonic::transport::Error> {
    match credentials {
        None => endpoint.connect().await,
        Some(credentials) => {
            let connector = Connector::new(credentials.clone(), expected.clone());
            endpoint.connect_with_connector(connector).await
        }
    }
}

/// Opens TLS connections to a peer of one identity; for tonic's `connect_with_connector`. Each
/// connection uses the newest certificate.
#[derive(Debug, Clone)]
pub struct Connector {
    credentials: Credentials,
    expected: Identity,
}

impl Connector {
    /// Connects with these credentials, only to a peer of this identity.
    #[must_use]
    pub fn new(credentials: Credentials, expected: Identity) -> Self {
        Self {
            credentials,
            expected,
        }
    }

    async fn open(self, uri: Uri) -> io::Result<Dialed> {
        let host = uri.host().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = uri.port_u16().unwrap_or(443);
        let configs = self
            .credentials
            .configs()
            .ok_or_else(|| io::Error::other("there is no certificate yet to connect with"))?;
        let config = configs.client(self.expected).map_err(io::Error::other)?;
        let stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        // Only fills a place: the verifier looks at identities.
        let name = ServerName::try_from("atomix.io").map_err(io::Error::other)?;
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        Ok(TokioIo::new(connector.connect(name, stream).await?))
    }
}

impl Service<Uri> for Connector {
    type Response = Dialed;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Dialed>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().open(uri))
    }
}

/// Somebody else answers.
#[derive(ThisError)]
#[error("{found} answers there, not {expected}")]
struct WrongIdentity {
    expected: Identity,
    found: String,
}

/// rustls shows it by this.
impl fmt::Debug for WrongIdentity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// Takes a certificate that a trusted authority signed for exactly one identity.
pub(crate) struct ExpectsIdentity {
    expected: Identity,
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl ExpectsIdentity {
    pub(crate) fn new(
        expected: Identity,
        roots: Arc<RootCertStore>,
        provider: Arc<CryptoProvider>,
    ) -> Self {
        Self {
            expected,
            roots,
            provider,
        }
    }
}

impl fmt::Debug for ExpectsIdentity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ExpectsIdentity")
            .field("expected", &self.expected)
            .finish_non_exhaustive()
    }
}

impl ServerCertVerifier for ExpectsIdentity {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(certificate)?;
        verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &self.roots,
            intermediates,
            now,
            self.provider.signature_verification_algorithms.all,
        )?;
        let found = Identity::of_certificate(certificate);
        if found.as_ref() == Some(&self.expected) {
            return Ok(ServerCertVerified::assertion());
        }
        let found = found.map_or_else(
            || "a certificate without an identity".to_owned(),
            |found| found.to_string(),
        );
        let expected = self.expected.clone();
        let error = OtherError(Arc::new(WrongIdentity { expected, found }));
        Err(Error::InvalidCertificate(CertificateError::Other(error)))
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        // Only TLS 1.3 is spoken.
        Err(Error::PeerIncompatible(
            PeerIncompatible::ServerDoesNotSupportTls12Or13,
        ))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
