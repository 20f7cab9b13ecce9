//! A node that dies in the middle of a Bootstrap: the same plan is carried out by its next process.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use atomix_proto::multiraft::v1::group_status::Role;
use atomix_proto::multiraft::v1::{BootstrapRequest, GetStatusRequest, GroupStatus};
use atomix_raft::{DiskFaults, EngineOptions, WriteFailure};

use tokio::time::Instant;

use crate::support::eventually;
use crate::support::nodes::{Cluster, PATIENCE, member_id};
use crate::support::services::NodeService;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_killed_in_the_middle_of_a_bootstrap_carries_the_same_plan_out_later() {
    const PARTITIONS: u32 = 16;
    let mut cluster = Cluster::start().await;
    // Each incarnation takes the place of the one before, so that a kill may come between a deletion
    // and a creation, too.
    for (incarnation, stored) in (1..).zip([0, 1, 6, 14]) {
        let victim = stored % 3;
        let others = [(victim + 1) % 3, (victim + 2) % 3];
        for other in others {
            let plan = cluster.plan(other, PARTITIONS, incarnation);
            cluster.nodes[other].bootstrap(plan).await.unwrap();
        }
        let plan = cluster.plan(victim, PARTITIONS, incarnation);
        let mut control = cluster.nodes[victim].control().await.unwrap();
        let sent = plan.clone();
        let mut asking = control.clone();
        let call = tokio::spawn(async move { control.bootstrap(sent).await });
        let node = &mut cluster.nodes[victim];
        // Without a pause between two looks: it takes some milliseconds.
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = asking.get_status(GetStatusRequest {}).await.unwrap();
            if created(&status.into_inner().groups, incarnation) >= stored {
                break;
            }
            assert!(Instant::now() < deadline, "{stored} members are not stored");
        }
        node.kill().await;
        let told = call.await.unwrap();
        let held = created(&node.start().await.groups, incarnation);
        println!("killed after at least {stored} members were stored: {held}, {told:?}");
        assert!(held >= stored, "{held} of {stored}");
        if told.is_ok() {
            assert_eq!(held, PARTITIONS as usize, "the bootstrap was acknowledged");
        }

        node.bootstrap(plan).await.unwrap();
        for partition in 1..=PARTITIONS {
            let members: Vec<u64> = (0..3)
                .map(|node| member_id(partition, incarnation, node))
                .collect();
            let what = format!("partition {partition} has a leader and three voters");
            eventually(&what, PATIENCE, || async {
                let group = cluster.settled_group(partition).await?;
                (group.voters == members && group.learners.is_empty()).then_some(())
            })
            .await;
        }
    }
}

/// How many of the members are of an incarnation.
fn created(groups: &[GroupStatus], incarnation: u64) -> usize {
    let of_it = |group: &&GroupStatus| group.member_id / 1000 == incarnation;
    groups.iter().filter(of_it).count()
}

/// Syncs so often, and never again.
struct SyncsLeft(AtomicU64);

impl SyncsLeft {
    fn is_over(&self) -> bool {
        self.0.load(Ordering::SeqCst) == 0
    }
}

impl DiskFaults for SyncsLeft {
    fn sync(&self, _path: &Path) -> io::Result<()> {
        let one_less = |left: u64| left.checked_sub(1);
        match self
            .0
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less)
        {
            Ok(left) if left > 1 => Ok(()),
            Ok(_) | Err(_) => Err(io::Error::other("injected: not synced")),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bootstrap_that_ends_at_any_sync_is_carried_out_later() {
    const PARTITIONS: u32 = 3;
    let mut interrupted = 0;
    for syncs in 1.. {
        let folder = tempfile::tempdir().unwrap();
        let mut node = NodeService::new(folder.path().join("node"));
        let disk = Arc::new(SyncsLeft(AtomicU64::new(u64::MAX)));
        let faults = Arc::clone(&disk);
        let node_id = node
            .start(move |options| EngineOptions {
                faults: Some(faults.clone()),
                on_write_failure: WriteFailure::Report,
                ..options
            })
            .await;
        let plan = BootstrapRequest {
            partitions: (1..=PARTITIONS)
                .map(|partition| node.alone(partition, node_id, 1))
                .collect(),
        };

        disk.0.store(syncs, Ordering::SeqCst);
        let told = node.addresses.bootstrap(plan.clone()).await;
        let is_interrupted = eventually("it is carried out or breaks", PATIENCE, || async {
            if disk.is_over() {
                return Some(true);
            }
            all_lead(&node, PARTITIONS).await.then_some(false)
        })
        .await;
        // From here on nothing breaks any more: closing the log syncs, too.
        let left = disk.0.swap(u64::MAX, Ordering::SeqCst);
        if !is_interrupted && left > 0 {
            assert!(told.is_ok(), "{told:?}");
            node.stop().await;
            break;
        }
        interrupted += 1;
        node.ended().await.expect_err("its disk broke");
        node.continue_on_copy();

        node.start(std::convert::identity).await;
        if told.is_ok() {
            let status = node.addresses.status().await.unwrap();
            assert_eq!(status.groups.len(), PARTITIONS as usize, "acknowledged");
        }
        node.addresses.bootstrap(plan).await.unwrap();
        eventually("each partition has a leader", PATIENCE, || async {
            all_lead(&node, PARTITIONS).await.then_some(())
        })
        .await;
        node.stop().await;
    }
    // At least each member's record, and its first entry.
    println!("interrupted at {interrupted} syncs");
    assert!(interrupted >= 4, "only at {interrupted} syncs");
}

async fn all_lead(node: &NodeService, partitions: u32) -> bool {
    let Ok(status) = node.addresses.status().await else {
        return false;
    };
    let lead = status.groups.iter().filter(|group| {
        group.role() == Role::Leader && group.voters == [member_id(group.partition_id, 1, 0)]
    });
    lead.count() == partitions as usize
}
