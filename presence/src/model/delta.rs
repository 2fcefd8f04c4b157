//! What changed in a room, and what a room holds at one moment.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use crate::name::{Epoch, PresenceId, Version};

use super::Presence;

/// The change of a room over some time.
///
/// Invariant: a [`Snapshot`] plus the deltas after it equals the next snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use]
pub struct Delta {
    /// Who came, in the order of their coming.
    pub joined: Vec<Arc<Presence>>,
    /// Who went, each as it was last.
    pub left: Vec<Arc<Presence>>,
    /// Whose user or meta is another now, each as it is now.
    pub updated: Vec<Arc<Presence>>,
}

/// Who is in a room at one position of its changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Which life of the room.
    pub epoch: Epoch,
    /// The position in its changes.
    pub version: Version,
    /// Everyone, in no particular order.
    pub presences: Vec<Arc<Presence>>,
}

impl Delta {
    /// Whether nothing changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.joined.is_empty() && self.left.is_empty() && self.updated.is_empty()
    }

    /// Whether members can see it: anonymous sockets are no more than a count to them.
    pub(crate) fn is_news(&self) -> bool {
        let anonymous = |presences: &[Arc<Presence>]| presences.iter().filter(|one| one.user.is_none()).count();
        let named = |presences: &[Arc<Presence>]| anonymous(presences) < presences.len();
        named(&self.joined)
            || named(&self.left)
            || named(&self.updated)
            || anonymous(&self.joined) != anonymous(&self.left)
    }

    /// How many presences the delta is about.
    #[must_use]
    pub fn len(&self) -> usize {
        self.joined.len() + self.left.len() + self.updated.len()
    }
}

/// What happened to one presence: how it was before, and how it is after. `None`: not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) was: Option<Arc<Presence>>,
    pub(crate) now: Option<Arc<Presence>>,
}

/// Changes put together one after the other, with net effect: who came and went in between is never mentioned, the
/// updates of one presence merge, and one who went and came back under the same id merely changed, if at all.
#[derive(Debug, Default)]
pub(crate) struct Net {
    changes: HashMap<PresenceId, NetChange>,
    order: u64,
}

#[derive(Debug)]
struct NetChange {
    order: u64,
    was: Option<Arc<Presence>>,
    here: bool,
    /// As it is now, or as it was when it left.
    last: Arc<Presence>,
}

impl Net {
    /// Adds what happened next.
    pub(crate) fn then(&mut self, changes: impl IntoIterator<Item = Change>) {
        for Change { was, now } in changes {
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

    /// The net change so far, as members see it; from here on, nothing has happened. A presence that changed its user is
    /// among both those who left and those who joined.
    pub(crate) fn take(&mut self) -> Delta {
        self.order = 0;
        // Not drained: a room would keep for ever what its largest storm took.
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
                // To members, one user's presence went and another's came.
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
            tests::truth::{Looks, Truth, looks, presence, with_meta, writes},
        },
        name::UserId,
    };

    fn came(presence: &Arc<Presence>) -> Change {
        Change { was: None, now: Some(presence.clone()) }
    }

    fn became(was: &Arc<Presence>, now: &Arc<Presence>) -> Change {
        Change { was: Some(was.clone()), now: Some(now.clone()) }
    }

    fn went(presence: &Arc<Presence>) -> Change {
        Change { was: Some(presence.clone()), now: None }
    }

    /// The net effect of changes that follow one another.
    fn net(changes: impl IntoIterator<Item = Change>) -> Delta {
        let mut net = Net::default();
        net.then(changes);
        net.take()
    }

    #[test]
    fn one_who_comes_and_goes_is_never_mentioned() {
        let (here, busy) = (presence(1), with_meta(&presence(1), 1));
        assert_eq!(net([came(&here), became(&here, &busy), went(&busy)]), Delta::default());
    }

    #[test]
    fn one_who_comes_and_goes_and_comes_again_comes_once_and_after_those_who_stayed() {
        let (one, two) = (presence(1), presence(2));
        let joined = vec![two.clone(), one.clone()];
        assert_eq!(net([came(&one), came(&two), went(&one), came(&one)]), Delta { joined, ..Delta::default() });
    }

    #[test]
    fn one_who_goes_and_comes_back_under_the_same_id_merely_changed() {
        let (here, busy) = (presence(1), with_meta(&presence(1), 1));
        assert_eq!(net([went(&here), came(&busy)]), Delta { updated: vec![busy], ..Delta::default() });
        assert_eq!(net([went(&here), came(&here)]), Delta::default());
    }

    #[test]
    fn updates_merge_and_one_that_is_taken_back_is_no_news() {
        let (here, busy, away) = (presence(1), with_meta(&presence(1), 1), with_meta(&presence(1), 2));
        let updated = vec![away.clone()];
        assert_eq!(net([became(&here, &busy), became(&busy, &away)]), Delta { updated, ..Delta::default() });
        assert_eq!(net([became(&here, &busy), became(&busy, &here)]), Delta::default());
    }

    #[test]
    fn one_who_comes_is_told_as_it_is_now_and_one_who_goes_as_it_was_last() {
        let (here, busy) = (presence(1), with_meta(&presence(1), 1));
        assert_eq!(net([came(&here), became(&here, &busy)]), Delta { joined: vec![busy.clone()], ..Delta::default() });
        assert_eq!(net([became(&here, &busy), went(&busy)]), Delta { left: vec![busy], ..Delta::default() });
    }

    #[test]
    fn what_is_taken_has_happened() {
        let here = presence(1);
        let mut net = Net::default();
        net.then([came(&here)]);
        assert_eq!(net.take().len(), 1);
        net.then([went(&here)]);
        assert_eq!(net.take(), Delta { left: vec![here], ..Delta::default() });
        assert!(net.take().is_empty());
    }

    proptest! {
        #[test]
        fn any_cut_of_the_changes_tells_the_difference_of_what_was_and_what_is_and_nothing_else(
            history in prop::collection::vec((writes(), any::<bool>()), 1..30),
        ) {
            let mut truth = Truth::new();
            let mut roster = Roster::default();
            let mut net = Net::default();
            let mut told = Roster::default();
            for (writes, cut) in history {
                if let Some(commit) = truth.commit(&writes) {
                    net.then(roster.apply(&commit.delta));
                }
                if !cut {
                    continue;
                }
                let delta = net.take();
                let (was, is) = (looks(told.iter()), looks(roster.iter()));
                // One that has another user now has left as the old one, and come as the new.
                let there = |looks: &Looks, id: &PresenceId, user: &Option<UserId>| {
                    looks.get(id).is_some_and(|(same, _)| same == user)
                };
                let came = is.iter().filter(|(id, (user, _))| !there(&was, id, user));
                prop_assert_eq!(looks(&delta.joined), came.map(|(id, look)| (*id, look.clone())).collect());
                let went = was.iter().filter(|(id, (user, _))| !there(&is, id, user));
                let users = |looks: Looks| looks.into_iter().map(|(id, (user, _))| (id, user)).collect::<Vec<_>>();
                prop_assert_eq!(users(looks(&delta.left)), users(went.map(|(id, look)| (*id, look.clone())).collect()));
                let became = is.iter().filter(|(id, look)| {
                    there(&was, id, &look.0) && was.get(id).is_some_and(|was| was != *look)
                });
                prop_assert_eq!(looks(&delta.updated), became.map(|(id, look)| (*id, look.clone())).collect());
                let told_once = |presences: &[Arc<Presence>]| looks(presences).len() == presences.len();
                prop_assert!(told_once(&delta.joined) && told_once(&delta.left) && told_once(&delta.updated));
                told = Roster::from(roster.iter().cloned().collect::<Vec<_>>());
                prop_assert_eq!(looks(told.iter()), is);
            }
        }
    }

    #[test]
    fn a_presence_with_another_user_has_left_as_one_and_come_as_the_other() {
        let (one, other) = (presence(1), presence(2));
        let renamed = Arc::new(Presence { user: other.user.clone(), ..(*one).clone() });
        let delta = net([became(&one, &renamed)]);
        assert_eq!(delta, Delta { joined: vec![renamed], left: vec![one], ..Delta::default() });
    }
}
