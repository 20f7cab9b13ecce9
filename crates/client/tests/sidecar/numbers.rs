//! Counters and counter maps.

use atomix_client::{Change, Entry, Error, Event, Update};

use crate::harness::{TestSidecar, all, next};

#[tokio::test]
async fn a_counter_counts_compares_and_does_not_overflow() {
    let sidecar = TestSidecar::start().await;
    let visits = sidecar.client().await.counter("visits");
    assert_eq!(visits.get().await.unwrap(), 0);
    assert_eq!(visits.increment(5).await.unwrap(), 5);
    assert_eq!(visits.decrement(2).await.unwrap(), 3);
    // Another client, the same counter.
    let other = sidecar.client().await.counter("visits");
    assert_eq!(other.compare_and_set(3, 10).await.unwrap(), 10);
    let refused = visits.compare_and_set(3, 11).await.unwrap_err();
    assert!(matches!(refused, Error::Conflict(_)), "{refused}");
    assert!(refused.is_certainly_not_done());
    assert!(refused.to_string().contains("is 10"), "{refused}");
    assert_eq!(visits.set(i64::MAX).await.unwrap(), i64::MAX);
    let overflow = visits.increment(1).await.unwrap_err();
    assert!(matches!(overflow, Error::OutOfRange(_)), "{overflow}");
    assert_eq!(other.get().await.unwrap(), i64::MAX);
    let nameless = sidecar.client().await.counter("").get().await.unwrap_err();
    assert!(matches!(nameless, Error::InvalidArgument(_)), "{nameless}");
    sidecar.stop().await;
}

#[tokio::test]
async fn a_counter_map_counts_by_key_and_tells_of_it() {
    let sidecar = TestSidecar::start().await;
    let votes = sidecar.client().await.counter_map::<u32>("votes");
    let mut events = votes.events().await.unwrap();
    let mut of_seven = votes.events_of(&7).await.unwrap();
    assert_eq!(votes.get(&7).await.unwrap(), None);
    assert_eq!(votes.increment(&7, 2).await.unwrap(), 0);
    assert_eq!(votes.decrement(&7, 1).await.unwrap(), 2);
    assert_eq!(votes.set(&8, 4).await.unwrap(), 0);
    votes.insert(&9, 0).await.unwrap();
    let exists = votes.insert(&9, 1).await.unwrap_err();
    assert!(matches!(exists, Error::AlreadyExists(_)), "{exists}");
    votes.compare_and_set(&9, 0, 6).await.unwrap();
    let stale = votes.compare_and_set(&9, 0, 7).await.unwrap_err();
    assert!(matches!(stale, Error::Conflict(_)), "{stale}");
    let missing = votes.compare_and_set(&10, 0, 7).await.unwrap_err();
    assert!(matches!(missing, Error::NotFound(_)), "{missing}");
    assert_eq!(votes.get(&9).await.unwrap(), Some(6));
    assert_eq!(votes.size().await.unwrap(), 3);

    let mut listed = all(votes.entries().await.unwrap()).await;
    listed.sort_by_key(|entry| entry.key);
    let entry = |key, value| Entry { key, value };
    assert_eq!(listed, [entry(7, 1), entry(8, 4), entry(9, 6)]);
    let stale = votes.remove(&8, 5).await.unwrap_err();
    assert!(matches!(stale, Error::Conflict(_)), "{stale}");
    let mut watch = votes.watch().await.unwrap();
    for _ in 0..3 {
        assert!(matches!(next(&mut watch).await, Update::Present(_)));
    }
    votes.remove(&8, 4).await.unwrap();
    assert_eq!(next(&mut watch).await, Update::Removed(entry(8, 4)));

    let event = |key, change| Event { key, change };
    let of_key = [
        event(7, Change::Inserted(2)),
        event(
            7,
            Change::Updated {
                value: 1,
                previous: 2,
            },
        ),
    ];
    for expected in of_key {
        assert_eq!(next(&mut of_seven).await, expected);
    }
    let removed = Change::Removed {
        value: 4,
        expired: false,
    };
    let updated = Change::Updated {
        value: 6,
        previous: 0,
    };
    let all_keys = [
        of_key[0],
        of_key[1],
        event(8, Change::Inserted(4)),
        event(9, Change::Inserted(0)),
        event(9, updated),
        event(8, removed),
    ];
    for expected in all_keys {
        assert_eq!(next(&mut events).await, expected);
    }
    votes.clear().await.unwrap();
    assert_eq!(votes.size().await.unwrap(), 0);
    sidecar.stop().await;
}
