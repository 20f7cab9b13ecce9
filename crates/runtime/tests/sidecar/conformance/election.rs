use atomix_proto::runtime::election::v1::leader_election_client::LeaderElectionClient;
use atomix_proto::runtime::election::v1::{
    AnointRequest, CloseRequest, DemoteRequest, EnterRequest, EvictRequest, GetTermRequest,
    PromoteRequest, Term, WatchRequest, WithdrawRequest,
};
use tonic::Streaming;
use tonic::transport::Channel;

use super::{Suite, assert_invalid, next};
use crate::harness::id;

const NAME: &str = "chair";

async fn enter(client: &mut LeaderElectionClient<Channel>, candidate: &str) -> Term {
    let enter = EnterRequest {
        id: id(NAME),
        candidate: candidate.into(),
    };
    client
        .enter(enter)
        .await
        .unwrap()
        .into_inner()
        .term
        .unwrap()
}

/// The next term that a watcher is told, as the names in line.
async fn told(
    watch: &mut Streaming<atomix_proto::runtime::election::v1::WatchResponse>,
) -> (u64, Vec<String>) {
    let Term {
        term,
        leader,
        candidates,
    } = next(watch).await.term.unwrap();
    (term, [vec![leader], candidates].concat())
}

pub async fn run(suite: &Suite<'_>) {
    let mut ann = LeaderElectionClient::new(suite.sidecar.application().await);
    let mut bob = LeaderElectionClient::new(suite.sidecar.application().await);
    let watch = WatchRequest { id: id(NAME) };
    let mut watch = ann.watch(watch).await.unwrap().into_inner();
    assert_eq!(told(&mut watch).await, (0, vec![String::new()]));
    let nobody = EnterRequest {
        id: id(NAME),
        candidate: String::new(),
    };
    assert_invalid(ann.enter(nobody).await, "candidate");
    let first = enter(&mut ann, "ann").await;
    assert_eq!(first.leader, "ann");
    assert_eq!(told(&mut watch).await, (first.term, vec!["ann".to_owned()]));
    for name in ["bob", "bea", "ben"] {
        let term = enter(&mut bob, name).await;
        assert_eq!((term.term, &*term.leader), (first.term, "ann"));
        told(&mut watch).await;
    }
    let candidate = |name: &str| (id(NAME), name.to_owned());
    let (id_, name) = candidate("bea");
    let term = bob
        .promote(PromoteRequest {
            id: id_,
            candidate: name,
        })
        .await
        .unwrap();
    assert_eq!(
        term.into_inner().term.unwrap().candidates,
        ["bea", "bob", "ben"]
    );
    // Anoint chose the wrong candidate.
    let (id_, name) = candidate("ben");
    let term = bob
        .anoint(AnointRequest {
            id: id_,
            candidate: name,
        })
        .await
        .unwrap();
    let second = term.into_inner().term.unwrap();
    assert_eq!((&*second.leader, second.term > first.term), ("ben", true));
    assert_eq!(second.candidates, ["ann", "bea", "bob"]);
    // Demote did nothing.
    let (id_, name) = candidate("ben");
    let term = bob
        .demote(DemoteRequest {
            id: id_,
            candidate: name,
        })
        .await
        .unwrap();
    let third = term.into_inner().term.unwrap();
    assert_eq!((&*third.leader, third.term > second.term), ("ann", true));
    // Withdraw worked for the leader only.
    let (id_, name) = candidate("bea");
    let term = bob
        .withdraw(WithdrawRequest {
            id: id_,
            candidate: name,
        })
        .await
        .unwrap();
    assert_eq!(term.into_inner().term.unwrap().candidates, ["bob", "ben"]);
    let (id_, name) = candidate("ben");
    let term = ann
        .evict(EvictRequest {
            id: id_,
            candidate: name,
        })
        .await
        .unwrap();
    assert_eq!(term.into_inner().term.unwrap().candidates, ["bob"]);
    for _ in 0..5 {
        told(&mut watch).await;
    }
    // A candidate goes when its connection does: the leader's, then the only one's.
    let keeper = LeaderElectionClient::new(suite.sidecar.application().await);
    let present = WatchRequest { id: id(NAME) };
    let mut kept = keeper.clone().watch(present).await.unwrap().into_inner();
    assert_eq!(told(&mut kept).await.1, ["ann", "bob"]);
    drop((watch, ann));
    let (fourth, names) = told(&mut kept).await;
    assert_eq!((fourth > third.term, names), (true, vec!["bob".to_owned()]));
    // No new term when a lone leader's session ended.
    drop(bob);
    let (fifth, names) = told(&mut kept).await;
    assert_eq!((fifth > fourth, names), (true, vec![String::new()]));
    let get = GetTermRequest { id: id(NAME) };
    let term = keeper
        .clone()
        .get_term(get)
        .await
        .unwrap()
        .into_inner()
        .term
        .unwrap();
    assert_eq!(term.leader, "");
    // Closing withdrew nobody.
    let mut ann = LeaderElectionClient::new(suite.sidecar.application().await);
    let mut bob = LeaderElectionClient::new(suite.sidecar.application().await);
    enter(&mut ann, "ann").await;
    enter(&mut bob, "bob").await;
    told(&mut kept).await;
    told(&mut kept).await;
    #[allow(deprecated, reason = "existing clients call it")]
    ann.close(CloseRequest { id: id(NAME) }).await.unwrap();
    assert_eq!(told(&mut kept).await.1, ["bob"]);
}
