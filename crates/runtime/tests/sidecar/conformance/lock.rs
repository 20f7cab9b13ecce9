use atomix_proto::runtime::lock::v1::lock_client::LockClient;
use atomix_proto::runtime::lock::v1::locks_client::LocksClient;
use atomix_proto::runtime::lock::v1::{CloseRequest, GetLockRequest, LockRequest, UnlockRequest};
use tonic::{Code, Request};

use super::{Suite, assert_invalid, code, millis, negative};
use crate::harness::{id, until};

const NAME: &str = "door";

fn lock(timeout: Option<prost_types::Duration>) -> LockRequest {
    LockRequest {
        id: id(NAME),
        timeout,
    }
}

pub async fn run(suite: &Suite<'_>) {
    let mut ann = LockClient::new(suite.sidecar.application().await);
    let mut bob = LockClient::new(suite.sidecar.application().await);
    let get = || GetLockRequest { id: id(NAME) };
    let unlock = || UnlockRequest { id: id(NAME) };
    assert_eq!(code(ann.get_lock(get()).await), Code::NotFound);
    assert_invalid(ann.lock(lock(negative())).await, "timeout");
    let first = ann.lock(lock(None)).await.unwrap().into_inner().version;
    assert_eq!(
        ann.get_lock(get()).await.unwrap().into_inner().version,
        first
    );
    // Not re-entrant, and another connection is another owner.
    for client in [&mut ann, &mut bob] {
        assert_eq!(code(client.lock(lock(millis(0))).await), Code::Aborted);
        assert_eq!(code(client.lock(lock(millis(50))).await), Code::Aborted);
    }
    assert_eq!(code(bob.unlock(unlock()).await), Code::Aborted);
    // A caller's deadline takes it out of the line.
    let mut impatient = Request::new(lock(None));
    impatient
        .metadata_mut()
        .insert("grpc-timeout", "200m".parse().unwrap());
    assert_eq!(code(bob.lock(impatient).await), Code::DeadlineExceeded);

    let waiting = {
        let mut bob = bob.clone();
        tokio::spawn(async move { bob.lock(lock(None)).await })
    };
    ann.unlock(unlock()).await.unwrap();
    let second = waiting.await.unwrap().unwrap().into_inner().version;
    assert!(second > first);
    // Closing an earlier holder's session freed the present holder's lock.
    drop(ann);
    let mut ann = LockClient::new(suite.sidecar.application().await);
    assert_eq!(code(ann.lock(lock(millis(200))).await), Code::Aborted);
    assert_eq!(
        ann.get_lock(get()).await.unwrap().into_inner().version,
        second
    );
    drop(bob);
    until("the lock of a closed connection", || {
        let mut ann = ann.clone();
        async move { ann.lock(lock(millis(0))).await.is_ok() }
    })
    .await;
    assert!(ann.get_lock(get()).await.unwrap().into_inner().version > second);
    ann.unlock(unlock()).await.unwrap();
    assert_eq!(code(ann.unlock(unlock()).await), Code::Aborted);
    closing_gives_up_this_lock_and_no_other(suite).await;
}

async fn closing_gives_up_this_lock_and_no_other(suite: &Suite<'_>) {
    let mut ann = LockClient::new(suite.sidecar.application().await);
    let mut locks = LocksClient::new(suite.sidecar.application().await);
    let mut bob = LockClient::new(suite.sidecar.application().await);
    let at_once = |name: &str| LockRequest {
        id: id(name),
        timeout: millis(0),
    };
    let close = || CloseRequest { id: id(NAME) };
    for name in [NAME, "gate"] {
        ann.lock(at_once(name)).await.unwrap();
    }
    // Another connection's use, which owns nothing.
    locks.close(close()).await.unwrap();
    assert_eq!(code(bob.lock(at_once(NAME)).await), Code::Aborted);
    #[allow(deprecated, reason = "existing clients call it")]
    ann.close(close()).await.unwrap();
    bob.lock(at_once(NAME)).await.unwrap();
    assert_eq!(code(bob.lock(at_once("gate")).await), Code::Aborted);
    // It may be opened again.
    assert_eq!(code(ann.lock(at_once(NAME)).await), Code::Aborted);
}
