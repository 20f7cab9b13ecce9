//! Why a node does not start.

use std::net::SocketAddr;

use atomix_raft::{OpenError, StartError};
use atomix_tls::CredentialsError;
use thiserror::Error;

/// Why a node did not start.
#[derive(Debug, Error)]
pub enum NodeError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The data directory cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Opening the data directory panicked.
    #[error("opening the data directory ended without a result")]
    OpenEnded(#[source] tokio::task::JoinError),
    /// A partition of the data directory cannot be started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// There is no certificate to serve with.
    #[error(transparent)]
    Tls(#[from] CredentialsError),
    /// The certificate is somebody else's.
    #[error(
        "the certificate in --tls-directory is that of {found}, not of a storage node such as \
         spiffe://atomix.io/node/NAMESPACE/STORE"
    )]
    NotANode {
        /// Whose it is.
        found: String,
    },
    /// The protocol's descriptors are broken.
    #[error("cannot serve gRPC reflection")]
    Reflection(#[from] tonic_reflection::server::Error),
}
