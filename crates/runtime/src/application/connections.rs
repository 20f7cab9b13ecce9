//! Application connections: each is an owner of its own, and what it used and owned ends with it.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use atomix_driver::Owner;
use futures::{Stream, StreamExt as _};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::server::Connected;

use crate::sessions::PrimitiveKey;

/// Numbers the application connections of this process and tells which have ended.
#[derive(Debug, Clone)]
pub(crate) struct Owners {
    next: Arc<AtomicU64>,
    closed: mpsc::UnboundedSender<Closed>,
}

/// A connection that has ended.
#[derive(Debug)]
pub(crate) struct Closed {
    pub(crate) owner: Owner,
    /// Whether it called anything that makes it own something.
    pub(crate) owned: bool,
}

impl Owners {
    /// Also returns where the ended connections arrive.
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<Closed>) {
        let (closed, ended) = mpsc::unbounded_channel();
        let owners = Self {
            next: Arc::new(AtomicU64::new(1)),
            closed,
        };
        (owners, ended)
    }

    fn connection(&self) -> Arc<Guard> {
        Arc::new(Guard {
            owner: Owner(self.next.fetch_add(1, Ordering::Relaxed)),
            owned: AtomicBool::new(false),
            owning: Mutex::default(),
            closed: self.closed.clone(),
        })
    }
}

/// Lives as long as the connection and the calls that came over it.
#[derive(Debug)]
struct Guard {
    owner: Owner,
    owned: AtomicBool,
    /// The primitives in which it may own something, but for those that it has closed, and how many
    /// calls may have made it an owner.
    owning: Mutex<HashMap<PrimitiveKey, u64>>,
    closed: mpsc::UnboundedSender<Closed>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.closed.send(Closed {
            owner: self.owner,
            owned: self.owned.load(Ordering::Relaxed),
        });
    }
}

/// The connection that a call came over; an extension of its request.
#[derive(Debug, Clone)]
pub(crate) struct ApplicationConnection(Arc<Guard>);

impl ApplicationConnection {
    pub(crate) fn owner(&self) -> Owner {
        self.0.owner
    }

    /// How many calls may have made it an owner in a primitive; `None` = it owns nothing there.
    pub(crate) fn owns(&self, key: &PrimitiveKey) -> Option<u64> {
        self.0.owning.lock().get(key).copied()
    }

    /// What so many calls made it own in a primitive is released; perhaps there were more since.
    pub(crate) fn released(&self, key: &PrimitiveKey, calls: u64) {
        let mut owning = self.0.owning.lock();
        if owning.get(key) == Some(&calls) {
            owning.remove(key);
        }
    }

    /// Remembers that what this connection owns in a primitive must be released.
    pub(crate) fn will_own(&self, key: &PrimitiveKey) {
        self.0.owned.store(true, Ordering::Relaxed);
        let mut owning = self.0.owning.lock();
        match owning.get_mut(key) {
            Some(calls) => *calls += 1,
            None => {
                owning.insert(key.clone(), 1);
            }
        }
    }
}

/// The connections that arrive at a listener.
pub(crate) fn accept(
    listener: TcpListener,
    owners: Owners,
) -> impl Stream<Item = io::Result<OwnedStream>> {
    TcpListenerStream::new(listener).map(move |stream| {
        let stream = stream?;
        stream.set_nodelay(true)?;
        Ok(OwnedStream {
            stream,
            connection: ApplicationConnection(owners.connection()),
        })
    })
}

/// A TCP connection of an application.
#[derive(Debug)]
pub(crate) struct OwnedStream {
    stream: TcpStream,
    connection: ApplicationConnection,
}

impl Connected for OwnedStream {
    type ConnectInfo = ApplicationConnection;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.connection.clone()
    }
}

impl AsyncRead for OwnedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for OwnedStream {
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

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
