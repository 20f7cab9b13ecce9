//! How this node reaches the other nodes of its Store: their names looked up, and, when this node
//! has a certificate, by TLS and only nodes of the same Store.

use std::sync::Arc;

use atomix_tls::Credentials;
use tonic::transport::{Channel, Endpoint};

use crate::grpc;
use crate::resolver::Resolver;

/// How other nodes are reached. Clones share it.
#[derive(Clone)]
pub(crate) struct Reach {
    resolver: Arc<dyn Resolver>,
    credentials: Option<Credentials>,
}

impl Reach {
    pub(crate) fn new(resolver: Arc<dyn Resolver>, credentials: Option<Credentials>) -> Self {
        Self {
            resolver,
            credentials,
        }
    }

    /// Connects to the node at `address`, a host:port.
    ///
    /// # Errors
    /// Why not, for people.
    pub(crate) async fn connect(
        &self,
        address: &str,
        settings: impl FnOnce(Endpoint) -> Endpoint,
    ) -> Result<Channel, String> {
        let resolved = self.resolver.resolve(address).await;
        let resolved = resolved.map_err(|error| error.to_string())?;
        let endpoint = Endpoint::from_shared(format!("http://{resolved}"))
            .map_err(|error| error.to_string())?;
        let endpoint = settings(endpoint);
        let connected = match &self.credentials {
            None => endpoint.connect().await,
            Some(credentials) => {
                // All nodes of a Store have the same identity.
                let same = credentials
                    .identity()
                    .ok_or_else(|| "this node has no certificate yet".to_owned())?;
                atomix_tls::connect(endpoint, Some(credentials), &same).await
            }
        };
        connected.map_err(|error| grpc::with_sources(&error))
    }
}
