//! What the runtimes themselves say about their connections.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::Result;
use atomix_proto::runtime::v1::runtime_client::RuntimeClient;
use atomix_proto::runtime::v1::{GetStatusRequest, GetStatusResponse};
use tonic::transport::{Channel, Endpoint};

use crate::identity;

const CONTROL_PORT: u16 = 5679;
const APPLICATION_PORT: u16 = 5678;

/// The status of a runtime.
///
/// # Errors
/// When it does not answer in time.
pub async fn status(address: Ipv4Addr) -> Result<GetStatusResponse> {
    let endpoint = endpoint(address, CONTROL_PORT)?;
    let mut client = RuntimeClient::new(identity::connect(endpoint, address).await?);
    Ok(client.get_status(GetStatusRequest {}).await?.into_inner())
}

/// A channel to the port where a runtime serves its application.
///
/// # Errors
/// When it does not accept the connection.
pub async fn application(address: Ipv4Addr) -> Result<Channel> {
    Ok(endpoint(address, APPLICATION_PORT)?.connect().await?)
}

fn endpoint(address: Ipv4Addr, port: u16) -> Result<Endpoint> {
    let endpoint = Endpoint::from_shared(format!("http://{address}:{port}"))?
        .connect_timeout(Duration::from_secs(2))
        .timeout(Duration::from_secs(10));
    Ok(endpoint)
}
