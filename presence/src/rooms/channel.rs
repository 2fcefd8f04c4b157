//! One channel: which rooms it is in.
//!
//! Calls of its consumer and calls of other parts of the application both change the memberships that are kept here, so both see the same
//! ones.

mod joining;
mod leaving;
mod pending_updates;
mod updating;

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, OnceLock, atomic::AtomicBool},
    time::Duration,
};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use crate::{
    ResumeToken,
    delivery::{HubRef, Touch},
    model::{Close, Meta},
    name::{ChannelName, PresenceId, RoomName},
};

use self::pending_updates::PendingUpdates;

/// One channel.
#[derive(Debug)]
pub(crate) struct Channel {
    name: ChannelName,
    touch: Touch,
    /// `None` if no socket of this process belongs to it.
    hub: Option<HubRef>,
    memberships: Mutex<HashMap<RoomName, Membership>>,
    /// Lock order: `memberships` may be locked while this is locked, but not the other way around.
    updates: Mutex<PendingUpdates>,
    /// Whether every further join fails.
    closed: AtomicBool,
    /// The token with which its client can resume the presences that join from now on.
    resume: Mutex<Option<ResumeToken>>,
    end: OnceLock<SocketEnd>,
    /// How its socket is about to be closed, since it was removed from a room. The message of that reaches the socket later than the answer
    /// to a join that the removal refused.
    close: Mutex<Option<Close>>,
}

/// What the end of a socket means for its presences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SocketEnd {
    /// The presences leave.
    Left,
    /// The presences that can be resumed are held, and the others leave.
    Lost,
}

#[derive(Debug, Clone)]
struct Membership {
    id: PresenceId,
    /// For how long the presence is held if its socket is lost; `None` if it cannot be resumed.
    grace: Option<Duration>,
    /// Notified when the join is over; `None` if it is over already.
    joining: Option<Arc<Notify>>,
    /// Whether the presence was resumed with the token.
    is_resumed: bool,
}

impl Channel {
    pub(super) fn new(name: ChannelName, touch: Touch, hub: Option<HubRef>) -> Self {
        Self {
            name,
            touch,
            hub,
            memberships: Mutex::default(),
            updates: Mutex::default(),
            closed: AtomicBool::new(false),
            resume: Mutex::default(),
            end: OnceLock::new(),
            close: Mutex::default(),
        }
    }

    pub(crate) const fn name(&self) -> &ChannelName {
        &self.name
    }

    pub(crate) const fn touch(&self) -> &Touch {
        &self.touch
    }

    fn memberships(&self) -> MutexGuard<'_, HashMap<RoomName, Membership>> {
        self.memberships.lock()
    }

    fn updates(&self) -> MutexGuard<'_, PendingUpdates> {
        self.updates.lock()
    }

    pub(crate) fn is_in(&self, room: &RoomName) -> bool {
        self.memberships().contains_key(room)
    }

    /// The rooms that the channel is in or is joining.
    pub(crate) fn rooms(&self) -> Vec<RoomName> {
        self.memberships().keys().cloned().collect()
    }

    /// Whether the channel is in the room as a presence that was resumed with the token.
    pub(crate) fn has_resumed(&self, room: &RoomName) -> bool {
        self.memberships().get(room).is_some_and(|now| now.is_resumed)
    }

    /// Records that the join with this presence id resumed a presence.
    pub(super) fn note_resumed(&self, room: &RoomName, id: PresenceId) {
        if let Some(now) = self.memberships().get_mut(room).filter(|now| now.id == id) {
            now.is_resumed = true;
        }
    }

    /// Whether the channel is in the room, or is joining it, as this presence.
    pub(super) fn has(&self, room: &RoomName, id: PresenceId) -> bool {
        self.memberships().get(room).is_some_and(|now| now.id == id)
    }

    pub(super) fn note_close(&self, close: &Close) {
        *self.close.lock() = Some(close.clone());
    }

    /// How the socket is about to be closed, since it was removed from a room.
    pub(crate) fn noted_close(&self) -> Option<Close> {
        self.close.lock().clone()
    }

    /// Whether the channel is in no room and has no socket.
    pub(super) fn is_unused(&self) -> bool {
        self.hub.is_none() && self.memberships().is_empty()
    }

    /// Records a membership without a join, so that a test can make the channel and the room disagree.
    #[cfg(test)]
    pub(super) fn considers_itself_in(&self, room: &RoomName, id: PresenceId) {
        self.memberships().insert(room.clone(), Membership { id, grace: None, joining: None, is_resumed: false });
    }

    /// Removes the membership of this presence, and returns whether there was one.
    pub(super) fn forget(&self, room: &RoomName, id: PresenceId) -> bool {
        let was_in = match self.memberships().entry(room.clone()) {
            Entry::Occupied(membership) if membership.get().id == id => {
                membership.remove();
                true
            }
            _ => false,
        };
        self.take_update(room, id);
        was_in
    }

    /// Takes the update of this presence that is pending or is being written.
    pub(super) fn take_update(&self, room: &RoomName, id: PresenceId) -> Option<Meta> {
        self.updates().take(room, id)
    }

    /// Sets the token with which presences that join from now on can be resumed.
    pub(crate) fn set_resume_token(&self, token: Option<ResumeToken>) {
        *self.resume.lock() = token;
    }

    /// The shortest time for which a presence of this channel is held; `None` if none can be resumed.
    pub(crate) fn shortest_grace(&self) -> Option<Duration> {
        self.memberships().values().filter_map(|membership| membership.grace).min()
    }

    /// Records how the socket ends. Only the first call counts. After it, every join of the channel fails.
    pub(crate) fn set_end(&self, end: SocketEnd) {
        let _ = self.end.set(end);
    }

    fn is_lost(&self) -> bool {
        self.end.get() == Some(&SocketEnd::Lost)
    }

    /// An update of the presence in this room is pending.
    #[cfg(test)]
    pub(super) fn put_update(&self, room: &RoomName, meta: Meta) {
        let id = self.memberships()[room].id;
        self.updates().put((room.clone(), id, meta));
    }

    /// Whether the updates are locked.
    #[cfg(test)]
    pub(super) fn is_updating(&self) -> bool {
        self.updates.try_lock().is_none()
    }
}
