//! Those of a room who leave together, in as many transactions as that takes: one event for all of them.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    hash::Hash,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;

use crate::{
    model::Presence,
    name::{ChannelName, PresenceId, RoomName, UserId},
};

use super::Subscribers;

/// Gathers who left, and tells it when the last who holds this lets go of it: when all have left, or whoever was to remove
/// them has given up. Clones are one.
#[derive(Debug, Clone)]
pub(crate) struct Together(Arc<Group>);

#[derive(Debug)]
struct Group {
    room: RoomName,
    number: u64,
    subscribers: Arc<Mutex<Subscribers>>,
}

impl Group {
    fn tell(&self) {
        self.subscribers.lock().tell_group(&self.room, self.number);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.tell();
    }
}

impl Together {
    pub(super) fn new(subscribers: &Arc<Mutex<Subscribers>>, room: &RoomName) -> Self {
        let number = subscribers.lock().gathered.next_number();
        Self(Arc::new(Group { room: room.clone(), number, subscribers: subscribers.clone() }))
    }

    pub(super) fn number(&self) -> u64 {
        self.0.number
    }

    /// For who waits for the end of it, and must not be the one who keeps it from ending.
    pub(crate) fn unfinished(&self) -> Unfinished {
        Unfinished(Arc::downgrade(&self.0))
    }
}

/// A [`Together`] that may be over.
#[derive(Debug)]
pub(crate) struct Unfinished(Weak<Group>);

impl Unfinished {
    /// Tells who has left so far, if it is not over: the others may be long in coming.
    pub(crate) fn tell(&self) {
        if let Some(group) = self.0.upgrade() {
            group.tell();
        }
    }
}

/// Who left of whom nobody has heard yet.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    groups: u64,
    rooms: HashMap<RoomName, InRoom>,
}

#[derive(Debug, Default)]
struct InRoom {
    groups: HashMap<u64, Left>,
    /// Who went offline. Nobody hears it before all that is gathered of them is told.
    offline: HashSet<UserId>,
}

/// Of one room and one group. Most are told before anybody asks who is among them, so that is found out when somebody does.
#[derive(Debug, Default)]
pub(super) struct Left {
    presences: Vec<Arc<Presence>>,
    ids: Found<PresenceId>,
    channels: Found<ChannelName>,
    users: Found<UserId>,
}

/// What is known of the first so many.
#[derive(Debug)]
struct Found<T> {
    of: usize,
    all: HashSet<T>,
}

impl<T> Default for Found<T> {
    fn default() -> Self {
        Self { of: 0, all: HashSet::new() }
    }
}

impl<T: Eq + Hash> Found<T> {
    fn contains(&mut self, one: &T, presences: &[Arc<Presence>], of: impl Fn(&Presence) -> Option<T>) -> bool {
        self.all.extend(presences[self.of..].iter().filter_map(|presence| of(presence)));
        self.of = presences.len();
        self.all.contains(one)
    }
}

impl Left {
    /// Whether who keeps a list, by ids or by channels, would take this for one of those who left.
    pub(super) fn holds(&mut self, presence: &Presence) -> bool {
        let Self { presences, ids, channels, .. } = self;
        ids.contains(&presence.id, presences, |one| Some(one.id))
            || channels.contains(&presence.channel, presences, |one| Some(one.channel.clone()))
    }

    /// Whether presences of this user are among them.
    pub(super) fn is_of(&mut self, user: &UserId) -> bool {
        self.users.contains(user, &self.presences, |one| one.user.clone())
    }
}

impl InRoom {
    fn is_of(&mut self, user: &UserId) -> bool {
        self.groups.values_mut().any(|left| left.is_of(user))
    }

    /// Takes a group, and those who are offline and of whom no other group holds anything.
    fn take(&mut self, group: u64) -> Option<(Vec<Arc<Presence>>, Vec<UserId>)> {
        let mut left = self.groups.remove(&group)?;
        if self.groups.is_empty() {
            // They are of no other.
            return Some((left.presences, self.offline.drain().collect()));
        }
        let offline = self.offline.iter().filter(|user| left.is_of(user)).cloned().collect::<Vec<_>>();
        let offline: Vec<_> = offline.into_iter().filter(|user| !self.is_of(user)).collect();
        for user in &offline {
            self.offline.remove(user);
        }
        Some((left.presences, offline))
    }
}

impl Gathered {
    fn next_number(&mut self) -> u64 {
        self.groups += 1;
        self.groups
    }

    /// Who left, each with a group, and who of them was the last of a user.
    pub(super) fn add(
        &mut self,
        room: &RoomName,
        left: &[(u64, &Arc<Presence>)],
        offline: &BTreeMap<PresenceId, UserId>,
    ) {
        if left.is_empty() {
            return;
        }
        let here = self.rooms.entry(room.clone()).or_default();
        for (group, presence) in left {
            here.groups.entry(*group).or_default().presences.push((*presence).clone());
            here.offline.extend(offline.get(&presence.id).cloned());
        }
    }

    /// A user went offline. Returns it if it may be told, because nothing is gathered of it; else it is told with that.
    pub(super) fn offline<'a>(&mut self, room: &RoomName, user: &'a UserId) -> Option<&'a UserId> {
        let Some(here) = self.rooms.get_mut(room) else { return Some(user) };
        if !here.is_of(user) {
            return Some(user);
        }
        here.offline.insert(user.clone());
        None
    }

    /// Takes who left with a group, and who is offline by that.
    pub(super) fn take(&mut self, room: &RoomName, group: u64) -> Option<(Vec<Arc<Presence>>, Vec<UserId>)> {
        let here = self.rooms.get_mut(room)?;
        let left = here.take(group);
        if here.groups.is_empty() {
            self.rooms.remove(room);
        }
        left
    }

    /// The groups for which this holds.
    pub(super) fn groups(&mut self, room: &RoomName, holds: impl Fn(&mut Left) -> bool) -> Vec<u64> {
        let Some(here) = self.rooms.get_mut(room) else { return Vec::new() };
        let groups = here.groups.iter_mut().filter_map(|(group, left)| holds(left).then_some(*group));
        let mut groups: Vec<_> = groups.collect();
        groups.sort_unstable();
        groups
    }
}
