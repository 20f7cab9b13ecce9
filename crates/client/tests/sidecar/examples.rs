//! That the examples do what they show.

use crate::harness::{TestSidecar, within};

#[allow(dead_code, reason = "its main is not called")]
#[path = "../../examples/guarded_job.rs"]
mod guarded_job;
#[allow(dead_code, reason = "its main is not called")]
#[path = "../../examples/leader.rs"]
mod leader;
#[allow(dead_code, reason = "its main is not called")]
#[path = "../../examples/map_cache.rs"]
mod map_cache;

use self::guarded_job::Report;
use self::map_cache::MapCache;

#[tokio::test]
async fn jobs_under_a_lock_lose_no_run() {
    let sidecar = TestSidecar::start().await;
    let client = sidecar.client().await;
    let other = sidecar.client().await;
    let runs = futures::future::try_join_all([
        guarded_job::run(&client, "job", 5),
        guarded_job::run(&client, "job", 5),
        guarded_job::run(&other, "job", 5),
    ]);
    within("the runs", runs).await.unwrap();
    let reports = client.map::<String, Report>("reports");
    assert_eq!(reports.get("job").await.unwrap().unwrap().value.number, 15);
    sidecar.stop().await;
}

#[tokio::test]
async fn each_replica_leads_in_its_turn() {
    let sidecar = TestSidecar::start().await;
    let election = sidecar.client().await.election("scheduler");
    let other = sidecar.client().await.election("scheduler");
    let turns = futures::future::try_join_all([
        leader::run(&election, "ann", Some(3)),
        leader::run(&other, "bob", Some(3)),
        leader::run(&other, "eve", Some(3)),
    ]);
    within("the turns", turns).await.unwrap();
    assert_eq!(election.term().await.unwrap().leader, None);
    sidecar.stop().await;
}

#[tokio::test]
async fn a_cache_follows_its_map() {
    let sidecar = TestSidecar::start().await;
    let settings = sidecar.client().await.map::<String, String>("settings");
    let text = |text: &str| text.to_owned();
    settings.put("color", &text("red")).await.unwrap();
    let cache = MapCache::follow(settings.clone());
    let is_red = cache.wait_for(|entries| entries.len() == 1);
    within("the first copy", is_red).await;
    assert_eq!(cache.get(&text("color")), Some(text("red")));
    settings.put("size", &text("small")).await.unwrap();
    settings.remove("color").await.unwrap();
    let follows = cache.wait_for(|entries| entries.len() == 1 && entries.contains_key("size"));
    within("the changes", follows).await;
    assert_eq!(cache.get(&text("color")), None);
    sidecar.stop().await;
}
