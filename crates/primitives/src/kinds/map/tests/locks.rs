//! Locks of keys.

use std::time::Duration;

use atomix_proto::runtime::map::v1::*;

use super::{fixture, get, put};
use crate::kinds::keyed::testing::{Fixture, seconds};
use crate::{ErrorCode, Outcome};

fn lock_request(keys: &[&str]) -> LockRequest {
    LockRequest {
        keys: keys.iter().map(|key| (*key).to_owned()).collect(),
        ..LockRequest::default()
    }
}

/// Takes keys that are free.
fn lock(map: &mut Fixture, owner: u64, keys: &[&str]) -> u64 {
    let (sequence, outcome) = map.start(owner, "Lock", &lock_request(keys));
    assert_eq!(outcome, Outcome::Reply(Ok(bytes::Bytes::new())));
    sequence
}

/// Queues for keys.
fn wait(map: &mut Fixture, owner: u64, keys: &[&str]) -> u64 {
    let (sequence, outcome) = map.start(owner, "Lock", &lock_request(keys));
    assert_eq!(outcome, Outcome::Pending);
    sequence
}

fn unlock(map: &mut Fixture, owner: u64, keys: &[&str]) -> Result<UnlockResponse, ErrorCode> {
    let keys = keys.iter().map(|key| (*key).to_owned()).collect();
    map.run_for(owner, "Unlock", &UnlockRequest { id: None, keys })
}

#[test]
fn keys_are_locked_together_and_in_the_order_of_arrival() {
    let mut map = fixture();
    lock(&mut map, 1, &["a", "b", "a"]);
    let both = wait(&mut map, 2, &["b", "c"]);
    // It comes after one that waits for the same key, so it may not overtake.
    let after = wait(&mut map, 3, &["c"]);
    lock(&mut map, 3, &["d"]);
    // Not re-entrant: its own owner waits too.
    let again = wait(&mut map, 1, &["a"]);
    map.restore();
    unlock(&mut map, 1, &["b"]).unwrap();
    assert_eq!(map.completed(both), Some(Ok(())));
    assert_eq!(map.completed(after), None);
    assert_eq!(unlock(&mut map, 1, &["b"]), Err(ErrorCode::Aborted));
    unlock(&mut map, 2, &["c", "b"]).unwrap();
    assert_eq!(map.completed(after), Some(Ok(())));
    unlock(&mut map, 1, &["a"]).unwrap();
    assert_eq!(map.completed(again), Some(Ok(())));
    unlock(&mut map, 1, &["a"]).unwrap();
    unlock(&mut map, 3, &["c", "d"]).unwrap();
    assert!(!map.exists());
}

#[test]
fn nobody_overtakes_by_a_key_that_is_free_but_wanted() {
    let mut map = fixture();
    lock(&mut map, 1, &["a"]);
    lock(&mut map, 2, &["c"]);
    // `b` is free, and the one that came first waits for it together with `c`.
    let first = wait(&mut map, 3, &["b", "c"]);
    let second = wait(&mut map, 4, &["a", "b"]);
    unlock(&mut map, 1, &["a"]).unwrap();
    assert_eq!(map.completed(second), None);
    unlock(&mut map, 2, &["c"]).unwrap();
    assert_eq!(map.completed(first), Some(Ok(())));
    assert_eq!(map.completed(second), None);
    unlock(&mut map, 3, &["c", "b"]).unwrap();
    assert_eq!(map.completed(second), Some(Ok(())));
}

/// With a look at all keys for each of them it would take minutes, on every replica.
#[test]
fn whoever_waits_for_many_keys_is_looked_at_once() {
    let mut map = fixture();
    let names: Vec<String> = (0..20_000).map(|number| format!("k{number:05}")).collect();
    let mut keys: Vec<&str> = names.iter().map(String::as_str).collect();
    lock(&mut map, 1, &keys);
    lock(&mut map, 2, &["z"]);
    keys.push("z");
    let waiting = wait(&mut map, 3, &keys);
    keys.pop();
    unlock(&mut map, 1, &keys).unwrap();
    assert_eq!(map.completed(waiting), None);
    unlock(&mut map, 2, &["z"]).unwrap();
    assert_eq!(map.completed(waiting), Some(Ok(())));
}

#[test]
fn locks_exclude_other_locks_and_nothing_else() {
    let mut map = fixture();
    lock(&mut map, 1, &["k"]);
    put(&mut map, "k", "v");
    assert_eq!(get(&map, "k").unwrap().value, "v");
    map.run::<ClearResponse>("Clear", &ClearRequest { id: None })
        .unwrap();
    assert!(map.exists(), "the lock is still there");
    unlock(&mut map, 1, &["k"]).unwrap();
    assert!(!map.exists());
}

#[test]
fn unlocking_what_one_does_not_hold_is_a_conflict_and_changes_nothing() {
    let mut map = fixture();
    lock(&mut map, 1, &["a", "b"]);
    lock(&mut map, 2, &["c"]);
    for (owner, keys) in [
        (1, &["a", "c"][..]),
        (2, &["a"]),
        (1, &["free"]),
        (0, &["a"]),
    ] {
        assert_eq!(unlock(&mut map, owner, keys), Err(ErrorCode::Aborted));
    }
    unlock(&mut map, 1, &["a", "b"]).unwrap();
    unlock(&mut map, 2, &["c"]).unwrap();
    let nobody = map.run_for::<LockResponse>(0, "Lock", &lock_request(&["a"]));
    assert_eq!(nobody, Err(ErrorCode::InvalidArgument));
}

#[test]
fn a_lock_tries_waits_for_its_time_out_or_until_it_is_cancelled() {
    let mut map = fixture();
    lock(&mut map, 1, &["a"]);
    let within = |keys: &[&str], timeout| LockRequest {
        timeout: Some(timeout),
        ..lock_request(keys)
    };
    let tried = map.run_for::<LockResponse>(2, "Lock", &within(&["a"], seconds(0)));
    assert_eq!(tried, Err(ErrorCode::Aborted));
    let (timed, outcome) = map.start(2, "Lock", &within(&["a", "b"], seconds(5)));
    assert_eq!(outcome, Outcome::Pending);
    // `b` is free, but one that came earlier wants it.
    let behind = wait(&mut map, 3, &["b"]);
    let cancelled = wait(&mut map, 4, &["a", "c"]);
    let last = wait(&mut map, 5, &["c"]);
    map.tick(Duration::from_secs(4));
    map.restore();
    assert_eq!(map.completed(timed), None);
    map.tick(Duration::from_secs(1));
    assert_eq!(map.completed(timed), Some(Err(ErrorCode::Aborted)));
    assert_eq!(map.completed(behind), Some(Ok(())));
    map.cancel(cancelled);
    assert_eq!(map.completed(last), Some(Ok(())));
    assert_eq!(map.machine.next_timer(), None);
}

#[test]
fn a_cancel_that_races_a_grant_gives_the_keys_back() {
    let mut map = fixture();
    let first = lock(&mut map, 1, &["a", "b"]);
    let next = wait(&mut map, 2, &["a"]);
    map.cancel(first);
    assert_eq!(map.completed(next), Some(Ok(())));
    lock(&mut map, 3, &["b"]);
}

/// Defect of the original: closing an earlier holder's session freed the present holder's lock.
#[test]
fn the_end_of_an_earlier_holder_leaves_the_present_holder_its_keys() {
    let mut map = fixture();
    let earlier = map.session;
    lock(&mut map, 1, &["k"]);
    unlock(&mut map, 1, &["k"]).unwrap();
    map.session = map.open();
    lock(&mut map, 1, &["k"]);
    map.close(earlier);
    let refused = map.run_for::<LockResponse>(
        2,
        "Lock",
        &LockRequest {
            timeout: Some(seconds(0)),
            ..lock_request(&["k"])
        },
    );
    assert_eq!(refused, Err(ErrorCode::Aborted));
    unlock(&mut map, 1, &["k"]).unwrap();
}

/// Defect of the original: two clients in one pod counted as one lock owner.
#[test]
fn two_connections_of_one_session_are_two_owners() {
    let mut map = fixture();
    lock(&mut map, 1, &["a"]);
    lock(&mut map, 2, &["b"]);
    let third = wait(&mut map, 3, &["a", "b"]);
    let gone = wait(&mut map, 1, &["b"]);
    map.release(1);
    assert_eq!(map.completed(gone), Some(Err(ErrorCode::Cancelled)));
    assert_eq!(map.completed(third), None);
    assert_eq!(unlock(&mut map, 3, &["b"]), Err(ErrorCode::Aborted));
    map.release(2);
    assert_eq!(map.completed(third), Some(Ok(())));
}

/// Defect of the original: a dead client left its locks behind.
#[test]
fn the_end_of_a_session_frees_all_its_keys_for_those_who_wait() {
    let mut map = fixture();
    let ended = map.session;
    lock(&mut map, 1, &["a", "b"]);
    lock(&mut map, 2, &["c"]);
    wait(&mut map, 3, &["a"]);
    map.session = map.open();
    let all = wait(&mut map, 1, &["a", "b", "c"]);
    map.close(ended);
    assert_eq!(map.completed(all), Some(Ok(())));
    let own = map.session;
    map.close(own);
    assert!(!map.exists());
}
