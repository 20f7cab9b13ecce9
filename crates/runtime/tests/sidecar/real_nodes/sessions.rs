//! Sessions that are lost without the caller's doing.

use std::time::Duration;

use atomix_proto::runtime::counter::v1::counter_client::CounterClient;
use atomix_proto::runtime::lock::v1::lock_client::LockClient;
use atomix_proto::runtime::lock::v1::{LockRequest, UnlockRequest};
use atomix_proto::runtime::v1::runtime_client::RuntimeClient;
use tonic::Code;

use super::store::{SidecarProcess, TestStore};
use super::{increment, sidecar_of, value};
use crate::harness::{id, program, route, within};

const LONG: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_store_that_begins_again_hands_no_old_session_to_another_sidecar() {
    let mut store = TestStore::start(3, 1).await;
    let (one, two) = (sidecar_of(&store).await, sidecar_of(&store).await);
    let (mut first, mut second) = (one.counter().await, two.counter().await);
    for expected in 1..=5 {
        assert_eq!(increment(&mut first, LONG).await, Ok(expected));
    }
    store.begin().await;
    // Ids of sessions begin again, too: this one's could be what the other's was.
    for expected in 1..=3 {
        assert_eq!(increment(&mut second, LONG).await, Ok(expected));
    }
    for expected in 4..=10 {
        assert_eq!(increment(&mut first, LONG).await, Ok(expected));
    }
    for expected in 11..=13 {
        assert_eq!(increment(&mut second, LONG).await, Ok(expected));
    }
    assert_eq!(value(&mut first).await, 13);
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn a_sidecar_that_stood_still_for_longer_than_its_session_loses_its_lock_and_counts_on() {
    let store = TestStore::start(3, 1).await;
    let other = sidecar_of(&store).await;
    let folder = tempfile::tempdir().unwrap();
    let sidecar = SidecarProcess::start(folder.path());
    let mut control = RuntimeClient::new(sidecar.control().await);
    let timeouts = r#"{"session": "1500ms", "election": "500ms"}"#;
    control
        .connect(store.connect_request_with("store-a", 1, timeouts))
        .await
        .unwrap();
    control
        .program(program(vec![route("store-a", "*")]))
        .await
        .unwrap();
    let mut counter = CounterClient::new(sidecar.application().await);
    for expected in [1, 2] {
        assert_eq!(increment(&mut counter, LONG).await, Ok(expected));
    }
    let lock = || LockRequest {
        id: id("gate"),
        timeout: None,
    };
    let mut holder = LockClient::new(sidecar.application().await);
    holder.lock(lock()).await.unwrap();
    sidecar.signal("STOP");
    let mut next = LockClient::new(other.application().await);
    let granted = within("the end of the holder's session", next.lock(lock()));
    granted.await.unwrap();
    sidecar.signal("CONT");
    for expected in [3, 4] {
        assert_eq!(increment(&mut counter, LONG).await, Ok(expected));
    }
    let refused = holder.unlock(UnlockRequest { id: id("gate") }).await;
    assert_eq!(refused.unwrap_err().code(), Code::Aborted);
    other.stop().await;
}
