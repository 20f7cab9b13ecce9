//! What must hold whenever an operator ends storage pods or deletes a claim, asked of the nodes
//! themselves just before.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::time::Duration;

use atomix_proto::multiraft::v1::GroupStatus;
use atomix_proto::multiraft::v1::group_status::Role;
use futures::future::join_all;
use kube::Client;

use crate::fault::Names;
use crate::{groups, resources};

/// A node that does not answer within this is away.
const ANSWER: Duration = Duration::from_secs(2);

/// What an operator is about to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victim<'a> {
    /// This pod.
    Pod(&'a str),
    /// The claim of this pod.
    Claim(&'a str),
    /// Of this Store all pods from this ordinal on.
    From(&'a str, u32),
}

impl<'a> Victim<'a> {
    fn store(self) -> Option<&'a str> {
        match self {
            Self::Pod(name) | Self::Claim(name) => Some(name.rsplit_once('-')?.0),
            Self::From(store, _) => Some(store),
        }
    }
}

/// Looks at what operators are about to do.
#[derive(Clone)]
pub struct Guard {
    client: Client,
    names: Names,
}

impl Guard {
    /// `names` lists the pods.
    pub fn new(client: Client, names: Names) -> Self {
        Self { client, names }
    }

    /// Ends an operator that would do harm.
    ///
    /// # Panics
    /// When a group would lose the majority that it has, or a disk would be deleted or a StatefulSet
    /// would shrink that a group counts on, and the Store is to stay.
    pub async fn expect_no_harm(&self, victim: Victim<'_>, namespace: &str) {
        let Some(store) = victim.store() else {
            return;
        };
        let pods = (self.names)();
        let answers = answers(store, &pods).await;
        if let Some(harm) = harm(victim, &answers)
            && self.is_to_stay(store, namespace).await
        {
            panic!("the operator is about to end {victim:?}, but {harm}");
        }
    }

    async fn is_to_stay(&self, store: &str, namespace: &str) -> bool {
        let stores = resources::stores(&self.client, namespace);
        let found = stores.get_opt(store).await;
        let found = found.expect("the API server answers the test");
        found.is_some_and(|store| store.metadata.deletion_timestamp.is_none())
    }
}

async fn answers<'a>(store: &str, pods: &'a HashMap<Ipv4Addr, String>) -> Answers<'a> {
    let nodes = pods.iter().filter(|(_, pod)| ordinal(store, pod).is_some());
    let answers = nodes.map(async |(address, pod)| {
        let answer = tokio::time::timeout(ANSWER, groups::status(*address)).await;
        Some((pod.as_str(), answer.ok()?.ok()?.groups))
    });
    join_all(answers).await.into_iter().flatten().collect()
}

fn ordinal(store: &str, pod: &str) -> Option<u32> {
    let rest = pod.strip_prefix(store)?;
    rest.strip_prefix('-')?.parse().ok()
}

/// The groups of each node that answers, by pod.
type Answers<'a> = BTreeMap<&'a str, Vec<GroupStatus>>;

fn harm(victim: Victim<'_>, answers: &Answers<'_>) -> Option<String> {
    let mut leaders = BTreeMap::<u32, &GroupStatus>::new();
    for group in answers.values().flatten() {
        if group.role() == Role::Leader {
            let newest = leaders.entry(group.partition_id).or_insert(group);
            if group.term > newest.term {
                *newest = group;
            }
        }
    }
    let mut harms = leaders.into_values().filter_map(|leader| match victim {
        Victim::Pod(pod) => lost_majority(pod, leader, answers),
        Victim::Claim(pod) => lost_member(pod, leader, answers),
        Victim::From(store, first) => left_behind(store, first, leader, answers),
    });
    harms.next()
}

/// What a group that has a majority would be left with, when that is none. One of less than three
/// voters has no copy to spare and stops with its pod, as its owner chose.
fn lost_majority(pod: &str, leader: &GroupStatus, answers: &Answers<'_>) -> Option<String> {
    let standing = |without: Option<&str>| -> BTreeSet<u64> {
        let pods = answers.iter().filter(|(at, _)| Some(**at) != without);
        let held = pods.flat_map(|(_, groups)| groups);
        let held = held.filter(|group| group.partition_id == leader.partition_id);
        let voting = held.filter(|group| matches!(group.role(), Role::Leader | Role::Follower));
        voting.map(|group| group.member_id).collect()
    };
    let (now, then) = (standing(None), standing(Some(pod)));
    let mut configurations = [&leader.voters, &leader.outgoing_voters].into_iter();
    let lost = configurations.find(|voters| {
        let has_majority = |standing: &BTreeSet<u64>| {
            let votes = voters
                .iter()
                .filter(|voter| standing.contains(voter))
                .count();
            votes > voters.len() / 2
        };
        voters.len() > 2 && has_majority(&now) && !has_majority(&then)
    })?;
    Some(format!(
        "of the voters {lost:x?} of partition {} only {then:x?} would be left: {leader:?}",
        leader.partition_id
    ))
}

/// The member of a group that is on a pod that goes.
fn left_behind(
    store: &str,
    first: u32,
    leader: &GroupStatus,
    answers: &Answers<'_>,
) -> Option<String> {
    let counts = |member: &u64| {
        let configurations = [&leader.voters, &leader.outgoing_voters, &leader.learners];
        configurations
            .iter()
            .any(|members| members.contains(member))
    };
    let mut going = answers
        .iter()
        .filter(|(pod, _)| ordinal(store, pod).is_some_and(|ordinal| ordinal >= first));
    going.find_map(|(pod, groups)| {
        let mut members = groups
            .iter()
            .filter(|group| group.partition_id == leader.partition_id);
        let member = members.find(|group| counts(&group.member_id))?;
        Some(format!(
            "the member {:x} of partition {} is on {pod}: {leader:?}",
            member.member_id, leader.partition_id
        ))
    })
}

/// The member of a group that no other node holds.
fn lost_member(pod: &str, leader: &GroupStatus, answers: &Answers<'_>) -> Option<String> {
    let others = answers.iter().filter(|(at, _)| **at != pod);
    let held: BTreeSet<u64> = others
        .flat_map(|(_, groups)| groups)
        .filter(|group| group.partition_id == leader.partition_id)
        .map(|group| group.member_id)
        .collect();
    let configurations = [&leader.voters, &leader.outgoing_voters, &leader.learners];
    let mut members = configurations.into_iter().flatten();
    let lost = members.find(|member| !held.contains(member))?;
    Some(format!(
        "nobody else holds the member {lost:x} of partition {}: {leader:?}",
        leader.partition_id
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A member of partition 1, of these voters.
    fn member(id: u64, role: Role, voters: &[u64]) -> Vec<GroupStatus> {
        vec![GroupStatus {
            partition_id: 1,
            member_id: id,
            role: role.into(),
            voters: voters.to_vec(),
            ..GroupStatus::default()
        }]
    }

    #[test]
    fn a_pod_may_go_while_a_majority_stays_and_for_good_when_it_is_empty() {
        let voters = [1, 2, 3];
        let leader = ("a-0", member(1, Role::Leader, &voters));
        let follower = ("a-1", member(2, Role::Follower, &voters));
        let third = ("a-2", member(3, Role::Follower, &voters));
        let beginning = ("a-2", member(3, Role::Candidate, &voters));
        let empty = ("a-2", Vec::new());
        let all = [&leader, &follower, &third];
        let two = [&leader, &follower];
        for (nodes, victim, is_safe) in [
            (all.as_slice(), Victim::Pod("a-1"), true),
            (&two, Victim::Pod("a-1"), false),
            (&two, Victim::Pod("a-2"), true),
            (&[&leader, &follower, &beginning], Victim::Pod("a-1"), false),
            (&[&leader, &follower, &beginning], Victim::Pod("a-2"), true),
            // It has no majority to lose.
            (&[&leader], Victim::Pod("a-0"), true),
            (&all, Victim::Claim("a-2"), false),
            (&[&leader, &follower, &empty], Victim::Claim("a-2"), false),
            (&[], Victim::Claim("a-2"), true),
            (&all, Victim::From("a", 2), false),
            (&[&leader, &follower, &empty], Victim::From("a", 2), true),
            (&all, Victim::From("a", 3), true),
        ] {
            let answers = nodes.iter().map(|(pod, groups)| (*pod, groups.clone()));
            let harm = harm(victim, &answers.collect());
            assert_eq!(harm.is_none(), is_safe, "{nodes:?} {victim:?}: {harm:?}");
        }
        let alone = [("a-0", member(1, Role::Leader, &[1])), empty];
        let answers: Answers<'_> = alone.into_iter().collect();
        assert_eq!(harm(Victim::Pod("a-0"), &answers), None);
        assert_eq!(harm(Victim::Claim("a-2"), &answers), None);
        assert!(harm(Victim::Claim("a-0"), &answers).is_some());
    }
}
