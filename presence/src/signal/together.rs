//! Those of a room who leave together, in as many transactions as that takes: one event for all of them.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, Weak},
};

use crate::{
    model::Presence,
    name::{ChannelName, PresenceId, RoomName, UserId},
};

use super::{Subscribers, lock};

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
        lock(&self.subscribers).tell_group(&self.room, self.number);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.tell();
    }
}

impl Together {
    pub(super) fn new(subscribers: &Arc<Mutex<Subscribers>>, room: &RoomName) -> Self {
        let number = lock(subscribers).gathered.next_number();
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

/// Of one room and one group.
#[derive(Debug, Default)]
pub(super) struct Left {
    presences: Vec<Arc<Presence>>,
    ids: HashSet<PresenceId>,
    channels: HashSet<ChannelName>,
    users: HashSet<UserId>,
}

impl Left {
    /// Whether who keeps a list, by ids or by channels, would take this for one of those who left.
    pub(super) fn holds(&self, presence: &Presence) -> bool {
        self.ids.contains(&presence.id) || self.channels.contains(&presence.channel)
    }

    /// Whether presences of this user are among them.
    pub(super) fn is_of(&self, user: &UserId) -> bool {
        self.users.contains(user)
    }
}

impl InRoom {
    fn is_of(&self, user: &UserId) -> bool {
        self.groups.values().any(|left| left.is_of(user))
    }

    /// Takes a group, and those who are offline and of whom no other group holds anything.
    fn take(&mut self, group: u64) -> Option<(Vec<Arc<Presence>>, Vec<UserId>)> {
        let Left { presences, users, .. } = self.groups.remove(&group)?;
        let last = |user: &UserId| self.offline.contains(user) && !self.is_of(user);
        let offline: Vec<_> = users.into_iter().filter(last).collect();
        for user in &offline {
            self.offline.remove(user);
        }
        Some((presences, offline))
    }
}

impl Gathered {
    fn next_number(&mut self) -> u64 {
        self.groups += 1;
        self.groups
    }

    pub(super) fn add(&mut self, room: &RoomName, group: u64, presence: &Arc<Presence>) {
        // Nearly always it is there.
        if !self.rooms.contains_key(room) {
            self.rooms.insert(room.clone(), InRoom::default());
        }
        let left = self.rooms.get_mut(room).map(|here| here.groups.entry(group).or_default());
        if let Some(left) = left {
            left.ids.insert(presence.id);
            left.channels.insert(presence.channel.clone());
            left.users.extend(presence.user.clone());
            left.presences.push(presence.clone());
        }
    }

    /// A user went offline. Returns it if it may be told, because nothing is gathered of it; else it is told with that.
    pub(super) fn offline<'a>(&mut self, room: &RoomName, user: &'a UserId) -> Option<&'a UserId> {
        match self.rooms.get_mut(room).filter(|here| here.is_of(user)) {
            None => Some(user),
            Some(here) => {
                here.offline.insert(user.clone());
                None
            }
        }
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
    pub(super) fn groups(&self, room: &RoomName, holds: impl Fn(&Left) -> bool) -> Vec<u64> {
        let Some(here) = self.rooms.get(room) else { return Vec::new() };
        let mut groups: Vec<_> = here.groups.iter().filter(|(_, left)| holds(left)).map(|(group, _)| *group).collect();
        groups.sort_unstable();
        groups
    }
}
