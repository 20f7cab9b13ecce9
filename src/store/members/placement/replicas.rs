//! How many pods the StatefulSet keeps. Pure.
//!
//! `max(spec.replicas, highest ordinal whose disk holds or may hold a member + 1)`: a pod goes only
//! after its node has said that it holds nothing, and no group says otherwise.

use super::judge::Judge;

/// The number of pods.
pub(super) fn replicas(judge: &Judge<'_>) -> u32 {
    let (wanted, live) = (judge.desired.replicas, judge.observed.live_replicas);
    if judge.observed.nodes.is_empty() {
        return if live == 0 { wanted } else { live };
    }
    let needed = needed_by_members(judge);
    let unanswered = (wanted..live)
        .rev()
        .find(|ordinal| may_hold(judge, *ordinal));
    let needed = needed.into_iter().chain(unanswered).max();
    needed.map_or(wanted, |ordinal| wanted.max(ordinal + 1))
}

/// The pod exists, and has not said that it holds nothing.
fn may_hold(judge: &Judge<'_>, ordinal: u32) -> bool {
    match judge.node(Some(ordinal)) {
        None => true,
        Some(node) => !node.held.is_empty(),
    }
}

/// The highest ordinal with a member, as the groups say: also when the pod is gone.
fn needed_by_members(judge: &Judge<'_>) -> Option<u32> {
    let groups = judge.observed.groups.iter();
    let placed = groups.flat_map(|(partition, group)| {
        let group = group.as_ref();
        let members = group.into_iter().flat_map(|group| {
            let members = group.members();
            let kept = members.filter(|member| !judge.is_lost(*partition, group, *member));
            let ordinals = kept.filter_map(|member| group.ordinal_of(member));
            ordinals.collect::<Vec<u32>>()
        });
        members.collect::<Vec<u32>>()
    });
    let hearsay = judge.observed.hearsay.iter().copied();
    placed.chain(hearsay).max()
}
