//! The change of a room over time, and the members of a room at one moment.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use crate::name::{Epoch, PresenceId, Version};

use super::Presence;

/// The change of a room between two positions.
///
/// Invariant: a [`Snapshot`] plus the deltas after it equals the next snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use]
pub struct Delta {
    /// The presences that joined, in the order of their joins.
    pub joined: Vec<Arc<Presence>>,
    /// The presences that left, as they were last.
    pub left: Vec<Arc<Presence>>,
    /// The presences whose user or meta changed, as they are now.
    pub updated: Vec<Arc<Presence>>,
    /// The presences that belong to another node since this change, and did not change otherwise, as they are now. Members cannot see
    /// it.
    pub moved: Vec<Arc<Presence>>,
}

/// The presences of a room at one position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The epoch of the room.
    pub epoch: Epoch,
    /// The position in its changes.
    pub version: Version,
    /// All presences, in no particular order.
    pub presences: Vec<Arc<Presence>>,
}

impl Delta {
    /// Whether nothing changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether members can see the change. Of anonymous sockets they see only the number.
    pub(crate) fn is_visible(&self) -> bool {
        let anonymous = |presences: &[Arc<Presence>]| presences.iter().filter(|one| one.user.is_none()).count();
        let named = |presences: &[Arc<Presence>]| anonymous(presences) < presences.len();
        named(&self.joined)
            || named(&self.left)
            || named(&self.updated)
            || anonymous(&self.joined) != anonymous(&self.left)
    }

    /// How many presences changed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.joined.len() + self.left.len() + self.updated.len() + self.moved.len()
    }
}

/// A presence before and after a change. `None` if it is not in the room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RosterChange {
    pub(crate) was: Option<Arc<Presence>>,
    pub(crate) now: Option<Arc<Presence>>,
}

/// The net effect of successive changes. A presence that joined and left is not in it, updates of one presence are merged, and a
/// presence that left and joined again under the same id has merely changed, if at all.
#[derive(Debug, Default)]
pub(crate) struct NetChanges {
    changes: HashMap<PresenceId, NetChange>,
    order: u64,
}

#[derive(Debug)]
struct NetChange {
    order: u64,
    was: Option<Arc<Presence>>,
    here: bool,
    /// The presence as it is now, or as it was when it left.
    last: Arc<Presence>,
}

impl NetChanges {
    /// Adds the next changes.
    pub(crate) fn add(&mut self, changes: impl IntoIterator<Item = RosterChange>) {
        for RosterChange { was, now } in changes {
            let here = now.is_some();
            let Some(last) = now.or_else(|| was.clone()) else { continue };
            self.order += 1;
            match self.changes.entry(last.id) {
                Entry::Occupied(mut entry) => {
                    if !here && entry.get().was.is_none() {
                        entry.remove();
                    } else {
                        entry.get_mut().here = here;
                        entry.get_mut().last = last;
                    }
                }
                Entry::Vacant(entry) => {
                    entry.insert(NetChange { order: self.order, was, here, last });
                }
            }
        }
    }

    /// Takes the net change so far, as members see it. A presence whose user changed has both left and joined.
    pub(crate) fn take(&mut self) -> Delta {
        self.order = 0;
        // Not drained, because the map would keep the capacity of its largest content.
        let mut changes: Vec<NetChange> = std::mem::take(&mut self.changes).into_values().collect();
        changes.sort_unstable_by_key(|change| change.order);
        let mut delta = Delta::default();
        for NetChange { was, here, last, .. } in changes {
            match (was, here) {
                (None, true) => delta.joined.push(last),
                (None, false) => {}
                (Some(was), false) => delta.left.push(if was.user == last.user { last } else { was }),
                (Some(was), true) if was.looks_like(&last) => {}
                (Some(was), true) if was.user == last.user => delta.updated.push(last),
                // For members, a presence of one user left and one of another joined.
                (Some(was), true) => {
                    delta.left.push(was);
                    delta.joined.push(last);
                }
            }
        }
        delta
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        model::{
            roster::Roster,
            tests::truth::{AllVisible, Truth, all_visible, presence, with_meta, writes},
        },
        name::UserId,
    };

    fn joins(presence: &Arc<Presence>) -> RosterChange {
        RosterChange { was: None, now: Some(presence.clone()) }
    }

    fn changes(was: &Arc<Presence>, now: &Arc<Presence>) -> RosterChange {
        RosterChange { was: Some(was.clone()), now: Some(now.clone()) }
    }

    fn leaves(presence: &Arc<Presence>) -> RosterChange {
        RosterChange { was: Some(presence.clone()), now: None }
    }

    /// The net effect of successive changes.
    fn net(changes: impl IntoIterator<Item = RosterChange>) -> Delta {
        let mut net = NetChanges::default();
        net.add(changes);
        net.take()
    }

    #[test]
    fn a_presence_that_joins_leaves_and_joins_again_joins_once_and_last() {
        let (one, two) = (presence(1), presence(2));
        let joined = vec![two.clone(), one.clone()];
        assert_eq!(net([joins(&one), joins(&two), leaves(&one), joins(&one)]), Delta { joined, ..Delta::default() });
    }

    #[test]
    fn joins_have_the_newest_meta_and_leaves_the_last_one() {
        let (here, busy) = (presence(1), with_meta(&presence(1), 1));
        assert_eq!(
            net([joins(&here), changes(&here, &busy)]),
            Delta { joined: vec![busy.clone()], ..Delta::default() }
        );
        assert_eq!(net([changes(&here, &busy), leaves(&busy)]), Delta { left: vec![busy], ..Delta::default() });
    }

    proptest! {
        #[test]
        fn each_net_change_is_exactly_the_difference_between_two_moments(
            history in prop::collection::vec((writes(), any::<bool>()), 1..30),
        ) {
            let mut truth = Truth::new();
            let mut roster = Roster::default();
            let mut net = NetChanges::default();
            let mut known = Roster::default();
            for (writes, cut) in history {
                if let Some(commit) = truth.commit(&writes) {
                    net.add(roster.apply(&commit.delta));
                }
                if !cut {
                    continue;
                }
                let delta = net.take();
                let (was, is) = (all_visible(known.iter()), all_visible(roster.iter()));
                // A presence whose user changed has left with the old user, and joined with the new one.
                let there = |all_visible: &AllVisible, id: &PresenceId, user: &Option<UserId>| {
                    all_visible.get(id).is_some_and(|(same, _)| same == user)
                };
                let came = is.iter().filter(|(id, (user, _))| !there(&was, id, user));
                prop_assert_eq!(all_visible(&delta.joined), came.map(|(id, visible)| (*id, visible.clone())).collect());
                let went = was.iter().filter(|(id, (user, _))| !there(&is, id, user));
                let users = |all_visible: AllVisible| all_visible.into_iter().map(|(id, (user, _))| (id, user)).collect::<Vec<_>>();
                prop_assert_eq!(users(all_visible(&delta.left)), users(went.map(|(id, visible)| (*id, visible.clone())).collect()));
                let became = is.iter().filter(|(id, visible)| {
                    there(&was, id, &visible.0) && was.get(id).is_some_and(|was| was != *visible)
                });
                prop_assert_eq!(all_visible(&delta.updated), became.map(|(id, visible)| (*id, visible.clone())).collect());
                let occur_once = |presences: &[Arc<Presence>]| all_visible(presences).len() == presences.len();
                prop_assert!(occur_once(&delta.joined) && occur_once(&delta.left) && occur_once(&delta.updated));
                known = Roster::from(roster.iter().cloned().collect::<Vec<_>>());
                prop_assert_eq!(all_visible(known.iter()), is);
            }
        }
    }
}
