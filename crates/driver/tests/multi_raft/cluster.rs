//! Servers of the driver protocol that share one state machine per partition, and place faults.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use atomix_primitives::{Access, EventPosition, Kinds, OperationError, Outcome, StateMachine};
use atomix_proto::multiraft::v1 as proto;
use atomix_proto::multiraft::v1::command::Command as CommandKind;
use atomix_proto::multiraft::v1::failure::Reason;
use atomix_proto::multiraft::v1::partitions_server::{Partitions, PartitionsServer};
use atomix_proto::multiraft::v1::{
    Command, CommandBatch, Done, DriverMessage, Events, ExpireSessions, Failure, FollowEvents,
    KeepAliveResponse, NodeHello, NodeMessage, PartitionLeader, Request, Response, request,
    response,
};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::Server;
use tonic::{Status, Streaming};

/// What goes wrong with the next mutation that reaches the leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is applied, then the stream breaks.
    BreakAfterApply,
    /// It is applied, and never answered.
    SilentAfterApply,
    /// It is applied, its session ends, and the stream breaks.
    ExpireAfterApplyAndBreak,
    /// It is not applied, or for an unknown outcome it is, and is answered with this.
    Answer(Reason),
}

#[derive(Clone)]
pub struct Cluster {
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    store_uid: String,
    incarnation: u64,
    kinds: Arc<Kinds>,
    machines: BTreeMap<u32, (u64, StateMachine)>,
    addresses: Vec<SocketAddr>,
    leader: Option<usize>,
    hints: bool,
    /// Has lost its peers, and does not know that another one leads now.
    cut_off: Option<usize>,
    /// The only node that hosts the partitions; `None` = all do.
    host: Option<usize>,
    faults: VecDeque<Fault>,
    leaderless_after_faults: bool,
    cancelled: usize,
    opened: usize,
    most_keep_alives: usize,
    /// How many keep-alives each node has confirmed.
    kept: BTreeMap<usize, usize>,
}

#[derive(Clone)]
struct Node {
    index: usize,
    shared: Arc<Mutex<Shared>>,
}

/// What a node does with a request.
enum Reaction {
    Answer(response::Outcome),
    Silence,
    Break,
}

impl Cluster {
    pub async fn start(nodes: usize, partitions: u32) -> Self {
        Self::start_as("store-a", nodes, partitions).await
    }

    pub async fn start_as(store_uid: &str, nodes: usize, partitions: u32) -> Self {
        let kinds = Arc::new(Kinds::standard());
        let machines = (1..=partitions)
            .map(|id| (id, (0, StateMachine::new(Arc::clone(&kinds)))))
            .collect();
        let shared = Arc::new(Mutex::new(Shared {
            store_uid: store_uid.to_owned(),
            incarnation: 1,
            kinds,
            machines,
            addresses: Vec::new(),
            leader: Some(0),
            hints: true,
            cut_off: None,
            host: None,
            faults: VecDeque::new(),
            leaderless_after_faults: false,
            cancelled: 0,
            opened: 0,
            most_keep_alives: 0,
            kept: BTreeMap::new(),
        }));
        for index in 0..nodes {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            shared.lock().addresses.push(listener.local_addr().unwrap());
            let node = Node {
                index,
                shared: Arc::clone(&shared),
            };
            let server = Server::builder()
                .add_service(PartitionsServer::new(node))
                .serve_with_incoming(TcpListenerStream::new(listener));
            tokio::spawn(server);
        }
        Self { shared }
    }

    pub fn config(&self, timeouts: &str) -> String {
        let shared = self.shared.lock();
        let nodes: Vec<String> = shared.addresses.iter().map(ToString::to_string).collect();
        let partitions = shared.machines.len();
        format!(r#"{{"nodes": {nodes:?}, "partitions": {partitions}, "timeouts": {timeouts}}}"#)
    }

    pub fn fault(&self, fault: Fault) {
        self.shared.lock().faults.push_back(fault);
    }

    pub fn faults_left(&self) -> usize {
        self.shared.lock().faults.len()
    }

    pub fn clear_faults(&self) {
        self.shared.lock().faults.clear();
    }

    pub fn lead(&self, leader: usize, hints: bool) {
        let mut shared = self.shared.lock();
        shared.leader = Some(leader);
        shared.hints = hints;
        shared.leaderless_after_faults = false;
    }

    /// The leader is cut off from the others, of which one leads now; it goes on as if it still did.
    pub fn cut_off_leader(&self, leader: usize) {
        let mut shared = self.shared.lock();
        shared.cut_off = shared.leader;
        shared.leader = Some(leader);
    }

    /// All partitions move to one node, and the others know nothing of them any more.
    pub fn move_to(&self, node: usize) {
        let mut shared = self.shared.lock();
        shared.leader = Some(node);
        shared.host = Some(node);
    }

    /// All data is lost and the store begins again, empty: ids count from 1 anew. Nodes end the
    /// streams of before with the next message.
    pub fn begin_again(&self) {
        let mut shared = self.shared.lock();
        shared.incarnation += 1;
        let kinds = Arc::clone(&shared.kinds);
        for (index, machine) in shared.machines.values_mut() {
            *index = 0;
            *machine = StateMachine::new(Arc::clone(&kinds));
        }
    }

    /// The nodes hold data of the incarnation before.
    pub fn go_back(&self) {
        self.shared.lock().incarnation -= 1;
    }

    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.shared.lock().addresses.clone()
    }

    pub fn nobody_leads_after_faults(&self) {
        self.shared.lock().leaderless_after_faults = true;
    }

    pub fn cancelled(&self) -> usize {
        self.shared.lock().cancelled
    }

    pub fn opened(&self) -> usize {
        self.shared.lock().opened
    }

    pub fn most_keep_alives_in_a_message(&self) -> usize {
        self.shared.lock().most_keep_alives
    }

    pub fn kept_by(&self, node: usize) -> usize {
        self.shared.lock().kept.get(&node).copied().unwrap_or(0)
    }

    pub fn sessions(&self) -> usize {
        let shared = self.shared.lock();
        shared
            .machines
            .values()
            .map(|(_, machine)| machine.sessions().count())
            .sum()
    }

    pub fn expire_sessions(&self) {
        self.shared.lock().expire_sessions();
    }
}

impl Shared {
    fn apply(&mut self, partition: u32, command: CommandKind) -> Outcome {
        let (index, machine) = self.machines.get_mut(&partition).unwrap();
        *index += 1;
        let batch = CommandBatch {
            time_nanos: *index,
            wall_time_millis: 0,
            commands: vec![Command {
                command: Some(command),
            }],
        };
        machine
            .apply(*index, &batch)
            .outcomes
            .into_iter()
            .next()
            .unwrap()
    }

    fn expire_sessions(&mut self) {
        let partitions: Vec<u32> = self.machines.keys().copied().collect();
        for partition in partitions {
            let sessions = self.machines[&partition]
                .1
                .sessions()
                .map(|(id, _)| id.0)
                .collect();
            self.apply(
                partition,
                CommandKind::ExpireSessions(ExpireSessions { sessions }),
            );
        }
    }
}

impl Node {
    fn react(&self, partition: u32, body: request::Body) -> Reaction {
        let mut shared = self.shared.lock();
        if shared.cut_off == Some(self.index) {
            return Reaction::Answer(response::Outcome::Failure(failure(Reason::Unavailable)));
        }
        let moved_away = shared.host.is_some_and(|host| host != self.index);
        if moved_away || !shared.machines.contains_key(&partition) {
            let refusal = Failure {
                code: tonic::Code::NotFound as i32,
                message: format!("the highest that it hosts is {}", shared.machines.len()),
                ..failure(Reason::UnknownPartition)
            };
            return Reaction::Answer(response::Outcome::Failure(refusal));
        }
        if shared.leader != Some(self.index) {
            let hint = shared
                .leader
                .filter(|_| shared.hints)
                .map(|leader| PartitionLeader {
                    partition_id: partition,
                    address: shared.addresses[leader].to_string(),
                    ..PartitionLeader::default()
                });
            let refusal = Failure {
                leader: hint,
                ..failure(Reason::NotLeader)
            };
            return Reaction::Answer(response::Outcome::Failure(refusal));
        }
        let command = match body {
            request::Body::Query(query) => {
                let operation = query.operation.unwrap();
                assert_eq!(shared.kinds.access(&operation), Ok(Access::Read));
                let reply = shared.machines[&partition].1.query(&operation);
                return Reaction::Answer(replied(reply));
            }
            request::Body::FollowEvents(asked) => {
                let machine = &shared.machines[&partition].1;
                return Reaction::Answer(response::Outcome::Events(events(machine, asked)));
            }
            request::Body::OpenSession(open) => {
                shared.opened += 1;
                CommandKind::OpenSession(open)
            }
            request::Body::CloseSession(close) => CommandKind::CloseSession(close),
            request::Body::ReleaseOwner(release) => CommandKind::ReleaseOwner(release),
            request::Body::Cancel(cancel) => {
                shared.cancelled += 1;
                CommandKind::Cancel(cancel)
            }
            request::Body::Operate(operate) => {
                return self.operate(&mut shared, partition, CommandKind::Operate(operate));
            }
        };
        Reaction::Answer(outcome(shared.apply(partition, command)))
    }

    fn operate(&self, shared: &mut Shared, partition: u32, operate: CommandKind) -> Reaction {
        let fault = shared.faults.pop_front();
        if shared.leaderless_after_faults && shared.faults.is_empty() {
            shared.leader = None;
        }
        match fault {
            None => Reaction::Answer(outcome(shared.apply(partition, operate))),
            Some(Fault::BreakAfterApply) => {
                shared.apply(partition, operate);
                Reaction::Break
            }
            Some(Fault::SilentAfterApply) => {
                shared.apply(partition, operate);
                Reaction::Silence
            }
            Some(Fault::ExpireAfterApplyAndBreak) => {
                shared.apply(partition, operate);
                shared.expire_sessions();
                Reaction::Break
            }
            Some(Fault::Answer(reason)) => {
                if reason == Reason::OutcomeUnknown {
                    shared.apply(partition, operate);
                }
                Reaction::Answer(response::Outcome::Failure(failure(reason)))
            }
        }
    }

    fn keep_alive(&self, message: &DriverMessage) -> Vec<KeepAliveResponse> {
        let mut shared = self.shared.lock();
        shared.most_keep_alives = shared.most_keep_alives.max(message.keep_alives.len());
        let mut kept = 0;
        let keep_alives = message.keep_alives.iter().map(|keep_alive| {
            let (_, machine) = &shared.machines[&keep_alive.partition_id];
            let known = machine.sessions().any(|(id, _)| id.0 == keep_alive.session);
            let failure = match (shared.leader == Some(self.index), known) {
                _ if shared.cut_off == Some(self.index) => Some(failure(Reason::Unavailable)),
                (false, _) => Some(failure(Reason::NotLeader)),
                (true, false) => Some(failure(Reason::SessionLost)),
                (true, true) => None,
            };
            if failure.is_none() {
                kept += 1;
            }
            KeepAliveResponse {
                partition_id: keep_alive.partition_id,
                session: keep_alive.session,
                failure,
            }
        });
        let answers = keep_alives.collect();
        *shared.kept.entry(self.index).or_default() += kept;
        answers
    }

    fn incarnation(&self) -> u64 {
        self.shared.lock().incarnation
    }

    async fn serve(
        self,
        mut incoming: Streaming<DriverMessage>,
        outgoing: mpsc::Sender<Result<NodeMessage, Status>>,
    ) {
        incoming.message().await.unwrap().unwrap().hello.unwrap();
        let hello = {
            let shared = self.shared.lock();
            NodeHello {
                version: 1,
                store_uid: shared.store_uid.clone(),
                partitions: u32::try_from(shared.machines.len()).unwrap(),
                incarnation: shared.incarnation,
                ..NodeHello::default()
            }
        };
        let told = hello.incarnation;
        let greeting = NodeMessage {
            hello: Some(hello),
            ..NodeMessage::default()
        };
        if outgoing.send(Ok(greeting)).await.is_err() {
            return;
        }
        while let Ok(Some(message)) = incoming.message().await {
            if self.incarnation() != told {
                let refused = message.requests.iter().map(|request| Response {
                    id: request.id,
                    outcome: Some(response::Outcome::Failure(failure(Reason::Unavailable))),
                });
                let refused = NodeMessage {
                    responses: refused.collect(),
                    ..NodeMessage::default()
                };
                let _ = outgoing.send(Ok(refused)).await;
                let _ = outgoing.send(Err(Status::unavailable("begun again"))).await;
                return;
            }
            let mut answer = NodeMessage {
                keep_alives: self.keep_alive(&message),
                ..NodeMessage::default()
            };
            for Request {
                id,
                partition_id,
                body,
            } in message.requests
            {
                match self.react(partition_id, body.unwrap()) {
                    Reaction::Answer(outcome) => answer.responses.push(Response {
                        id,
                        outcome: Some(outcome),
                    }),
                    Reaction::Silence => {}
                    Reaction::Break => {
                        let _ = outgoing.send(Err(Status::unavailable("broken"))).await;
                        return;
                    }
                }
            }
            if outgoing.send(Ok(answer)).await.is_err() {
                return;
            }
        }
    }
}

#[tonic::async_trait]
impl Partitions for Node {
    type ExchangeStream = ReceiverStream<Result<NodeMessage, Status>>;

    async fn exchange(
        &self,
        request: tonic::Request<Streaming<DriverMessage>>,
    ) -> Result<tonic::Response<Self::ExchangeStream>, Status> {
        let (outgoing, stream) = mpsc::channel(4);
        tokio::spawn(self.clone().serve(request.into_inner(), outgoing));
        Ok(tonic::Response::new(ReceiverStream::new(stream)))
    }
}

fn outcome(outcome: Outcome) -> response::Outcome {
    match outcome {
        Outcome::Session(id) => response::Outcome::Session(id.0),
        Outcome::Reply(reply) => replied(reply),
        Outcome::Done => response::Outcome::Done(Done {}),
        Outcome::SessionLost => response::Outcome::Failure(failure(Reason::SessionLost)),
        Outcome::Pending => panic!("nothing that is asked here waits"),
    }
}

/// At once, whether there are any or not.
fn events(machine: &StateMachine, asked: FollowEvents) -> Events {
    let position = |position: EventPosition| proto::EventPosition {
        operation: position.operation,
        ordinal: position.ordinal,
    };
    let filter = machine.event_filter(&asked.kind, &asked.primitive, asked.key);
    let after = asked.after.map(|after| EventPosition {
        operation: after.operation,
        ordinal: after.ordinal,
    });
    let after = after.unwrap_or_else(|| machine.event_position());
    let read = machine.read_events(&filter.unwrap(), after).unwrap();
    let told = read.events.into_iter().map(|event| proto::Event {
        position: Some(position(event.position)),
        key: event.key,
        payload: event.payload,
    });
    Events {
        events: told.collect(),
        position: Some(position(read.through)),
    }
}

fn replied(reply: Result<bytes::Bytes, OperationError>) -> response::Outcome {
    match reply {
        Ok(reply) => response::Outcome::Reply(reply),
        Err(error) => response::Outcome::Failure(Failure {
            code: error.code.to_i32(),
            message: error.message,
            ..failure(Reason::Operation)
        }),
    }
}

fn failure(reason: Reason) -> Failure {
    Failure {
        reason: reason.into(),
        message: format!("{reason:?}"),
        ..Failure::default()
    }
}

/// Asks until it is so.
pub async fn until(what: &str, is_so: impl Fn() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let patience = Duration::from_secs(20);
    if tokio::time::timeout(patience, wait).await.is_err() {
        panic!("waited {patience:?} for {what}");
    }
}
