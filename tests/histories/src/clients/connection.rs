//! A connection to a sidecar that is never opened again by itself: a lock belongs to the connection that
//! it was taken over, and so a client must know when that ends.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// `None` = nothing listens there.
pub(super) async fn open(address: SocketAddr) -> Option<Channel> {
    let connected = tokio::time::timeout(CONNECT_TIMEOUT, connect(address)).await;
    connected.ok()?.ok()
}

async fn connect(address: SocketAddr) -> anyhow::Result<Channel> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut only = Some(stream);
    let connector = service_fn(move |_: Uri| {
        let stream = only.take();
        async move {
            let ended = || io::Error::other("the connection has ended");
            stream.map(TokioIo::new).ok_or_else(ended)
        }
    });
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
    Ok(endpoint.connect_with_connector(connector).await?)
}
