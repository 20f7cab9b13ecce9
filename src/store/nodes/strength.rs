//! How well each partition is replicated, judged from what the nodes say of themselves. Pure.
//!
//! A voter has caught up when everything is on its disk that its leader had committed at an earlier
//! look, its node answers, and it follows that leader. So two looks are needed; under load a single
//! one would find every follower a little behind.
//!
//! Not for where members should be (`placement`), which asks less of a member.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::store::bootstrap::plan_record::Plan;
use crate::store::names;
use crate::store::nodes::node_view::{GroupView, NodeView};

/// How one voter is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// It has all that was committed, and follows.
    CaughtUp,
    /// Its node answers, but it has not got everything yet, or that is not known yet.
    Behind,
    /// Its node does not answer, or has another disk, or its leader does not hear it.
    Away,
}

/// A voter, where it is and how it is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Voter {
    /// The pod; `None` = its address is none of this Store's.
    pub ordinal: Option<u32>,
    /// How it is doing.
    pub standing: Standing,
}

/// A group whose leader answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupStrength {
    /// The leader's member id.
    pub leader: u64,
    /// The voters by member id.
    pub voters: BTreeMap<u64, Voter>,
    /// Members come or go: there are members without a vote, or two configurations overlap.
    pub is_changing: bool,
}

impl GroupStrength {
    /// Every voter has caught up, and nothing changes.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let mut voters = self.voters.values();
        !self.is_changing && voters.all(|voter| voter.standing == Standing::CaughtUp)
    }

    /// The pod of the leader.
    #[must_use]
    pub fn leader_ordinal(&self) -> Option<u32> {
        self.voters.get(&self.leader)?.ordinal
    }

    /// The voter on a pod.
    #[must_use]
    pub fn voter_at(&self, ordinal: u32) -> Option<(u64, Voter)> {
        let mut voters = self.voters.iter();
        let found = voters.find(|(_, voter)| voter.ordinal == Some(ordinal))?;
        Some((*found.0, *found.1))
    }
}

/// Every partition; `None` = no leader answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Strength {
    /// By partition.
    pub groups: BTreeMap<u32, Option<GroupStrength>>,
}

impl Strength {
    /// How many groups the pod leads.
    #[must_use]
    pub fn leaderships(&self, ordinal: u32) -> usize {
        let groups = self.groups.values().flatten();
        let led = groups.filter(|group| group.leader_ordinal() == Some(ordinal));
        led.count()
    }
}

/// Two looks at all nodes, one after the other.
#[derive(Debug, Clone, Copy)]
pub struct Looks<'a> {
    /// The Store's name, as it stands in the addresses of its nodes.
    pub store: &'a str,
    /// Whose data the nodes hold, and which partitions there are.
    pub plan: &'a Plan,
    /// What the nodes answered first.
    pub earlier: &'a BTreeMap<u32, NodeView>,
    /// What they answered when they were asked again.
    pub later: &'a BTreeMap<u32, NodeView>,
    /// The election timeout of a node that does not say which it has.
    pub election_timeout: Duration,
}

impl Looks<'_> {
    /// Judges every partition.
    #[must_use]
    pub fn strength(&self) -> Strength {
        let partitions = self.plan.partitions.iter();
        let groups = partitions.map(|planned| (planned.partition, self.group(planned.partition)));
        Strength {
            groups: groups.collect(),
        }
    }

    fn is_ours(&self, view: &NodeView) -> bool {
        view.store_uid == self.plan.store_uid && view.incarnation == self.plan.incarnation
    }

    fn group(&self, partition: u32) -> Option<GroupStrength> {
        let leaders = self.later.iter().filter(|(_, view)| self.is_ours(view));
        let leaders = leaders.filter_map(|(at, view)| Some((*at, view.groups.get(&partition)?)));
        let (at, leader) = leaders
            .filter(|(_, group)| group.leads)
            .max_by_key(|(_, group)| group.term)?;
        let membership = leader.membership.as_ref()?;
        let goal = self.committed_before(partition, at, leader);
        let voters = membership.voters.iter().map(|member| {
            let place = membership.places.get(member);
            let ordinal =
                place.and_then(|(_, address)| names::ordinal_of_address(self.store, address));
            let node_id = place.map_or(0, |(node_id, _)| *node_id);
            let standing = match ordinal.and_then(|at| self.later.get(&at)) {
                Some(view) if view.node_id == node_id && self.is_ours(view) => {
                    self.standing(*member, view.groups.get(&partition), leader, goal)
                }
                Some(_) | None => Standing::Away,
            };
            (*member, Voter { ordinal, standing })
        });
        Some(GroupStrength {
            leader: leader.member_id,
            voters: voters.collect(),
            is_changing: !membership.outgoing.is_empty() || !membership.learners.is_empty(),
        })
    }

    /// What the same leader had committed at the first look.
    fn committed_before(&self, partition: u32, at: u32, leader: &GroupView) -> Option<u64> {
        let before = self.earlier.get(&at)?.groups.get(&partition)?;
        let is_same = before.leads
            && before.member_id == leader.member_id
            && before.term == leader.term
            && before.membership.as_ref().map(|seen| seen.position)
                == leader.membership.as_ref().map(|seen| seen.position);
        is_same.then_some(before.committed)
    }

    fn standing(
        &self,
        member: u64,
        held: Option<&GroupView>,
        leader: &GroupView,
        goal: Option<u64>,
    ) -> Standing {
        if member == leader.member_id {
            return Standing::CaughtUp;
        }
        let Some(held) = held.filter(|held| held.member_id == member && !held.is_stopped) else {
            return Standing::Away;
        };
        let limit = leader.election_timeout.unwrap_or(self.election_timeout) * 2;
        let since = leader.contacts.get(&member).copied().flatten();
        if since.is_none_or(|since| since > limit) {
            return Standing::Away;
        }
        let matched = leader.matched.get(&member).copied().unwrap_or(0);
        let has_all = goal.is_some_and(|goal| matched >= goal);
        if has_all && held.leader == leader.member_id {
            Standing::CaughtUp
        } else {
            Standing::Behind
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::store::bootstrap::plan_record::PlannedPartition;
    use crate::store::nodes::node_view::MembershipView;

    const TIMEOUT: Duration = Duration::from_secs(1);

    fn plan() -> Plan {
        Plan {
            store_uid: "u".to_owned(),
            incarnation: 1,
            election_timeout_millis: 1000,
            snapshot_entry_threshold: 0,
            nodes: Vec::new(),
            partitions: vec![PlannedPartition {
                partition: 1,
                members: BTreeMap::new(),
                initializer: 0,
            }],
        }
    }

    /// Three nodes with the members 10, 11, 12; 10 leads and has committed 5 entries.
    fn nodes() -> BTreeMap<u32, NodeView> {
        let membership = MembershipView {
            position: (1, 1),
            voters: [10, 11, 12].into(),
            places: [0_u32, 1, 2]
                .map(|at| {
                    let address = names::peer_address("tulip", "garden", at);
                    (u64::from(at) + 10, (u64::from(at) + 100, address))
                })
                .into(),
            ..MembershipView::default()
        };
        let node = |at: u32| {
            let leads = at == 0;
            let group = GroupView {
                member_id: u64::from(at) + 10,
                leads,
                leader: 10,
                term: 1,
                committed: 5,
                membership: Some(membership.clone()),
                contacts: if leads {
                    [11, 12].map(|member| (member, Some(TIMEOUT / 10))).into()
                } else {
                    BTreeMap::new()
                },
                matched: if leads {
                    [(11, 5), (12, 5)].into()
                } else {
                    BTreeMap::new()
                },
                ..GroupView::default()
            };
            let view = NodeView {
                node_id: u64::from(at) + 100,
                store_uid: "u".to_owned(),
                incarnation: 1,
                version: String::new(),
                operator: String::new(),
                groups: [(1, group)].into(),
            };
            (at, view)
        };
        [0, 1, 2].map(node).into()
    }

    fn judged(earlier: &BTreeMap<u32, NodeView>, later: &BTreeMap<u32, NodeView>) -> Strength {
        Looks {
            store: "tulip",
            plan: &plan(),
            earlier,
            later,
            election_timeout: TIMEOUT,
        }
        .strength()
    }

    type Change = fn(&mut BTreeMap<u32, NodeView>);

    fn group(nodes: &mut BTreeMap<u32, NodeView>, at: u32) -> &mut GroupView {
        nodes.get_mut(&at).unwrap().groups.get_mut(&1).unwrap()
    }

    #[test]
    fn a_voter_has_caught_up_with_what_was_committed_at_the_earlier_look() {
        let cases: &[(&str, Change, Standing)] = &[
            ("all is well", |_| {}, Standing::CaughtUp),
            (
                "more was committed since",
                |nodes| group(nodes, 0).committed = 50,
                Standing::CaughtUp,
            ),
            (
                "an entry is missing",
                |nodes| _ = group(nodes, 0).matched.insert(12, 4),
                Standing::Behind,
            ),
            (
                "it has not heard of its leader since it started",
                |nodes| group(nodes, 2).leader = 0,
                Standing::Behind,
            ),
            (
                "its leader has not heard of it",
                |nodes| _ = group(nodes, 0).contacts.insert(12, Some(TIMEOUT * 3)),
                Standing::Away,
            ),
            (
                "its leader never heard of it",
                |nodes| _ = group(nodes, 0).contacts.insert(12, None),
                Standing::Away,
            ),
            (
                "its leader is patient",
                |nodes| {
                    let leader = group(nodes, 0);
                    leader.election_timeout = Some(TIMEOUT * 10);
                    leader.contacts.insert(12, Some(TIMEOUT * 3));
                },
                Standing::CaughtUp,
            ),
            (
                "it does not answer",
                |nodes| _ = nodes.remove(&2),
                Standing::Away,
            ),
            (
                "it has another disk",
                |nodes| nodes.get_mut(&2).unwrap().node_id = 1,
                Standing::Away,
            ),
            (
                "it does not run",
                |nodes| group(nodes, 2).is_stopped = true,
                Standing::Away,
            ),
            (
                "another term began in between",
                |nodes| group(nodes, 0).term = 2,
                Standing::Behind,
            ),
        ];
        for (why, change, expected) in cases {
            let mut later = nodes();
            change(&mut later);
            let strength = judged(&nodes(), &later);
            let group = strength.groups[&1].clone().unwrap();
            assert_eq!(group.voters[&12].standing, *expected, "{why}");
            assert_eq!(group.is_whole(), *expected == Standing::CaughtUp, "{why}");
            assert_eq!(strength.leaderships(0), 1);
        }
    }

    #[test]
    fn a_group_that_changes_or_has_no_leader_is_not_whole() {
        let mut later = nodes();
        group(&mut later, 0).leads = false;
        assert_eq!(judged(&nodes(), &later).groups[&1], None);
        let mut later = nodes();
        let membership = group(&mut later, 0).membership.as_mut().unwrap();
        membership.learners.insert(13);
        let strength = judged(&nodes(), &later);
        assert!(!strength.groups[&1].as_ref().unwrap().is_whole());
    }
}
