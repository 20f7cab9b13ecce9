//! Connections that own something. The sidecar gives a lock or a candidacy to the connection that
//! asked for it, and takes it back when that connection ends. So each has a connection of its own here:
//! nothing else can give it up by mistake, and dropping it is enough to give it up.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::codegen::http::Uri;
use tonic::transport::{Channel, Endpoint};

use crate::failure::{Failure, reason_of};

/// How long one attempt to connect may take.
pub(crate) const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// How many that own nothing are kept for the next lock.
const MAX_IDLE: usize = 16;

/// One TCP connection to the sidecar, which is never replaced by another.
#[derive(Debug)]
pub(crate) struct OwnConnection {
    pub(crate) channel: Channel,
    ended: CancellationToken,
}

impl OwnConnection {
    async fn open(endpoint: &Endpoint, address: &str) -> Result<Self, Failure> {
        let connecting = tokio::time::timeout(CONNECT_PATIENCE, TcpStream::connect(address));
        let stream = connecting.await.unwrap_or_else(|_| Err(no_answer()));
        let stream = stream.map_err(|error| unreachable(&error))?;
        let quick = stream.set_nodelay(true);
        quick.map_err(|error| unreachable(&error))?;
        let ended = CancellationToken::new();
        let mut only = Some(TokioIo::new(WatchedStream {
            stream,
            _ended: ended.clone().drop_guard(),
        }));
        // A channel asks for another connection when the first has ended: there is none.
        let connector = tower::service_fn(move |_: Uri| {
            let stream = only.take();
            async move { stream.ok_or_else(connection_has_ended) }
        });
        let channel = endpoint.connect_with_connector(connector).await;
        let channel = channel.map_err(|error| unreachable(&error))?;
        Ok(Self { channel, ended })
    }

    /// Completes when the connection has ended.
    pub(crate) async fn ended(&self) {
        self.ended.cancelled().await;
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.is_cancelled()
    }
}

fn unreachable(error: &(dyn std::error::Error + 'static)) -> Failure {
    let reason = reason_of(error);
    Failure::not_sent(format!("the sidecar cannot be reached: {reason}"))
}

fn no_answer() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "it does not answer")
}

fn connection_has_ended() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "this connection has ended")
}

/// Connections that own nothing and wait for their next use.
#[derive(Debug)]
pub(crate) struct OwnConnections {
    endpoint: Endpoint,
    address: String,
    idle: Mutex<Vec<OwnConnection>>,
}

impl OwnConnections {
    pub(crate) fn new(endpoint: Endpoint, address: String) -> Self {
        Self {
            endpoint,
            address,
            idle: Mutex::default(),
        }
    }

    /// One that owns nothing.
    pub(crate) async fn take(&self) -> Result<OwnConnection, Failure> {
        loop {
            let idle = self.idle.lock().pop();
            match idle {
                Some(connection) if connection.has_ended() => {}
                Some(connection) => return Ok(connection),
                None => return OwnConnection::open(&self.endpoint, &self.address).await,
            }
        }
    }

    /// It owns nothing any more.
    pub(crate) fn give_back(&self, connection: OwnConnection) {
        let mut idle = self.idle.lock();
        if idle.len() < MAX_IDLE && !connection.has_ended() {
            idle.push(connection);
        }
    }

    /// Ends those that wait.
    pub(crate) fn end_idle(&self) {
        self.idle.lock().clear();
    }
}

/// Tells when it is closed.
struct WatchedStream {
    stream: TcpStream,
    _ended: DropGuard,
}

impl AsyncRead for WatchedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for WatchedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
