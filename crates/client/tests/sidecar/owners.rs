//! Locks and candidacies: who has them, and when they are given up.

use std::time::Duration;

use atomix_client::{Error, Kind, Term};

use crate::harness::{TestSidecar, next, until, within};
use crate::proxy::Proxy;

const SOON: Duration = Duration::from_millis(50);

#[tokio::test]
async fn two_clients_take_turns_with_a_lock_and_each_turn_has_a_higher_version() {
    let sidecar = TestSidecar::start().await;
    let ann = sidecar.client().await.lock("door");
    let bob = sidecar.client().await.lock("door");
    assert_eq!(ann.version().await.unwrap(), None);
    let first = ann.lock().await.unwrap();
    assert_eq!(bob.version().await.unwrap(), Some(first.version()));
    assert!(first.is_held().await.unwrap());
    assert!(bob.try_lock().await.unwrap().is_none());
    assert!(bob.lock_within(SOON).await.unwrap().is_none());
    // Also for the client that holds it.
    assert!(ann.try_lock().await.unwrap().is_none());

    let waiting = {
        let bob = bob.clone();
        tokio::spawn(async move { bob.lock().await })
    };
    let version = first.version();
    first.unlock().await.unwrap();
    let second = within("the lock", waiting).await.unwrap().unwrap();
    assert!(second.version() > version);
    assert!(!second.is_lost());
    drop(second);
    let third = within("the dropped lock", ann.lock()).await.unwrap();
    assert!(third.version() > version);
    third.unlock().await.unwrap();
    assert_eq!(bob.version().await.unwrap(), None);
    sidecar.stop().await;
}

#[tokio::test]
async fn whoever_stops_waiting_for_a_lock_neither_keeps_its_place_nor_gets_it() {
    let sidecar = TestSidecar::start().await;
    let client = sidecar.client().await;
    let lock = client.lock("door");
    let held = lock.lock().await.unwrap();
    for _ in 0..20 {
        let waiting = tokio::time::timeout(Duration::from_millis(2), lock.lock());
        assert!(waiting.await.is_err());
    }
    held.unlock().await.unwrap();
    let next = within("the lock", lock.lock()).await.unwrap();
    assert!(next.is_held().await.unwrap());
    next.unlock().await.unwrap();
    // What guards use is used by them alone.
    let guard = lock.lock().await.unwrap();
    client.close(Kind::Lock, "door").await.unwrap();
    drop(client);
    assert!(guard.is_held().await.unwrap());
    sidecar.stop().await;
}

#[tokio::test]
async fn a_lock_is_lost_with_its_connection_and_the_guard_tells() {
    let sidecar = TestSidecar::start().await;
    let proxy = Proxy::to(sidecar.address).await;
    let far = sidecar.builder().address(proxy.address.to_string());
    let far = far.connect().await.unwrap().lock("door");
    let near = sidecar.client().await.lock("door");
    let guard = far.lock().await.unwrap();
    assert!(near.try_lock().await.unwrap().is_none());
    proxy.cut();
    within("the loss", guard.lost()).await;
    assert!(guard.is_lost());
    let taken = within("the lock", near.lock()).await.unwrap();
    assert!(taken.version() > guard.version());
    assert!(!guard.is_held().await.unwrap());
    let late = guard.unlock().await.unwrap_err();
    assert!(matches!(late, Error::Unavailable(_)), "{late}");
    assert!(taken.is_held().await.unwrap());
    sidecar.stop().await;
}

#[tokio::test]
async fn locks_of_keys_keep_out_locks_of_the_same_keys_only() {
    let sidecar = TestSidecar::start().await;
    let client = sidecar.client().await;
    let table = client.map::<String, u32>("table");
    let held = table.lock(["a", "b"]).await.unwrap();
    assert!(!held.is_lost());
    let busy = table.lock_within(["b", "c"], SOON).await.unwrap();
    assert!(busy.is_none());
    let free = table.lock_within(["c"], Duration::ZERO).await.unwrap();
    free.unwrap().unlock().await.unwrap();
    table.put("a", &1).await.unwrap();
    held.unlock().await.unwrap();
    let dropped = table.lock(["b", "c"]).await.unwrap();
    drop(dropped);
    let again = within("the dropped locks", table.lock(["c"])).await;
    again.unwrap().unlock().await.unwrap();
    let no_keys: [&str; 0] = [];
    let nothing = table.lock(no_keys).await.unwrap_err();
    assert!(matches!(nothing, Error::InvalidArgument(_)), "{nothing}");

    let counts = client.counter_map::<u64>("table");
    let held = counts.lock(&[1, 2]).await.unwrap();
    let busy = counts.lock_within(&[2], Duration::ZERO).await.unwrap();
    assert!(busy.is_none());
    held.unlock().await.unwrap();
    let free = counts.lock_within(&[2], Duration::ZERO).await.unwrap();
    free.unwrap().unlock().await.unwrap();
    sidecar.stop().await;
}

fn line(term: &Term) -> Vec<&str> {
    let leader = term.leader.iter();
    leader.chain(&term.candidates).map(String::as_str).collect()
}

#[tokio::test]
async fn the_next_candidate_leads_when_the_leaders_connection_ends() {
    let sidecar = TestSidecar::start().await;
    let proxy = Proxy::to(sidecar.address).await;
    let far = sidecar.builder().address(proxy.address.to_string());
    let far = far.connect().await.unwrap().election("chair");
    let near = sidecar.client().await.election("chair");
    let mut watch = near.watch().await.unwrap();
    assert_eq!(next(&mut watch).await.leader, None);
    let ann = far.enter("ann").await.unwrap();
    assert_eq!(ann.candidate(), "ann");
    assert_eq!(line(ann.entered()), ["ann"]);
    let bob = near.enter("bob").await.unwrap();
    let eve = near.enter("eve").await.unwrap();
    assert_eq!(bob.entered().candidates, ["bob"]);
    for expected in [&["ann"][..], &["ann", "bob"], &["ann", "bob", "eve"]] {
        assert_eq!(line(&next(&mut watch).await), expected);
    }
    let first = near.term().await.unwrap();
    proxy.cut();
    within("the loss", ann.lost()).await;
    let second = next(&mut watch).await;
    assert_eq!(line(&second), ["bob", "eve"]);
    assert!(second.term > first.term);
    drop(bob);
    let third = next(&mut watch).await;
    assert_eq!(line(&third), ["eve"]);
    assert!(third.term > second.term);
    let last = eve.withdraw().await.unwrap();
    assert_eq!(last.leader, None);
    assert!(last.term > third.term);
    // Whoever leads after nobody did goes on from there.
    let fourth = near.enter("zoe").await.unwrap();
    assert!(fourth.entered().term > last.term);
    sidecar.stop().await;
}

#[tokio::test]
async fn a_line_of_candidates_can_be_changed_by_anybody() {
    let sidecar = TestSidecar::start().await;
    let election = sidecar.client().await.election("chair");
    let mut candidacies = Vec::new();
    for name in ["ann", "bob", "eve"] {
        candidacies.push(election.enter(name).await.unwrap());
    }
    let promoted = election.promote("eve").await.unwrap();
    assert_eq!(line(&promoted), ["ann", "eve", "bob"]);
    let anointed = election.anoint("bob").await.unwrap();
    assert_eq!(line(&anointed), ["bob", "ann", "eve"]);
    let demoted = election.demote("bob").await.unwrap();
    assert_eq!(line(&demoted), ["ann", "eve", "bob"]);
    assert!(demoted.term > anointed.term && anointed.term > promoted.term);
    let evicted = election.evict("eve").await.unwrap();
    assert_eq!(line(&evicted), ["ann", "bob"]);
    let nobody = election.enter("").await.unwrap_err();
    assert!(matches!(nobody, Error::InvalidArgument(_)), "{nobody}");
    drop(candidacies);
    until("the line to be empty", || async {
        election.term().await.unwrap().leader.is_none()
    })
    .await;
    sidecar.stop().await;
}
