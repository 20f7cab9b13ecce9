//! A driver that sends what it is told, and one on top that retries as drivers may.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use atomix_proto::multiraft::v1::failure::Reason;
use atomix_proto::multiraft::v1::partitions_client::PartitionsClient;
use atomix_proto::multiraft::v1::{
    DriverHello, DriverMessage, Failure, KeepAlive, NodeHello, NodeMessage, OpenSession, Operate,
    Operation, Query, Request, request, response,
};
use atomix_proto::runtime::counter::v1::{
    GetRequest, GetResponse, IncrementRequest, IncrementResponse,
};
use prost::Message as _;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::transport::Endpoint;

const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// Why there is no reply.
#[derive(Debug, Clone)]
pub enum NoReply {
    /// The node said so.
    Failed(Failure),
    /// The stream ended or stayed silent: perhaps the request was carried out.
    Lost,
}

impl NoReply {
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Self::Failed(failure) => Some(failure.reason()),
            Self::Lost => None,
        }
    }

    /// Whether the request certainly had no effect.
    pub fn is_without_effect(&self) -> bool {
        matches!(
            self.reason(),
            Some(Reason::NotLeader | Reason::Unavailable | Reason::UnknownPartition)
        )
    }
}

#[derive(Default)]
struct Waiting {
    responses: HashMap<u64, oneshot::Sender<response::Outcome>>,
    keep_alives: HashMap<(u32, u64), Vec<oneshot::Sender<Option<Failure>>>>,
    ended: Option<Status>,
}

/// One stream to one node.
#[derive(Clone)]
pub struct Stream {
    pub hello: NodeHello,
    sender: mpsc::Sender<DriverMessage>,
    waiting: Arc<parking_lot::Mutex<Waiting>>,
    next_id: Arc<AtomicU64>,
}

impl Stream {
    /// Connects and exchanges hellos.
    pub async fn open(node: SocketAddr, store_uid: &str) -> Result<Self, Status> {
        let hello = DriverHello {
            min_version: 1,
            max_version: 1,
            store_uid: store_uid.to_owned(),
            driver_version: "test".to_owned(),
            ..DriverHello::default()
        };
        Self::open_with(node, hello).await
    }

    pub async fn open_with(node: SocketAddr, hello: DriverHello) -> Result<Self, Status> {
        let unavailable = |error: tonic::transport::Error| Status::unavailable(error.to_string());
        let channel = Endpoint::from_shared(format!("http://{node}"))
            .map_err(unavailable)?
            .connect_timeout(Duration::from_secs(1))
            .connect()
            .await
            .map_err(unavailable)?;
        let (sender, messages) = mpsc::channel(64);
        let first = DriverMessage {
            hello: Some(hello),
            ..DriverMessage::default()
        };
        sender.send(first).await.unwrap();
        let mut incoming = PartitionsClient::new(channel)
            .max_encoding_message_size(usize::MAX)
            .exchange(ReceiverStream::new(messages))
            .await?
            .into_inner();
        let first = tokio::time::timeout(ANSWER_TIMEOUT, incoming.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no hello"))??;
        let hello = first
            .and_then(|message| message.hello)
            .ok_or_else(|| Status::internal("the first message is no hello"))?;
        let waiting = Arc::new(parking_lot::Mutex::new(Waiting::default()));
        let shared = Arc::clone(&waiting);
        tokio::spawn(async move {
            let ended = loop {
                match incoming.message().await {
                    Ok(Some(message)) => deliver(&shared, message),
                    Ok(None) => break Status::ok("ended"),
                    Err(status) => break status,
                }
            };
            let mut waiting = shared.lock();
            waiting.responses.clear();
            waiting.keep_alives.clear();
            waiting.ended = Some(ended);
        });
        Ok(Self {
            hello,
            sender,
            waiting,
            next_id: Arc::new(AtomicU64::new(1)),
        })
    }

    /// Sends one request and waits for its answer.
    pub async fn call(
        &self,
        partition: u32,
        body: request::Body,
    ) -> Result<response::Outcome, NoReply> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        {
            let mut waiting = self.waiting.lock();
            if waiting.ended.is_some() {
                return Err(NoReply::Lost);
            }
            waiting.responses.insert(id, sender);
        }
        let message = DriverMessage {
            requests: vec![Request {
                id,
                partition_id: partition,
                body: Some(body),
            }],
            ..DriverMessage::default()
        };
        if self.sender.send(message).await.is_err() {
            return Err(NoReply::Lost);
        }
        match tokio::time::timeout(ANSWER_TIMEOUT, receiver).await {
            Ok(Ok(response::Outcome::Failure(failure))) => Err(NoReply::Failed(failure)),
            Ok(Ok(outcome)) => Ok(outcome),
            Ok(Err(_)) | Err(_) => Err(NoReply::Lost),
        }
    }

    /// Keeps a session alive; `Ok(None)` = it is.
    pub async fn keep_alive(
        &self,
        partition: u32,
        session: u64,
    ) -> Result<Option<Failure>, NoReply> {
        let (sender, receiver) = oneshot::channel();
        {
            let mut waiting = self.waiting.lock();
            let key = (partition, session);
            waiting.keep_alives.entry(key).or_default().push(sender);
        }
        let message = DriverMessage {
            keep_alives: vec![KeepAlive {
                partition_id: partition,
                session,
            }],
            ..DriverMessage::default()
        };
        if self.sender.send(message).await.is_err() {
            return Err(NoReply::Lost);
        }
        tokio::time::timeout(ANSWER_TIMEOUT, receiver)
            .await
            .map_err(|_| NoReply::Lost)?
            .map_err(|_| NoReply::Lost)
    }

    /// Messages that the connection has not taken yet.
    pub fn unsent(&self) -> usize {
        self.sender.max_capacity() - self.sender.capacity()
    }

    /// Requests that wait for their answers.
    pub fn unanswered(&self) -> usize {
        self.waiting.lock().responses.len()
    }

    /// How the stream ended, once it has.
    pub fn ended(&self) -> Option<Status> {
        self.waiting.lock().ended.clone()
    }

    pub async fn open_session(&self, partition: u32, timeout: Duration) -> Result<u64, NoReply> {
        let open = OpenSession {
            timeout_nanos: u64::try_from(timeout.as_nanos()).unwrap(),
            client: "test".to_owned(),
        };
        match self
            .call(partition, request::Body::OpenSession(open))
            .await?
        {
            response::Outcome::Session(session) => Ok(session),
            other => panic!("OpenSession was answered {other:?}"),
        }
    }

    /// Adds 1 to a counter as operation `sequence` of the session; answers the counter's value.
    pub async fn increment(
        &self,
        partition: u32,
        counter: &str,
        session: u64,
        sequence: u64,
    ) -> Result<i64, NoReply> {
        let operate = Operate {
            session,
            sequence,
            acknowledged: sequence - 1,
            operation: Some(increment(counter)),
            open: Vec::new(),
        };
        match self
            .call(partition, request::Body::Operate(operate))
            .await?
        {
            response::Outcome::Reply(reply) => Ok(IncrementResponse::decode(reply).unwrap().value),
            other => panic!("Increment was answered {other:?}"),
        }
    }

    /// Reads a counter.
    pub async fn get(&self, partition: u32, counter: &str) -> Result<i64, NoReply> {
        let query = Query {
            session: 0,
            operation: Some(operation(
                counter,
                "Get",
                GetRequest::default().encode_to_vec(),
            )),
        };
        match self.call(partition, request::Body::Query(query)).await? {
            response::Outcome::Reply(reply) => Ok(GetResponse::decode(reply).unwrap().value),
            other => panic!("Get was answered {other:?}"),
        }
    }
}

fn deliver(waiting: &parking_lot::Mutex<Waiting>, message: NodeMessage) {
    let mut waiting = waiting.lock();
    for answer in message.responses {
        let waiter = waiting.responses.remove(&answer.id);
        let waiter = waiter.expect("each request is answered once");
        // Whoever waited may have given up.
        let _ = waiter.send(answer.outcome.expect("a known outcome"));
    }
    for answer in message.keep_alives {
        let key = (answer.partition_id, answer.session);
        for waiter in waiting.keep_alives.remove(&key).unwrap_or_default() {
            let _ = waiter.send(answer.failure.clone());
        }
    }
}

pub fn increment(counter: &str) -> Operation {
    let request = IncrementRequest { id: None, delta: 1 };
    operation(counter, "Increment", request.encode_to_vec())
}

pub fn operation(counter: &str, method: &str, request: Vec<u8>) -> Operation {
    Operation {
        kind: "counter".to_owned(),
        primitive: counter.to_owned(),
        method: method.to_owned(),
        request: request.into(),
        owner: 0,
    }
}

/// Follows the leader of a partition, reconnects, and repeats what may be repeated.
pub struct Follower {
    nodes: Vec<SocketAddr>,
    streams: HashMap<SocketAddr, Stream>,
    partition: u32,
    at: usize,
}

impl Follower {
    pub fn new(nodes: Vec<SocketAddr>, partition: u32) -> Self {
        Self {
            nodes,
            streams: HashMap::new(),
            partition,
            at: 0,
        }
    }

    /// The stream to the node that is tried next.
    async fn stream(&mut self) -> Option<Stream> {
        let node = self.nodes[self.at];
        if let Some(stream) = self.streams.get(&node)
            && stream.ended().is_none()
        {
            return Some(stream.clone());
        }
        let stream = Stream::open(node, "").await.ok()?;
        self.streams.insert(node, stream.clone());
        Some(stream)
    }

    fn go_on(&mut self, failure: Option<&NoReply>) {
        let hint = match failure {
            Some(NoReply::Failed(failure)) => failure.leader.as_ref(),
            Some(NoReply::Lost) | None => None,
        };
        let hinted = hint.and_then(|leader| {
            let leads = |node: &SocketAddr| node.to_string() == leader.address;
            self.nodes.iter().position(leads)
        });
        self.at = hinted.unwrap_or((self.at + 1) % self.nodes.len());
    }

    /// Repeats `ask` until it has an answer that repeating would not change; `None` when there is
    /// none by the deadline.
    async fn repeat(&mut self, deadline: Instant, ask: &Ask) -> Option<Result<i64, NoReply>> {
        let mut pause = tokio::time::interval(Duration::from_millis(10));
        pause.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while Instant::now() < deadline {
            let Some(stream) = self.stream().await else {
                self.go_on(None);
                pause.tick().await;
                continue;
            };
            match ask.perform(&stream, self.partition).await {
                Err(failure)
                    if failure.is_without_effect()
                        || matches!(failure.reason(), None | Some(Reason::OutcomeUnknown)) =>
                {
                    self.go_on(Some(&failure));
                    pause.tick().await;
                }
                settled => return Some(settled),
            }
        }
        None
    }

    pub async fn open_session(&mut self, timeout: Duration) -> u64 {
        let deadline = Instant::now() + Duration::from_secs(20);
        let opened = self.repeat(deadline, &Ask::OpenSession(timeout)).await;
        let session = opened
            .expect("a session is opened in time")
            .expect("a session is opened");
        u64::try_from(session).unwrap()
    }

    /// `None` = the outcome is still unknown at the deadline.
    pub async fn increment(
        &mut self,
        counter: &str,
        session: u64,
        sequence: u64,
        deadline: Instant,
    ) -> Option<Result<i64, NoReply>> {
        let ask = Ask::Increment {
            counter: counter.to_owned(),
            session,
            sequence,
        };
        self.repeat(deadline, &ask).await
    }

    pub async fn get(&mut self, counter: &str) -> i64 {
        let deadline = Instant::now() + Duration::from_secs(20);
        let read = self.repeat(deadline, &Ask::Get(counter.to_owned())).await;
        read.expect("a read is answered in time")
            .expect("a read is answered")
    }
}

enum Ask {
    OpenSession(Duration),
    Increment {
        counter: String,
        session: u64,
        sequence: u64,
    },
    Get(String),
}

impl Ask {
    async fn perform(&self, stream: &Stream, partition: u32) -> Result<i64, NoReply> {
        match self {
            Self::OpenSession(timeout) => {
                let session = stream.open_session(partition, *timeout).await?;
                Ok(i64::try_from(session).unwrap())
            }
            Self::Increment {
                counter,
                session,
                sequence,
            } => {
                let incremented = stream.increment(partition, counter, *session, *sequence);
                incremented.await
            }
            Self::Get(counter) => stream.get(partition, counter).await,
        }
    }
}

/// What one client's counting came to.
pub struct Count {
    pub acknowledged: i64,
    pub unknown: i64,
    /// The longest time from one acknowledgement to the next.
    pub longest_gap: Duration,
}

/// Increments one after the other until it is told to stop.
pub async fn count(mut follower: Follower, stop: Arc<AtomicBool>) -> Count {
    let mut session = follower.open_session(Duration::from_secs(30)).await;
    let mut sequence = 0;
    let mut count = Count {
        acknowledged: 0,
        unknown: 0,
        longest_gap: Duration::ZERO,
    };
    let mut last = 0;
    let mut last_at = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        sequence += 1;
        let deadline = Instant::now() + Duration::from_secs(15);
        match follower
            .increment("shared", session, sequence, deadline)
            .await
        {
            Some(Ok(value)) => {
                assert!(value > last, "{value} came after {last}");
                last = value;
                count.acknowledged += 1;
                count.longest_gap = count.longest_gap.max(last_at.elapsed());
                last_at = Instant::now();
            }
            None => {
                count.unknown += 1;
                session = follower.open_session(Duration::from_secs(30)).await;
                sequence = 0;
            }
            Some(Err(failure)) => panic!("an increment failed: {failure:?}"),
        }
    }
    count
}
