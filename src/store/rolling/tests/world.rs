//! A model of a Store's pods, disks and groups, with a StatefulSet, kubelets, a disruption budget, and
//! members that move. It checks at each stop of a node what must hold.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::store::nodes::strength::{Strength, Voter};
use crate::store::objects::budget::{Groups, bearable};

/// A template whose image does not exist.
pub(super) const BAD_TEMPLATE: u32 = 3;

#[derive(Debug, Clone)]
pub(super) struct ModelPod {
    pub(super) uid: u64,
    pub(super) template: u32,
    pub(super) started: bool,
    pub(super) running: bool,
    /// The gate, as the operator wrote it.
    pub(super) gate: bool,
}

#[derive(Debug, Clone, Default)]
pub(super) struct ModelMember {
    /// It is here with all it ever acknowledged.
    pub(super) has_data: bool,
    pub(super) caught_up: bool,
}

#[derive(Debug, Clone, Default)]
pub(super) struct ModelGroup {
    /// Voters by ordinal.
    pub(super) voters: BTreeMap<u32, ModelMember>,
    /// A member on its way: to which pod, in whose place.
    pub(super) moving: Option<(u32, u32)>,
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) desired: Desired,
    pub(super) template: u32,
    pub(super) pods: BTreeMap<u32, ModelPod>,
    pub(super) groups: BTreeMap<u32, ModelGroup>,
    /// Moves that are wanted: partition, from, to.
    pub(super) wishes: Vec<(u32, u32, u32)>,
    next_uid: u64,
}

impl World {
    pub(super) fn new(desired: Desired, partitions: u32) -> Self {
        let mut world = Self {
            desired,
            template: 1,
            pods: BTreeMap::new(),
            groups: BTreeMap::new(),
            wishes: Vec::new(),
            next_uid: 1,
        };
        for ordinal in 0..desired.pods {
            let uid = world.mint();
            let pod = ModelPod {
                uid,
                template: 1,
                started: true,
                running: true,
                gate: true,
            };
            world.pods.insert(ordinal, pod);
        }
        for partition in 1..=partitions {
            let copies = 0..desired.replication_factor;
            let voters = copies.map(|copy| {
                let member = ModelMember {
                    has_data: true,
                    caught_up: true,
                };
                ((partition + copy) % desired.pods, member)
            });
            let group = ModelGroup {
                voters: voters.collect(),
                moving: None,
            };
            world.groups.insert(partition, group);
        }
        world
    }

    fn mint(&mut self) -> u64 {
        self.next_uid += 1;
        self.next_uid
    }

    fn runs(&self, ordinal: u32) -> bool {
        self.pods.get(&ordinal).is_some_and(|pod| pod.running)
    }

    fn serves(&self, group: &ModelGroup, without: Option<u32>) -> bool {
        let voters = group.voters.iter();
        let serving = voters.filter(|(ordinal, member)| {
            Some(**ordinal) != without && self.runs(**ordinal) && member.has_data
        });
        serving.count() * 2 > group.voters.len()
    }

    /// The template that old pods are compared with: the StatefulSet's.
    pub(super) fn observe(&mut self) -> Observed {
        self.write_gates();
        let pods = self.pods.iter().map(|(ordinal, pod)| {
            let holds = self
                .groups
                .values()
                .any(|group| group.voters.contains_key(ordinal));
            let state = match (pod.running, pod.started) {
                (true, _) => PodState::Serving,
                (false, false) => PodState::NeverStarted,
                (false, true) => PodState::Down,
            };
            let seen = Pod {
                is_old: pod.template != self.template,
                state,
                holds: holds || !pod.running,
            };
            (*ordinal, seen)
        });
        Observed {
            knows_template: true,
            pods: pods.collect(),
            strength: self.strength(),
            is_moving: !self.wishes.is_empty()
                || self.groups.values().any(|group| group.moving.is_some()),
        }
    }

    fn strength(&self) -> Strength {
        let groups = self.groups.iter().map(|(partition, group)| {
            if !self.serves(group, None) {
                return (*partition, None);
            }
            let mut leader = 0;
            let voters = group.voters.iter().map(|(ordinal, member)| {
                let standing = match (self.runs(*ordinal) && member.has_data, member.caught_up) {
                    (true, true) => Standing::CaughtUp,
                    (true, false) => Standing::Behind,
                    (false, _) => Standing::Away,
                };
                if standing == Standing::CaughtUp {
                    leader = u64::from(*ordinal) + 1;
                }
                let voter = Voter {
                    ordinal: Some(*ordinal),
                    standing,
                };
                (u64::from(*ordinal) + 1, voter)
            });
            let voters = voters.collect();
            let strength = GroupStrength {
                leader,
                voters,
                is_changing: group.moving.is_some(),
            };
            (*partition, Some(strength))
        });
        Strength {
            groups: groups.collect(),
        }
    }

    fn write_gates(&mut self) {
        let strength = self.strength();
        let is_any_unknown = strength.groups.values().any(Option::is_none);
        for (ordinal, pod) in &mut self.pods {
            let groups = strength.groups.values();
            let standings = groups
                .flatten()
                .filter_map(|group| Some(group.voter_at(*ordinal)?.1.standing));
            match (pod.running, standings.max()) {
                (false, _) => pod.gate = false,
                (true, None | Some(Standing::CaughtUp)) if !is_any_unknown => pod.gate = true,
                // It shuts late; here never, which is worse.
                (true, None | Some(_)) => {}
            }
        }
    }

    /// The eviction of a pod that is known by its uid; the API server counts pods that are not
    /// ready.
    pub(super) fn evict(&mut self, ordinal: u32, uid: u64) {
        let bearable = bearable(self.desired.replication_factor, Groups::NotMade);
        let healthy = self.pods.values().filter(|pod| pod.running && pod.gate);
        let expected = self.desired.pods;
        let healthy = u32::try_from(healthy.count()).unwrap();
        let Some(pod) = self.pods.get(&ordinal).filter(|pod| pod.uid == uid) else {
            return;
        };
        let costs = u32::from(pod.running && pod.gate);
        if bearable > 0 && healthy < expected - bearable + costs {
            return;
        }
        for group in self.groups.values() {
            // Of a group with one copy nothing else can be asked.
            let is_alone = group.voters.len() < 3;
            assert!(
                is_alone || !self.serves(group, None) || self.serves(group, Some(ordinal)),
                "stopping {ordinal} breaks {group:?} on {:?}",
                self.pods
            );
        }
        self.stop(ordinal);
        for group in self.groups.values() {
            let kept = group.voters.values().filter(|member| member.has_data);
            let is_alone = group.voters.len() < 3;
            assert!(
                is_alone || kept.count() * 2 > group.voters.len(),
                "{group:?} is lost"
            );
        }
    }

    /// The deletion of a pod that did not run when the API server was asked just before.
    pub(super) fn delete_idle(&mut self, ordinal: u32, uid: u64, is_new: bool) {
        let pod = self.pods.get(&ordinal);
        if pod.is_none_or(|pod| pod.uid != uid || pod.running || (is_new && pod.started)) {
            return;
        }
        let takes_data = self.desired.is_ephemeral && self.pods[&ordinal].started;
        assert!(
            !takes_data,
            "the data of {ordinal} is lost: {:?}",
            self.groups
        );
        self.stop(ordinal);
    }

    fn stop(&mut self, ordinal: u32) {
        self.pods.remove(&ordinal);
        if self.desired.is_ephemeral {
            let groups = self.groups.values_mut();
            for member in groups.filter_map(|group| group.voters.get_mut(&ordinal)) {
                (member.has_data, member.caught_up) = (false, false);
            }
        }
    }

    /// The StatefulSet makes what is missing; kubelets start it.
    pub(super) fn make_pods(&mut self) {
        let present: BTreeSet<u32> = self.pods.keys().copied().collect();
        for ordinal in (0..self.desired.pods).filter(|ordinal| !present.contains(ordinal)) {
            let uid = self.mint();
            let pod = ModelPod {
                uid,
                template: self.template,
                started: false,
                running: false,
                gate: false,
            };
            self.pods.insert(ordinal, pod);
        }
    }

    pub(super) fn start(&mut self, ordinal: u32) {
        let Some(pod) = self.pods.get_mut(&ordinal) else {
            return;
        };
        if pod.template == BAD_TEMPLATE || pod.running {
            return;
        }
        (pod.started, pod.running) = (true, true);
        let groups = self.groups.values_mut();
        for member in groups.filter_map(|group| group.voters.get_mut(&ordinal)) {
            member.caught_up = false;
        }
    }

    pub(super) fn crash(&mut self, ordinal: u32) {
        if let Some(pod) = self.pods.get_mut(&ordinal) {
            pod.running = false;
        }
    }

    /// A group goes on: copies catch up, lost ones are made again, moves end.
    pub(super) fn progress(&mut self, partition: u32) {
        let group = self.groups[&partition].clone();
        if !self.serves(&group, None) {
            return;
        }
        let runs: BTreeSet<u32> = (0..self.desired.pods).filter(|at| self.runs(*at)).collect();
        let model = self.groups.get_mut(&partition).unwrap();
        if let Some((to, from)) = model.moving.filter(|(to, _)| runs.contains(to)) {
            let all_run = model.voters.keys().all(|at| runs.contains(at));
            if all_run {
                model.moving = None;
                model.voters.remove(&from);
                let member = ModelMember {
                    has_data: true,
                    caught_up: true,
                };
                model.voters.insert(to, member);
            }
            return;
        }
        for (_, member) in model.voters.iter_mut().filter(|(at, _)| runs.contains(at)) {
            (member.has_data, member.caught_up) = (true, true);
        }
    }

    /// An operator begins a move that is wanted, or drops one that makes no sense any more.
    pub(super) fn begin_move(&mut self) {
        let Some((partition, from, to)) = self.wishes.first().copied() else {
            return;
        };
        let group = &self.groups[&partition];
        let makes_sense = group.voters.contains_key(&from) && !group.voters.contains_key(&to);
        let all_run = group.voters.keys().chain([&to]).all(|at| self.runs(*at));
        if makes_sense && !all_run {
            return;
        }
        if makes_sense {
            self.groups.get_mut(&partition).unwrap().moving = Some((to, from));
        }
        self.wishes.remove(0);
    }
}
