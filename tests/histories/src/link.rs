//! Ways through the network that can be cut: each node and sidecar reaches each node by a forwarder of
//! its own, whose address its hosts file names.
//!
//! Nothing of the system's network is changed, so nothing is left behind.

use std::net::SocketAddr;

use anyhow::Context as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

const BUFFER_BYTES: usize = 16 << 10;

/// What a way does with what goes over it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Passage {
    Open,
    /// Connections end, and so do new ones at once.
    Closed,
    /// Nothing arrives, and nobody is told. What was sent arrives when the way is open again.
    Silent,
}

/// One way; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Link {
    passage: watch::Sender<Passage>,
    task: JoinHandle<()>,
}

impl Link {
    pub(crate) async fn open(near: SocketAddr, far: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(near).await;
        let listener = listener.with_context(|| format!("cannot listen on {near}"))?;
        let (passage, seen) = watch::channel(Passage::Open);
        let task = tokio::spawn(forward(listener, far, seen));
        Ok(Self { passage, task })
    }

    pub(crate) fn set(&self, passage: Passage) {
        self.passage.send_replace(passage);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward(listener: TcpListener, far: SocketAddr, passage: watch::Receiver<Passage>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((near, _)) = accepted {
                    connections.spawn(connect(near, far, passage.clone()));
                }
            }
            Some(_ended) = connections.join_next() => {}
        }
    }
}

/// Ends when either side does, or the way is closed.
async fn connect(
    near: TcpStream,
    far: SocketAddr,
    passage: watch::Receiver<Passage>,
) -> std::io::Result<()> {
    let mut closing = passage.clone();
    let carried = async {
        until_open(&passage).await;
        let far = TcpStream::connect(far).await?;
        near.set_nodelay(true)?;
        far.set_nodelay(true)?;
        let (near_reads, near_writes) = near.into_split();
        let (far_reads, far_writes) = far.into_split();
        tokio::try_join!(
            carry(near_reads, far_writes, &passage),
            carry(far_reads, near_writes, &passage),
        )?;
        Ok(())
    };
    tokio::select! {
        ended = carried => ended,
        _closed = closing.wait_for(|passage| *passage == Passage::Closed) => Ok(()),
    }
}

async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    passage: &watch::Receiver<Passage>,
) -> std::io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let length = from.read(&mut buffer).await?;
        until_open(passage).await;
        let Some(read) = buffer.get(..length).filter(|read| !read.is_empty()) else {
            return to.shutdown().await;
        };
        to.write_all(read).await?;
    }
}

async fn until_open(passage: &watch::Receiver<Passage>) {
    let mut passage = passage.clone();
    // The sender goes only when the whole way does.
    let _ = passage.wait_for(|passage| *passage == Passage::Open).await;
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn echo(listener: TcpListener) {
        while let Ok((mut connection, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = connection.split();
                tokio::io::copy(&mut from, &mut to).await
            });
        }
    }

    #[tokio::test]
    async fn a_closed_way_ends_connections_and_a_silent_one_delivers_later() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let far = listener.local_addr().unwrap();
        let echo = tokio::spawn(echo(listener));
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = free.local_addr().unwrap();
        drop(free);
        let link = Link::open(near, far).await.unwrap();

        let mut connection = TcpStream::connect(near).await.unwrap();
        connection.write_all(b"a").await.unwrap();
        assert_eq!(connection.read_u8().await.unwrap(), b'a');

        link.set(Passage::Silent);
        connection.write_all(b"b").await.unwrap();
        let silence = tokio::time::timeout(Duration::from_millis(100), connection.read_u8());
        assert!(silence.await.is_err());
        link.set(Passage::Open);
        assert_eq!(connection.read_u8().await.unwrap(), b'b');

        link.set(Passage::Closed);
        assert!(connection.read_u8().await.is_err());
        let mut refused = TcpStream::connect(near).await.unwrap();
        assert!(refused.read_u8().await.is_err());

        link.set(Passage::Open);
        let mut connection = TcpStream::connect(near).await.unwrap();
        connection.write_all(b"c").await.unwrap();
        assert_eq!(connection.read_u8().await.unwrap(), b'c');
        echo.abort();
    }
}
