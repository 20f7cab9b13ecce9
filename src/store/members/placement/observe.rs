//! From what nodes said to what the planner looks at. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Group, Held, HeldState, Node, Observed, Place};
use crate::store::bootstrap::plan_record::Plan;
use crate::store::names;
use crate::store::nodes::node_view::{GroupView, MembershipView, NodeView};

/// What is known of a Store's nodes.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// The Store's name, as it stands in the addresses of its nodes.
    pub store: &'a str,
    /// Whose data the nodes hold, and which partitions there are.
    pub plan: &'a Plan,
    /// Answers in which leaders tell of their groups.
    pub leaders: &'a BTreeMap<u32, NodeView>,
    /// Answers, not older than those, that tell what each node holds.
    pub holders: &'a BTreeMap<u32, NodeView>,
    /// The zone of each ordinal, where it is known.
    pub zones: &'a BTreeMap<u32, String>,
    /// The ordinals that have no disk: the claim that is there now has never had a volume, and no
    /// machine takes the pod. Where `contact_limit` is given, read after the answers.
    pub without_disk: &'a BTreeSet<u32>,
    /// How many pods the StatefulSet has; 0 = there is none.
    pub live_replicas: u32,
    /// After how long without an answer its leader counts a member as silent, where the leader does
    /// not tell its election timeout; `None` = answers are old, so that nothing is said of it.
    pub contact_limit: Option<Duration>,
}

impl Seen<'_> {
    /// What the planner looks at.
    #[must_use]
    pub fn observed(&self) -> Observed {
        let partitions = self.plan.partitions.iter();
        let groups: BTreeMap<u32, Option<Group>> = partitions
            .map(|planned| (planned.partition, self.group(planned.partition)))
            .collect();
        let leaderless = groups.iter().filter(|(_, group)| group.is_none());
        let hearsay = leaderless.flat_map(|(partition, _)| self.hearsay(*partition));
        Observed {
            hearsay: hearsay.collect(),
            nodes: self.nodes(),
            lost_disks: self.lost_disks(&groups),
            groups,
            zones: self.zones.clone(),
            live_replicas: self.live_replicas,
        }
    }

    /// Whether a node's groups are those of the plan.
    fn is_ours(&self, view: &NodeView) -> bool {
        view.groups.is_empty()
            || (view.store_uid == self.plan.store_uid && view.incarnation == self.plan.incarnation)
    }

    fn is_older(&self, view: &NodeView) -> bool {
        view.store_uid == self.plan.store_uid && view.incarnation < self.plan.incarnation
    }

    fn nodes(&self) -> BTreeMap<u32, Node> {
        let nodes = self.holders.iter().map(|(ordinal, view)| {
            let is_ours = self.is_ours(view);
            let held = view.groups.iter().map(|(partition, group)| {
                let state = match (&group.membership, group.is_stopped) {
                    (_, true) => HeldState::Stopped,
                    (Some(_), false) => HeldState::Admitted,
                    (None, false) => HeldState::Joining,
                };
                let member_id = group.member_id;
                (*partition, Held { member_id, state })
            });
            let node = Node {
                node_id: view.node_id,
                // Groups of an older incarnation are none of its members; a Join deletes them.
                held: held.filter(|_| is_ours).collect(),
                is_foreign: !is_ours && !self.is_older(view),
            };
            (*ordinal, node)
        });
        nodes.collect()
    }

    /// Disks of members at ordinals that have none now: a person has deleted the claim. That a node
    /// does not answer says nothing, and one that answers with the disk has it.
    fn lost_disks(&self, groups: &BTreeMap<u32, Option<Group>>) -> BTreeSet<u64> {
        let places = groups.values().flatten();
        let places = places.flat_map(|group| group.places.values());
        let lost = places.filter(|place| {
            let Some(ordinal) = place.ordinal else {
                return false;
            };
            let node = self.holders.get(&ordinal);
            let is_there = node.is_some_and(|node| node.node_id == place.node_id);
            self.without_disk.contains(&ordinal) && !is_there
        });
        lost.map(|place| place.node_id).collect()
    }

    /// The group as the newest leader among the answers tells it.
    fn group(&self, partition: u32) -> Option<Group> {
        let ours = self.leaders.values().filter(|view| self.is_ours(view));
        let members = ours.filter_map(|view| view.groups.get(&partition));
        let leader = members
            .filter(|group| group.leads)
            .max_by_key(|group| group.term)?;
        let membership = leader.membership.as_ref()?;
        let mut group = Group {
            leader: leader.member_id,
            membership: membership.position,
            voters: membership.voters.clone(),
            outgoing: membership.outgoing.clone(),
            learners: membership.learners.clone(),
            places: self.places(membership),
            silent: BTreeSet::new(),
        };
        group.silent = self.silent(&group, leader);
        Some(group)
    }

    fn silent(&self, group: &Group, leader: &GroupView) -> BTreeSet<u64> {
        let Some(limit) = self.contact_limit else {
            return BTreeSet::new();
        };
        // A changed timeout is in force as its node tells.
        let limit = leader.election_timeout.map_or(limit, |timeout| timeout * 2);
        let is_heard = |member: u64| {
            let since = leader.contacts.get(&member).copied().flatten();
            member == leader.member_id || since.is_some_and(|since| since <= limit)
        };
        let members = group.members();
        members.filter(|member| !is_heard(*member)).collect()
    }

    fn places(&self, membership: &MembershipView) -> BTreeMap<u64, Place> {
        let places = membership
            .places
            .iter()
            .map(|(member, (node_id, address))| {
                let place = Place {
                    node_id: *node_id,
                    ordinal: names::ordinal_of_address(self.store, address),
                    address: address.clone(),
                };
                (*member, place)
            });
        places.collect()
    }

    /// Ordinals of the members of a group without a leader, as its newest member tells: those whose
    /// disk is not known to be another one by now.
    fn hearsay(&self, partition: u32) -> Vec<u32> {
        let Some(membership) = newest_membership(self.plan, self.leaders.values(), partition)
        else {
            return Vec::new();
        };
        let places = self.places(membership).into_values();
        let kept = places.filter_map(|place| {
            let ordinal = place.ordinal?;
            let node = self.holders.get(&ordinal);
            let is_other = node.is_some_and(|node| node.node_id != place.node_id);
            (!is_other).then_some(ordinal)
        });
        kept.collect()
    }
}

/// The newest membership of a partition that any of these nodes tells.
#[must_use]
pub fn newest_membership<'a>(
    plan: &Plan,
    nodes: impl IntoIterator<Item = &'a NodeView>,
    partition: u32,
) -> Option<&'a MembershipView> {
    let ours = nodes
        .into_iter()
        .filter(|view| view.store_uid == plan.store_uid && view.incarnation == plan.incarnation);
    let memberships = ours.filter_map(|view| view.groups.get(&partition)?.membership.as_ref());
    memberships.max_by_key(|membership| membership.position)
}
