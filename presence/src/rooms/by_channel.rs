//! The methods of [`Rooms`] that take the name of a channel.
//!
//! Most channels are sockets. An application may also add a name of its own to a room, touch it and remove it: for example, a bot.

use std::sync::{Arc, atomic::Ordering};

use futures_util::future::join_all;

use crate::{
    Error, Result,
    delivery::SocketName,
    model::{Close, Meta},
    name::{ChannelName, RoomName, UserId},
    room::PresenceKey,
    store::RemovalTarget,
};

use super::{JoinOptions, Room, Rooms};

/// The calls of the manager of rooms in django-channels-presence: any part of the application does by the name of a channel what a
/// consumer does by its socket.
impl Rooms {
    /// Adds a channel to a room, as `user`, or as an anonymous presence if that is `None`. A socket of this process joins as by
    /// [`Socket::join`](crate::Socket::join). Any other name that the application chose becomes a presence without a socket, which must be
    /// [touched](Self::touch) to stay. A channel that is in the room already is touched. If it had another user, its user is replaced, which
    /// is one event.
    ///
    /// It corresponds to `Room.objects.add` of django-channels-presence, but a socket that is closed is not added.
    ///
    /// ```
    /// # use presence::{ChannelName, RoomName, Rooms, UserId};
    /// /// Adds a bot to a room.
    /// async fn start_bot(rooms: &Rooms, room: &RoomName) -> presence::Result<()> {
    ///     rooms.add(room, &ChannelName::new("weather-bot")?, Some(&UserId::new("weather")?)).await?;
    ///     Ok(()) // from now on, the bot calls `touch` more often than once in `max_age`
    /// }
    /// ```
    ///
    /// # Errors
    /// Those of [`Socket::join`](crate::Socket::join), and after each of these the channel is not in the room:
    /// - [`Error::SocketClosed`] if the channel is a socket of this process that is closed or closing.
    /// - [`Error::LeftWhileJoining`] if the socket closed during the call.
    /// - [`Error::SocketElsewhere`] if the channel is a socket of another process.
    /// - [`Error::ChannelTaken`] if another process has a channel of this name in the room.
    pub async fn add(&self, room: &RoomName, channel: &ChannelName, user: Option<&UserId>) -> Result<Room> {
        self.add_with(room, channel, user, JoinOptions::new()).await
    }

    /// As [`add`](Self::add), with a first meta, a limit of places, or, for a socket, a grace.
    ///
    /// ```
    /// # use presence::{ChannelName, JoinOptions, Meta, RoomName, Rooms};
    /// async fn add_camera(rooms: &Rooms, room: &RoomName, camera: &ChannelName) -> presence::Result<()> {
    ///     let meta = Meta::new(&serde_json::json!({ "kind": "camera" }))?;
    ///     rooms.add_with(room, camera, None, JoinOptions::new().meta(meta).limit(10)).await?;
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// As [`add`](Self::add), and as [`Socket::join_with`](crate::Socket::join_with).
    pub async fn add_with(
        &self,
        room: &RoomName,
        channel: &ChannelName,
        user: Option<&UserId>,
        options: JoinOptions,
    ) -> Result<Room> {
        self.check_open()?;
        let _in_use = self.channels().in_use(channel.clone());
        let known = self.channels().get_or_make(channel, &self.0.hubs, self.0.node.now())?;
        match known.join(self, room, user, options).await {
            Ok(()) => Ok(self.room(room)),
            Err(Error::StoreRefused(error)) if error.is_channel_taken() => {
                Err(Error::ChannelTaken { room: room.clone(), channel: channel.clone() })
            }
            Err(error) => Err(error),
        }
    }

    /// Removes a channel from a room, on whichever node it is, also if its presence is held. The other members see it leave. Its socket
    /// stays open, and [`Consumer::removed`](crate::Consumer::removed) runs. If the channel is not in the room, nothing happens. If several
    /// callers remove it at once, there is one event. It corresponds to `Room.objects.remove` of django-channels-presence, which notifies
    /// the other members only, and on one node only.
    ///
    /// A channel of this process is removed at once. For a channel that this process does not know, a request is written for all other
    /// nodes, which look for requests every `sweep_interval`: see [`remove_room`](Self::remove_room).
    ///
    /// # Errors
    /// As [`Socket::leave`](crate::Socket::leave) for a channel of this process, and as [`remove_room`](Self::remove_room) for any other.
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

    /// Removes a channel of this node from a room, or from all rooms, and notifies its socket. Returns the number of rooms that it was in.
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
        // The presence may be held without a socket, or be left from an earlier incarnation of this node.
        let rooms = room.map_or_else(|| self.0.table.names(), |room| vec![room.clone()]);
        let key = PresenceKey::Channel(channel.clone());
        let count = Arc::default();
        let removals = rooms.iter().map(|room| self.remove_one(room, &key, close, &count));
        join_all(removals).await.into_iter().collect::<Result<()>>()?;
        Ok(count.load(Ordering::Acquire))
    }

    /// Records that a channel was seen now, in all its rooms. If this process does not know the channel, nothing happens. It corresponds to
    /// `Presence.objects.touch` of django-channels-presence, but it only stores a number in memory.
    pub fn touch(&self, channel: &ChannelName) {
        if let Some(known) = self.channels().get(channel) {
            known.touch().mark(self.0.node.now());
        }
    }

    /// Replaces the meta of a channel's presence in a room, as [`Socket::update`](crate::Socket::update) does, from an HTTP handler, a job
    /// or a bot. The channel must be one of this process: a socket, or a name that this process [added](Self::add).
    /// [`members`](Self::members) returns the channel of each presence. A meta that is equal to the present one changes nothing.
    ///
    /// It is written at once, whatever `updates_per_second` is, and replaces a pending update of the socket itself, unless this call returns
    /// [`Error::Overloaded`].
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
    /// - [`Error::NotInRoom`] if the channel is not in the room, or its presence is held. Nothing happened.
    /// - [`Error::SocketElsewhere`] if the channel is a socket of another process. Nothing happened.
    /// - [`Error::Overloaded`] if too many changes are pending. Nothing happened.
    /// - [`Error::StoreUnavailable`] if the database does not answer in time. The update may still happen.
    pub async fn update(&self, room: &RoomName, channel: &ChannelName, meta: Meta) -> Result<()> {
        match self.channels().get(channel) {
            Some(known) => known.update_for_another(self, room, meta).await,
            None if SocketName::parse(channel).is_some_and(|socket| !self.0.hubs.issued(&socket)) => {
                Err(Error::SocketElsewhere { channel: channel.clone() })
            }
            None => Err(Error::NotInRoom { room: room.clone() }),
        }
    }

    /// Replaces the meta of all presences of a user in a room: the status of the user, in each tab. Returns how many presences have the
    /// meta now. These are the presences of this process that are in the room now. Held presences and presences of other processes keep
    /// their meta and are not counted. Tabs that open later join with a meta of their own.
    ///
    /// Each is written at once, whatever `updates_per_second` is, and each that changes is an event of its own.
    ///
    /// ```
    /// # use presence::{Meta, RoomName, Rooms, UserId};
    /// # use serde_json::json;
    /// async fn set_status(rooms: &Rooms, room: &RoomName, user: &UserId, status: &str) -> presence::Result<usize> {
    ///     rooms.update_user(room, user, Meta::new(&json!({ "status": status }))?).await
    /// }
    /// ```
    ///
    /// # Errors
    /// - [`Error::StoreUnavailable`] if the database does not answer in time. Some of the updates may still happen.
    /// - [`Error::Overloaded`] if too many changes are pending. Some of the updates may have happened.
    pub async fn update_user(&self, room: &RoomName, user: &UserId, meta: Meta) -> Result<usize> {
        let presences = self.presences_of(room, user).await?;
        let updates = presences.iter().map(async |presence| {
            match self.update(room, &presence.channel, meta.clone()).await {
                Ok(()) => Ok(1),
                // It is held, it has left since it was read, or it is on another node.
                Err(Error::NotInRoom { .. } | Error::SocketElsewhere { .. }) => Ok(0),
                Err(error) => Err(error),
            }
        });
        join_all(updates).await.into_iter().sum()
    }

    /// Removes a channel from every room, on whichever node it is, with one event for each room.
    /// [`Consumer::removed`](crate::Consumer::removed) runs for each. If the channel is in no room, nothing happens. If this process has
    /// the channel in a room, it is removed from the rooms where this process has it, and no request is written for the other nodes. It
    /// corresponds to `Presence.objects.leave_all` of django-channels-presence, which notifies the other members only. The rest is as for
    /// [`remove`](Self::remove).
    ///
    /// # Errors
    /// As [`remove`](Self::remove). The channel leaves every room also if this fails.
    pub async fn leave_all(&self, channel: &ChannelName) -> Result<()> {
        self.remove_channel(None, channel).await
    }
}
