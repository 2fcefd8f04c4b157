//! One room's members as a value.
//!
//! `RoomActor` owns one, inside its replica, and turns its answers into messages.
//! Invariant: a snapshot plus the deltas after it equals the next snapshot.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use smallvec::SmallVec;

use crate::name::{PresenceId, UserId};

use super::{Delta, Member, Presence, delta::Change};

/// Who is in a room.
#[derive(Debug, Default, Clone)]
pub(crate) struct Roster {
    /// In the order of their ids, so that the same history gives the same answers on every node and in every run.
    presences: BTreeMap<PresenceId, Arc<Presence>>,
    /// The presences of each user, in the order of their ids. Sorted by the bytes of the user id. They are here too, and
    /// not only their ids, since a first frame that looks each of 10,000 up takes twice as long. Nearly every user has one,
    /// which takes no allocation.
    users: BTreeMap<UserId, SmallVec<[Arc<Presence>; 1]>>,
    anonymous: usize,
}

impl Roster {
    /// Brings the roster to what `delta` says, and tells what that changed.
    ///
    /// Doing it again changes nothing: a join of one who is there is at most an update, a leave of one who is not there
    /// is nothing.
    pub(crate) fn apply(&mut self, delta: &Delta) -> Vec<Change> {
        let mut changes = Vec::with_capacity(delta.len());
        for presence in delta.joined.iter().chain(&delta.updated) {
            changes.extend(self.put(presence.clone()));
        }
        for presence in &delta.left {
            if let Some(was) = self.remove(presence.id) {
                changes.push(Change { was: Some(was), now: None });
            }
        }
        changes
    }

    /// Makes these the members, and tells what that changed.
    pub(crate) fn replace(&mut self, presences: Vec<Arc<Presence>>) -> Vec<Change> {
        let stay: BTreeSet<PresenceId> = presences.iter().map(|presence| presence.id).collect();
        let gone: Vec<PresenceId> = self.presences.keys().filter(|id| !stay.contains(id)).copied().collect();
        let mut changes: Vec<Change> = presences.into_iter().filter_map(|presence| self.put(presence)).collect();
        let left = gone.into_iter().filter_map(|id| self.remove(id));
        changes.extend(left.map(|was| Change { was: Some(was), now: None }));
        changes
    }

    /// Notes in whose hands one is who is here, which nobody is told. Returns whether it is here.
    pub(crate) fn hand_over(&mut self, to: &Presence) -> bool {
        let Some(now) = self.get(to.id).map(|here| here.in_hands_of(to)) else { return false };
        let told = self.put(now);
        debug_assert!(told.is_none());
        true
    }

    fn put(&mut self, now: Arc<Presence>) -> Option<Change> {
        let was = self.remove(now.id);
        self.insert(now.clone());
        match was {
            // Its channel, node or hold may be others now, but nobody is told of those.
            Some(was) if was.looks_like(&now) => None,
            was => Some(Change { was, now: Some(now) }),
        }
    }

    fn insert(&mut self, presence: Arc<Presence>) {
        match &presence.user {
            Some(user) => {
                let own = self.users.entry(user.clone()).or_default();
                // Later ids are greater, so this is nearly always the end.
                own.insert(own.partition_point(|one| one.id < presence.id), presence.clone());
            }
            None => self.anonymous += 1,
        }
        self.presences.insert(presence.id, presence);
    }

    fn remove(&mut self, id: PresenceId) -> Option<Arc<Presence>> {
        let presence = self.presences.remove(&id)?;
        match &presence.user {
            Some(user) => {
                if let Some(own) = self.users.get_mut(user) {
                    if let Ok(at) = own.binary_search_by_key(&id, |one| one.id) {
                        own.remove(at);
                    }
                    if own.is_empty() {
                        self.users.remove(user);
                    }
                }
            }
            None => self.anonymous -= 1,
        }
        Some(presence)
    }

    pub(crate) fn get(&self, id: PresenceId) -> Option<&Arc<Presence>> {
        self.presences.get(&id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Presence>> {
        self.presences.values()
    }

    /// How many presences there are.
    pub(crate) fn len(&self) -> usize {
        self.presences.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.presences.is_empty()
    }

    /// The distinct users, sorted by their bytes.
    pub(crate) fn users(&self) -> impl ExactSizeIterator<Item = &UserId> {
        self.users.keys()
    }

    /// Each user with its presences, sorted by the bytes of the user id.
    pub(crate) fn by_user(&self) -> impl Iterator<Item = (&UserId, &[Arc<Presence>])> {
        self.users.iter().map(|(user, own)| (user, &**own))
    }

    /// How many presences the user has here.
    pub(crate) fn presences_of(&self, user: &UserId) -> usize {
        self.users.get(user).map_or(0, SmallVec::len)
    }

    /// How many anonymous sockets are here.
    pub(crate) const fn anonymous(&self) -> usize {
        self.anonymous
    }

    /// The users with their presences, then the anonymous sockets.
    pub(crate) fn members(&self) -> Vec<Member> {
        let users = self.by_user().map(|(user, presences)| Member::User(user.clone(), presences.to_vec()));
        let anonymous = self.iter().filter(|presence| presence.user.is_none()).cloned().map(Member::Anonymous);
        users.chain(anonymous).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::truth::{Looks, Truth, look, looks, presence, user, with_meta, writes};

    /// What one who only hears of the changes believes.
    fn hear(mut believed: Looks, changes: &[Change]) -> Looks {
        for Change { was, now } in changes {
            let id = was.as_ref().or(now.as_ref()).unwrap().id;
            let before = match now {
                Some(now) => believed.insert(id, look(now)),
                None => believed.remove(&id),
            };
            assert_eq!(before, was.as_deref().map(look), "the change begins where the last one ended");
        }
        believed
    }

    /// Everything the roster answers, against what a list of its presences says.
    fn check(roster: &Roster, truth: &BTreeMap<PresenceId, Arc<Presence>>) {
        assert!(roster.iter().eq(truth.values()));
        assert_eq!((roster.len(), roster.is_empty()), (truth.len(), truth.is_empty()));
        for presence in truth.values() {
            assert_eq!(roster.get(presence.id), Some(presence));
        }
        let mut users: Vec<&UserId> = truth.values().filter_map(|presence| presence.user.as_ref()).collect();
        users.sort();
        users.dedup();
        assert!(roster.users().eq(users.iter().copied()));
        let of = |user: &UserId| -> Vec<_> {
            truth.values().filter(|presence| presence.user.as_ref() == Some(user)).cloned().collect()
        };
        for user in &users {
            assert_eq!(roster.presences_of(user), of(user).len());
        }
        let by_user = roster.by_user().map(|(user, presences)| (user, presences.to_vec()));
        assert!(by_user.eq(users.iter().map(|user| (*user, of(user)))));
        let anonymous = truth.values().filter(|presence| presence.user.is_none());
        assert_eq!(roster.anonymous(), anonymous.clone().count());
        let members = users
            .iter()
            .map(|user| Member::User((*user).clone(), of(user)))
            .chain(anonymous.cloned().map(Member::Anonymous));
        assert!(roster.members().into_iter().eq(members));
    }

    proptest! {
        #[test]
        fn a_snapshot_and_the_deltas_after_it_are_the_next_snapshot(
            history in prop::collection::vec(writes(), 1..30),
            from in any::<prop::sample::Index>(),
        ) {
            let mut truth = Truth::new();
            for writes in &history {
                let _ = truth.commit(writes);
            }
            let from = from.index(truth.moments.len());
            let start = &truth.moments[from];
            let mut roster = Roster::default();
            let changes = roster.replace(start.presences.values().rev().cloned().collect());
            let mut believed = hear(Looks::new(), &changes);
            for (commit, then) in truth.commits[from..].iter().zip(&truth.moments[from + 1..]) {
                believed = hear(believed, &roster.apply(&commit.delta));
                check(&roster, &then.presences);
                prop_assert_eq!(&believed, &looks(then.presences.values()));
                prop_assert_eq!(roster.apply(&commit.delta), []);
                check(&roster, &then.presences);
            }
        }

        #[test]
        fn a_roster_that_is_replaced_tells_what_that_changed_and_nothing_else(
            before in writes(), between in prop::collection::vec(writes(), 0..4),
        ) {
            let mut truth = Truth::new();
            let _ = truth.commit(&before);
            let mut roster = Roster::default();
            let mut believed = hear(Looks::new(), &roster.replace(truth.now().presences.values().cloned().collect()));
            for writes in &between {
                let _ = truth.commit(writes);
            }
            let presences: Vec<_> = truth.now().presences.values().rev().cloned().collect();
            let changes = roster.replace(presences.clone());
            for Change { was, now } in &changes {
                prop_assert_ne!(was.as_deref().map(look), now.as_deref().map(look));
            }
            believed = hear(believed, &changes);
            check(&roster, &truth.now().presences);
            prop_assert_eq!(believed, looks(&presences));
            prop_assert_eq!(roster.replace(presences), []);
        }
    }

    #[test]
    fn the_presences_of_a_user_keep_their_order_when_the_room_is_read_anew() {
        // They took the order of the reading, which is none in particular.
        let tabs: Vec<_> =
            (1..4).map(|n| Arc::new(Presence { user: Some(user(0)), ..(*presence(n)).clone() })).collect();
        let mut roster = Roster::default();
        let _ = roster.replace(tabs.iter().rev().cloned().collect());
        assert_eq!(roster.members(), [Member::User(user(0), tabs)]);
    }

    #[test]
    fn one_who_is_read_twice_is_there_once() {
        // A presence that the reading held twice was counted twice, and its leave counted it off once.
        let nobody = Arc::new(Presence { user: None, ..(*presence(1)).clone() });
        let mut roster = Roster::default();
        let _ = roster.replace(vec![nobody.clone(), presence(2), nobody, with_meta(&presence(2), 1)]);
        assert_eq!((roster.len(), roster.anonymous(), roster.presences_of(&user(2))), (2, 1, 1));
    }
}
