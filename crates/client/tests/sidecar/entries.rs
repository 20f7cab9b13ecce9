//! Values, maps and indexed maps: versions, times to live, changes.

use std::time::Duration;

use atomix_client::{Change, Committed, Error, Place, Raw, Update, WriteOptions};
use serde::{Deserialize, Serialize};

use crate::harness::{TestSidecar, all, next};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct User {
    name: String,
    age: u32,
}

fn user(name: &str, age: u32) -> User {
    User {
        name: name.to_owned(),
        age,
    }
}

fn briefly() -> WriteOptions {
    WriteOptions::default().ttl(Duration::from_millis(100))
}

fn if_version(version: u64) -> WriteOptions {
    WriteOptions::default().if_version(version)
}

#[tokio::test]
async fn a_value_is_written_only_on_the_version_that_was_seen_and_watched() {
    let sidecar = TestSidecar::start().await;
    let owner = sidecar.client().await.value::<User>("owner");
    let mut watch = owner.watch().await.unwrap();
    let mut events = owner.events().await.unwrap();
    assert_eq!(owner.get().await.unwrap(), None);
    assert_eq!(next(&mut watch).await, None);
    let missing = owner.update(&user("ann", 1)).await.unwrap_err();
    assert!(matches!(missing, Error::NotFound(_)), "{missing}");

    let first = owner.insert(&user("ann", 1)).await.unwrap();
    let exists = owner.insert(&user("bob", 1)).await.unwrap_err();
    assert!(matches!(exists, Error::AlreadyExists(_)), "{exists}");
    let second = owner
        .update_with(&user("ann", 2), if_version(first))
        .await
        .unwrap();
    assert!(second > first);
    let stale = owner.set_with(&user("bob", 3), if_version(first)).await;
    assert!(matches!(stale, Err(Error::Conflict(_))), "{stale:?}");
    let zero = owner.set_with(&user("bob", 3), if_version(0)).await;
    assert!(matches!(zero, Err(Error::InvalidArgument(_))), "{zero:?}");
    let seen = owner.get().await.unwrap().unwrap();
    assert_eq!((seen.value, seen.version), (user("ann", 2), second));
    let stale = owner.delete_version(first).await;
    assert!(matches!(stale, Err(Error::Conflict(_))), "{stale:?}");
    owner.delete_version(second).await.unwrap();
    owner.set_with(&user("eve", 4), briefly()).await.unwrap();

    for expected in [Some(1), Some(2), None, Some(4), None] {
        let told = next(&mut watch).await;
        assert_eq!(told.map(|told| told.value.age), expected);
    }
    let mut seen = Vec::new();
    for _ in 0..5 {
        seen.push(match next(&mut events).await {
            Change::Inserted(new) => format!("inserted {}", new.value.age),
            Change::Updated { value, previous } => {
                format!("updated {} to {}", previous.value.age, value.value.age)
            }
            Change::Removed { value, expired } => {
                format!("removed {} {expired}", value.value.age)
            }
        });
    }
    let expected = [
        "inserted 1",
        "updated 1 to 2",
        "removed 2 false",
        "inserted 4",
        "removed 4 true",
    ];
    assert_eq!(seen, expected);

    // Programs in other languages find plain JSON, and plain text where both agree on it.
    let raw = sidecar.client().await.value::<String>("owner");
    owner.set(&user("ann", 7)).await.unwrap();
    let raw = raw.with_codec(Raw);
    let json = raw.get().await.unwrap().unwrap().value;
    assert_eq!(json, r#"{"name":"ann","age":7}"#);
    raw.set(&"no JSON".to_owned()).await.unwrap();
    let foreign = owner.get().await.unwrap_err();
    assert!(matches!(foreign, Error::Decode(_)), "{foreign}");
    sidecar.stop().await;
}

#[tokio::test]
async fn a_map_changes_by_key_and_version_and_tells_of_it() {
    let sidecar = TestSidecar::start().await;
    let users = sidecar.client().await.map::<String, User>("users");
    let mut events = users.events().await.unwrap();
    let mut of_bob = users.events_of("bob").await.unwrap();
    assert_eq!(users.get("ann").await.unwrap(), None);
    let first = users.put("ann", &user("Ann", 1)).await.unwrap();
    assert_eq!(first.previous, None);
    let second = users
        .put_with("ann", &user("Ann", 2), if_version(first.version))
        .await
        .unwrap();
    assert_eq!(second.previous.unwrap().value.age, 1);
    let stale = users
        .put_with("ann", &user("Ann", 3), if_version(first.version))
        .await;
    assert!(matches!(stale, Err(Error::Conflict(_))), "{stale:?}");
    let exists = users.insert("ann", &user("Ann", 4)).await;
    assert!(matches!(exists, Err(Error::AlreadyExists(_))), "{exists:?}");
    let missing = users.update("bob", &user("Bob", 1)).await;
    assert!(matches!(missing, Err(Error::NotFound(_))), "{missing:?}");
    let missing = users.remove("eve").await;
    assert!(matches!(missing, Err(Error::NotFound(_))), "{missing:?}");
    let stale = users.remove_version("ann", first.version).await;
    assert!(matches!(stale, Err(Error::Conflict(_))), "{stale:?}");

    let mut watch = users.watch().await.unwrap();
    let brief = users.insert_with("bob", &user("Bob", 5), briefly()).await;
    assert!(brief.unwrap() > second.version);
    for expected in ["ann", "bob"] {
        match next(&mut watch).await {
            Update::Present(entry) => assert_eq!(entry.key, expected),
            Update::Removed(entry) => panic!("{entry:?}"),
        }
    }
    match next(&mut watch).await {
        Update::Removed(expired) => assert_eq!(expired.key, "bob"),
        Update::Present(entry) => panic!("{entry:?}"),
    }
    let inserted = next(&mut of_bob).await.change;
    assert!(matches!(inserted, Change::Inserted(_)), "{inserted:?}");
    let expired = next(&mut of_bob).await.change;
    assert!(matches!(expired, Change::Removed { expired: true, .. }));
    let keys = ["ann", "ann", "bob", "bob"];
    for key in keys {
        assert_eq!(next(&mut events).await.key, key);
    }
    let removed = users.remove_version("ann", second.version).await.unwrap();
    assert_eq!(removed.value, user("Ann", 2));
    assert_eq!(users.size().await.unwrap(), 0);
    sidecar.stop().await;
}

#[tokio::test]
async fn a_commit_makes_all_its_changes_or_none() {
    let sidecar = TestSidecar::start().await;
    let stock = sidecar.client().await.map::<String, u32>("stock");
    let apples = stock.put("apples", &3).await.unwrap();
    stock.put("plums", &1).await.unwrap();
    let commit = stock.commit().put("pears", &1).unwrap();
    let commit = commit.insert("apples", &9).unwrap();
    let refused = commit.send().await.unwrap_err();
    assert!(matches!(refused, Error::AlreadyExists(_)), "{refused}");
    assert!(refused.to_string().contains("operations[1]"), "{refused}");
    assert_eq!(stock.get("pears").await.unwrap(), None);

    let commit = stock.commit().put("pears", &1).unwrap();
    let commit = commit
        .update_with("apples", &2, if_version(apples.version))
        .unwrap();
    let commit = commit.insert("figs", &5).unwrap();
    let commit = commit.remove("plums").unwrap();
    let done = commit.send().await.unwrap();
    let mut done = done.into_iter();
    let Some(Committed::Put(put)) = done.next() else {
        panic!("a put");
    };
    assert_eq!(put.previous, None);
    let Some(Committed::Updated(updated)) = done.next() else {
        panic!("an update");
    };
    assert_eq!(updated.previous.unwrap().value, 3);
    let Some(Committed::Inserted(version)) = done.next() else {
        panic!("an insert");
    };
    assert_eq!(stock.get("figs").await.unwrap().unwrap().version, version);
    let Some(Committed::Removed(removed)) = done.next() else {
        panic!("a removal");
    };
    assert_eq!(removed.value, 1);
    let mut entries = all(stock.entries().await.unwrap()).await;
    entries.sort_by(|one, other| one.key.cmp(&other.key));
    let entries: Vec<_> = entries
        .iter()
        .map(|entry| (&*entry.key, entry.value.value))
        .collect();
    assert_eq!(entries, [("apples", 2), ("figs", 5), ("pears", 1)]);
    stock.clear().await.unwrap();
    assert_eq!(stock.size().await.unwrap(), 0);
    sidecar.stop().await;
}

#[tokio::test]
async fn an_indexed_map_keeps_the_order_of_arrival() {
    let sidecar = TestSidecar::start().await;
    let queue = sidecar.client().await.indexed_map::<String, u32>("queue");
    let mut events = queue.events().await.unwrap();
    let mut of_b = queue.events_of("b").await.unwrap();
    assert_eq!(queue.first().await.unwrap(), None);
    let a = queue.append("a", &1).await.unwrap();
    let b = queue.append("b", &2).await.unwrap();
    assert!(a.index < b.index);
    let exists = queue.append("a", &9).await;
    assert!(matches!(exists, Err(Error::AlreadyExists(_))), "{exists:?}");
    let nameless = queue.append("", &9).await;
    assert!(matches!(nameless, Err(Error::InvalidArgument(_))));
    let zero = queue.get::<str>(Place::Index(0)).await;
    assert!(matches!(zero, Err(Error::InvalidArgument(_))), "{zero:?}");

    assert_eq!(queue.first().await.unwrap().unwrap(), a);
    assert_eq!(queue.after(a.index).await.unwrap().unwrap(), b);
    assert_eq!(queue.before(b.index).await.unwrap().unwrap(), a);
    assert_eq!(queue.get(Place::Key("b")).await.unwrap().unwrap(), b);
    let at = queue.get::<str>(Place::Index(b.index)).await.unwrap();
    assert_eq!(at.unwrap(), b);
    let misfit = queue.get(Place::Both(a.index, "b")).await.unwrap();
    assert_eq!(misfit, None);
    let updated = queue
        .update_with(Place::Key("b"), &20, if_version(b.value.version))
        .await
        .unwrap();
    assert_eq!(updated.index, b.index);
    let stale = queue.remove_version(Place::Key("b"), b.value.version).await;
    assert!(matches!(stale, Err(Error::Conflict(_))), "{stale:?}");

    // The last one expires.
    let mut watch = queue.watch().await.unwrap();
    let c = queue.append_with("c", &3, briefly()).await.unwrap();
    assert!(b.index < c.index);
    for expected in ["a", "b", "c"] {
        let Update::Present(entry) = next(&mut watch).await else {
            panic!("{expected} is there");
        };
        assert_eq!(entry.key, expected);
    }
    let Update::Removed(expired) = next(&mut watch).await else {
        panic!("c expires");
    };
    assert_eq!(expired.index, c.index);
    assert_eq!(queue.last().await.unwrap().unwrap(), updated);
    queue.remove::<str>(Place::Index(a.index)).await.unwrap();
    let update = queue.update(Place::Key("a"), &5).await;
    assert!(matches!(update, Err(Error::NotFound(_))), "{update:?}");
    let listed = all(queue.entries().await.unwrap()).await;
    assert_eq!(listed, [updated]);
    assert_eq!(queue.size().await.unwrap(), 1);
    let told = next(&mut of_b).await;
    assert_eq!((told.index, told.key), (b.index, "b".to_owned()));
    assert!(matches!(
        next(&mut of_b).await.change,
        Change::Updated { .. }
    ));
    for key in ["a", "b", "b", "c", "c", "a"] {
        assert_eq!(next(&mut events).await.key, key);
    }
    queue.clear().await.unwrap();
    let d = queue.append("d", &4).await.unwrap();
    assert!(d.index > c.index);
    sidecar.stop().await;
}
