//! A model of nodes and groups, with disks that are lost and nodes that are away. It checks what
//! must hold after each step.

use super::*;

mod changes;

/// Ordinals that the model knows.
pub(super) const MAX_NODES: u32 = 7;

#[derive(Debug, Clone)]
pub(super) struct ModelHeld {
    pub(super) member_id: u64,
    /// What its Join asked for; `None` for a first member.
    pub(super) replaces: Option<u64>,
    expected: Position,
    /// A membership has reached it.
    pub(super) is_admitted: bool,
    caught_up: bool,
}

#[derive(Debug, Clone)]
pub(super) struct ModelNode {
    pub(super) node_id: u64,
    pub(super) has_pod: bool,
    pub(super) up: bool,
    /// The operators can reach it.
    pub(super) reachable: bool,
    pub(super) held: BTreeMap<u32, ModelHeld>,
    /// Members that it held and that left: it takes none of them again.
    departed: BTreeSet<u64>,
}

#[derive(Debug, Clone)]
pub(super) struct ModelGroup {
    pub(super) group: Group,
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) spec: Desired,
    pub(super) pods: u32,
    pub(super) nodes: Vec<ModelNode>,
    pub(super) groups: BTreeMap<u32, ModelGroup>,
    pub(super) zones: BTreeMap<u32, String>,
    pub(super) losses: u32,
    next_id: u64,
    /// Voters that have left: their ids are never used again. (One that was removed before anything
    /// reached it has said nothing to anybody, and may begin anew.)
    left: BTreeSet<u64>,
}

impl World {
    pub(super) fn new(spec: Desired, partitions: u32, zones: u32) -> Self {
        let mut world = Self {
            spec,
            pods: spec.replicas,
            nodes: Vec::new(),
            groups: BTreeMap::new(),
            zones: BTreeMap::new(),
            losses: 0,
            next_id: 1,
            left: BTreeSet::new(),
        };
        for ordinal in 0..MAX_NODES {
            let node_id = world.mint();
            world.nodes.push(ModelNode {
                node_id,
                has_pod: ordinal < spec.replicas,
                up: true,
                reachable: true,
                held: BTreeMap::new(),
                departed: BTreeSet::new(),
            });
            if zones > 0 {
                world
                    .zones
                    .insert(ordinal, format!("zone-{}", ordinal % zones));
            }
        }
        for partition in 1..=partitions {
            world.bootstrap(partition);
        }
        world
    }

    fn bootstrap(&mut self, partition: u32) {
        let mut group = Group {
            membership: (1, 1),
            ..Group::default()
        };
        for copy in 0..self.spec.replication_factor {
            let ordinal = (partition + copy) % self.spec.replicas;
            let member_id = self.mint();
            let node = &mut self.nodes[ordinal as usize];
            let place = Place {
                node_id: node.node_id,
                ordinal: Some(ordinal),
                address: String::new(),
            };
            group.voters.insert(member_id);
            group.places.insert(member_id, place);
            let held = ModelHeld {
                member_id,
                replaces: None,
                expected: (0, 0),
                is_admitted: true,
                caught_up: true,
            };
            node.held.insert(partition, held);
        }
        self.groups.insert(partition, ModelGroup { group });
    }

    pub(super) fn mint(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// The member's disk is there and has its data.
    fn is_intact(&self, partition: u32, member: u64) -> bool {
        let group = &self.groups[&partition].group;
        let Some(place) = group.places.get(&member) else {
            return false;
        };
        let node = &self.nodes[place.ordinal.unwrap() as usize];
        let held = node.held.get(&partition);
        node.node_id == place.node_id
            && held.is_some_and(|held| held.member_id == member && held.caught_up)
    }

    fn is_alive(&self, partition: u32, member: u64) -> bool {
        let place = &self.groups[&partition].group.places[&member];
        let node = &self.nodes[place.ordinal.unwrap() as usize];
        let holds = node.held.get(&partition);
        node.has_pod
            && node.up
            && node.node_id == place.node_id
            && holds.is_some_and(|held| held.member_id == member)
    }

    fn is_quorum(&self, partition: u32, of: &BTreeSet<u64>, member: impl Fn(u64) -> bool) -> bool {
        let _ = partition;
        of.is_empty() || of.iter().filter(|id| member(**id)).count() * 2 > of.len()
    }

    /// Keeps or elects a leader; `None` without a quorum.
    pub(super) fn leader(&mut self, partition: u32) -> Option<u64> {
        let group = self.groups[&partition].group.clone();
        let serves = |id: u64| self.is_alive(partition, id) && self.is_intact(partition, id);
        let has_quorum = self.is_quorum(partition, &group.voters, serves)
            && self.is_quorum(partition, &group.outgoing, serves);
        if !has_quorum {
            return None;
        }
        let leader = if group.voters.contains(&group.leader) && serves(group.leader) {
            group.leader
        } else {
            *group.voters.iter().find(|id| serves(**id))?
        };
        self.groups.get_mut(&partition).unwrap().group.leader = leader;
        Some(leader)
    }

    /// What an operator sees now.
    pub(super) fn observe(&mut self) -> Observed {
        let mut observed = Observed {
            zones: self.zones.clone(),
            live_replicas: self.pods,
            ..Observed::default()
        };
        for (ordinal, node) in (0_u32..).zip(&self.nodes) {
            if !(node.has_pod && node.up && node.reachable) {
                continue;
            }
            let held = node.held.iter().map(|(partition, held)| {
                let state = if held.is_admitted {
                    HeldState::Admitted
                } else {
                    HeldState::Joining
                };
                let member_id = held.member_id;
                (*partition, Held { member_id, state })
            });
            let view = Node {
                node_id: node.node_id,
                held: held.collect(),
                is_foreign: false,
            };
            observed.nodes.insert(ordinal, view);
        }
        let partitions: Vec<u32> = self.groups.keys().copied().collect();
        for partition in partitions {
            let leader = self.leader(partition);
            let mut group = self.groups[&partition].group.clone();
            let is_seen = |ordinal: Option<u32>| {
                ordinal.is_some_and(|ordinal| observed.nodes.contains_key(&ordinal))
            };
            let known = leader.filter(|leader| is_seen(group.ordinal_of(*leader)));
            if known.is_none() {
                let seen = group.members().any(|member| {
                    is_seen(group.ordinal_of(member)) && self.is_alive(partition, member)
                });
                let ordinals = group
                    .members()
                    .filter_map(|member| group.ordinal_of(member));
                if seen {
                    observed.hearsay.extend(ordinals);
                }
                observed.groups.insert(partition, None);
                continue;
            }
            let members: Vec<u64> = group.members().collect();
            group.silent = members
                .into_iter()
                .filter(|member| !self.is_alive(partition, *member))
                .collect();
            observed.groups.insert(partition, Some(group));
        }
        observed
    }

    /// The StatefulSet gets this many replicas.
    pub(super) fn scale(&mut self, pods: u32) {
        for (ordinal, node) in (0_u32..).zip(&mut self.nodes) {
            let has_pod = ordinal < pods;
            if has_pod && !node.has_pod {
                node.up = true;
            }
            node.has_pod = has_pod;
        }
        self.pods = pods;
    }

    /// A disk is lost, unless that alone would cost a group its majority.
    pub(super) fn lose_disk(&mut self, ordinal: usize) {
        let lost = self.nodes[ordinal].node_id;
        let survives = self.groups.iter().all(|(partition, model)| {
            let stays =
                |id: u64| self.is_intact(*partition, id) && model.group.places[&id].node_id != lost;
            self.is_quorum(*partition, &model.group.voters, stays)
                && self.is_quorum(*partition, &model.group.outgoing, stays)
        });
        if survives {
            let node_id = self.mint();
            let node = &mut self.nodes[ordinal];
            node.node_id = node_id;
            node.held.clear();
            node.departed.clear();
            self.losses += 1;
        }
    }

    /// What must always hold.
    pub(super) fn check(&self) {
        for (partition, ModelGroup { group }) in &self.groups {
            let changes = group.learners.len() + usize::from(!group.outgoing.is_empty());
            assert!(changes <= 1, "two changes at once: {group:?}");
            let intact = |id: u64| self.is_intact(*partition, id);
            assert!(
                self.is_quorum(*partition, &group.voters, intact)
                    && self.is_quorum(*partition, &group.outgoing, intact),
                "no majority has data: {group:?} on {:?}",
                self.nodes
            );
            let nodes: BTreeSet<u64> = group
                .voters
                .iter()
                .map(|id| group.places[id].node_id)
                .collect();
            assert_eq!(
                nodes.len(),
                group.voters.len(),
                "two copies on one disk: {group:?}"
            );
        }
    }
}
