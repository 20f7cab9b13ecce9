//! Tables of single decisions, then a model: nodes, one stored plan, two operators that crash,
//! pause and overtake each other, disks that are lost, all in random order.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

use std::time::Duration;

use atomix_proto::multiraft::v1::PartitionConfig;
use proptest::prelude::*;

use super::super::node_view::GroupView;
use super::*;

const UID: &str = "store-uid";

fn desired(replicas: u32, partitions: u32, factor: u32) -> Desired {
    Desired {
        store_uid: UID.to_owned(),
        addresses: (0..replicas)
            .map(|ordinal| format!("tulip-{ordinal}:5681"))
            .collect(),
        partitions,
        replication_factor: factor,
        timings: Timings {
            election_timeout: Duration::from_secs(1),
            snapshot_entry_threshold: 0,
        },
        ephemeral: false,
    }
}

fn empty_node(node_id: u64) -> NodeView {
    NodeView {
        node_id,
        store_uid: String::new(),
        incarnation: 0,
        version: "1".to_owned(),
        groups: BTreeMap::new(),
    }
}

fn counter() -> impl FnMut() -> u64 {
    let mut next = 0_u64;
    move || {
        next += 1;
        // Spread over 64 bits; ids are the upper 63.
        next.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

fn observed(stored: StoredPlan, nodes: Vec<Option<NodeView>>) -> Observed {
    Observed {
        stored,
        was_bootstrapped: false,
        nodes,
    }
}

/// The node as it is after it accepted the plan.
fn bootstrapped_node(plan: &Plan, ordinal: u32, has_committed: bool) -> NodeView {
    let groups = plan
        .request_for(ordinal)
        .partitions
        .into_iter()
        .map(|config| {
            let view = GroupView {
                member_id: config.member_id,
                leads: false,
                leader: 0,
                has_committed,
            };
            (config.partition_id, view)
        });
    NodeView {
        store_uid: plan.store_uid.clone(),
        incarnation: plan.incarnation,
        groups: groups.collect(),
        ..empty_node(plan.node(ordinal).unwrap().node_id.0)
    }
}

fn made_plan(desired: &Desired, node_ids: &[u64]) -> Plan {
    let nodes: Vec<NodeView> = node_ids.iter().map(|id| empty_node(*id)).collect();
    new_plan(
        desired,
        &nodes.iter().collect::<Vec<_>>(),
        1,
        &mut counter(),
    )
}

fn ours(plan: &Plan, bootstrapped: bool) -> StoredPlan {
    StoredPlan::Ours {
        plan: Box::new(plan.clone()),
        bootstrapped,
    }
}

#[test]
fn nothing_is_planned_before_every_ordinal_has_answered_empty() {
    let desired = desired(3, 4, 3);
    let silent = observed(
        StoredPlan::Absent,
        vec![Some(empty_node(1)), None, Some(empty_node(3))],
    );
    let decision = decide(&desired, &silent, &mut counter());
    assert_eq!(decision, Decision::wait(Phase::WaitingForNodes(vec![1])));

    let mut holding = empty_node(2);
    holding.store_uid = "earlier".to_owned();
    holding.groups = bootstrapped_node(&made_plan(&desired, &[1, 2, 3]), 1, true).groups;
    let used = observed(
        StoredPlan::Absent,
        vec![Some(empty_node(1)), Some(holding.clone()), None],
    );
    let decision = decide(&desired, &used, &mut counter());
    let foreign = BTreeMap::from([(1, "earlier".to_owned())]);
    assert_eq!(decision, Decision::wait(Phase::ExistingData(foreign)));

    holding.store_uid = UID.to_owned();
    let orphaned = observed(StoredPlan::Absent, vec![Some(holding)]);
    let decision = decide(&desired, &orphaned, &mut counter());
    assert_eq!(decision, Decision::wait(Phase::PlanMissing));

    let mut forgotten = observed(
        StoredPlan::Absent,
        vec![
            Some(empty_node(1)),
            Some(empty_node(2)),
            Some(empty_node(3)),
        ],
    );
    forgotten.was_bootstrapped = true;
    let decision = decide(&desired, &forgotten, &mut counter());
    assert_eq!(decision, Decision::wait(Phase::PlanMissing));

    forgotten.was_bootstrapped = false;
    let decision = decide(&desired, &forgotten, &mut counter());
    assert!(matches!(
        decision.actions.as_slice(),
        [Action::CreatePlan(_)]
    ));
}

#[test]
fn the_mark_waits_for_every_member_and_every_commit() {
    let desired = desired(3, 2, 3);
    let plan = made_plan(&desired, &[1, 2, 3]);
    let node = |ordinal, committed| Some(bootstrapped_node(&plan, ordinal, committed));
    let empty = |ordinal: u32| Some(empty_node(plan.node(ordinal).unwrap().node_id.0));
    for (nodes, expected) in [
        (
            vec![empty(0), empty(1), None],
            vec![
                Action::Bootstrap { ordinal: 0 },
                Action::Bootstrap { ordinal: 1 },
            ],
        ),
        (vec![node(0, true), node(1, true), None], vec![]),
        (
            vec![node(0, true), node(1, true), empty(2)],
            vec![Action::Bootstrap { ordinal: 2 }],
        ),
        (vec![node(0, false), node(1, false), node(2, false)], vec![]),
        (
            vec![node(0, false), node(1, true), node(2, false)],
            vec![Action::MarkBootstrapped],
        ),
    ] {
        let observed = observed(ours(&plan, false), nodes);
        assert_eq!(
            decide(&desired, &observed, &mut counter()).actions,
            expected
        );
    }
}

#[test]
fn a_lost_disk_means_a_new_incarnation_before_the_mark_and_never_after() {
    let mut desired = desired(3, 2, 3);
    let plan = made_plan(&desired, &[1, 2, 3]);
    let nodes = vec![
        Some(bootstrapped_node(&plan, 0, true)),
        Some(bootstrapped_node(&plan, 1, true)),
        Some(empty_node(9)),
    ];
    let before = decide(
        &desired,
        &observed(ours(&plan, false), nodes.clone()),
        &mut counter(),
    );
    let [Action::ReplacePlan(next)] = before.actions.as_slice() else {
        panic!("{before:?}");
    };
    assert_eq!(next.incarnation, 2);
    assert_eq!(next.node(2).unwrap().node_id, HexId(9));

    let after = decide(
        &desired,
        &observed(ours(&plan, true), nodes),
        &mut counter(),
    );
    assert_eq!(
        after,
        Decision::wait(Phase::Done {
            lost_disks: vec![2]
        })
    );

    // Every disk is lost: only a Store whose data may die starts again.
    let all_new = vec![
        Some(empty_node(7)),
        Some(empty_node(8)),
        Some(empty_node(9)),
    ];
    let observed = observed(ours(&plan, true), all_new);
    let kept = decide(&desired, &observed, &mut counter());
    assert_eq!(
        kept,
        Decision::wait(Phase::Done {
            lost_disks: vec![0, 1, 2]
        })
    );
    desired.ephemeral = true;
    let renewed = decide(&desired, &observed, &mut counter());
    assert!(matches!(
        renewed.actions.as_slice(),
        [Action::ReplacePlan(_)]
    ));
}

#[test]
fn plans_that_are_not_ours_or_unreadable_stop_everything() {
    let desired = desired(1, 1, 1);
    for (stored, phase) in [
        (StoredPlan::OfEarlierStore, Phase::WaitingForEarlierPlan),
        (
            StoredPlan::Damaged("x".to_owned()),
            Phase::PlanDamaged("x".to_owned()),
        ),
    ] {
        let observed = observed(stored, vec![Some(empty_node(1))]);
        assert_eq!(
            decide(&desired, &observed, &mut counter()),
            Decision::wait(phase)
        );
    }
}

proptest! {
    #[test]
    fn members_and_initializers_are_spread_evenly(
        (replicas, factor) in prop_oneof![
            (1_u32..64, Just(1_u32)), (3_u32..64, Just(3)), (5_u32..64, Just(5)), (7_u32..64, Just(7)),
        ],
        partitions in 1_u32..200,
    ) {
        let desired = desired(replicas, partitions, factor);
        let ids: Vec<u64> = (1..=u64::from(replicas)).collect();
        let plan = made_plan(&desired, &ids);
        prop_assert_eq!(&Plan::parse(&plan.to_json()).unwrap(), &plan);
        let (mut members, mut initializers) = (vec![0_u32; ids.len()], vec![0_u32; ids.len()]);
        for partition in &plan.partitions {
            prop_assert_eq!(partition.members.len(), factor as usize);
            for (ordinal, member) in &partition.members {
                prop_assert!(member.0 < 1 << 63);
                members[*ordinal as usize] += 1;
            }
            initializers[partition.initializer as usize] += 1;
        }
        let spread = |counts: &[u32]| counts.iter().max().unwrap() - counts.iter().min().unwrap();
        prop_assert!(spread(&members) <= 1, "{:?}", members);
        prop_assert!(spread(&initializers) <= 2, "{:?}", initializers);
    }
}

/// What a node has of one partition.
#[derive(Debug, Clone)]
struct ModelGroup {
    config: PartitionConfig,
    committed: bool,
}

#[derive(Debug, Clone)]
struct ModelNode {
    node_id: u64,
    up: bool,
    groups: BTreeMap<u32, ModelGroup>,
}

/// An operator: what it read, and what it has yet to do.
#[derive(Debug, Default)]
struct ModelOperator {
    read_version: u64,
    read_plan: Option<Plan>,
    pending: Vec<Action>,
}

#[derive(Debug)]
struct World {
    desired: Desired,
    nodes: Vec<ModelNode>,
    stored: Option<(Plan, bool)>,
    version: u64,
    next_id: u64,
    operators: [ModelOperator; 2],
    /// Every member that was ever made: (incarnation, partition, member).
    made: BTreeSet<(u64, u32, u64)>,
    /// The one plan of each incarnation, and the initializer of each of its partitions.
    plans: BTreeMap<u64, Plan>,
    initializers: BTreeMap<(u64, u32), u64>,
}

impl World {
    fn new(replicas: u32, partitions: u32, factor: u32) -> Self {
        let nodes = (1..=u64::from(replicas)).map(|node_id| ModelNode {
            node_id,
            up: true,
            groups: BTreeMap::new(),
        });
        Self {
            desired: desired(replicas, partitions, factor),
            nodes: nodes.collect(),
            stored: None,
            version: 0,
            next_id: 1000,
            operators: Default::default(),
            made: BTreeSet::new(),
            plans: BTreeMap::new(),
            initializers: BTreeMap::new(),
        }
    }

    fn observe(&self) -> Observed {
        let view = |node: &ModelNode| {
            let first = node.groups.values().next();
            let groups = node.groups.iter().map(|(partition, group)| {
                let view = GroupView {
                    member_id: group.config.member_id,
                    leads: false,
                    leader: 0,
                    has_committed: group.committed,
                };
                (*partition, view)
            });
            node.up.then(|| NodeView {
                node_id: node.node_id,
                store_uid: first
                    .map(|group| group.config.store_uid.clone())
                    .unwrap_or_default(),
                incarnation: first.map_or(0, |group| group.config.incarnation),
                version: String::new(),
                groups: groups.collect(),
            })
        };
        let stored = match &self.stored {
            None => StoredPlan::Absent,
            Some((plan, marked)) => ours(plan, *marked),
        };
        observed(stored, self.nodes.iter().map(view).collect())
    }

    /// One operator does one thing: looks, or carries out its next action on what it saw.
    fn step(&mut self, who: usize) {
        if !self.operators[who].pending.is_empty() {
            let action = self.operators[who].pending.remove(0);
            self.carry_out(who, action);
            return;
        }
        let observed = self.observe();
        let mut id = self.next_id;
        let decision = decide(&self.desired, &observed, &mut || {
            id += 1;
            id << 1
        });
        self.next_id = id;
        self.operators[who] = ModelOperator {
            read_version: self.version,
            read_plan: self.stored.as_ref().map(|(plan, _)| plan.clone()),
            pending: decision.actions,
        };
    }

    fn carry_out(&mut self, who: usize, action: Action) {
        let is_current = self.operators[who].read_version == self.version;
        match action {
            Action::CreatePlan(plan) => {
                if self.stored.is_none() {
                    self.store(*plan);
                }
            }
            Action::ReplacePlan(plan) => {
                if is_current {
                    let marked = self.stored.as_ref().is_some_and(|(_, marked)| *marked);
                    assert!(!marked, "a marked plan was replaced");
                    self.store(*plan);
                }
            }
            Action::MarkBootstrapped => {
                if is_current {
                    let (plan, marked) = self.stored.as_mut().unwrap();
                    *marked = true;
                    self.version += 1;
                    for partition in &plan.partitions {
                        for member in partition.members.values() {
                            let member = (plan.incarnation, partition.partition, member.0);
                            assert!(self.made.contains(&member), "marked without {member:?}");
                        }
                    }
                }
            }
            Action::Bootstrap { ordinal } => {
                let plan = self.operators[who].read_plan.clone().unwrap();
                for config in plan.request_for(ordinal).partitions {
                    self.bootstrap(ordinal as usize, config);
                }
            }
        }
    }

    fn store(&mut self, plan: Plan) {
        plan_is_next(&self.plans, &plan);
        self.plans.insert(plan.incarnation, plan.clone());
        self.stored = Some((plan, false));
        self.version += 1;
    }

    /// The node's own rules.
    fn bootstrap(&mut self, ordinal: usize, config: PartitionConfig) {
        let node = &mut self.nodes[ordinal];
        if !node.up || config.node_id != node.node_id {
            return;
        }
        let newest = node
            .groups
            .values()
            .map(|group| group.config.incarnation)
            .max();
        if newest.is_some_and(|newest| newest > config.incarnation) {
            return;
        }
        node.groups
            .retain(|_, group| group.config.incarnation == config.incarnation);
        if let Some(existing) = node.groups.get(&config.partition_id) {
            assert_eq!(existing.config, config, "two plans of one incarnation");
            return;
        }
        let marked = self.stored.as_ref().is_some_and(|(_, marked)| *marked);
        assert!(!marked, "a member was made after the mark");
        let key = (config.incarnation, config.partition_id);
        let initializer = self.initializers.entry(key).or_insert(config.initializer);
        assert_eq!(*initializer, config.initializer, "two initializers");
        let member = (config.incarnation, config.partition_id, config.member_id);
        assert!(self.made.insert(member), "a member id was used again");
        let group = ModelGroup {
            config: config.clone(),
            committed: false,
        };
        node.groups.insert(config.partition_id, group);
    }

    /// Raft: a group whose initializer and majority are up commits.
    fn elect(&mut self) {
        for partition in 1..=self.desired.partitions {
            let present = |node: &&ModelNode| node.up && node.groups.contains_key(&partition);
            let mut by_incarnation: BTreeMap<u64, Vec<PartitionConfig>> = BTreeMap::new();
            for node in self.nodes.iter().filter(present) {
                let config = &node.groups[&partition].config;
                by_incarnation
                    .entry(config.incarnation)
                    .or_default()
                    .push(config.clone());
            }
            for (incarnation, configs) in by_incarnation {
                let has_initializer = configs
                    .iter()
                    .any(|config| config.member_id == config.initializer);
                if !has_initializer || configs.len() * 2 <= configs[0].members.len() {
                    continue;
                }
                for node in &mut self.nodes {
                    if let Some(group) = node.groups.get_mut(&partition)
                        && node.up
                        && group.config.incarnation == incarnation
                    {
                        group.committed = true;
                    }
                }
            }
        }
    }

    fn lose_disk(&mut self, ordinal: usize) {
        self.next_id += 1;
        let node = &mut self.nodes[ordinal];
        node.node_id = self.next_id;
        node.groups.clear();
    }

    fn is_marked(&self) -> bool {
        self.stored.as_ref().is_some_and(|(_, marked)| *marked)
    }
}

fn plan_is_next(plans: &BTreeMap<u64, Plan>, plan: &Plan) {
    let newest = plans.keys().next_back().copied().unwrap_or(0);
    assert_eq!(
        plan.incarnation,
        newest + 1,
        "incarnations follow each other"
    );
    assert_eq!(Plan::parse(&plan.to_json()).unwrap(), *plan);
}

#[derive(Debug, Clone)]
enum Step {
    Operator(usize),
    Crash(usize),
    Toggle(usize),
    LoseDisk(usize),
    Elect,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        12 => (0_usize..2).prop_map(Step::Operator),
        2 => (0_usize..2).prop_map(Step::Crash),
        2 => (0_usize..5).prop_map(Step::Toggle),
        1 => (0_usize..5).prop_map(Step::LoseDisk),
        3 => Just(Step::Elect),
    ];
    proptest::collection::vec(step, 0..160)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn whatever_happens_there_is_one_plan_an_incarnation_and_it_converges(
        (replicas, factor) in prop_oneof![
            (1_u32..6, Just(1_u32)), (3_u32..6, Just(3)), Just((5, 5)),
        ],
        partitions in 1_u32..5,
        steps in steps(),
    ) {
        let mut world = World::new(replicas, partitions, factor);
        for step in steps {
            let at = |index: usize| index % replicas as usize;
            match step {
                Step::Operator(who) => world.step(who),
                Step::Crash(who) => world.operators[who] = ModelOperator::default(),
                Step::Toggle(node) => world.nodes[at(node)].up ^= true,
                Step::LoseDisk(node) => world.lose_disk(at(node)),
                Step::Elect => world.elect(),
            }
        }
        // The storm is over: all nodes are up, and both operators act in turn.
        for node in &mut world.nodes {
            node.up = true;
        }
        for _ in 0..40 * replicas {
            world.step(0);
            world.step(1);
            world.elect();
        }
        prop_assert!(world.is_marked(), "{world:?}");
        let observed = world.observe();
        let last = decide(&world.desired, &observed, &mut counter());
        prop_assert!(last.actions.is_empty(), "still acting: {last:?}");
        prop_assert!(matches!(last.phase, Phase::Done { .. }), "{last:?}");
    }
}
