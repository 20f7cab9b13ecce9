//! Connects to the node, again and again, and keeps the link's state.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use atomix_proto::multiraft::v1::partitions_client::PartitionsClient;
use atomix_proto::multiraft::v1::{DriverHello, DriverMessage};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};

use super::exchange::{self, Stream, describe};
use super::{Greeter, LinkError, LinkState, Outgoing, jittered};
use crate::multiraft::Security;
use crate::multiraft::config::Timeouts;

const PROTOCOL_VERSION: u32 = 1;
const MAX_NODE_MESSAGE_BYTES: usize = 64 * 1024 * 1024;
const WINDOW_BYTES: u32 = 4 * 1024 * 1024;
const PING_INTERVAL: Duration = Duration::from_secs(5);
const MIN_RECONNECT_DELAY: Duration = Duration::from_millis(50);
const MAX_RECONNECT_DELAY: Duration = Duration::from_secs(1);
/// A stream that lived so long was a good one; one that breaks soon after the hello is another
/// failure.
const STEADY: Duration = Duration::from_secs(2);

pub(super) struct LinkTask {
    address: SocketAddr,
    timeouts: Timeouts,
    security: Option<Security>,
    greeter: Arc<dyn Greeter>,
    outgoing: mpsc::Receiver<Outgoing>,
    state: watch::Sender<LinkState>,
}

impl LinkTask {
    pub(super) fn new(
        address: SocketAddr,
        timeouts: Timeouts,
        security: Option<Security>,
        greeter: Arc<dyn Greeter>,
        outgoing: mpsc::Receiver<Outgoing>,
        state: watch::Sender<LinkState>,
    ) -> Self {
        Self {
            address,
            timeouts,
            security,
            greeter,
            outgoing,
            state,
        }
    }

    /// Runs until the handle of the link is gone.
    pub(super) async fn run(mut self) {
        let mut delay = MIN_RECONNECT_DELAY;
        loop {
            let reason = match tokio::time::timeout(self.timeouts.connect, self.connect()).await {
                Ok(Ok(stream)) => {
                    let opened = Instant::now();
                    tracing::info!(node = %self.address, "connected to the storage node");
                    self.set_state(LinkState::Up);
                    let node = format!("node {}", self.address);
                    let reason = exchange::run(&mut self.outgoing, stream, &node).await;
                    if opened.elapsed() >= STEADY {
                        delay = MIN_RECONNECT_DELAY;
                    }
                    reason
                }
                Ok(Err(reason)) => reason,
                Err(_) => format!("no answer within {:?}", self.timeouts.connect),
            };
            let reason = format!("node {}: {reason}", self.address);
            tracing::debug!(reason, "the storage node is not connected");
            self.set_state(LinkState::Down(reason.clone()));
            if !self.refuse_for(jittered(delay), &reason).await {
                return;
            }
            delay = (delay * 2).min(MAX_RECONNECT_DELAY);
        }
    }

    fn set_state(&self, state: LinkState) {
        let changed = self.state.send_if_modified(|current| {
            let changed = *current != state;
            *current = state;
            changed
        });
        if changed {
            self.greeter.link_changed();
        }
    }

    /// Fails what is asked for while the link waits to connect again. False = the handle is gone.
    async fn refuse_for(&mut self, delay: Duration, reason: &str) -> bool {
        let error = LinkError::NotSent(reason.to_owned());
        let wake = tokio::time::sleep(delay);
        tokio::pin!(wake);
        loop {
            tokio::select! {
                () = &mut wake => return true,
                outgoing = self.outgoing.recv() => match outgoing {
                    Some(outgoing) => outgoing.fail(&error),
                    None => return false,
                },
            }
        }
    }

    async fn connect(&self) -> Result<Stream, String> {
        let channel = self.channel().await?;
        let (to_node, messages) = mpsc::channel(16);
        let hello = DriverMessage {
            hello: Some(DriverHello {
                min_version: PROTOCOL_VERSION,
                max_version: PROTOCOL_VERSION,
                store_uid: self.greeter.store_uid(),
                driver_version: env!("CARGO_PKG_VERSION").to_owned(),
                incarnation: self.greeter.incarnation(),
            }),
            ..DriverMessage::default()
        };
        if to_node.send(hello).await.is_err() {
            return Err("the stream closed at once".to_owned());
        }
        let mut client = PartitionsClient::new(channel)
            .max_decoding_message_size(MAX_NODE_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_NODE_MESSAGE_BYTES);
        let answer = client.exchange(ReceiverStream::new(messages)).await;
        let mut from_node = answer.map_err(|status| describe(&status))?.into_inner();
        let first = from_node
            .message()
            .await
            .map_err(|status| describe(&status))?;
        let hello = first
            .and_then(|message| message.hello)
            .ok_or_else(|| "the node did not greet".to_owned())?;
        if hello.version != PROTOCOL_VERSION {
            return Err(format!(
                "the node speaks protocol version {}, this driver {PROTOCOL_VERSION}",
                hello.version
            ));
        }
        self.greeter.greet(self.address, &hello)?;
        Ok(Stream {
            to_node,
            from_node,
            incarnation: hello.incarnation,
        })
    }

    async fn channel(&self) -> Result<Channel, String> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address))
            .map_err(|error| error.to_string())?
            .connect_timeout(self.timeouts.connect)
            .tcp_nodelay(true)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .http2_keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_INTERVAL)
            .keep_alive_while_idle(true);
        let connected = match &self.security {
            None => endpoint.connect().await,
            Some(security) => {
                let credentials = Some(&security.credentials);
                atomix_tls::connect(endpoint, credentials, &security.nodes).await
            }
        };
        connected.map_err(|error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            cause.unwrap_or_else(|| error.to_string())
        })
    }
}
