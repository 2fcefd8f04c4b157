//! Which node cleans up after a dead one, and which sweeps a room.
//!
//! If all did it at once, all but one of them would wait for its locks, and the changes of a room would be split into several events.

use std::collections::HashSet;

use uuid::Uuid;

use crate::name::NodeId;

/// The dead nodes that this node leaves to others, since they were chosen.
#[derive(Debug, Default)]
pub(crate) struct Cleaners {
    left_to_others: HashSet<NodeId>,
}

impl Cleaners {
    /// Those of the `dead` nodes that `here` cleans up after in this sweep: the ones for which it is chosen among the `live` nodes, and the
    /// ones that another node was chosen for in the sweep before, and that it has not cleaned up after. Perhaps it does not sweep.
    pub(crate) fn choose(&mut self, here: NodeId, live: &[NodeId], dead: &[NodeId]) -> Vec<NodeId> {
        let others: HashSet<NodeId> =
            dead.iter().copied().filter(|dead| !is_chosen(here, live, dead.as_uuid())).collect();
        let left = std::mem::replace(&mut self.left_to_others, others);
        let mine = |dead: &NodeId| !self.left_to_others.contains(dead) || left.contains(dead);
        dead.iter().copied().filter(mine).collect()
    }
}

/// Whose turn it is to remove empty rooms. After each removal all nodes compare all rooms, so one node does it in each interval.
#[derive(Debug, Default)]
pub(crate) struct PruneTurns {
    /// How many removals there had been at the last turn of this node.
    last: Option<u64>,
}

impl PruneTurns {
    /// Whether this node removes empty rooms now, an interval after it was last asked: not if another node has done so since. `prunes` is the
    /// number of removals in the database, if it is known.
    pub(crate) fn take(&mut self, prunes: Option<u64>) -> bool {
        let is_done = self.last.zip(prunes).is_some_and(|(last, prunes)| prunes > last);
        self.last = self.last.max(prunes);
        !is_done
    }

    /// This node has removed some.
    pub(crate) fn count_own(&mut self) {
        self.last = self.last.map(|last| last + 1);
    }
}

/// Whether `here` has the highest rank for the `work` among itself and the `others`. So all nodes choose the same one, and different work is
/// spread over all.
pub(crate) fn is_chosen(here: NodeId, others: &[NodeId], work: Uuid) -> bool {
    others.iter().all(|other| rank(here, work) >= rank(*other, work))
}

fn rank(live: NodeId, work: Uuid) -> (u64, NodeId) {
    // The finalizer of SplitMix64: each bit of the result depends on all bits.
    let mix = |bits: u64| {
        let bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    };
    let mixed = |id: Uuid, after: u64| {
        let (high, low) = id.as_u64_pair();
        mix(mix(after ^ high) ^ low)
    };
    (mixed(live.as_uuid(), mixed(work, 0)), live)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(count: usize) -> Vec<NodeId> {
        (0..count).map(|_| NodeId::random()).collect()
    }

    #[test]
    fn exactly_one_node_is_chosen_for_each_dead_one_and_all_are_chosen_for_some() {
        let (live, dead) = (nodes(5), nodes(500));
        let chosen: Vec<Vec<NodeId>> =
            live.iter().map(|here| Cleaners::default().choose(*here, &live, &dead)).collect();
        assert_eq!(chosen.iter().map(Vec::len).sum::<usize>(), dead.len());
        assert_eq!(chosen.iter().flatten().collect::<HashSet<_>>().len(), dead.len());
        assert!(chosen.iter().all(|chosen| chosen.len() > 50), "{:?}", chosen.iter().map(Vec::len).collect::<Vec<_>>());
    }

    #[test]
    fn a_dead_node_that_is_still_there_one_sweep_later_is_taken_over_until_it_is_gone() {
        let (live, dead) = (nodes(2), nodes(1));
        let chosen = |here: &&NodeId| !Cleaners::default().choose(**here, &live, &dead).is_empty();
        let other = *live.iter().find(|here| !chosen(here)).unwrap();
        let mut cleaners = Cleaners::default();
        assert_eq!(cleaners.choose(other, &live, &dead), []);
        assert_eq!(cleaners.choose(other, &live, &dead), dead);
        assert_eq!(cleaners.choose(other, &live, &dead), dead);
        assert_eq!(cleaners.choose(other, &live, &[]), []);
        assert_eq!(cleaners.choose(other, &live, &dead), []);
    }

    #[test]
    fn a_node_that_is_alone_is_chosen_also_if_its_own_lease_is_not_listed() {
        let (here, dead) = (NodeId::random(), nodes(20));
        assert_eq!(Cleaners::default().choose(here, &[], &dead), dead);
    }
}
