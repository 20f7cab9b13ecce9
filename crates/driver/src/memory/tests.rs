#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::collections::BTreeMap;
use std::time::Duration;

use atomix_primitives::probe::{AcquireReply, AcquireRequest, UnlockRequest};
use atomix_proto::runtime::indexedmap::v1::{
    AppendRequest, EntriesRequest, EntriesResponse, RemoveRequest,
};
use futures::StreamExt as _;
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
    for _ in 0..16_384 {
        open.push(connection.subscribe(subscribe()).await.unwrap());
    }
    let refused = connection.subscribe(subscribe()).await;
    let refused = refused.err().unwrap();
    assert_eq!(refused.kind, ErrorKind::ResourceExhausted);
    assert!(refused.message.contains("end some"), "{refused:?}");
    connection.invoke(acquire(1, LONG)).await.unwrap();
    open.pop();
    assert!(connection.subscribe(subscribe()).await.is_ok());
}

/// Whoever goes by keys would lose one that was told, removed, and appended again before the next
/// page.
#[tokio::test]
async fn what_happened_to_entries_that_were_told_is_told_before_the_next_page() {
    let connection = connect().await;
    let ask = |method: &str, request: Vec<u8>| Invocation {
        kind: "indexedmap".to_owned(),
        primitive: "queue".to_owned(),
        request: request.into(),
        ..invocation(1, method, &(), LONG)
    };
    let append = async |key: &str, bytes: usize| {
        let append = AppendRequest {
            key: key.to_owned(),
            value: vec![0; bytes].into(),
            ..AppendRequest::default()
        };
        let append = ask("Append", append.encode_to_vec());
        connection.invoke(append).await.unwrap();
    };
    // Three pages, of which the first is read at once.
    for number in 0..40 {
        append(&format!("key-{number:02}"), 8 << 10).await;
    }
    let list = EntriesRequest {
        watch: true,
        ..EntriesRequest::default()
    };
    let list = ask("Entries", list.encode_to_vec());
    let mut entries = connection.subscribe(list).await.unwrap();
    let remove = RemoveRequest {
        key: "key-00".to_owned(),
        ..RemoveRequest::default()
    };
    let remove = ask("Remove", remove.encode_to_vec());
    connection.invoke(remove).await.unwrap();
    append("key-00", 0).await;

    let mut state = BTreeMap::new();
    while !state.contains_key("end") {
        let message = entries.next().await.unwrap().unwrap();
        let EntriesResponse { entry, removed } = EntriesResponse::decode(message).unwrap();
        let entry = entry.unwrap();
        let is_last_page = entry.key == "key-39";
        if removed {
            state.remove(&entry.key);
        } else {
            state.insert(entry.key, entry.index);
        }
        // In no page: it comes as an event, after everything before.
        if is_last_page {
            append("end", 0).await;
        }
    }
    assert_eq!(state.len(), 41);
    assert!(state["key-00"] > state["key-39"]);
}
