//! What is sent again and what is not: restarts of the sidecar, lost answers, routes that come later.

use std::time::Duration;

use atomix_client::{CacheConfig, Client, Error, Kind, RetryPolicy};
use tokio::time::Instant;

use crate::harness::{TestSidecar, own_address, route, until, within};
use crate::proxy::Proxy;

#[tokio::test]
async fn a_call_waits_for_a_sidecar_that_is_restarted_and_counts_once() {
    let address = own_address();
    let folder = tempfile::tempdir().unwrap();
    let sidecar = TestSidecar::start_at(address, Some(folder.path())).await;
    sidecar.connect_store("store-a").await;
    sidecar.program(vec![route("store-a", &[])]).await;
    let client = sidecar.client().await;
    let impatient = sidecar.builder().retry(RetryPolicy::never());
    let impatient = impatient.connect().await.unwrap().counter("visits");
    let visits = client.counter("visits");
    assert_eq!(visits.increment(1).await.unwrap(), 1);
    sidecar.stop().await;

    // With reads the clients find out that their connections have ended.
    let refused = impatient.get().await.unwrap_err();
    assert!(matches!(refused, Error::Unavailable(_)), "{refused}");
    let reading = tokio::time::timeout(Duration::from_millis(50), visits.get());
    assert!(reading.await.is_err());
    let refused = impatient.increment(1).await.unwrap_err();
    assert!(matches!(refused, Error::Unavailable(_)), "{refused}");
    assert!(refused.is_certainly_not_done());
    let waiting = {
        let visits = visits.clone();
        tokio::spawn(async move { visits.increment(1).await })
    };
    let locking = {
        let door = client.lock("door");
        tokio::spawn(async move { door.lock().await })
    };
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!waiting.is_finished() && !locking.is_finished());
    // The memory of the first one is gone with it; its connections and routes are in the folder.
    let sidecar = TestSidecar::start_at(address, Some(folder.path())).await;
    assert_eq!(within("the count", waiting).await.unwrap().unwrap(), 1);
    let guard = within("the lock", locking).await.unwrap().unwrap();
    guard.unlock().await.unwrap();
    assert_eq!(visits.get().await.unwrap(), 1);
    sidecar.stop().await;
}

#[tokio::test]
async fn a_lost_answer_is_unknown_and_the_increment_is_not_repeated_but_a_read_is() {
    let sidecar = TestSidecar::start().await;
    let proxy = Proxy::to(sidecar.address).await;
    let near = sidecar.client().await.counter("visits");
    let far = sidecar.builder().address(proxy.address.to_string());
    let far = far.connect().await.unwrap().counter("visits");
    assert_eq!(far.get().await.unwrap(), 0);

    proxy.lose_answers(true);
    let counting = {
        let far = far.clone();
        tokio::spawn(async move { far.increment(1).await })
    };
    until("the increment", || async { near.get().await.unwrap() == 1 }).await;
    proxy.cut();
    let lost = within("the outcome", counting).await.unwrap().unwrap_err();
    assert!(matches!(lost, Error::Unknown(_)), "{lost}");
    assert!(!lost.is_certainly_not_done());
    proxy.lose_answers(false);
    assert_eq!(far.get().await.unwrap(), 1);

    proxy.lose_answers(true);
    let sent = proxy.bytes();
    let reading = {
        let far = far.clone();
        tokio::spawn(async move { far.get().await })
    };
    until("the request", || async { proxy.bytes() > sent }).await;
    proxy.lose_answers(false);
    proxy.cut();
    assert_eq!(within("the read", reading).await.unwrap().unwrap(), 1);
    assert_eq!(near.get().await.unwrap(), 1);
    sidecar.stop().await;
}

#[tokio::test]
async fn a_deadline_ends_a_call_that_is_not_answered() {
    let sidecar = TestSidecar::start().await;
    let proxy = Proxy::to(sidecar.address).await;
    let far = sidecar.builder().address(proxy.address.to_string());
    let far = far.deadline(Duration::from_secs(1));
    let far = far.connect().await.unwrap();
    let visits = far.counter("visits");
    proxy.lose_answers(true);
    let began = Instant::now();
    let silent = visits.increment(1).await.unwrap_err();
    assert!(matches!(silent, Error::DeadlineExceeded(_)), "{silent}");
    assert!(!silent.is_certainly_not_done());
    let silent = far.topic::<u32>("news").subscribe().await.unwrap_err();
    assert!(matches!(silent, Error::DeadlineExceeded(_)), "{silent}");
    assert!(began.elapsed() < Duration::from_secs(10));
    proxy.cut();
    sidecar.stop().await;
}

#[tokio::test]
async fn a_call_waits_for_the_route_of_its_primitive_as_long_as_its_retries_last() {
    let sidecar = TestSidecar::start_at("127.0.0.1:0".parse().unwrap(), None).await;
    sidecar.connect_store("store-a").await;
    let brief = sidecar.builder().retry(RetryPolicy::default().attempts(3));
    let brief = brief.connect().await.unwrap().counter("visits");
    let refused = brief.increment(1).await.unwrap_err();
    assert!(matches!(refused, Error::Unavailable(_)), "{refused}");
    assert!(refused.to_string().contains("no route"), "{refused}");

    let client = sidecar.client().await;
    let waiting = {
        let visits = client.counter("visits");
        tokio::spawn(async move { visits.increment(1).await })
    };
    tokio::time::sleep(Duration::from_millis(50)).await;
    sidecar.program(vec![route("store-a", &[])]).await;
    assert_eq!(within("the count", waiting).await.unwrap().unwrap(), 1);
    sidecar.stop().await;
}

#[tokio::test]
async fn tags_find_a_store_and_are_told_again_to_a_sidecar_that_was_restarted() {
    let address = own_address();
    let folder = tempfile::tempdir().unwrap();
    let sidecar = TestSidecar::start_at(address, Some(folder.path())).await;
    for store in ["store-a", "store-b"] {
        sidecar.connect_store(store).await;
    }
    let routes = vec![route("store-a", &[]), route("store-b", &["fast"])];
    sidecar.program(routes).await;
    let client = sidecar.client().await;
    let visits = client.counter("visits");
    let ambiguous = visits.increment(1).await.unwrap_err();
    assert!(
        matches!(ambiguous, Error::FailedPrecondition(_)),
        "{ambiguous}"
    );
    let created = client.create(Kind::Counter, "visits", ["fast"]).await;
    let cache = CacheConfig {
        enabled: true,
        size: 0,
    };
    assert_eq!(created.unwrap().cache, Some(cache));
    assert_eq!(visits.increment(1).await.unwrap(), 1);
    let no_tags: [&str; 0] = [];
    let locks = client.create(Kind::Lock, "door", no_tags).await.unwrap();
    assert_eq!(locks.cache, None);
    client.create(Kind::Lock, "gate", ["fast"]).await.unwrap();
    sidecar.stop().await;

    let sidecar = TestSidecar::start_at(address, Some(folder.path())).await;
    // The memory store begins anew.
    assert_eq!(visits.get().await.unwrap(), 0);
    assert_eq!(visits.increment(1).await.unwrap(), 1);
    let guard = client.lock("gate").lock().await.unwrap();
    guard.unlock().await.unwrap();
    client.close(Kind::Counter, "visits").await.unwrap();
    let closed = visits.increment(1).await.unwrap_err();
    assert!(matches!(closed, Error::FailedPrecondition(_)), "{closed}");
    sidecar.stop().await;
}

#[tokio::test]
async fn a_client_waits_for_its_sidecar_and_says_when_there_is_none() {
    let address = own_address();
    let nobody = Client::builder().address(address.to_string());
    let nobody = nobody.deadline(Duration::from_millis(100));
    let refused = nobody.connect().await.unwrap_err();
    assert!(matches!(refused, Error::Unavailable(_)), "{refused}");
    assert!(refused.to_string().contains("5678"), "{refused}");
    let patient = tokio::spawn(
        Client::builder()
            .address(format!("http://{address}/"))
            .connect(),
    );
    let sidecar = TestSidecar::start_at(address, None).await;
    within("the client", patient).await.unwrap().unwrap();
    let no_address = Client::builder().address("no address").connect().await;
    assert!(matches!(no_address, Err(Error::InvalidArgument(_))));
    sidecar.stop().await;
}
