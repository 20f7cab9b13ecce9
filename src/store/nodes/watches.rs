//! Follows storage nodes: one Watch stream each, so that a change of a leader or a node that goes
//! away reconciles the Store at once and nothing is polled at rest.
//!
//! Bounded: nodes beyond the limit are asked once at each reconcile instead.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use atomix_proto::multiraft::v1::node_client::NodeClient;
use atomix_proto::multiraft::v1::watch_response::Event;
use atomix_proto::multiraft::v1::{GetStatusRequest, WatchRequest, WatchResponse};
use parking_lot::Mutex;
use tokio::task::AbortHandle;
use tonic::{Code, Status, Streaming};

use crate::store::nodes::node_view::NodeView;
use atomix_controller::dialer::{Channel, Channels, Destination};
use atomix_controller::{ObjectKey, Queue};

/// Watch streams that may be open at a time, each on a channel that stays open as long.
const MAX_WATCHES: usize = 512;

/// How long a node may take to say what it holds.
pub const STATUS_TIMEOUT: Duration = Duration::from_secs(3);

/// Changes that come within this time are told once.
const SETTLE: Duration = Duration::from_millis(50);

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What is known of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeState {
    /// It is being asked for the first time; soon it has answered or is silent.
    Unheard,
    /// No answer, or the stream broke; why, for people: one of few texts, since each change
    /// of it may be a write.
    Silent(String),
    /// It serves; what it said last.
    Up(NodeView),
}

impl NodeState {
    /// A node that did not answer as it should.
    #[must_use]
    pub fn silent(error: &Status) -> Self {
        Self::Silent(match error.code() {
            Code::Unavailable | Code::Unknown | Code::Cancelled => {
                "it cannot be reached".to_owned()
            }
            Code::DeadlineExceeded => "it does not answer in time".to_owned(),
            code => format!("it answers with {code:?}"),
        })
    }

    /// What an answering node said.
    #[must_use]
    pub fn view(&self) -> Option<&NodeView> {
        match self {
            Self::Up(view) => Some(view),
            Self::Unheard | Self::Silent(_) => None,
        }
    }
}

#[derive(Debug)]
struct Followed {
    destination: Destination,
    state: Arc<Mutex<NodeState>>,
    task: AbortHandle,
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The open streams, by pod uid.
#[derive(Debug)]
pub struct Watches {
    channels: Channels,
    queue: Queue<ObjectKey>,
    limit: usize,
    followed: Mutex<HashMap<String, Followed>>,
}

impl Watches {
    /// None yet. Changes add the node's Store to `queue`.
    #[must_use]
    pub fn new(channels: Channels, queue: Queue<ObjectKey>) -> Self {
        Self::at_most(MAX_WATCHES, channels, queue)
    }

    fn at_most(limit: usize, channels: Channels, queue: Queue<ObjectKey>) -> Self {
        Self {
            channels,
            queue,
            limit,
            followed: Mutex::default(),
        }
    }

    /// The state of a pod's node; starts to follow it at the first call. `None` = too many are
    /// followed: ask with [`Self::ask`].
    #[must_use]
    pub fn follow(
        &self,
        store: &ObjectKey,
        pod_uid: &str,
        destination: &Destination,
    ) -> Option<NodeState> {
        let mut followed = self.followed.lock();
        if let Some(known) = followed
            .get(pod_uid)
            .filter(|known| known.destination == *destination)
        {
            return Some(known.state.lock().clone());
        }
        followed.remove(pod_uid);
        if followed.len() >= self.limit {
            return None;
        }
        let first = NodeState::Unheard;
        let state = Arc::new(Mutex::new(first.clone()));
        let follower = Follower {
            channel: self.channels.get(destination),
            state: Arc::clone(&state),
            queue: self.queue.clone(),
            store: store.clone(),
        };
        let task = tokio::spawn(follower.run()).abort_handle();
        let entry = Followed {
            destination: destination.clone(),
            state,
            task,
        };
        followed.insert(pod_uid.to_owned(), entry);
        Some(first)
    }

    /// Ends the stream of a pod that is gone.
    pub fn forget(&self, pod_uid: &str) {
        let gone = self.followed.lock().remove(pod_uid);
        if let Some(gone) = gone {
            self.channels.close(gone.destination.address);
        }
    }

    /// Ends all streams.
    pub fn clear(&self) {
        self.followed.lock().clear();
    }

    /// Asks a node what it holds, now.
    ///
    /// # Errors
    /// The node's refusal, or that it did not answer.
    pub async fn ask(&self, destination: &Destination) -> Result<NodeView, Status> {
        ask(self.channels.get(destination)).await
    }
}

async fn ask(channel: Channel) -> Result<NodeView, Status> {
    let mut client = NodeClient::new(channel).max_decoding_message_size(64 << 20);
    let request = client.get_status(GetStatusRequest {});
    match tokio::time::timeout(STATUS_TIMEOUT, request).await {
        Ok(answer) => Ok(answer?.into_inner().into()),
        Err(_elapsed) => Err(Status::deadline_exceeded(format!(
            "no answer within {STATUS_TIMEOUT:?}"
        ))),
    }
}

struct Follower {
    channel: Channel,
    state: Arc<Mutex<NodeState>>,
    queue: Queue<ObjectKey>,
    store: ObjectKey,
}

impl Follower {
    /// Runs until it is aborted.
    async fn run(self) {
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match self.open().await {
                Ok(events) => {
                    pause = FIRST_PAUSE;
                    self.read(events).await
                }
                Err(error) => error,
            };
            self.set(NodeState::silent(&error));
            tokio::time::sleep(pause).await;
            pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
        }
    }

    async fn open(&self) -> Result<Streaming<WatchResponse>, Status> {
        let mut client = NodeClient::new(self.channel.clone()).max_decoding_message_size(64 << 20);
        match tokio::time::timeout(STATUS_TIMEOUT, client.watch(WatchRequest {})).await {
            Ok(answer) => Ok(answer?.into_inner()),
            Err(_elapsed) => Err(Status::deadline_exceeded("no answer to Watch")),
        }
    }

    /// Reads events until the stream breaks.
    async fn read(&self, mut events: Streaming<WatchResponse>) -> Status {
        loop {
            let mut changed = false;
            match events.message().await {
                Ok(Some(event)) => changed |= self.take(event),
                Ok(None) => return Status::unavailable("the node ended the stream"),
                Err(error) => return error,
            }
            let settled = tokio::time::sleep(SETTLE);
            tokio::pin!(settled);
            loop {
                tokio::select! {
                    () = &mut settled => break,
                    event = events.message() => match event {
                        Ok(Some(event)) => changed |= self.take(event),
                        Ok(None) => return Status::unavailable("the node ended the stream"),
                        Err(error) => return error,
                    },
                }
            }
            if changed {
                match ask(self.channel.clone()).await {
                    Ok(view) => self.set(NodeState::Up(view)),
                    Err(error) => return error,
                }
            }
        }
    }

    /// Takes one event in; true when the node must be asked what it means.
    fn take(&self, event: WatchResponse) -> bool {
        match event.event {
            Some(Event::Status(status)) => {
                self.set(NodeState::Up(status.into()));
                false
            }
            Some(
                Event::MemberReady(_)
                | Event::LeaderChanged(_)
                | Event::MembershipChanged(_)
                | Event::MemberRemoved(_),
            ) => true,
            Some(
                Event::SnapshotCreated(_) | Event::SnapshotInstalled(_) | Event::LogCompacted(_),
            )
            | None => false,
        }
    }

    /// Tells the Store's controller only what is new; a silent node stays silent, whatever the
    /// error says.
    fn set(&self, new: NodeState) {
        let mut state = self.state.lock();
        let is_news = match (&*state, &new) {
            (NodeState::Silent(_), NodeState::Silent(_)) => false,
            (before, after) => before != after,
        };
        *state = new;
        drop(state);
        if is_news {
            self.queue.add(self.store.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic, reason = "tests")]

    use std::future::{Pending, pending};
    use std::net::SocketAddr;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll};

    use futures::future::BoxFuture;
    use tonic::body::Body;
    use tonic::codegen::{Service, http};

    use super::*;
    use atomix_controller::Caller;
    use atomix_controller::dialer::{ChannelError, Dialer};
    use atomix_controller::metrics::Metrics;

    /// Nodes that take each call and never answer; the number of calls that are open.
    #[derive(Debug, Clone, Default)]
    struct SilentNodes(Arc<AtomicUsize>);

    struct OpenCall(Arc<AtomicUsize>);

    impl Drop for OpenCall {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }

    impl Dialer for SilentNodes {
        fn dial(&self, _: &Destination) -> Channel {
            Channel::new(self.clone())
        }
    }

    impl Service<http::Request<Body>> for SilentNodes {
        type Response = http::Response<Body>;
        type Error = ChannelError;
        type Future = BoxFuture<'static, Result<Self::Response, ChannelError>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ChannelError>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: http::Request<Body>) -> Self::Future {
            self.0.fetch_add(1, Ordering::SeqCst);
            let open = OpenCall(Arc::clone(&self.0));
            Box::pin(async move {
                let _open = open;
                let never: Pending<_> = pending();
                never.await
            })
        }
    }

    impl SilentNodes {
        async fn until_open(&self, expected: usize) {
            // With one thread, each turn lets every task go on.
            for _ in 0..1000 {
                if self.0.load(Ordering::SeqCst) == expected {
                    return;
                }
                tokio::task::yield_now().await;
            }
            panic!("{self:?} instead of {expected}");
        }
    }

    #[tokio::test]
    async fn no_more_streams_are_open_than_may_be_and_each_keeps_its_channel() {
        let nodes = SilentNodes::default();
        let dialer = Arc::new(nodes.clone());
        // Fewer are kept for calls than there are streams.
        let channels = Channels::new(dialer, 1, Metrics::default(), Caller::default());
        let watches = Watches::at_most(2, channels, Queue::default());
        let store = ObjectKey::new("meadow", "tulip");
        let follow = |pod: &str, port: u16| {
            let destination = Destination::plain(SocketAddr::from(([127, 0, 0, 1], port)));
            watches.follow(&store, pod, &destination)
        };

        assert_eq!(follow("uid-0", 1), Some(NodeState::Unheard));
        assert_eq!(follow("uid-1", 2), Some(NodeState::Unheard));
        assert_eq!(follow("uid-2", 3), None, "one too many");
        nodes.until_open(2).await;
        assert!(follow("uid-0", 1).is_some(), "it is followed already");
        assert!(follow("uid-1", 4).is_some(), "it moved and has its place");
        assert_eq!(follow("uid-2", 3), None, "nobody has gone");

        watches.forget("uid-0");
        nodes.until_open(1).await;
        assert_eq!(follow("uid-2", 3), Some(NodeState::Unheard));
        nodes.until_open(2).await;
        watches.clear();
        nodes.until_open(0).await;
    }
}
