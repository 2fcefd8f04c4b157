//! The members of one room, as a value.
//!
//! A `RoomActor` owns one, inside its replica. Invariant: a snapshot plus the deltas after it equals the next snapshot.

use std::{
    borrow::Borrow,
    cmp::Ordering,
    collections::{BTreeSet, btree_set},
    iter::Peekable,
    mem,
    ops::Bound::Included,
    sync::Arc,
};

use smallvec::SmallVec;
use uuid::Uuid;

use crate::name::{PresenceId, UserId};

use super::{Delta, Member, Presence, delta::RosterChange};

/// The presences of a room.
///
/// Both sets contain only presences, and compare their fields. With separate keys, and a list for each user, a presence took 130 bytes
/// in the roster instead of 32.
#[derive(Debug, Default, Clone)]
pub(crate) struct Roster {
    /// Sorted by id, so that the same history gives the same results on every node and in every run.
    presences: BTreeSet<PresenceById>,
    /// The presences with a user, sorted by the bytes of the user id and then by id. Looking each of 10,000 presences up would make a
    /// first frame twice as slow.
    named: BTreeSet<ByUser>,
    /// The number of distinct users.
    users: usize,
}

#[derive(Debug, Clone)]
struct PresenceById(Arc<Presence>);

impl Borrow<PresenceId> for PresenceById {
    fn borrow(&self) -> &PresenceId {
        &self.0.id
    }
}

impl Ord for PresenceById {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.id.cmp(&other.0.id)
    }
}

/// A presence with a user.
#[derive(Debug, Clone)]
struct ByUser(Arc<Presence>);

/// A key in the order of users and their presences.
trait UserKey {
    fn key(&self) -> (Option<&UserId>, PresenceId);
}

impl UserKey for ByUser {
    fn key(&self) -> (Option<&UserId>, PresenceId) {
        (self.0.user.as_ref(), self.0.id)
    }
}

impl UserKey for (&UserId, PresenceId) {
    fn key(&self) -> (Option<&UserId>, PresenceId) {
        (Some(self.0), self.1)
    }
}

impl<'a> Borrow<dyn UserKey + 'a> for ByUser {
    fn borrow(&self) -> &(dyn UserKey + 'a) {
        self
    }
}

impl Ord for dyn UserKey + '_ {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl Ord for ByUser {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

/// Derives the other comparisons from `Ord`.
macro_rules! ordered {
    ($($type:ty),*) => {
        $(
            impl PartialOrd for $type {
                fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                    Some(self.cmp(other))
                }
            }

            impl PartialEq for $type {
                fn eq(&self, other: &Self) -> bool {
                    self.cmp(other).is_eq()
                }
            }

            impl Eq for $type {}
        )*
    };
}

ordered!(PresenceById, ByUser, dyn UserKey + '_);

/// The presences of one user.
pub(crate) type UserPresences<'a> = SmallVec<[&'a Arc<Presence>; 4]>;

/// Each user with its presences.
struct UserIter<'a>(Peekable<btree_set::Iter<'a, ByUser>>);

impl<'a> Iterator for UserIter<'a> {
    type Item = (&'a UserId, UserPresences<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let first = &self.0.next()?.0;
        let user = first.user.as_ref()?;
        let mut own = UserPresences::from_slice(&[first]);
        while let Some(next) = self.0.next_if(|next| next.0.user.as_ref() == Some(user)) {
            own.push(&next.0);
        }
        Some((user, own))
    }
}

impl Roster {
    /// Applies a delta, and returns what it changed.
    ///
    /// Applying it again changes nothing: a join of an existing presence is at most an update, and a leave of an unknown one has no effect.
    pub(crate) fn apply(&mut self, delta: &Delta) -> Vec<RosterChange> {
        let mut changes = Vec::with_capacity(delta.len());
        for presence in delta.joined.iter().chain(&delta.updated).chain(&delta.moved) {
            changes.extend(self.put(presence.clone()));
        }
        for presence in &delta.left {
            if let Some(was) = self.remove(presence.id) {
                changes.push(RosterChange { was: Some(was), now: None });
            }
        }
        changes
    }

    /// The net changes since `before`: first the presences that joined or changed, then those that left, each sorted by id.
    pub(crate) fn changes_since(&self, before: &Self) -> Vec<RosterChange> {
        let mut before = before.iter().peekable();
        let (mut changes, mut left) = (Vec::new(), Vec::new());
        let left_change = |was: &Arc<Presence>| RosterChange { was: Some(was.clone()), now: None };
        for now in self.iter() {
            while let Some(was) = before.next_if(|was| was.id < now.id) {
                left.push(left_change(was));
            }
            let was = before.next_if(|was| was.id == now.id);
            changes.extend(change(was, now));
        }
        left.extend(before.map(left_change));
        changes.append(&mut left);
        changes
    }

    /// Sets the channel, node and hold of a presence to those of `to`, which members do not see. Returns whether the presence exists.
    pub(crate) fn hand_over(&mut self, to: &Presence) -> bool {
        let Some(now) = self.get(to.id).map(|here| here.with_owner_of(to)) else { return false };
        let change = self.put(now);
        debug_assert!(change.is_none());
        true
    }

    fn put(&mut self, now: Arc<Presence>) -> Option<RosterChange> {
        let was = self.remove(now.id);
        self.insert(now.clone());
        change(was.as_ref(), &now)
    }

    fn insert(&mut self, presence: Arc<Presence>) {
        if let Some(user) = &presence.user {
            if !self.has(user) {
                self.users += 1;
            }
            self.named.insert(ByUser(presence.clone()));
        }
        self.presences.insert(PresenceById(presence));
    }

    fn remove(&mut self, id: PresenceId) -> Option<Arc<Presence>> {
        let PresenceById(presence) = self.presences.take(&id)?;
        if let Some(user) = &presence.user {
            let key: &dyn UserKey = &(user, id);
            self.named.remove(key);
            if !self.has(user) {
                self.users -= 1;
            }
        }
        Some(presence)
    }

    /// The presences of a user.
    pub(crate) fn of<'a>(&'a self, user: &'a UserId) -> impl Iterator<Item = &'a Arc<Presence>> {
        let (first, last) = ((user, PresenceId::from_uuid(Uuid::nil())), (user, PresenceId::from_uuid(Uuid::max())));
        let (first, last): (&dyn UserKey, &dyn UserKey) = (&first, &last);
        self.named.range::<dyn UserKey, _>((Included(first), Included(last))).map(|one| &one.0)
    }

    /// Whether the user has a presence here.
    pub(crate) fn has(&self, user: &UserId) -> bool {
        self.of(user).next().is_some()
    }

    pub(crate) fn get(&self, id: PresenceId) -> Option<&Arc<Presence>> {
        self.presences.get(&id).map(|one| &one.0)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Presence>> {
        self.presences.iter().map(|one| &one.0)
    }

    pub(crate) fn len(&self) -> usize {
        self.presences.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.presences.is_empty()
    }

    /// The number of distinct users.
    pub(crate) const fn users(&self) -> usize {
        self.users
    }

    /// Each user with its presences, sorted by the bytes of the user id.
    pub(crate) fn by_user(&self) -> impl Iterator<Item = (&UserId, UserPresences<'_>)> {
        UserIter(self.named.iter().peekable())
    }

    /// The presences with a user, in the order of their users.
    pub(crate) fn named(&self) -> impl Iterator<Item = &Arc<Presence>> + Clone {
        self.named.iter().map(|one| &one.0)
    }

    /// The number of presences of the user.
    pub(crate) fn presences_of(&self, user: &UserId) -> usize {
        self.of(user).count()
    }

    /// The number of anonymous sockets.
    pub(crate) fn anonymous(&self) -> usize {
        self.presences.len() - self.named.len()
    }

    /// The users with their presences, then the anonymous sockets.
    pub(crate) fn members(&self) -> Vec<Member> {
        let users = self.by_user().map(|(user, own)| Member::of_user(user.clone(), own.into_iter().cloned().collect()));
        let anonymous = self.iter().filter(|presence| presence.user.is_none()).cloned().map(Member::anonymous);
        users.chain(anonymous).collect()
    }
}

impl From<Vec<Arc<Presence>>> for Roster {
    /// The roster of these presences. If an id occurs twice, the last one counts.
    ///
    /// Built at once, the sets take less memory than after single inserts, since their nodes are full.
    fn from(mut presences: Vec<Arc<Presence>>) -> Self {
        // With cached keys, because presences are scattered over the memory and a sort reads each many times.
        presences.sort_by_cached_key(|presence| presence.id);
        presences.dedup_by(|later, earlier| {
            let twice = later.id == earlier.id;
            if twice {
                mem::swap(later, earlier);
            }
            twice
        });
        let named = presences.iter().filter_map(|presence| Some((presence.user.as_ref()?.as_str(), presence)));
        let mut named: Vec<_> = named.collect();
        // A stable sort, so that the presences of a user stay sorted by id.
        named.sort_by_key(|(user, _)| *user);
        let users = named.chunk_by(|(one, _), (next, _)| one == next).count();
        let named = named.into_iter().map(|(_, presence)| ByUser(presence.clone())).collect();
        Self { named, users, presences: presences.into_iter().map(PresenceById).collect() }
    }
}

/// The change of a presence, if members can see it. They do not see its channel, node and hold.
fn change(was: Option<&Arc<Presence>>, now: &Arc<Presence>) -> Option<RosterChange> {
    let same = was.is_some_and(|was| was.looks_like(now));
    (!same).then(|| RosterChange { was: was.cloned(), now: Some(now.clone()) })
}

#[cfg(test)]
mod tests;
