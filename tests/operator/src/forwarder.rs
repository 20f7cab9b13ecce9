//! A way to the API server that a test can close and open again. While it is closed, nobody who goes
//! this way reaches the API server; connections that were open are cut.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::addresses;
use crate::api_server::ApiServer;

/// None that the system gives to whoever asks for any: it must be free when the way is opened again.
const PORT: u16 = 16443;

/// The way; closed when it is dropped.
#[derive(Debug)]
pub struct Forwarder {
    near: SocketAddr,
    /// Host and port of the other end.
    far: String,
    /// Holds all connections; `None` = the way is closed.
    forwarding: Option<JoinHandle<()>>,
}

impl Forwarder {
    /// A way to this API server, still closed.
    ///
    /// # Errors
    /// When the API server has no address.
    pub fn new(server: &ApiServer) -> Result<Self> {
        Ok(Self::between(server.authority()?))
    }

    fn between(far: String) -> Self {
        Self {
            near: SocketAddr::from((addresses::next_free(), PORT)),
            far,
            forwarding: None,
        }
    }

    /// Where it begins.
    pub fn address(&self) -> SocketAddr {
        self.near
    }

    /// Opens it.
    ///
    /// # Errors
    /// When its address is taken.
    pub async fn open(&mut self) -> Result<()> {
        let listener = TcpListener::bind(self.near).await;
        let listener = listener.with_context(|| format!("cannot listen on {}", self.near))?;
        self.forwarding = Some(tokio::spawn(forward(listener, self.far.clone())));
        Ok(())
    }

    /// Closes it: connections are cut, and new ones refused.
    pub async fn close(&mut self) {
        if let Some(forwarding) = self.forwarding.take() {
            forwarding.abort();
            // It was aborted.
            let _ended = forwarding.await;
        }
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        if let Some(forwarding) = &self.forwarding {
            forwarding.abort();
        }
    }
}

async fn forward(listener: TcpListener, far: String) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (near, _) = accepted.expect("a listener of this process accepts");
                connections.spawn(connect(near, far.clone()));
            }
            Some(ended) = connections.join_next() => {
                if let Ok(Err(error)) = ended {
                    tracing::debug!(%error, "a forwarded connection broke");
                }
            }
        }
    }
}

async fn connect(mut near: TcpStream, far: String) -> std::io::Result<()> {
    let mut far = TcpStream::connect(far).await?;
    tokio::io::copy_bidirectional(&mut near, &mut far).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn echo(listener: TcpListener) {
        let mut connections = JoinSet::new();
        while let Ok((mut connection, _)) = listener.accept().await {
            connections.spawn(async move {
                let (mut from, mut to) = connection.split();
                tokio::io::copy(&mut from, &mut to).await
            });
        }
    }

    #[tokio::test]
    async fn a_closed_way_cuts_connections_and_refuses_others_until_it_is_opened_again() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let far = listener.local_addr().unwrap().to_string();
        let echo = tokio::spawn(echo(listener));
        let mut way = Forwarder::between(far);
        assert!(TcpStream::connect(way.address()).await.is_err());
        for _ in 0..2 {
            way.open().await.unwrap();
            let mut connection = TcpStream::connect(way.address()).await.unwrap();
            connection.write_all(b"a").await.unwrap();
            assert_eq!(connection.read_u8().await.unwrap(), b'a');
            way.close().await;
            assert!(connection.read_u8().await.is_err());
            assert!(TcpStream::connect(way.address()).await.is_err());
        }
        echo.abort();
    }
}
