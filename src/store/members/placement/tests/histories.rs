//! Random histories: two operators that crash, look and act at any time, changes of the spec, nodes
//! that go and come, disks that are lost; then all is well again and the placement must settle.
//!
//! A failed history prints its seed; `ATOMIX_SEED=… cargo test histories` plays it alone, and
//! `ATOMIX_HISTORIES=…` plays so many.

use super::world::{MAX_NODES, World};
use super::*;
use crate::store::histories::play_all;
use crate::store::members::placement::judge::Condition;

const HISTORIES: u64 = 400;
const STEPS: usize = 500;

/// What an operator has yet to do, and the number of copies that was wanted when it looked.
#[derive(Debug, Default)]
struct ModelOperator {
    pending: Vec<Pending>,
    factor: u32,
    /// How many disks had been lost then.
    losses: u32,
}

#[derive(Debug, PartialEq, Eq)]
enum Pending {
    Scale(u32),
    Change(Action),
}

#[test]
fn whatever_happens_no_copy_is_given_up_and_the_placement_settles() {
    play_all("placement", HISTORIES, STEPS, play);
}

fn play(seed: u64) {
    let mut random = Random(seed);
    let spec = random_spec(&mut random);
    let partitions = u32::try_from(1 + random.below(12)).unwrap();
    let zones = u32::try_from(random.below(4)).unwrap();
    let mut world = World::new(spec, partitions, zones);
    let mut operators = [ModelOperator::default(), ModelOperator::default()];
    for _ in 0..STEPS {
        storm(&mut world, &mut operators, &mut random);
        world.check();
    }
    for node in &mut world.nodes {
        (node.up, node.reachable) = (true, true);
    }
    calm(&mut world, &mut operators, &mut random);
}

fn random_spec(random: &mut Random) -> Desired {
    let factor = [1, 3, 3, 3, 5][random.below(5)];
    let room = MAX_NODES - factor + 1;
    Desired {
        replicas: factor + u32::try_from(random.below(room as usize)).unwrap(),
        replication_factor: factor,
    }
}

fn storm(world: &mut World, operators: &mut [ModelOperator; 2], random: &mut Random) {
    let node = random.below(MAX_NODES as usize);
    match random.below(100) {
        0..45 => {
            let who = random.below(2);
            act(world, &mut operators[who]);
        }
        // Everything in memory is forgotten.
        45..48 => operators[random.below(2)] = ModelOperator::default(),
        // A request never arrives.
        48..50 => {
            let pending = &mut operators[random.below(2)].pending;
            if !pending.is_empty() {
                pending.remove(0);
            }
        }
        50..52 => world.nodes[node].up ^= true,
        52..54 => world.nodes[node].reachable ^= true,
        54 => world.lose_disk(node),
        55 => world.spec = random_spec(random),
        _ => {
            let partition = 1 + random.below(world.groups.len());
            world.progress(u32::try_from(partition).unwrap(), random);
        }
    }
}

/// An operator looks, or does the next thing that it found to be done.
fn act(world: &mut World, operator: &mut ModelOperator) {
    if operator.pending.is_empty() {
        let (decision, _) = look(world);
        operator.factor = world.spec.replication_factor;
        operator.losses = world.losses;
        operator.pending.push(Pending::Scale(decision.replicas));
        let changes = decision.actions.into_iter().map(Pending::Change);
        operator.pending.extend(changes);
        return;
    }
    match operator.pending.remove(0) {
        Pending::Scale(pods) => world.scale(pods),
        Pending::Change(Action::Join(join)) => world.join(&join),
        Pending::Change(Action::Leave(leave)) => {
            // A disk that was lost in the meantime is nobody's fault.
            let factor = operator
                .factor
                .saturating_sub(world.losses - operator.losses);
            world.leave(&leave, factor);
        }
    }
}

/// Plans on what is seen now, and checks the plan itself.
fn look(world: &mut World) -> (Decision, Observed) {
    let observed = world.observe();
    let spec = world.spec;
    let decision = plan(&spec, &observed, &mut || world.mint());
    check_plan(&spec, &observed, &decision);
    (decision, observed)
}

fn check_plan(spec: &Desired, observed: &Observed, decision: &Decision) {
    let again = plan(spec, observed, &mut || 1 << 40);
    assert_eq!(again.actions.len(), decision.actions.len());
    assert!(decision.replicas >= spec.replicas || observed.nodes.is_empty());
    let partitions: BTreeSet<u32> = decision.actions.iter().map(Action::partition).collect();
    assert_eq!(partitions.len(), decision.actions.len(), "{decision:?}");
    let judge = Judge {
        desired: spec,
        observed,
    };
    let mut by_choice = 0;
    for action in &decision.actions {
        let partition = action.partition();
        let group = observed.groups[&partition].as_ref().unwrap();
        by_choice += usize::from(!is_known(observed, action) && is_by_choice(action));
        let gone = match action {
            Action::Join(join) => {
                let is_joint = !group.outgoing.is_empty();
                assert!(is_joint || join.ordinal < spec.replicas, "{join:?}");
                join.replaces
            }
            Action::Leave(leave) => Some(leave.member_id).filter(|id| group.voters.contains(id)),
        };
        if let Some(gone) = gone {
            let is_joint = !group.outgoing.is_empty();
            let condition = judge.condition(partition, group, gone);
            assert!(
                is_joint || condition != Condition::Unreachable,
                "one that is only away is replaced: {action:?} of {group:?}"
            );
        }
        // What lies evenly is judged by all members; numbers that are not known in full, or that
        // change at the same time, say nothing of one change.
        let is_judged =
            action.purpose() != Purpose::Spread || is_quiet_but_for(observed, partition);
        let after = completed(observed, action);
        if group.outgoing.is_empty()
            && is_judged
            && let Some(after) = after
        {
            let judge = Judge {
                desired: spec,
                observed: &after,
            };
            let (before, after) = (decision.potential, spread::potential(&judge));
            assert!(after < before, "{action:?}: {before:?} to {after:?}");
        }
    }
    assert!(by_choice <= 1, "{decision:?}");
    assert!(
        by_choice == 0 || decision.actions.len() == 1,
        "{decision:?}"
    );
}

/// Every other group is known and has nothing under way.
fn is_quiet_but_for(observed: &Observed, partition: u32) -> bool {
    let mut others = observed
        .groups
        .iter()
        .filter(|(other, _)| **other != partition);
    others.all(|(other, group)| {
        let Some(group) = group else {
            return false;
        };
        let mut held = observed
            .nodes
            .values()
            .filter_map(|node| node.held.get(other));
        group.learners.is_empty()
            && group.outgoing.is_empty()
            && held.all(|held| group.voters.contains(&held.member_id))
    })
}

/// It goes on with something that was begun.
fn is_known(observed: &Observed, action: &Action) -> bool {
    let Action::Join(join) = action else {
        return false;
    };
    let held = observed.nodes[&join.ordinal].held.get(&join.partition);
    held.is_some_and(|held| held.member_id == join.member_id)
}

fn is_by_choice(action: &Action) -> bool {
    matches!(action.purpose(), Purpose::Drain | Purpose::Spread)
}

/// What would be seen after the change; `None` for a change that only undoes.
fn completed(observed: &Observed, action: &Action) -> Option<Observed> {
    let mut after = observed.clone();
    let group = after.groups.get_mut(&action.partition())?.as_mut()?;
    match action {
        Action::Join(join) => {
            let place = Place {
                node_id: join.node_id,
                ordinal: Some(join.ordinal),
                address: String::new(),
            };
            group.places.insert(join.member_id, place);
            group.learners.remove(&join.member_id);
            group.voters.insert(join.member_id);
            if let Some(replaced) = join.replaces {
                group.voters.remove(&replaced);
            }
        }
        Action::Leave(leave) => {
            if !group.voters.remove(&leave.member_id) {
                return None;
            }
        }
    }
    Some(after)
}

/// Nothing more happens to the nodes: both operators act in turn until nothing is to be done.
fn calm(world: &mut World, operators: &mut [ModelOperator; 2], random: &mut Random) {
    for _ in 0..20_000 {
        for operator in operators.iter_mut() {
            act(world, operator);
            world.check();
        }
        for partition in 1..=world.groups.len() {
            world.progress(u32::try_from(partition).unwrap(), random);
            world.check();
        }
        let keeps = Pending::Scale(world.spec.replicas);
        let mut pending = operators.iter().flat_map(|operator| &operator.pending);
        let is_idle = pending.all(|pending| *pending == keeps);
        if is_idle && is_settled(world) {
            return;
        }
    }
    let (decision, observed) = look(world);
    panic!("it does not settle: {decision:#?} on {observed:#?}");
}

fn is_settled(world: &mut World) -> bool {
    let (decision, observed) = look(world);
    if !decision.is_settled() || world.pods != world.spec.replicas {
        return false;
    }
    let mut loads = BTreeMap::new();
    for ordinal in 0..world.spec.replicas {
        loads.insert(ordinal, 0_u32);
    }
    for group in observed.groups.values() {
        let group = group.as_ref().unwrap();
        assert_eq!(group.voters.len(), world.spec.replication_factor as usize);
        assert!(group.learners.is_empty() && group.outgoing.is_empty());
        for voter in &group.voters {
            *loads.get_mut(&group.ordinal_of(*voter).unwrap()).unwrap() += 1;
        }
    }
    if world.zones.is_empty() {
        let (most, least) = (loads.values().max().unwrap(), loads.values().min().unwrap());
        assert!(most - least <= 1, "{loads:?}");
    }
    true
}
