//! How the operator reaches nodes and runtimes: one seam through which every call goes, so that a
//! test can count, fail or delay each one.

use std::fmt::Debug;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use atomix_tls::{Connector, Credentials, Identity};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use thiserror::Error;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tonic::transport::Endpoint;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Service, ServiceExt as _};
use tracing::Instrument as _;

use crate::caller::{self, Caller};
use crate::metrics::Metrics;

/// A gRPC channel; generated clients take it: `NodeClient::new(channel)`.
pub type Channel = BoxCloneSyncService<
    http::Request<tonic::body::Body>,
    http::Response<tonic::body::Body>,
    ChannelError,
>;

/// A call that got no answer; tonic makes it a status such as UNAVAILABLE.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct ChannelError(#[source] pub BoxError);

/// How long to wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// After this much silence a connection is probed, so that a vanished peer is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// A channel that nobody has asked for, for so long, is dropped: an open connection takes 50 KiB here, and
/// its probes wake both ends.
const IDLE: Duration = Duration::from_secs(15);

/// A pod's port, and who must answer there.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Destination {
    /// The port.
    pub address: SocketAddr,
    /// Whose certificate must be shown; `None` = the pod speaks plain text.
    pub identity: Option<Identity>,
}

impl Destination {
    /// A port that speaks plain text.
    #[must_use]
    pub fn plain(address: SocketAddr) -> Self {
        Self {
            address,
            identity: None,
        }
    }
}

/// Opens channels. The channel connects at its first call and again after it broke.
pub trait Dialer: Debug + Send + Sync + 'static {
    /// A channel to a pod's port.
    fn dial(&self, destination: &Destination) -> Channel;
}

/// HTTP/2 over TCP, by mutual TLS where the pod speaks it.
#[derive(Debug, Clone, Default)]
pub struct PodDialer {
    credentials: Option<Credentials>,
}

impl PodDialer {
    /// Dials; without credentials only pods that speak plain text.
    #[must_use]
    pub fn new(credentials: Option<Credentials>) -> Self {
        Self { credentials }
    }
}

impl Dialer for PodDialer {
    fn dial(&self, destination: &Destination) -> Channel {
        // A socket address always makes a valid URI; if it did not, each call says so.
        let endpoint = match Endpoint::from_shared(format!("http://{}", destination.address)) {
            Ok(endpoint) => endpoint
                .connect_timeout(CONNECT_TIMEOUT)
                .http2_keep_alive_interval(KEEP_ALIVE)
                .keep_alive_timeout(Duration::from_secs(10))
                .keep_alive_while_idle(true)
                .tcp_nodelay(true),
            Err(error) => return broken(error.to_string()),
        };
        let channel = match (&destination.identity, &self.credentials) {
            (None, _) => endpoint.connect_lazy(),
            (Some(expected), Some(credentials)) => {
                let connector = Connector::new(credentials.clone(), expected.clone());
                endpoint.connect_with_connector_lazy(connector)
            }
            (Some(expected), None) => {
                return broken(format!(
                    "{expected} speaks TLS and this operator does not: give it --tls-authority"
                ));
            }
        };
        Channel::new(channel.map_err(|error| ChannelError(error.into())))
    }
}

/// A channel on which no call succeeds.
fn broken(message: String) -> Channel {
    Channel::new(tower::service_fn(move |_request| {
        let message = message.clone();
        async move { Err(ChannelError(message.into())) }
    }))
}

/// Open channels by destination: at most a fixed number is kept for further calls, for a short while, the
/// least recently used is dropped first. It closes when nobody else holds it either, so more may be open.
/// Clones share the channels.
#[derive(Debug, Clone)]
pub struct Channels {
    dialer: Arc<dyn Dialer>,
    metrics: Metrics,
    caller: Caller,
    takes_over: bool,
    capacity: usize,
    open: Arc<Mutex<Vec<Open>>>,
}

#[derive(Debug)]
struct Open {
    destination: Destination,
    channel: Channel,
    asked_for: Instant,
}

impl Channels {
    /// No channels yet. Every call through them names its sender as `caller` says.
    #[must_use]
    pub fn new(dialer: Arc<dyn Dialer>, capacity: usize, metrics: Metrics, caller: Caller) -> Self {
        Self {
            dialer,
            metrics,
            caller,
            takes_over: false,
            capacity: capacity.max(1),
            open: Arc::default(),
        }
    }

    /// Who calls.
    #[must_use]
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// The same channels, for calls that make a node or runtime listen to this operator instead of
    /// another one, because a person has said so.
    #[must_use]
    pub fn taking_over(&self) -> Self {
        Self {
            takes_over: true,
            ..self.clone()
        }
    }

    /// The channel to this destination. A caller that holds one keeps it open.
    #[must_use]
    pub fn get(&self, destination: &Destination) -> Channel {
        let channel = self.shared(destination);
        if self.takes_over {
            let marked = channel.map_request(|mut request: http::Request<tonic::body::Body>| {
                caller::take_over(request.headers_mut());
                request
            });
            return Channel::new(marked);
        }
        channel
    }

    fn shared(&self, destination: &Destination) -> Channel {
        let mut open = self.open.lock();
        // Most recently used last; a few hundred entries are scanned faster than hashed twice.
        let known = open
            .iter()
            .position(|known| known.destination == *destination);
        let channel = match known {
            Some(position) => open.remove(position).channel,
            None => self.dial(destination),
        };
        if open.len() >= self.capacity {
            open.remove(0);
        }
        open.push(Open {
            destination: destination.clone(),
            channel: channel.clone(),
            asked_for: Instant::now(),
        });
        channel
    }

    fn dial(&self, destination: &Destination) -> Channel {
        Channel::new(CountedAndNamed {
            metrics: self.metrics.clone(),
            caller: self.caller.clone(),
            peer: destination.address,
            inner: self.dialer.dial(destination),
        })
    }

    /// Drops those that nobody asks for any more, until `shutdown`.
    pub async fn close_idle(self, shutdown: CancellationToken) {
        while shutdown.run_until_cancelled(sleep(IDLE)).await.is_some() {
            let mut open = self.open.lock();
            open.retain(|known| known.asked_for.elapsed() < IDLE);
        }
    }

    /// Drops the channel to an address that is no longer used, such as a deleted pod's.
    pub fn close(&self, address: SocketAddr) {
        self.open
            .lock()
            .retain(|known| known.destination.address != address);
    }
}

#[derive(Clone)]
struct CountedAndNamed {
    metrics: Metrics,
    caller: Caller,
    peer: SocketAddr,
    inner: Channel,
}

impl Service<http::Request<tonic::body::Body>> for CountedAndNamed {
    type Response = http::Response<tonic::body::Body>;
    type Error = ChannelError;
    type Future = BoxFuture<'static, Result<Self::Response, ChannelError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), ChannelError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<tonic::body::Body>) -> Self::Future {
        self.metrics.grpc_call(request.uri().path());
        self.caller.stamp(request.headers_mut());
        let caller = self.caller.clone();
        let span = tracing::debug_span!(
            "gRPC call",
            otel.kind = "client",
            method = request.uri().path(),
            peer = %self.peer,
        );
        let answer = span.in_scope(|| self.inner.call(request));
        let noticed = async move {
            let answer = answer.await?;
            caller.notice(answer.headers());
            Ok(answer)
        };
        Box::pin(noticed.instrument(span))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[derive(Debug, Default)]
    struct Counting(Mutex<Vec<Destination>>);

    impl Dialer for Counting {
        fn dial(&self, destination: &Destination) -> Channel {
            self.0.lock().push(destination.clone());
            PodDialer::default().dial(destination)
        }
    }

    #[tokio::test]
    async fn channels_are_shared_and_the_least_recently_used_is_dropped() {
        let dialer = Arc::new(Counting::default());
        let channels = Channels::new(dialer.clone(), 2, Metrics::default(), Caller::default());
        let at = |port: u16| Destination::plain(SocketAddr::from(([127, 0, 0, 1], port)));
        for port in [1, 2, 1, 3, 1, 2] {
            let _channel = channels.get(&at(port));
        }
        assert_eq!(*dialer.0.lock(), [at(1), at(2), at(3), at(2)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_channel_that_nobody_asks_for_is_dropped() {
        let dialer = Arc::new(Counting::default());
        let channels = Channels::new(dialer.clone(), 9, Metrics::default(), Caller::default());
        let at = |port: u16| Destination::plain(SocketAddr::from(([127, 0, 0, 1], port)));
        let shutdown = CancellationToken::new();
        let closing = tokio::spawn(channels.clone().close_idle(shutdown.clone()));
        let _idle = channels.get(&at(1));
        for _ in 0..4 {
            let _used = channels.get(&at(2));
            sleep(IDLE * 2 / 3).await;
        }
        let _again = channels.get(&at(1));
        assert_eq!(*dialer.0.lock(), [at(1), at(2), at(1)]);
        shutdown.cancel();
        closing.await.unwrap();
    }
}
