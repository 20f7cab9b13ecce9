//! A model: nodes, one stored plan, two operators that crash, pause and overtake each other, disks
//! that are lost, all in random order.

use atomix_proto::multiraft::v1::PartitionConfig;
use proptest::prelude::*;

use super::*;

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
                    has_committed: group.committed,
                    ..GroupView::default()
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
                operator: String::new(),
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
            Action::AdoptPlan(_) => {
                assert!(
                    self.stored.is_some(),
                    "data without a plan came from nowhere"
                );
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
    // Or as many as `PROPTEST_CASES` says.
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.max(600)))]

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
        prop_assert!(matches!(last.phase, Phase::Done), "{last:?}");
    }
}
