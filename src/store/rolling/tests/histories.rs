//! Random histories: two operators that look, act and crash at any time, templates that change and are
//! changed back, one of them with an image that does not exist, nodes that crash, members that move;
//! then the template is a good one, and the change must come to its end.
//!
//! A failed history prints its seed; `ATOMIX_SEED=… cargo test rolling` plays it alone, and
//! `ATOMIX_HISTORIES=…` plays so many.

use super::world::{BAD_TEMPLATE, World};
use super::*;
use crate::store::histories::play_all;

const HISTORIES: u64 = 1000;
const STEPS: usize = 600;

/// What an operator has yet to do, by the uids that it saw.
#[derive(Debug, Default)]
struct ModelOperator {
    pending: Vec<(u32, u64, Why)>,
}

/// Numbers that follow from a seed (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % limit as u64).unwrap()
    }

    fn ordinal(&mut self, world: &World) -> u32 {
        u32::try_from(self.below(world.desired.pods as usize)).unwrap()
    }
}

#[test]
fn whatever_happens_no_majority_is_stopped_and_the_change_comes_to_its_end() {
    play_all("rolling", HISTORIES, STEPS, play);
}

fn play(seed: u64) {
    let mut random = Random(seed);
    let factor = [1, 3, 3, 3, 5][random.below(5)];
    let more = u32::try_from(random.below(3)).unwrap();
    let desired = Desired {
        pods: factor + more,
        replication_factor: factor,
        is_ephemeral: factor > 1 && random.below(3) == 0,
        allow_data_loss: false,
    };
    let partitions = u32::try_from(1 + random.below(6)).unwrap();
    let mut world = World::new(desired, partitions);
    let mut operators = [ModelOperator::default(), ModelOperator::default()];
    for _ in 0..STEPS {
        storm(&mut world, &mut operators, &mut random);
    }
    calm(&mut world, &mut operators, &mut random);
}

fn storm(world: &mut World, operators: &mut [ModelOperator; 2], random: &mut Random) {
    match random.below(100) {
        0..40 => act(world, &mut operators[random.below(2)]),
        // Everything in memory is forgotten.
        40..42 => operators[random.below(2)] = ModelOperator::default(),
        42..45 => {
            // A disk that is not the pod's outlives a crash; several at once lose nothing.
            let ordinal = random.ordinal(world);
            world.crash(ordinal);
        }
        45..47 => world.template = [1, 2, BAD_TEMPLATE, 4][random.below(4)],
        47..50 => {
            let partition = 1 + u32::try_from(random.below(world.groups.len())).unwrap();
            let (from, to) = (random.ordinal(world), random.ordinal(world));
            world.wishes.push((partition, from, to));
        }
        _ => go_on(world, random),
    }
}

fn go_on(world: &mut World, random: &mut Random) {
    match random.below(4) {
        0 => world.make_pods(),
        1 => {
            let ordinal = random.ordinal(world);
            world.start(ordinal);
        }
        _ => {
            let partition = 1 + random.below(world.groups.len());
            world.progress(u32::try_from(partition).unwrap());
        }
    }
}

/// An operator does the next thing that it found to be done, or looks.
fn act(world: &mut World, operator: &mut ModelOperator) {
    if !operator.pending.is_empty() {
        let (ordinal, uid, why) = operator.pending.remove(0);
        match why {
            Why::FullStrength | Why::OthersSuffice => world.evict(ordinal, uid),
            Why::NeverStarted => world.delete_idle(ordinal, uid, true),
            Why::NotRunning => world.delete_idle(ordinal, uid, false),
            Why::LossAllowed => panic!("nobody has allowed it"),
        }
        return;
    }
    let observed = world.observe();
    let roll = plan(&world.desired, &observed);
    match roll.step {
        Step::Replace(ordinals, why) => {
            if why == Why::FullStrength {
                check_strength(world, &observed);
                assert_eq!(ordinals.len(), 1);
            }
            let pending = ordinals
                .into_iter()
                .map(|at| (at, world.pods[&at].uid, why));
            operator.pending = pending.collect();
        }
        Step::Done | Step::Wait(_) => world.begin_move(),
        Step::Refused { .. } => panic!("nothing would be lost: {observed:?}"),
    }
}

/// When a node that runs is to be stopped, nothing at all is missing.
fn check_strength(world: &World, observed: &Observed) {
    assert!(!observed.is_moving);
    assert!(world.pods.len() == world.desired.pods as usize);
    for group in observed.strength.groups.values() {
        assert!(group.as_ref().unwrap().is_whole());
    }
}

fn calm(world: &mut World, operators: &mut [ModelOperator; 2], random: &mut Random) {
    world.template = [1, 2, 4][random.below(3)];
    for _ in 0..2000 {
        for operator in operators.iter_mut() {
            act(world, operator);
        }
        world.make_pods();
        for ordinal in 0..world.desired.pods {
            world.start(ordinal);
        }
        for partition in 1..=world.groups.len() {
            world.progress(u32::try_from(partition).unwrap());
        }
        let is_new = world
            .pods
            .values()
            .all(|pod| pod.template == world.template);
        let observed = world.observe();
        let is_done = plan(&world.desired, &observed).step == Step::Done;
        if is_new && is_done && world.wishes.is_empty() {
            return;
        }
    }
    let observed = world.observe();
    panic!(
        "it does not end: {:?} on {observed:#?}",
        plan(&world.desired, &observed)
    );
}
