//! Two of three disks are lost: the group goes on from its last member with everything that was
//! acknowledged, and the former members, should they come back, neither vote nor serve.

use std::process::Output;
use std::time::Duration;

use atomix_proto::multiraft::v1::failure::Reason;
use atomix_proto::multiraft::v1::group_status::Role;
use atomix_proto::multiraft::v1::{GroupStatus, RecoverRequest};
use tokio::process::Command;
use tonic::{Code, Status};

use crate::support::driver::Stream;
use crate::support::eventually;
use crate::support::nodes::{Cluster, NodeProcess, PATIENCE};

const LONG: Duration = Duration::from_secs(60);
const WRITES: u64 = 30;

/// Writes to partition 1, waits until all members have all of it, and kills all but one follower.
/// Answers that one, and a session that was opened.
async fn lose_two(cluster: &mut Cluster) -> (usize, u64) {
    let leader = cluster.leader(1).await;
    assert_eq!(write(&cluster.nodes[leader], WRITES).await, WRITES);
    let stream = Stream::open(cluster.nodes[leader].peer, "a-store").await;
    let stream = stream.unwrap();
    let session = eventually("a session is opened", PATIENCE, || async {
        let opened = stream.open_session(1, Duration::from_secs(600)).await;
        opened.ok()
    })
    .await;
    let survivor = (leader + 1) % 3;
    eventually("the survivor has everything", PATIENCE, || async {
        let ahead = cluster.nodes[leader].group(1).await?.applied;
        let applied = cluster.nodes[survivor].group(1).await?.applied;
        (applied >= ahead).then_some(())
    })
    .await;
    for lost in [leader, (leader + 2) % 3] {
        cluster.nodes[lost].kill().await;
    }
    (survivor, session)
}

/// Increments the counter of partition 1 so often and answers its value. A leader that was elected
/// just now may not serve yet.
async fn write(node: &NodeProcess, times: u64) -> u64 {
    let stream = Stream::open(node.peer, "a-store").await.unwrap();
    let session = eventually("a session is opened", PATIENCE, || async {
        let opened = stream.open_session(1, Duration::from_secs(30)).await;
        opened.ok()
    })
    .await;
    let mut value = 0;
    for sequence in 1..=times {
        value = eventually("an increment is done", PATIENCE, || async {
            // The same session and sequence: it is done once.
            stream.increment(1, "visits", session, sequence).await.ok()
        })
        .await;
    }
    value.try_into().unwrap()
}

/// Asks for a session that the group had before it was recovered: it is lost, and no new one has its
/// id, or one that entries gave out which only the lost members had.
async fn sessions_begin_anew(node: &NodeProcess, before: u64) {
    let stream = Stream::open(node.peer, "a-store").await.unwrap();
    let refused = eventually("the old session is judged", PATIENCE, || async {
        let refused = stream.increment(1, "visits", before, WRITES + 1).await;
        let refused = refused.expect_err("its session is of before");
        refused.reason().filter(|reason| {
            let later = [
                Reason::Unavailable,
                Reason::OutcomeUnknown,
                Reason::NotLeader,
            ];
            !later.contains(reason)
        })
    })
    .await;
    assert_eq!(refused, Reason::SessionLost);
    let new = eventually("a new session is opened", PATIENCE, || async {
        let opened = stream.open_session(1, Duration::from_secs(30)).await;
        opened.ok()
    })
    .await;
    assert!(new > 1 << 32, "session {new} after {before}");
}

async fn leads_alone(node: &NodeProcess, partition: u32) -> GroupStatus {
    eventually("the survivor leads alone", LONG, || async {
        let group = node.group(partition).await?;
        let is_alone = group.voters == [group.member_id] && group.members.len() == 1;
        (group.role() == Role::Leader && is_alone).then_some(group)
    })
    .await
}

async fn recover(node: &NodeProcess, member: u64) -> Result<u64, Status> {
    let request = RecoverRequest {
        partition_id: 1,
        member_id: member,
    };
    let recovered = node.control().await?.recover(request).await?;
    Ok(recovered.into_inner().member_id)
}

async fn offline(node: &NodeProcess, arguments: &[&str]) -> (Output, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_atomix-node"))
        .arg("recover")
        .arg("--data-dir")
        .arg(node.data_dir())
        .args(arguments)
        .output()
        .await
        .unwrap();
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    (output, text)
}

async fn has_no_member(node: &NodeProcess, partition: u32) {
    eventually("the former member is deleted", LONG, || async {
        let status = node.status().await.ok()?;
        let mut groups = status.groups.iter();
        groups
            .all(|group| group.partition_id != partition)
            .then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_goes_on_from_its_last_member_while_the_node_runs() {
    let mut cluster = Cluster::bootstrapped(2).await;
    let healthy = cluster.leader(1).await;
    let member = cluster.nodes[healthy].group(1).await.unwrap().member_id;
    let refused = recover(&cluster.nodes[healthy], member).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "it has a quorum");

    let (survivor, session) = lose_two(&mut cluster).await;
    let member = cluster.nodes[survivor].group(1).await.unwrap().member_id;
    let node = &cluster.nodes[survivor];
    let (output, said) = offline(node, &["--partition", "1", "--yes"]).await;
    assert!(
        !output.status.success() && said.contains("in use"),
        "{said}"
    );
    for (wrong, code) in [(0, Code::InvalidArgument), (4711, Code::FailedPrecondition)] {
        let refused = recover(node, wrong).await.unwrap_err();
        assert_eq!(refused.code(), code, "{refused}");
    }
    let new = eventually("it is called lost", LONG, || async {
        match recover(node, member).await {
            Ok(new) => Some(new),
            Err(status) if status.code() == Code::FailedPrecondition => None,
            Err(status) => panic!("{status}"),
        }
    })
    .await;
    assert_ne!(new, member);
    assert_eq!(recover(node, member).await.ok(), Some(new), "again");
    let group = leads_alone(node, 1).await;
    assert_eq!(group.member_id, new);
    sessions_begin_anew(node, session).await;
    assert_eq!(
        write(node, 1).await,
        WRITES + 1,
        "all that was acknowledged"
    );
    let other = node.group(2).await.unwrap();
    assert_ne!(
        other.role(),
        Role::Leader,
        "only the one group was recovered"
    );
    assert_eq!(other.voters.len(), 3);

    // Both former members come back: together they would be a quorum.
    let returned = [(survivor + 1) % 3, (survivor + 2) % 3];
    for node in returned {
        cluster.nodes[node].start().await;
    }
    for node in returned {
        has_no_member(&cluster.nodes[node], 1).await;
    }
    cluster.leader(2).await;
    let node = &cluster.nodes[survivor];
    assert_eq!(leads_alone(node, 1).await.member_id, new);
    assert_eq!(write(node, 1).await, WRITES + 2);

    // They are taken in again as new members, with all the data.
    let request = cluster.join_request(1, returned[0], 900).await;
    eventually("a new member has joined", LONG, || async {
        let call = Duration::from_secs(5);
        cluster.nodes[returned[0]]
            .join(request.clone(), call)
            .await
            .ok()
    })
    .await;
    let mut expected = [new, 900];
    expected.sort_unstable();
    let group = cluster.settled_group(1).await.unwrap();
    assert_eq!(group.voters, expected);

    cluster.nodes[survivor].kill().await;
    cluster.nodes[survivor].start().await;
    let leader = cluster.leader(1).await;
    assert_eq!(write(&cluster.nodes[leader], 1).await, WRITES + 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_node_is_recovered_by_its_program_and_a_former_member_is_turned_away() {
    let mut cluster = Cluster::bootstrapped(1).await;
    let (survivor, session) = lose_two(&mut cluster).await;
    let member = cluster.nodes[survivor].group(1).await.unwrap().member_id;
    cluster.nodes[survivor].kill().await;

    let node = &cluster.nodes[survivor];
    for (arguments, expected) in [
        (
            vec!["--partition", "9", "--yes"],
            "no member of partition 9",
        ),
        (vec!["--partition", "1"], "nothing was changed"),
        (vec!["--partition", "1"], "given up: voter"),
    ] {
        let (_, said) = offline(node, &arguments).await;
        assert!(said.contains(expected), "{arguments:?}: {said}");
    }
    let nowhere = NodeProcess::new(node.data_dir().join("nowhere"));
    let (output, said) = offline(&nowhere, &["--partition", "1", "--yes"]).await;
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("is no data directory"), "{said}");
    let (output, said) = offline(node, &["--partition", "1", "--yes"]).await;
    assert!(output.status.success(), "{said}");

    cluster.nodes[survivor].start().await;
    let node = &cluster.nodes[survivor];
    let group = leads_alone(node, 1).await;
    assert_ne!(group.member_id, member);
    sessions_begin_anew(node, session).await;
    assert_eq!(write(node, 1).await, WRITES + 1);

    let returned = (survivor + 1) % 3;
    cluster.nodes[returned].start().await;
    has_no_member(&cluster.nodes[returned], 1).await;
    let node = &cluster.nodes[survivor];
    assert_eq!(leads_alone(node, 1).await.member_id, group.member_id);
    assert_eq!(write(node, 1).await, WRITES + 2);
}
