//! What a leader adds to the state machine: time, timers, and replies that come later. On one node
//! in this process, with the kind that exists for tests.

use std::time::Duration;

use atomix_primitives::probe::{
    AcquireReply, AcquireRequest, Empty, Item, KeyRequest, PutRequest, UnlockRequest,
};
use atomix_proto::multiraft::v1::failure::Reason;
use atomix_proto::multiraft::v1::{
    BootstrapRequest, EventPosition, Events, FollowEvents, Operate, Operation, Query, request,
    response,
};
use atomix_proto::runtime::topic::v1::{PublishRequest, SubscribeResponse};
use prost::Message;
use tokio::time::Instant;
use tonic::Code;

use crate::support::driver::{NoReply, Stream};
use crate::support::eventually;
use crate::support::nodes::PATIENCE;
use crate::support::services::{NodeService, probe};

/// A node with one partition whose only member it is.
struct Single {
    node: NodeService,
    stream: Stream,
    session: u64,
    _folder: tempfile::TempDir,
}

impl Single {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut node = NodeService::new(folder.path().join("node"));
        let node_id = node.start(std::convert::identity).await;
        let plan = BootstrapRequest {
            partitions: vec![node.alone(1, node_id, 1)],
        };
        node.addresses.bootstrap(plan).await.unwrap();
        let stream = Stream::open(node.addresses.peer, "a-store").await.unwrap();
        let session = eventually("a session is opened", PATIENCE, || async {
            stream.open_session(1, Duration::from_secs(60)).await.ok()
        })
        .await;
        Self {
            node,
            stream,
            session,
            _folder: folder,
        }
    }

    async fn stop(mut self) {
        self.node.stop().await;
    }

    async fn operate<R: Message + Default>(
        &self,
        sequence: u64,
        owner: u64,
        method: &str,
        request: impl Message,
    ) -> Result<R, NoReply> {
        let operate = Operate {
            session: self.session,
            sequence,
            operation: Some(probe(method, owner, &request)),
            ..Operate::default()
        };
        decode(self.stream.call(1, request::Body::Operate(operate)).await?)
    }

    async fn get(&self, key: &'static str) -> Result<Item, NoReply> {
        let request = KeyRequest { key: key.into() };
        let query = Query {
            session: 0,
            operation: Some(probe("Get", 0, &request)),
        };
        decode(self.stream.call(1, request::Body::Query(query)).await?)
    }
}

impl Single {
    async fn publish(&self, sequence: u64, payload: Vec<u8>) {
        let publish = PublishRequest {
            id: None,
            payload: payload.into(),
        };
        let operate = Operate {
            session: self.session,
            sequence,
            acknowledged: sequence - 1,
            operation: Some(Operation {
                kind: "topic".to_owned(),
                primitive: "news".to_owned(),
                method: "Publish".to_owned(),
                request: publish.encode_to_vec().into(),
                owner: 0,
            }),
            ..Operate::default()
        };
        let answer = self.stream.call(1, request::Body::Operate(operate)).await;
        answer.unwrap();
    }

    async fn follow(
        &self,
        kind: &str,
        after: Option<EventPosition>,
        wait: Duration,
    ) -> Result<Events, NoReply> {
        let follow = FollowEvents {
            kind: kind.to_owned(),
            primitive: "news".to_owned(),
            key: None,
            after,
            wait_nanos: u64::try_from(wait.as_nanos()).unwrap(),
        };
        match self
            .stream
            .call(1, request::Body::FollowEvents(follow))
            .await?
        {
            response::Outcome::Events(events) => Ok(events),
            other => panic!("FollowEvents was answered {other:?}"),
        }
    }
}

fn operation(events: &Events) -> u64 {
    events.position.unwrap().operation
}

fn offsets(events: &Events) -> Vec<u64> {
    let offset = |payload| SubscribeResponse::decode(payload).unwrap().offset;
    let events = events.events.iter();
    events.map(|event| offset(event.payload.clone())).collect()
}

fn decode<R: Message + Default>(outcome: response::Outcome) -> Result<R, NoReply> {
    let response::Outcome::Reply(reply) = outcome else {
        panic!("an operation was answered {outcome:?}");
    };
    Ok(R::decode(reply).unwrap())
}

fn code(failure: &NoReply) -> (Option<Reason>, Code) {
    match failure {
        NoReply::Failed(failure) => (Some(failure.reason()), Code::from_i32(failure.code)),
        NoReply::Lost => panic!("no answer"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expired_data_is_never_read_and_an_idle_partition_expires_it() {
    let single = Single::start().await;
    let ttl = Duration::from_millis(400);
    let put = PutRequest {
        key: "k".into(),
        value: "v".into(),
        ttl_nanos: u64::try_from(ttl.as_nanos()).unwrap(),
    };
    let asked = Instant::now();
    single.operate::<Item>(1, 0, "Put", put).await.unwrap();
    let acknowledged = Instant::now();
    loop {
        let sent = Instant::now();
        match single.get("k").await {
            Ok(item) => {
                assert_eq!(item.value, "v");
                assert!(
                    sent < acknowledged + ttl,
                    "read {:?} after it was written",
                    sent - acknowledged
                );
            }
            Err(failure) => {
                assert_eq!(code(&failure), (Some(Reason::Operation), Code::NotFound));
                assert!(Instant::now() >= asked + ttl, "it expired too early");
                break;
            }
        }
    }
    single.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operation_that_waits_is_answered_when_a_later_one_completes_it() {
    let single = Single::start().await;
    let acquire = || AcquireRequest::default();
    let first: AcquireReply = single.operate(1, 1, "Acquire", acquire()).await.unwrap();

    // Asked twice, under the same sequence: who asked before has given up, and is told.
    let waiting = async {
        tokio::join!(
            single.operate::<AcquireReply>(2, 2, "Acquire", acquire()),
            single.operate::<AcquireReply>(2, 2, "Acquire", acquire()),
        )
    };
    let impatient = AcquireRequest {
        timeout_nanos: 200_000_000,
    };
    let waiting_and_unlocking = async {
        let unlocking = async {
            // Comes after the waiters: it has waited in the line itself.
            let refused = single
                .operate::<AcquireReply>(3, 3, "Acquire", impatient)
                .await
                .unwrap_err();
            assert_eq!(code(&refused), (Some(Reason::Operation), Code::Aborted));
            single
                .operate::<Empty>(4, 1, "Unlock", UnlockRequest {})
                .await
                .unwrap();
        };
        tokio::join!(waiting, unlocking)
    };
    let ((before, last), ()) = waiting_and_unlocking.await;
    let (reason, _) = code(&before.unwrap_err());
    assert_eq!(reason, Some(Reason::OutcomeUnknown));
    let granted = last.unwrap().token;
    assert!(granted > first.token);
    // Asked once more after it was granted.
    let again: AcquireReply = single.operate(2, 2, "Acquire", acquire()).await.unwrap();
    assert_eq!(again.token, granted);
    single.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_happens_is_told_at_once_or_when_it_happens_until_it_is_forgotten() {
    let single = Single::start().await;
    let short = Duration::from_millis(50);
    let long = Duration::from_secs(2);
    let unknown = single.follow("sundial", None, short).await.unwrap_err();
    assert_eq!(
        code(&unknown),
        (Some(Reason::Operation), Code::Unimplemented)
    );

    let start = single.follow("topic", None, long).await.unwrap();
    assert_eq!(start.events, []);
    let nothing = single.follow("topic", start.position, short).await.unwrap();
    assert_eq!(nothing.events, []);
    // Somebody waits, and something else happens first.
    let (told, ()) = tokio::join!(single.follow("topic", nothing.position, long), async {
        let put = PutRequest::default();
        single.operate::<Item>(1, 0, "Put", put).await.unwrap();
        single.publish(2, b"one".to_vec()).await;
    });
    let told = told.unwrap();
    assert_eq!(offsets(&told), [1]);
    single.publish(3, b"two".to_vec()).await;
    let after_one = single.follow("topic", told.position, long).await.unwrap();
    assert_eq!(offsets(&after_one), [2]);
    let all = single.follow("topic", start.position, long).await.unwrap();
    assert_eq!(offsets(&all), [1, 2]);
    let none = single.follow("topic", all.position, short).await.unwrap();
    assert!(none.events.is_empty() && operation(&none) >= operation(&all));

    // More than the ring holds.
    for sequence in 4..24 {
        single.publish(sequence, vec![0; 1_000_000]).await;
    }
    let lost = single
        .follow("topic", start.position, long)
        .await
        .unwrap_err();
    assert_eq!(code(&lost), (Some(Reason::Operation), Code::DataLoss));
    single.stop().await;
}
