#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use atomix_primitives::probe::{AcquireReply, AcquireRequest, UnlockRequest};
use prost::Message as _;
use tokio::time::Instant;

use super::*;
use crate::error::ErrorKind;

const LONG: Duration = Duration::from_secs(20);

async fn connect() -> Arc<dyn Connection> {
    let driver = MemoryDriver {
        kinds: Arc::new(Kinds::with_test_kind()),
    };
    let store = StoreId {
        namespace: "team".to_owned(),
        name: "store-a".to_owned(),
    };
    driver.connect(&store, b"{}").await.unwrap()
}

fn invocation(
    owner: u64,
    method: &str,
    request: &impl prost::Message,
    patience: Duration,
) -> Invocation {
    Invocation {
        kind: "probe".to_owned(),
        primitive: "lock".to_owned(),
        method: method.to_owned(),
        request: request.encode_to_vec().into(),
        owner: Owner(owner),
        deadline: Instant::now() + patience,
    }
}

fn acquire(owner: u64, patience: Duration) -> Invocation {
    let request = AcquireRequest { timeout_nanos: 0 };
    invocation(owner, "Acquire", &request, patience)
}

fn unlock(owner: u64) -> Invocation {
    invocation(owner, "Unlock", &UnlockRequest {}, LONG)
}

#[tokio::test]
async fn a_grant_whose_caller_went_away_before_it_took_the_reply_is_given_back() {
    let connection = connect().await;
    connection.invoke(acquire(1, LONG)).await.unwrap();
    let mut waiting = connection.invoke(acquire(2, LONG));
    assert!(futures::poll!(&mut waiting).is_pending());
    // Grants the lock to the second owner, who does not look; later operations acknowledge.
    connection.invoke(unlock(1)).await.unwrap();
    let mut third = connection.invoke(acquire(3, LONG));
    assert!(futures::poll!(&mut third).is_pending());
    drop(waiting);
    let reply = third.await.unwrap();
    assert!(AcquireReply::decode(reply).unwrap().token > 0);
}

#[tokio::test(start_paused = true)]
async fn a_caller_whose_deadline_passed_leaves_the_line() {
    let connection = connect().await;
    connection.invoke(acquire(1, LONG)).await.unwrap();
    let impatient = connection.invoke(acquire(2, Duration::from_secs(1))).await;
    assert_eq!(impatient.unwrap_err().kind, ErrorKind::Timeout);
    connection.invoke(unlock(1)).await.unwrap();
    connection.invoke(acquire(3, LONG)).await.unwrap();
}

#[tokio::test]
async fn open_streams_have_a_limit_and_everything_else_goes_on() {
    let connection = connect().await;
    let subscribe = || Invocation {
        kind: "topic".to_owned(),
        primitive: "news".to_owned(),
        ..invocation(1, "Subscribe", &(), LONG)
    };
    let mut open = Vec::new();
    let refused = loop {
        match connection.subscribe(subscribe()).await {
            Ok(stream) => open.push(stream),
            Err(refused) => break refused,
        }
    };
    assert_eq!(refused.kind, ErrorKind::ResourceExhausted);
    assert!(refused.message.contains("end some"), "{refused:?}");
    assert_eq!(open.len(), 16_384);
    connection.invoke(acquire(1, LONG)).await.unwrap();
    open.pop();
    assert!(connection.subscribe(subscribe()).await.is_ok());
}
