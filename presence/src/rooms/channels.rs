//! The channels of this process by name.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use parking_lot::{Mutex, MutexGuard};

use crate::{
    Error, Result,
    clock::Tick,
    delivery::{HubRef, Hubs, SocketName, Touch},
    model::{Close, Meta},
    name::{ChannelName, PresenceId, RoomName},
    room::LocalChannels,
};

use super::channel::Channel;

/// The channels of this process, by name.
#[derive(Debug, Default)]
pub(crate) struct Channels(Mutex<HashMap<ChannelName, Arc<Channel>>>);

impl Channels {
    fn all(&self) -> MutexGuard<'_, HashMap<ChannelName, Arc<Channel>>> {
        self.0.lock()
    }

    /// Adds the channel of a new socket.
    pub(crate) fn open(&self, name: ChannelName, touch: Touch, hub: HubRef) -> Arc<Channel> {
        let channel = Arc::new(Channel::new(name.clone(), touch, Some(hub)));
        self.all().insert(name, channel.clone());
        channel
    }

    /// Forgets the channel of a socket that has ended.
    pub(crate) fn close(&self, name: &ChannelName) {
        self.all().remove(name);
    }

    pub(crate) fn get(&self, name: &ChannelName) -> Option<Arc<Channel>> {
        self.all().get(name).cloned()
    }

    /// The channel of this name. If there is none, a new channel without a socket is made. That fails for names that are issued to sockets:
    /// no disconnect would ever remove the presences of such a channel.
    pub(super) fn get_or_make(&self, name: &ChannelName, hubs: &Hubs, now: Tick) -> Result<Arc<Channel>> {
        let mut all = self.all();
        if let Some(channel) = all.get(name) {
            return Ok(channel.clone());
        }
        match SocketName::parse(name) {
            Some(socket) if hubs.issued(&socket) => return Err(Error::SocketClosed),
            Some(_) => return Err(Error::SocketElsewhere { channel: name.clone() }),
            None => {}
        }
        let made = Arc::new(Channel::new(name.clone(), Touch::new(now), None));
        all.insert(name.clone(), made.clone());
        Ok(made)
    }

    /// A guard for a caller that uses the channel. The caller drops it last, after its own reference to the channel, and the drop removes
    /// the channel if it is no longer needed.
    pub(super) const fn in_use(&self, name: ChannelName) -> InUse<'_> {
        InUse { channels: self, name }
    }

    /// Removes a channel without a socket, unless it is in a room or another caller still uses it.
    fn drop_if_unused(&self, name: &ChannelName) {
        if let Entry::Occupied(channel) = self.all().entry(name.clone())
            && is_dropped(channel.get())
        {
            channel.remove();
        }
    }

    /// The touch of the channel, if the channel is in the room.
    pub(crate) fn touch_in(&self, name: &ChannelName, room: &RoomName) -> Option<Touch> {
        self.get(name).filter(|channel| channel.is_in(room)).map(|channel| channel.touch().clone())
    }
}

impl LocalChannels for Channels {
    fn touch_of(&self, name: &ChannelName) -> Option<Touch> {
        self.get(name).map(|channel| channel.touch().clone())
    }

    fn is_in(&self, name: &ChannelName, room: &RoomName) -> bool {
        self.get(name).is_some_and(|channel| channel.is_in(room))
    }

    fn has(&self, name: &ChannelName, room: &RoomName, id: PresenceId) -> bool {
        self.get(name).is_some_and(|channel| channel.has(room, id))
    }

    fn note_resumed(&self, name: &ChannelName, room: &RoomName, id: PresenceId) {
        if let Some(channel) = self.get(name) {
            channel.note_resumed(room, id);
        }
    }

    fn take_update(&self, name: &ChannelName, room: &RoomName, id: PresenceId) -> Option<Meta> {
        self.get(name)?.take_update(room, id)
    }

    fn forget(&self, name: &ChannelName, room: &RoomName, id: PresenceId) -> bool {
        // A removed channel is dropped after the lock of the map is released.
        let (was_in, _dropped) = match self.all().entry(name.clone()) {
            Entry::Occupied(channel) => {
                let was_in = channel.get().forget(room, id);
                (was_in, is_dropped(channel.get()).then(|| channel.remove()))
            }
            Entry::Vacant(_) => (true, None),
        };
        was_in
    }

    fn note_close(&self, name: &ChannelName, close: &Close) {
        if let Some(channel) = self.get(name) {
            channel.note_close(close);
        }
    }
}

/// Whether a channel can be dropped: it is in no room, and only the map refers to it. A caller that is about to join gets its reference
/// under the lock of the map, which the caller of this function holds, and its [`InUse`] checks again when it is done.
fn is_dropped(channel: &Arc<Channel>) -> bool {
    Arc::strong_count(channel) == 1 && channel.is_unused()
}

/// See [`Channels::in_use`].
pub(super) struct InUse<'c> {
    channels: &'c Channels,
    name: ChannelName,
}

impl Drop for InUse<'_> {
    fn drop(&mut self) {
        self.channels.drop_if_unused(&self.name);
    }
}
