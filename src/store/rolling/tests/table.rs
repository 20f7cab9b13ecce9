//! One look, one step.

use std::collections::BTreeMap;

use super::*;
use crate::store::nodes::strength::{Strength, Voter};

const DESIRED: Desired = Desired {
    pods: 3,
    replication_factor: 3,
    is_ephemeral: false,
    allow_data_loss: false,
};

const ALONE: Desired = Desired {
    replication_factor: 1,
    ..DESIRED
};

fn group(leader: u32, voters: &[u32]) -> Option<GroupStrength> {
    let voters = voters.iter().map(|ordinal| {
        let voter = Voter {
            ordinal: Some(*ordinal),
            standing: Standing::CaughtUp,
        };
        (u64::from(*ordinal) + 1, voter)
    });
    Some(GroupStrength {
        leader: u64::from(leader) + 1,
        voters: voters.collect(),
        is_changing: false,
    })
}

/// Three old pods that serve; partition 1 and 2 are led by pod 2, partition 3 by pod 1.
fn healthy() -> Observed {
    let pod = Pod {
        is_old: true,
        state: PodState::Serving,
        holds: true,
    };
    let all = [0, 1, 2];
    Observed {
        knows_template: true,
        pods: all.map(|ordinal| (ordinal, pod.clone())).into(),
        strength: Strength {
            groups: BTreeMap::from([
                (1, group(2, &all)),
                (2, group(2, &all)),
                (3, group(1, &all)),
            ]),
        },
        is_moving: false,
    }
}

/// Each partition has one copy, on the pod of its number less one.
fn alone() -> Observed {
    let groups = [
        (1, group(0, &[0])),
        (2, group(1, &[1])),
        (3, group(2, &[2])),
    ];
    Observed {
        strength: Strength {
            groups: groups.into(),
        },
        ..healthy()
    }
}

fn changed(mut observed: Observed, change: impl Fn(&mut Observed)) -> Observed {
    change(&mut observed);
    observed
}

fn with_pod(ordinal: u32, is_old: bool, state: PodState) -> Observed {
    changed(healthy(), |observed| {
        let pod = observed.pods.get_mut(&ordinal).unwrap();
        (pod.is_old, pod.state) = (is_old, state);
    })
}

fn stands(observed: &mut Observed, partition: u32, ordinal: u32, standing: Standing) {
    let group = observed.strength.groups.get_mut(&partition).unwrap();
    let voters = group.as_mut().unwrap().voters.values_mut();
    for voter in voters.filter(|voter| voter.ordinal == Some(ordinal)) {
        voter.standing = standing;
    }
}

fn expect(desired: &Desired, observed: &Observed, expected: &Step, why: &str) {
    assert_eq!(plan(desired, observed).step, *expected, "{why}");
}

fn full(ordinal: u32) -> Step {
    Step::Replace(vec![ordinal], Why::FullStrength)
}

#[test]
fn one_pod_goes_after_the_other_those_that_lead_least_first() {
    expect(&DESIRED, &healthy(), &full(0), "pod 0 leads nothing");
    let next = with_pod(0, false, PodState::Serving);
    expect(&DESIRED, &next, &full(1), "pod 1 leads one group");
    assert_eq!(
        (plan(&DESIRED, &next).updated, plan(&DESIRED, &next).total),
        (1, 3)
    );
    let equal = changed(healthy(), |observed| {
        let groups = &mut observed.strength.groups;
        *groups = BTreeMap::from([(1, group(2, &[0, 1, 2]))]);
    });
    expect(&DESIRED, &equal, &full(1), "of equals the highest");
    let done = changed(healthy(), |observed| {
        observed
            .pods
            .values_mut()
            .for_each(|pod| pod.is_old = false);
        observed.strength = Strength::default();
    });
    expect(
        &DESIRED,
        &done,
        &Step::Done,
        "nothing is asked of a Store at rest",
    );
}

#[test]
fn nothing_that_runs_goes_while_anything_is_missing() {
    let pod = |ordinal| Step::Wait(Wait::Pod { ordinal });
    for (why, observed, expected) in [
        (
            "the one that was replaced last starts",
            with_pod(1, false, PodState::NeverStarted),
            pod(1),
        ),
        (
            "it does not answer",
            with_pod(1, false, PodState::Silent),
            pod(1),
        ),
        (
            "an old one does not answer, but may run",
            with_pod(1, true, PodState::Silent),
            pod(1),
        ),
        (
            "a pod is going, or not made yet",
            changed(healthy(), |observed| _ = observed.pods.remove(&2)),
            pod(2),
        ),
        (
            "members move",
            changed(healthy(), |observed| observed.is_moving = true),
            Step::Wait(Wait::Moves),
        ),
        (
            "a partition has no leader",
            changed(healthy(), |observed| {
                observed.strength.groups.insert(2, None);
            }),
            Step::Wait(Wait::NoLeader { partition: 2 }),
        ),
        (
            "a partition is not known at all",
            changed(healthy(), |observed| {
                observed.strength.groups.insert(9, None);
            }),
            Step::Wait(Wait::NoLeader { partition: 9 }),
        ),
        (
            "a copy is behind",
            changed(healthy(), |observed| {
                stands(observed, 3, 0, Standing::Behind);
            }),
            Step::Wait(Wait::Copy {
                partition: 3,
                ordinal: Some(0),
            }),
        ),
        (
            "a copy is lost",
            changed(healthy(), |observed| stands(observed, 1, 2, Standing::Away)),
            Step::Wait(Wait::Copy {
                partition: 1,
                ordinal: Some(2),
            }),
        ),
        (
            "a copy is missing",
            changed(healthy(), |observed| {
                observed.strength.groups.insert(1, group(0, &[0, 1]));
            }),
            Step::Wait(Wait::Copy {
                partition: 1,
                ordinal: None,
            }),
        ),
        (
            "a member comes",
            changed(healthy(), |observed| {
                let group = observed.strength.groups.get_mut(&1).unwrap();
                group.as_mut().unwrap().is_changing = true;
            }),
            Step::Wait(Wait::Copy {
                partition: 1,
                ordinal: None,
            }),
        ),
    ] {
        expect(&DESIRED, &observed, &expected, why);
    }
}

#[test]
fn old_pods_that_do_not_run_go_first_whatever_else_is_missing() {
    let idle = |ordinals: &[u32], why| Step::Replace(ordinals.to_vec(), why);
    let down = Why::NotRunning;
    let stuck = changed(with_pod(1, true, PodState::NeverStarted), |observed| {
        observed.pods.get_mut(&2).unwrap().state = PodState::NeverStarted;
        observed.strength.groups.insert(1, None);
        observed.is_moving = true;
    });
    expect(
        &DESIRED,
        &stuck,
        &idle(&[1, 2], Why::NeverStarted),
        "all that never ran",
    );
    let crashing = with_pod(2, true, PodState::Down);
    expect(&DESIRED, &crashing, &idle(&[2], down), "one that crashes");
    let hopeless = changed(crashing, |observed| {
        observed.pods.get_mut(&1).unwrap().state = PodState::Down;
        observed
            .strength
            .groups
            .values_mut()
            .for_each(|group| *group = None);
    });
    expect(
        &DESIRED,
        &hopeless,
        &idle(&[1], down),
        "several that crash, one by one",
    );
    // The new one of a pod that crashes is not replaced again.
    let new = with_pod(2, false, PodState::Down);
    expect(
        &DESIRED,
        &new,
        &Step::Wait(Wait::Pod { ordinal: 2 }),
        "a new one",
    );
}

#[test]
fn a_pod_that_takes_its_data_along_goes_only_if_the_others_have_it() {
    let ephemeral = Desired {
        is_ephemeral: true,
        ..DESIRED
    };
    expect(
        &ephemeral,
        &healthy(),
        &full(0),
        "the others have all of it",
    );
    let crashing = changed(with_pod(2, true, PodState::Down), |observed| {
        for partition in [1, 2, 3] {
            stands(observed, partition, 2, Standing::Away);
        }
    });
    let idle = Step::Replace(vec![2], Why::OthersSuffice);
    expect(&ephemeral, &crashing, &idle, "two others of three");
    let weak = changed(crashing, |observed| {
        stands(observed, 1, 0, Standing::Behind);
    });
    let wait = Step::Wait(Wait::Pod { ordinal: 2 });
    expect(&ephemeral, &weak, &wait, "one other of three");
}

#[test]
fn with_one_copy_disks_are_restarted_and_ephemeral_pods_are_refused() {
    let idle = changed(alone(), |observed| {
        observed.pods.get_mut(&1).unwrap().state = PodState::NeverStarted;
    });
    expect(
        &ALONE,
        &alone(),
        &full(2),
        "a restart loses nothing of a disk",
    );
    let ephemeral = Desired {
        is_ephemeral: true,
        ..ALONE
    };
    expect(
        &ephemeral,
        &alone(),
        &Step::Refused { ordinal: 0 },
        "it loses all",
    );
    let never = Step::Replace(vec![1], Why::NeverStarted);
    expect(&ephemeral, &idle, &never, "one that never ran has nothing");
    let spare = changed(alone(), |observed| {
        let pod = observed.pods.get_mut(&2).unwrap();
        pod.holds = false;
        observed.strength.groups.remove(&3);
    });
    expect(&ephemeral, &spare, &full(2), "one that holds nothing");
    let allowed = Desired {
        allow_data_loss: true,
        ..ephemeral
    };
    let all = |pods: &[u32]| Step::Replace(pods.to_vec(), Why::LossAllowed);
    expect(&allowed, &alone(), &all(&[0, 1, 2]), "all at once");
    // What the new template has made goes first, so that the old ones still say what is to be done.
    let half = changed(alone(), |observed| {
        observed.pods.get_mut(&0).unwrap().is_old = false;
        observed
            .strength
            .groups
            .values_mut()
            .for_each(|group| *group = None);
    });
    expect(
        &allowed,
        &half,
        &all(&[0, 1, 2]),
        "a new one that holds data",
    );
    let continued = changed(half, |observed| {
        let pod = observed.pods.get_mut(&0).unwrap();
        (pod.holds, pod.state) = (false, PodState::NeverStarted);
        let pod = observed.pods.get_mut(&1).unwrap();
        (pod.is_old, pod.holds) = (false, false);
    });
    expect(&allowed, &continued, &all(&[2]), "after a crash in between");
}
