//! The channels of this process by name, and what any part of the application does by that name.
//!
//! A channel is most often a socket, but need not be: a job may add a name of its own to a room, touch it, and remove it.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, atomic::Ordering},
};

use futures_util::future::join_all;
use parking_lot::{Mutex, MutexGuard};

use crate::{
    Error, Result, Rooms,
    delivery::{hubs::SocketName, message::HubRef, touch::Touch},
    model::{Close, Meta},
    name::{ChannelName, PresenceId, RoomName, UserId},
    room::{local_channels::LocalChannels, message::Which},
    store::RemovalTarget,
};

use super::channel::{Channel, JoinOptions};

/// The channels of this process, by name.
#[derive(Debug, Default)]
pub(crate) struct Channels(Mutex<HashMap<ChannelName, Arc<Channel>>>);

impl Channels {
    fn all(&self) -> MutexGuard<'_, HashMap<ChannelName, Arc<Channel>>> {
        self.0.lock()
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

    /// The channel; if there is none of this name, one without a socket. A name that was given to a socket is never that of
    /// anything else: what it would put into a room, no disconnect would take out again.
    fn get_or_make(&self, name: &ChannelName, rooms: &Rooms) -> Result<Arc<Channel>> {
        let mut all = self.all();
        if let Some(channel) = all.get(name) {
            return Ok(channel.clone());
        }
        match SocketName::parse(name) {
            Some(socket) if rooms.0.hubs.issued(&socket) => return Err(Error::SocketClosed),
            Some(_) => return Err(Error::SocketElsewhere { channel: name.clone() }),
            None => {}
        }
        let made = Arc::new(Channel::new(name.clone(), Touch::new(rooms.0.node.now()), None));
        all.insert(name.clone(), made.clone());
        Ok(made)
    }

    /// Somebody does something with the channel, until this is dropped: after whatever else holds the channel.
    const fn in_use(&self, name: ChannelName) -> InUse<'_> {
        InUse { channels: self, name }
    }

    /// A channel without a socket is kept as long as it is in a room, or somebody is about to put it into one.
    fn drop_if_unused(&self, name: &ChannelName) {
        if let Entry::Occupied(channel) = self.all().entry(name.clone())
            && is_dropped(channel.get())
        {
            channel.remove();
        }
    }

    /// When the channel was last seen, if it is in the room.
    pub(crate) fn touch_in(&self, name: &ChannelName, room: &RoomName) -> Option<Touch> {
        self.get(name).filter(|channel| channel.is_in(room)).map(|channel| channel.touch().clone())
    }
}

impl LocalChannels for Channels {
    fn touch_of(&self, name: &ChannelName) -> Option<Touch> {
        self.get(name).map(|channel| channel.touch().clone())
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
        // A channel that falls out of the map is dropped when others may look into it again.
        let (was_in, _dropped) = match self.all().entry(name.clone()) {
            Entry::Occupied(channel) => {
                let was_in = channel.get().forget(room, id);
                (was_in, is_dropped(channel.get()).then(|| channel.remove()))
            }
            Entry::Vacant(_) => (true, None),
        };
        was_in
    }
}

/// Whether a channel is in no room and nobody has it. Whoever is about to put it into one got it under the lock of all channels,
/// and looks here when it has it no more.
fn is_dropped(channel: &Arc<Channel>) -> bool {
    Arc::strong_count(channel) == 1 && channel.is_unused()
}

/// See [`Channels::in_use`].
struct InUse<'c> {
    channels: &'c Channels,
    name: ChannelName,
}

impl Drop for InUse<'_> {
    fn drop(&mut self) {
        self.channels.drop_if_unused(&self.name);
    }
}

/// The manager of rooms, as in django-channels-presence: what consumers do by their sockets, any part of the application does
/// by the name of a channel.
impl Rooms {
    /// Adds a channel to a room, as `user` or as an anonymous visitor: for a socket of this process as if it had joined, for
    /// a name of the application's own making as a presence without a socket, which must be [touched](Self::touch) to stay. As
    /// `Room.objects.add` of django-channels-presence; but a channel that is there is touched and stays in its group, one that
    /// was another user's becomes this one's, which is one event, and a socket that is closed is not added.
    ///
    /// # Errors
    /// As [`Socket::join`](crate::Socket::join): [`Error::SocketClosed`] if the channel is that of a socket of this process which
    /// is closed or closing, [`Error::LeftWhileJoining`] if it closed meanwhile. [`Error::SocketElsewhere`] if it is that of
    /// another process's. [`Error::ChannelTaken`] if another process has a channel of this name in the room. The channel is not
    /// in the room then, and nothing is left of it.
    pub async fn add(&self, room: &RoomName, channel: &ChannelName, user: Option<&UserId>) -> Result<super::Room> {
        self.add_with(room, channel, user, JoinOptions::new()).await
    }

    /// As [`add`](Self::add), with a first meta, a limit of places, or, for a socket, a grace.
    ///
    /// # Errors
    /// As [`add`](Self::add), and as [`Socket::join_with`](crate::Socket::join_with).
    pub async fn add_with(
        &self,
        room: &RoomName,
        channel: &ChannelName,
        user: Option<&UserId>,
        options: JoinOptions,
    ) -> Result<super::Room> {
        self.check_open()?;
        let _in_use = self.channels().in_use(channel.clone());
        let known = self.channels().get_or_make(channel, self)?;
        match known.join(self, room, user, options).await {
            Ok(()) => Ok(self.room(room)),
            Err(Error::StoreRefused(error)) if error.is_channel_taken() => {
                Err(Error::ChannelTaken { room: room.clone(), channel: channel.clone() })
            }
            Err(error) => Err(error),
        }
    }

    /// Removes a channel from a room, on whichever node it is, also if it is held. The others see it leave, and the consumer of its
    /// socket learns of it by [`Consumer::removed`](crate::Consumer::removed); the socket stays open. One that is not in the room:
    /// nothing happens. Of several callers at once one removes it, and there is one event. As `Room.objects.remove` of
    /// django-channels-presence, which tells nobody but the others, and only on one node.
    ///
    /// A channel of this process is removed at once. Of one that this process does not know, all other nodes are asked, which look
    /// for such requests every `sweep_interval`: see [`remove_room`](Self::remove_room).
    ///
    /// # Errors
    /// As [`Socket::leave`](crate::Socket::leave); of a channel that this process does not know, as [`remove_room`](Self::remove_room).
    pub async fn remove(&self, room: &RoomName, channel: &ChannelName) -> Result<()> {
        self.remove_channel(Some(room), channel).await
    }

    async fn remove_channel(&self, room: Option<&RoomName>, channel: &ChannelName) -> Result<()> {
        let removed = self.remove_here(room, channel, None).await?;
        let is_of_ours = SocketName::parse(channel).is_some_and(|socket| self.0.hubs.issued(&socket));
        if removed > 0 || is_of_ours {
            return Ok(());
        }
        let target = RemovalTarget::Channel { channel: channel.clone(), room: room.cloned() };
        self.remove_everywhere(target, None).await.map(drop)
    }

    /// Removes a channel of this node from a room, or from all, for somebody else. Returns from how many.
    pub(crate) async fn remove_here(
        &self,
        room: Option<&RoomName>,
        channel: &ChannelName,
        close: Option<&Close>,
    ) -> Result<usize> {
        let _in_use = self.channels().in_use(channel.clone());
        let known = self.channels().get(channel);
        let removed = match &known {
            Some(known) => known.remove(self, room, close).await?,
            None => 0,
        };
        drop(known);
        if removed > 0 {
            return Ok(removed);
        }
        // It may be held, its socket being gone, or be there since before this process was started again.
        let rooms = room.map_or_else(|| self.0.table.names(), |room| vec![room.clone()]);
        let (which, count) = (Which::Of(channel.clone()), Arc::default());
        let removals = rooms.iter().map(|room| self.remove_one(room, &which, close, &count));
        join_all(removals).await.into_iter().collect::<Result<()>>()?;
        Ok(count.load(Ordering::Acquire))
    }

    /// Marks a channel as seen now, in all its rooms. One that is not known to this process: nothing happens. As
    /// `Presence.objects.touch` of django-channels-presence, but it costs a store to memory.
    pub fn touch(&self, channel: &ChannelName) {
        if let Some(known) = self.channels().get(channel) {
            known.touch().mark(self.0.node.now());
        }
    }

    /// Replaces the meta of a channel's presence in a room, as [`Socket::update`](crate::Socket::update) does, from anywhere: an HTTP
    /// handler, a job, a bot. The channel must be one of this process: a socket, or a name of the application's own that was
    /// [added](Self::add). That of any presence is in [`members`](Self::members). One that is equal changes nothing.
    ///
    /// It is written at once, without regard to `updates_per_second`, and takes the place of an update of the socket's own that waits.
    ///
    /// ```
    /// # use presence::{ChannelName, Meta, RoomName, Rooms};
    /// # use serde_json::json;
    /// async fn bot_is_busy(rooms: &Rooms, room: &RoomName, bot: &ChannelName) -> presence::Result<()> {
    ///     rooms.update(room, bot, Meta::new(&json!({ "status": "busy" }))?).await
    /// }
    /// ```
    ///
    /// # Errors
    /// [`Error::NotInRoom`] if the channel is not in the room, also if it is held; [`Error::SocketElsewhere`] if it is that of a socket
    /// of another process; [`Error::Overloaded`]: nothing happened. [`Error::StoreUnavailable`] if the database did not answer in time:
    /// it may or may not happen.
    pub async fn update(&self, room: &RoomName, channel: &ChannelName, meta: Meta) -> Result<()> {
        match self.channels().get(channel) {
            Some(known) => known.update_for_another(self, room, meta).await,
            None if SocketName::parse(channel).is_some_and(|socket| !self.0.hubs.issued(&socket)) => {
                Err(Error::SocketElsewhere { channel: channel.clone() })
            }
            None => Err(Error::NotInRoom { room: room.clone() }),
        }
    }

    /// Removes a channel from every room, with one event for each, on whichever node it is. The consumer of its socket learns of each
    /// by [`Consumer::removed`](crate::Consumer::removed). One that is in no room: nothing happens. A name of the application's own that
    /// is in a room by this process is removed from the rooms where this process has it, and the others are not asked. As
    /// `Presence.objects.leave_all` of django-channels-presence, which tells nobody but the others. The rest is as for
    /// [`remove`](Self::remove).
    ///
    /// # Errors
    /// As [`remove`](Self::remove); every room is left all the same.
    pub async fn leave_all(&self, channel: &ChannelName) -> Result<()> {
        self.remove_channel(None, channel).await
    }
}
