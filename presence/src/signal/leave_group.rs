//! Groups of presences that leave a room together, in one or more transactions, and become one event.

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

/// Collects presences that leave, and sends them as one event when the last clone is dropped. Clones are held by the tasks that remove
/// the presences, until they have removed them or given up.
#[derive(Debug, Clone)]
pub(crate) struct LeaveGroup(Arc<Group>);

#[derive(Debug)]
struct Group {
    room: RoomName,
    number: u64,
    subscribers: Arc<Mutex<Subscribers>>,
}

impl Group {
    fn send(&self) {
        self.subscribers.lock().send_group(&self.room, self.number);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.send();
    }
}

impl LeaveGroup {
    pub(super) fn new(subscribers: &Arc<Mutex<Subscribers>>, room: &RoomName) -> Self {
        let number = subscribers.lock().groups.next_number();
        Self(Arc::new(Group { room: room.clone(), number, subscribers: subscribers.clone() }))
    }

    pub(super) fn number(&self) -> u64 {
        self.0.number
    }

    /// A weak handle, for the task with the time-out.
    pub(crate) fn downgrade(&self) -> WeakLeaveGroup {
        WeakLeaveGroup(Arc::downgrade(&self.0))
    }
}

/// A [`LeaveGroup`] that may have ended.
#[derive(Debug)]
pub(crate) struct WeakLeaveGroup(Weak<Group>);

impl WeakLeaveGroup {
    /// Sends the presences that have left so far, if the group has not ended. The others may take long.
    pub(crate) fn send(&self) {
        if let Some(group) = self.0.upgrade() {
            group.send();
        }
    }
}

/// The presences that have left and were not sent yet.
#[derive(Debug, Default)]
pub(super) struct OpenGroups {
    last_number: u64,
    rooms: HashMap<RoomName, RoomGroups>,
}

#[derive(Debug, Default)]
struct RoomGroups {
    groups: HashMap<u64, GroupMembers>,
    /// Users who went offline. They are sent with the last group that has presences of them.
    offline: HashSet<UserId>,
}

/// The presences of one group in one room. Most groups are sent before they are searched, so the indexes are built on the first search.
#[derive(Debug, Default)]
pub(super) struct GroupMembers {
    presences: Vec<Arc<Presence>>,
    ids: LazyIndex<PresenceId>,
    channels: LazyIndex<ChannelName>,
    users: LazyIndex<UserId>,
}

/// The keys of the first `indexed` presences.
#[derive(Debug)]
struct LazyIndex<T> {
    indexed: usize,
    keys: HashSet<T>,
}

impl<T> Default for LazyIndex<T> {
    fn default() -> Self {
        Self { indexed: 0, keys: HashSet::new() }
    }
}

impl<T: Eq + Hash> LazyIndex<T> {
    fn contains(&mut self, key: &T, presences: &[Arc<Presence>], key_of: impl Fn(&Presence) -> Option<T>) -> bool {
        self.keys.extend(presences[self.indexed..].iter().filter_map(|presence| key_of(presence)));
        self.indexed = presences.len();
        self.keys.contains(key)
    }
}

impl GroupMembers {
    /// Whether the group has a presence with the same id or the same channel.
    pub(super) fn contains(&mut self, presence: &Presence) -> bool {
        let Self { presences, ids, channels, .. } = self;
        ids.contains(&presence.id, presences, |one| Some(one.id))
            || channels.contains(&presence.channel, presences, |one| Some(one.channel.clone()))
    }

    /// Whether the group has a presence of this user.
    pub(super) fn has_user(&mut self, user: &UserId) -> bool {
        self.users.contains(user, &self.presences, |one| one.user.clone())
    }
}

impl RoomGroups {
    fn has_user(&mut self, user: &UserId) -> bool {
        self.groups.values_mut().any(|left| left.has_user(user))
    }

    /// Takes a group, with the offline users that no other group has.
    fn take(&mut self, group: u64) -> Option<(Vec<Arc<Presence>>, Vec<UserId>)> {
        let mut left = self.groups.remove(&group)?;
        if self.groups.is_empty() {
            // No other group is left.
            return Some((left.presences, self.offline.drain().collect()));
        }
        let offline = self.offline.iter().filter(|user| left.has_user(user)).cloned().collect::<Vec<_>>();
        let offline: Vec<_> = offline.into_iter().filter(|user| !self.has_user(user)).collect();
        for user in &offline {
            self.offline.remove(user);
        }
        Some((left.presences, offline))
    }
}

impl OpenGroups {
    fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// Adds presences that left to their groups. `offline` has the users whose last presence left.
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

    /// Returns a user who went offline if no group has presences of the user. Otherwise the user is sent with the last such group.
    pub(super) fn offline<'a>(&mut self, room: &RoomName, user: &'a UserId) -> Option<&'a UserId> {
        let Some(here) = self.rooms.get_mut(room) else { return Some(user) };
        if !here.has_user(user) {
            return Some(user);
        }
        here.offline.insert(user.clone());
        None
    }

    /// Takes the presences of a group, and the users who went offline with it.
    pub(super) fn take(&mut self, room: &RoomName, group: u64) -> Option<(Vec<Arc<Presence>>, Vec<UserId>)> {
        let here = self.rooms.get_mut(room)?;
        let left = here.take(group);
        if here.groups.is_empty() {
            self.rooms.remove(room);
        }
        left
    }

    /// The groups for which `matches` returns true.
    pub(super) fn matching(&mut self, room: &RoomName, matches: impl Fn(&mut GroupMembers) -> bool) -> Vec<u64> {
        let Some(here) = self.rooms.get_mut(room) else { return Vec::new() };
        let groups = here.groups.iter_mut().filter_map(|(group, left)| matches(left).then_some(*group));
        let mut groups: Vec<_> = groups.collect();
        groups.sort_unstable();
        groups
    }
}
