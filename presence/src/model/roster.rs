//! One room's members as a value.
//!
//! `RoomActor` owns one, inside its replica, and turns its answers into messages.
//! Invariant: a snapshot plus the deltas after it equals the next snapshot.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use crate::name::{ChannelName, PresenceId, UserId};

use super::{Delta, Member, Presence, delta::Change};

/// Who is in a room.
#[derive(Debug, Default, Clone)]
pub(crate) struct Roster {
    presences: HashMap<PresenceId, Arc<Presence>>,
    channels: HashMap<ChannelName, PresenceId>,
    /// The presences of each user, in the order in which they joined. Sorted by the bytes of the user id.
    users: BTreeMap<UserId, Vec<PresenceId>>,
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
        let mut old = std::mem::take(&mut self.presences);
        *self = Self::default();
        let mut changes = Vec::new();
        for now in presences {
            let was = old.remove(&now.id);
            let same = was.as_ref().is_some_and(|was| was.looks_like(&now));
            self.insert(now.clone());
            if !same {
                changes.push(Change { was, now: Some(now) });
            }
        }
        changes.extend(old.into_values().map(|was| Change { was: Some(was), now: None }));
        changes
    }

    fn put(&mut self, now: Arc<Presence>) -> Option<Change> {
        let was = self.presences.get(&now.id).cloned();
        match &was {
            Some(was) if was.user == now.user && was.channel == now.channel => {
                // The order in which a user's presences joined is kept.
                self.presences.insert(now.id, now.clone());
            }
            Some(_) => {
                self.remove(now.id);
                self.insert(now.clone());
            }
            None => self.insert(now.clone()),
        }
        match was {
            Some(was) if was.looks_like(&now) => None,
            was => Some(Change { was, now: Some(now) }),
        }
    }

    fn insert(&mut self, presence: Arc<Presence>) {
        match &presence.user {
            Some(user) => self.users.entry(user.clone()).or_default().push(presence.id),
            None => self.anonymous += 1,
        }
        self.channels.insert(presence.channel.clone(), presence.id);
        self.presences.insert(presence.id, presence);
    }

    fn remove(&mut self, id: PresenceId) -> Option<Arc<Presence>> {
        let presence = self.presences.remove(&id)?;
        if self.channels.get(&presence.channel) == Some(&id) {
            self.channels.remove(&presence.channel);
        }
        match &presence.user {
            Some(user) => {
                if let Some(ids) = self.users.get_mut(user) {
                    ids.retain(|other| *other != id);
                    if ids.is_empty() {
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

    pub(crate) fn by_channel(&self, channel: &ChannelName) -> Option<&Arc<Presence>> {
        self.presences.get(self.channels.get(channel)?)
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
    pub(crate) fn by_user(&self) -> impl Iterator<Item = (&UserId, impl Iterator<Item = &Arc<Presence>>)> {
        self.users.iter().map(|(user, ids)| (user, ids.iter().filter_map(|id| self.presences.get(id))))
    }

    /// How many presences the user has here.
    pub(crate) fn presences_of(&self, user: &UserId) -> usize {
        self.users.get(user).map_or(0, Vec::len)
    }

    /// How many anonymous sockets are here.
    pub(crate) const fn anonymous(&self) -> usize {
        self.anonymous
    }

    /// The users with their presences, then the anonymous sockets.
    pub(crate) fn members(&self) -> Vec<Member> {
        let users = self.by_user().map(|(user, presences)| Member::User(user.clone(), presences.cloned().collect()));
        let anonymous = self.iter().filter(|presence| presence.user.is_none()).cloned().map(Member::Anonymous);
        users.chain(anonymous).collect()
    }
}
