//! The side that is connected to: takes TCP connections, and by a guard makes them TLS.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::transport::server::Connected;

use crate::guard::Watched;
use crate::{Guard, Identity, Peer};

/// How long a handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Handshakes that go on at a time; more wait in the kernel's queue.
const HANDSHAKES: usize = 64;
/// A pause after the kernel gave no connection: it has no file descriptor left.
const PAUSE: Duration = Duration::from_millis(100);

/// The connections of a listener, without delay of small messages; with a guard those that are TLS.
/// They come until the stream is dropped.
pub fn accept(
    listener: TcpListener,
    guard: Option<Guard>,
) -> ReceiverStream<io::Result<Connection>> {
    let (sender, accepted) = mpsc::channel(HANDSHAKES);
    tokio::spawn(async move {
        let places = Arc::new(Semaphore::new(HANDSHAKES));
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                return;
            };
            let taken = tokio::select! {
                () = sender.closed() => return,
                taken = listener.accept() => taken,
            };
            let (stream, address) = match taken {
                Ok(taken) => taken,
                Err(error) => {
                    tracing::warn!(%error, "cannot take a connection; trying again");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            // Fails on a connection that is broken already.
            let _ = stream.set_nodelay(true);
            let Some(guard) = guard.clone() else {
                let connection = Connection {
                    stream: Stream::Plain(stream),
                    identity: None,
                    watched: None,
                };
                if sender.send(Ok(connection)).await.is_err() {
                    return;
                }
                continue;
            };
            let sender = sender.clone();
            tokio::spawn(async move {
                let opened = tokio::time::timeout(HANDSHAKE_TIMEOUT, open(stream, &guard)).await;
                drop(place);
                match opened {
                    Ok(Ok(connection)) => {
                        // Closed = the server shuts down.
                        let _ = sender.send(Ok(connection)).await;
                    }
                    Ok(Err(error)) => tell(address, &error),
                    Err(_) => tell(address, &io::Error::from(io::ErrorKind::TimedOut)),
                }
            });
        }
    });
    ReceiverStream::new(accepted)
}

/// At debug: anybody can cause it, and the peer is told itself.
fn tell(peer: SocketAddr, error: &io::Error) {
    tracing::debug!(%peer, %error, "a peer's TLS handshake failed");
}

async fn open(stream: TcpStream, guard: &Guard) -> io::Result<Connection> {
    let configs = guard
        .credentials()
        .configs()
        .ok_or_else(|| io::Error::other("there is no certificate yet"))?;
    let stream = TlsAcceptor::from(configs.server).accept(stream).await?;
    let (_, session) = stream.get_ref();
    let identity = session
        .peer_certificates()
        .and_then(|shown| shown.first())
        .and_then(Identity::of_certificate);
    let watched = identity.as_ref().map(|identity| {
        let watched = guard.opened(identity);
        let ended = Box::pin(watched.ended.clone().cancelled_owned());
        (watched, ended)
    });
    Ok(Connection {
        stream: Stream::Tls(Box::new(stream)),
        identity,
        watched,
    })
}

/// A connection that was taken.
pub struct Connection {
    stream: Stream,
    identity: Option<Identity>,
    /// Ends it when the peer's permission is taken back.
    watched: Option<(Watched, Pin<Box<WaitForCancellationFutureOwned>>)>,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        Peer {
            identity: self.identity.clone(),
        }
    }
}

fn taken_back() -> io::Error {
    let text = "the peer's permission was taken back";
    io::Error::new(io::ErrorKind::ConnectionAborted, text)
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Some((watched, _)) = &this.watched
            && watched.ended.is_cancelled()
        {
            return Poll::Ready(Err(taken_back()));
        }
        let read = match &mut this.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Stream::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        };
        // The end of a permission wakes whoever waits for the peer.
        if read.is_pending()
            && let Some((_, ended)) = &mut this.watched
            && ended.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(Err(taken_back()));
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Stream::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(context),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Stream::Tls(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Plain(stream) => stream.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
        }
    }
}
