//! The layer on the gRPC channels.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::task::{Context, Poll};

use atomix_controller::dialer::{Channel, ChannelError, Destination, Dialer, PodDialer};
use atomix_tls::Credentials;
use futures::future::BoxFuture;
use tonic::body::Body;
use tower::Service;

use super::gate::Answer;
use super::trouble::late_reply;
use super::{Call, Gate, Trouble};

/// Lists the names of the pods, by address.
pub type Names = Arc<dyn Fn() -> HashMap<Ipv4Addr, String> + Send + Sync>;

/// Opens channels whose calls go through a gate.
#[derive(Clone)]
pub struct WatchedDialer {
    gate: Gate,
    names: Names,
    pods: PodDialer,
}

impl fmt::Debug for WatchedDialer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("WatchedDialer")
            .finish_non_exhaustive()
    }
}

impl WatchedDialer {
    /// A dialer for the gate's operator.
    pub fn new(gate: Gate, names: Names, credentials: Option<Credentials>) -> Self {
        Self {
            gate,
            names,
            pods: PodDialer::new(credentials),
        }
    }
}

impl Dialer for WatchedDialer {
    fn dial(&self, destination: &Destination) -> Channel {
        let pod = match destination.address.ip() {
            IpAddr::V4(ip) => (self.names)().get(&ip).cloned(),
            IpAddr::V6(_) => None,
        };
        Channel::new(WatchedChannel {
            gate: self.gate.clone(),
            pod: pod.unwrap_or_else(|| "unknown".to_owned()),
            inner: self.pods.dial(destination),
        })
    }
}

#[derive(Clone)]
struct WatchedChannel {
    gate: Gate,
    pod: String,
    inner: Channel,
}

impl Service<http::Request<Body>> for WatchedChannel {
    type Response = http::Response<Body>;
    type Error = ChannelError;
    type Future = BoxFuture<'static, Result<Self::Response, ChannelError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), ChannelError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let call = Call::to_pod(request.uri().path(), &self.pod);
        let gate = self.gate.clone();
        // The clone may not be ready; the one that was polled is.
        let next = self.inner.clone();
        let mut ready = std::mem::replace(&mut self.inner, next);
        Box::pin(async move {
            let pass = gate.before(call).await;
            let trouble = pass.trouble.clone();
            if trouble.as_ref().is_some_and(Trouble::is_silence) {
                gate.never_answers(&pass).await;
            }
            if let Some(refusal) = trouble.as_ref().and_then(Trouble::instead_of_peer) {
                gate.after(pass, Answer::Refused).await;
                return Ok(refusal);
            }
            let answer = ready.call(request).await;
            gate.after(pass, Answer::Taken).await;
            match trouble {
                Some(Trouble::PeerReplyLost) => Ok(late_reply()),
                _ => answer,
            }
        })
    }
}
