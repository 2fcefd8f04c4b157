//! Which nodes were asked to remove presences, and which are asked next.
//!
//! A presence may be resumed on another node after the nodes that have it were looked up, and before its former node carries the request out.
//! So when all have answered, the requesting node looks for presences that are left. This is a plain value without a store or a clock, which
//! decides what is asked then.

use std::collections::{HashMap, HashSet};

use crate::{
    name::{NodeId, PresenceId},
    store::Remaining,
};

/// The nodes that were asked to remove the presences of one target.
#[derive(Debug)]
pub(crate) struct AskedNodes {
    nodes: HashSet<NodeId>,
    /// Presences with the node that was asked for them last, as far as that is known.
    last: HashMap<PresenceId, NodeId>,
}

/// What is asked next.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct NextRequests {
    /// Whether nodes have presences of the target that were not asked yet. They receive the same request as the others.
    pub(crate) again: bool,
    /// Presences that came to a node after it had answered. It is asked for these only, so that those which have joined since stay.
    pub(crate) single: Vec<Remaining>,
}

impl AskedNodes {
    /// These nodes were asked, the requesting node included. These presences were `there` before; what is still where it was when its node has
    /// answered is not of the target for that node, for example because a change of its user is not written yet.
    pub(crate) fn new(nodes: impl IntoIterator<Item = NodeId>, there: Vec<Remaining>) -> Self {
        let last = there.into_iter().map(|one| (one.id, one.node)).collect();
        Self { nodes: nodes.into_iter().collect(), last }
    }

    /// What is asked next if these presences are left, although all nodes have answered. Nothing if each is at a node that was asked for it
    /// since it came there.
    pub(crate) fn next(&mut self, left: Vec<Remaining>) -> NextRequests {
        let new: HashSet<NodeId> = left.iter().map(|one| one.node).filter(|node| !self.nodes.contains(node)).collect();
        let (last, again) = (&mut self.last, !new.is_empty());
        let moved = left.into_iter().filter(|one| !new.contains(&one.node));
        let next = moved.filter(|one| last.insert(one.id, one.node) != Some(one.node)).collect();
        self.nodes.extend(new);
        NextRequests { again, single: next }
    }
}

impl NextRequests {
    pub(crate) fn is_nothing(&self) -> bool {
        !self.again && self.single.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::RoomName;

    fn at(id: PresenceId, node: NodeId) -> Remaining {
        Remaining { room: RoomName::new("lobby").unwrap(), id, node }
    }

    fn only(one: Remaining) -> NextRequests {
        NextRequests { again: false, single: vec![one] }
    }

    #[test]
    fn nothing_is_asked_if_nothing_is_left() {
        assert!(AskedNodes::new([NodeId::random()], Vec::new()).next(Vec::new()).is_nothing());
    }

    #[test]
    fn a_node_that_was_not_asked_receives_the_same_request_once_however_many_presences_it_has() {
        let (here, there) = (NodeId::random(), NodeId::random());
        let [one, other] = [PresenceId::random(), PresenceId::random()];
        let mut asked = AskedNodes::new([here], Vec::new());
        let again = NextRequests { again: true, single: Vec::new() };
        assert_eq!(asked.next(vec![at(one, there), at(other, there)]), again);
        assert_eq!(asked.next(vec![at(other, there)]), only(at(other, there)), "it came after the answer");
    }

    #[test]
    fn a_presence_at_a_node_that_has_answered_is_requested_by_its_id_each_time_that_it_moves() {
        let (here, there) = (NodeId::random(), NodeId::random());
        let (one, mut asked) = (PresenceId::random(), AskedNodes::new([here, there], Vec::new()));
        for node in [there, here, there] {
            assert_eq!(asked.next(vec![at(one, node)]), only(at(one, node)));
            assert!(asked.next(vec![at(one, node)]).is_nothing(), "its node was asked since it came");
        }
    }

    #[test]
    fn a_presence_that_is_where_it_was_when_its_node_was_asked_is_not_requested_before_it_moves() {
        let (here, there) = (NodeId::random(), NodeId::random());
        let one = PresenceId::random();
        let mut asked = AskedNodes::new([here, there], vec![at(one, here)]);
        assert!(asked.next(vec![at(one, here)]).is_nothing());
        assert_eq!(asked.next(vec![at(one, there)]), only(at(one, there)));
        assert_eq!(asked.next(vec![at(one, here)]), only(at(one, here)));
    }

    #[test]
    fn both_happen_together() {
        let (here, there) = (NodeId::random(), NodeId::random());
        let [one, other] = [PresenceId::random(), PresenceId::random()];
        let next = AskedNodes::new([here], Vec::new()).next(vec![at(one, here), at(other, there)]);
        assert_eq!(next, NextRequests { again: true, single: vec![at(one, here)] });
    }
}
