//! Those of a room who leave together, in as many transactions as that takes: one event for all of them.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
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
        let mut subscribers = lock(&self.subscribers);
        if let Some(left) = subscribers.gathered.take(&self.room, self.number) {
            subscribers.tell_bulk(&self.room, left);
        }
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
    rooms: HashMap<RoomName, HashMap<u64, Left>>,
}

/// Of one room and one group.
#[derive(Debug, Default)]
pub(super) struct Left {
    pub(super) presences: Vec<Arc<Presence>>,
    /// The users whose last presences these were.
    pub(super) offline: BTreeSet<UserId>,
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

impl Gathered {
    fn next_number(&mut self) -> u64 {
        self.groups += 1;
        self.groups
    }

    pub(super) fn add(&mut self, room: &RoomName, group: u64, presence: &Arc<Presence>, offline: Option<&UserId>) {
        // Nearly always it is there.
        if !self.rooms.contains_key(room) {
            self.rooms.insert(room.clone(), HashMap::new());
        }
        let left = self.rooms.get_mut(room).map(|groups| groups.entry(group).or_default());
        if let Some(left) = left {
            left.ids.insert(presence.id);
            left.channels.insert(presence.channel.clone());
            left.users.extend(presence.user.clone());
            left.offline.extend(offline.cloned());
            left.presences.push(presence.clone());
        }
    }

    fn take(&mut self, room: &RoomName, group: u64) -> Option<Left> {
        let groups = self.rooms.get_mut(room)?;
        let left = groups.remove(&group);
        if groups.is_empty() {
            self.rooms.remove(room);
        }
        left
    }

    /// Takes those groups for which this holds.
    pub(super) fn take_if(&mut self, room: &RoomName, first: impl Fn(u64, &Left) -> bool) -> Vec<Left> {
        let Some(groups) = self.rooms.get(room) else { return Vec::new() };
        let mut met: Vec<u64> =
            groups.iter().filter(|(group, left)| first(**group, left)).map(|(group, _)| *group).collect();
        met.sort_unstable();
        met.into_iter().filter_map(|group| self.take(room, group)).collect()
    }
}
