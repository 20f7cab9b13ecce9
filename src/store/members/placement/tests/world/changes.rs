//! What Join and Leave do, one small step at a time.

use super::*;

impl World {
    /// What a node does with a Join.
    pub(in super::super) fn join(&mut self, join: &Join) {
        let node = &mut self.nodes[join.ordinal as usize];
        if !(node.has_pod && node.up && node.reachable) || node.node_id != join.node_id {
            return;
        }
        // ALREADY_EXISTS, or it attaches to the one that goes on; what is stored stays.
        if let Some(held) = node.held.get_mut(&join.partition) {
            if held.member_id == join.member_id && !held.is_admitted {
                held.expected = join.expected;
            }
            return;
        }
        if node.departed.contains(&join.member_id) {
            return;
        }
        let held = ModelHeld {
            member_id: join.member_id,
            replaces: join.replaces,
            expected: join.expected,
            is_admitted: false,
            caught_up: false,
        };
        node.held.insert(join.partition, held);
    }

    /// What nodes do with a Leave. `factor` copies must stay.
    pub(in super::super) fn leave(&mut self, leave: &Leave, factor: u32) {
        let via = &self.nodes[leave.via as usize];
        let hosts = via.held.contains_key(&leave.partition);
        if !(via.has_pod && via.up && via.reachable && hosts) {
            return;
        }
        if self.leader(leave.partition).is_none() {
            return;
        }
        let group = self.groups[&leave.partition].group.clone();
        if !group.has(leave.member_id) {
            // Not a member: OK, and a node that holds it drops it.
            self.drop_held(leave.partition, leave.member_id);
            return;
        }
        if group.membership != leave.expected || !group.outgoing.is_empty() {
            return;
        }
        let mut next = group.clone();
        next.learners.remove(&leave.member_id);
        if next.voters.remove(&leave.member_id) {
            let alive = |id: u64| self.is_alive(leave.partition, id);
            if next.voters.is_empty() || !self.is_quorum(leave.partition, &next.voters, alive) {
                return;
            }
            let before = self.intact(leave.partition, &group.voters);
            let after = self.intact(leave.partition, &next.voters);
            assert!(
                after >= before.min(factor as usize),
                "a copy was given up: {leave:?} in {group:?}"
            );
        }
        next.membership.1 += 1;
        if group.voters.contains(&leave.member_id) {
            self.left.insert(leave.member_id);
        }
        self.groups.get_mut(&leave.partition).unwrap().group = next;
        self.forget_if_up(leave.partition, leave.member_id);
    }

    fn intact(&self, partition: u32, members: &BTreeSet<u64>) -> usize {
        let intact = members.iter().filter(|id| self.is_intact(partition, **id));
        intact.count()
    }

    fn drop_held(&mut self, partition: u32, member: u64) {
        for node in &mut self.nodes {
            let held = node.held.get(&partition);
            if node.has_pod && node.up && held.is_some_and(|held| held.member_id == member) {
                node.held.remove(&partition);
                node.departed.insert(member);
            }
        }
    }

    /// A node that is up notices that its member was removed.
    fn forget_if_up(&mut self, partition: u32, member: u64) {
        self.drop_held(partition, member);
    }

    /// One small step inside of a group.
    pub(in super::super) fn progress(&mut self, partition: u32, random: &mut Random) {
        if self.leader(partition).is_none() {
            return;
        }
        let mut group = self.groups[&partition].group.clone();
        if !group.outgoing.is_empty() {
            let gone: Vec<u64> = group.outgoing.difference(&group.voters).copied().collect();
            group.outgoing.clear();
            group.membership.1 += 1;
            self.groups.get_mut(&partition).unwrap().group = group;
            for member in gone {
                self.left.insert(member);
                self.forget_if_up(partition, member);
            }
            return;
        }
        let ordinal = random.below(MAX_NODES as usize);
        let node = &self.nodes[ordinal];
        if !(node.has_pod && node.up) {
            return;
        }
        let Some(held) = node.held.get(&partition).cloned() else {
            return;
        };
        let (member, node_id) = (held.member_id, node.node_id);
        if group.voters.contains(&member) {
            return;
        }
        if !group.learners.contains(&member) {
            self.admit(partition, ordinal, held, random);
            return;
        }
        assert_eq!(group.places[&member].node_id, node_id);
        if !held.caught_up {
            let held = self.nodes[ordinal].held.get_mut(&partition).unwrap();
            held.is_admitted = true;
            held.caught_up = true;
            return;
        }
        let before = self.intact(partition, &group.voters);
        let old = group.voters.clone();
        group.learners.remove(&member);
        group.voters.insert(member);
        if let Some(replaced) = held.replaces.filter(|replaced| old.contains(replaced)) {
            group.voters.remove(&replaced);
            group.outgoing = old;
        }
        group.membership.1 += 1;
        self.groups.get_mut(&partition).unwrap().group = group.clone();
        let after = self.intact(partition, &group.voters);
        assert!(after >= before, "a replacement cost a copy: {group:?}");
    }

    /// The leader hears of a node that holds a member that is none.
    fn admit(&mut self, partition: u32, ordinal: usize, held: ModelHeld, random: &mut Random) {
        let mut group = self.groups[&partition].group.clone();
        let member = held.member_id;
        if held.is_admitted {
            // A removed member that was away is told so, sooner or later.
            if random.below(3) == 0 {
                self.forget_if_up(partition, member);
            }
            return;
        }
        if held.expected != group.membership {
            // ABORTED: nothing changes; the node keeps what it began until it is told otherwise.
            return;
        }
        assert!(!self.left.contains(&member), "member {member} came back");
        assert!(group.learners.is_empty(), "two changes at once: {group:?}");
        let place = Place {
            node_id: self.nodes[ordinal].node_id,
            ordinal: u32::try_from(ordinal).ok(),
            address: String::new(),
        };
        group.learners.insert(member);
        group.places.insert(member, place);
        group.membership.1 += 1;
        self.groups.get_mut(&partition).unwrap().group = group;
    }
}
