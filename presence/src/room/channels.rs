//! The channels of this process by name, and what any part of the application does by that name.
//!
//! A channel is most often a socket, but need not be: a job may add a name of its own to a room, touch it, and remove it.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    Result, Rooms,
    name::{ChannelName, PresenceId, RoomName, UserId},
};

use super::{channel::Channel, message::HubRef, touch::Touch};

/// The channels of this process, by name.
#[derive(Debug, Default)]
pub(crate) struct Channels(Mutex<HashMap<ChannelName, Arc<Channel>>>);

impl Channels {
    fn all(&self) -> MutexGuard<'_, HashMap<ChannelName, Arc<Channel>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the channel of a socket known.
    pub(crate) fn open(&self, name: ChannelName, touch: Touch, hub: HubRef) -> Arc<Channel> {
        let channel = Arc::new(Channel::new(name.clone(), touch, Some(hub)));
        self.all().insert(name, channel.clone());
        channel
    }

    /// The channel is no more.
    pub(crate) fn close(&self, name: &ChannelName) {
        self.all().remove(name);
    }

    pub(crate) fn get(&self, name: &ChannelName) -> Option<Arc<Channel>> {
        self.all().get(name).cloned()
    }

    /// The channel; if there is none of this name, one without a socket.
    fn get_or_make(&self, name: &ChannelName, rooms: &Rooms) -> Arc<Channel> {
        let mut all = self.all();
        let make = || Arc::new(Channel::new(name.clone(), Touch::new(rooms.now()), None));
        all.entry(name.clone()).or_insert_with(make).clone()
    }

    /// A channel without a socket is kept as long as it is in a room, or somebody is about to put it into one.
    fn drop_if_unused(&self, known: Arc<Channel>) {
        let mut all = self.all();
        // Whoever else has it got it under this lock, and comes by here when done.
        let (name, others) = (known.name().clone(), Arc::strong_count(&known) > 2);
        drop(known);
        if let Entry::Occupied(channel) = all.entry(name)
            && !others
            && channel.get().is_unused()
        {
            channel.remove();
        }
    }

    /// Whether the channel is in the room, or joining it, as this presence.
    pub(crate) fn has(&self, name: &ChannelName, room: &RoomName, id: PresenceId) -> bool {
        self.get(name).is_some_and(|channel| channel.has(room, id))
    }

    /// The channel is not in the room any more as this presence, without having left it: it was pruned, or removed with its
    /// user or room. Returns `false` if the channel had left by itself, or joined anew as another presence.
    pub(crate) fn forget(&self, name: &ChannelName, room: &RoomName, id: PresenceId) -> bool {
        let Some(channel) = self.get(name) else { return true };
        let was_in = channel.forget(room, id);
        self.drop_if_unused(channel);
        was_in
    }
}

/// The manager of rooms, as in django-channels-presence: what consumers do by their sockets, any part of the application does
/// by the name of a channel.
impl Rooms {
    /// Adds a channel to a room, as `user` or as an anonymous visitor: for a socket of this process as if it had joined, for
    /// any other name as a presence without a socket, which must be [touched](Self::touch) to stay. As `Room.objects.add` of
    /// django-channels-presence; but a channel that is there is touched and stays in its group, and one that was another
    /// user's becomes this one's, which is one event.
    ///
    /// # Errors
    /// As [`Socket::join`](crate::Socket::join).
    pub async fn add(&self, room: &RoomName, channel: &ChannelName, user: Option<&UserId>) -> Result<super::Room> {
        self.check_open()?;
        let known = self.channels().get_or_make(channel, self);
        let joined = known.join(self, room, user, None).await;
        self.channels().drop_if_unused(known);
        joined.map(|()| self.room(room))
    }

    /// Removes a channel from a room. One that is not in it, or not known to this process: nothing happens. Of several callers
    /// at once one removes it, and there is one event. As `Room.objects.remove` of django-channels-presence.
    ///
    /// # Errors
    /// As [`Socket::leave`](crate::Socket::leave).
    pub async fn remove(&self, room: &RoomName, channel: &ChannelName) -> Result<()> {
        let Some(known) = self.channels().get(channel) else { return Ok(()) };
        let left = known.leave(self, room).await;
        self.channels().drop_if_unused(known);
        left
    }

    /// Marks a channel as seen now, in all its rooms. One that is not known to this process: nothing happens. As
    /// `Presence.objects.touch` of django-channels-presence, but it costs a store to memory.
    pub fn touch(&self, channel: &ChannelName) {
        if let Some(known) = self.channels().get(channel) {
            known.touch().mark(self.now());
        }
    }

    /// Removes a channel from every room, with one event for each. One that is not known to this process: nothing happens. As
    /// `Presence.objects.leave_all` of django-channels-presence.
    ///
    /// # Errors
    /// As [`Socket::leave`](crate::Socket::leave); every room is left all the same.
    pub async fn leave_all(&self, channel: &ChannelName) -> Result<()> {
        let Some(known) = self.channels().get(channel) else { return Ok(()) };
        let left = known.leave_all(self).await;
        self.channels().drop_if_unused(known);
        left
    }
}
