//! [`Room`], a handle on one room.

use std::{collections::HashMap, sync::Arc, time::Duration};

use crate::{
    Close, Counts, Event, JoinOptions, Member, MemberChanges, Meta, Outgoing, Presence, Result, Rooms, Subscription,
    name::{ChannelName, PresenceId, RoomName, UserId},
};

/// A handle on one room. Its methods are those of [`Rooms`] without the name. The room need not exist, and the handle does not keep it
/// in memory.
///
/// ```
/// # use presence::{ChannelName, Config, MemoryStore, NodeName, PruningSupervisor, RoomName, Rooms, UserId};
/// # #[actix_web::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let rooms = Rooms::start(Config::default(), MemoryStore::default(), NodeName::new("web-1")?);
/// # PruningSupervisor::spawn(&rooms);
/// # rooms.ready().await;
/// let lobby = rooms.room(&RoomName::new("lobby")?);
/// let (bot, user) = (ChannelName::new("bot")?, UserId::new("weather")?);
/// lobby.add(&bot, Some(&user)).await?;
/// assert!(lobby.is_here(&user).await?);
/// lobby.send("it rains").await?;
/// lobby.remove(&bot).await?;
/// assert_eq!(lobby.count().await?.presences, 0);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Room {
    rooms: Rooms,
    name: RoomName,
}

impl Rooms {
    /// A handle on the room with this name.
    #[must_use]
    pub fn room(&self, name: &RoomName) -> Room {
        Room { rooms: self.clone(), name: name.clone() }
    }
}

impl Room {
    /// The name of the room.
    #[must_use]
    pub const fn name(&self) -> &RoomName {
        &self.name
    }

    /// Adds a channel to the room, as `user`, or as an anonymous socket if that is `None`; see [`Rooms::add`]. It corresponds to
    /// `room.add_presence` of django-channels-presence.
    ///
    /// # Errors
    /// As [`Rooms::add`].
    pub async fn add(&self, channel: &ChannelName, user: Option<&UserId>) -> Result<()> {
        self.rooms.add(&self.name, channel, user).await.map(drop)
    }

    /// Adds a channel with a first meta, a limit of places, or a grace; see [`Rooms::add_with`].
    ///
    /// # Errors
    /// As [`Rooms::add_with`].
    pub async fn add_with(&self, channel: &ChannelName, user: Option<&UserId>, options: JoinOptions) -> Result<()> {
        self.rooms.add_with(&self.name, channel, user, options).await.map(drop)
    }

    /// Replaces the meta of a channel's presence in the room; see [`Rooms::update`].
    ///
    /// # Errors
    /// As [`Rooms::update`].
    pub async fn update(&self, channel: &ChannelName, meta: Meta) -> Result<()> {
        self.rooms.update(&self.name, channel, meta).await
    }

    /// Replaces the meta of all presences of a user in the room; see [`Rooms::update_user`].
    ///
    /// # Errors
    /// As [`Rooms::update_user`].
    pub async fn update_user(&self, user: &UserId, meta: Meta) -> Result<usize> {
        self.rooms.update_user(&self.name, user, meta).await
    }

    /// Removes a channel from the room; see [`Rooms::remove`]. It corresponds to `room.remove_presence` of django-channels-presence.
    ///
    /// # Errors
    /// As [`Rooms::remove`].
    pub async fn remove(&self, channel: &ChannelName) -> Result<()> {
        self.rooms.remove(&self.name, channel).await
    }

    /// Removes one presence from the room, and returns whether it was there; see [`Rooms::remove_presence`]. Unlike `room.remove_presence`
    /// of django-channels-presence it takes an id, works on every node, and notifies the socket.
    ///
    /// # Errors
    /// As [`Rooms::remove_presence`].
    pub async fn remove_presence(&self, id: PresenceId, close: Option<Close>) -> Result<bool> {
        self.rooms.remove_presence(&self.name, id, close).await
    }

    /// Removes a user from the room, and returns how many presences that were; see [`Rooms::remove_user_from`].
    ///
    /// # Errors
    /// As [`Rooms::remove_user_from`].
    pub async fn remove_user(&self, user: &UserId, close: Option<Close>) -> Result<usize> {
        self.rooms.remove_user_from(&self.name, user, close).await
    }

    /// Removes everyone from the room, and the room with them; see [`Rooms::remove_room`].
    ///
    /// # Errors
    /// As [`Rooms::remove_room`].
    pub async fn remove_room(&self, close: Option<Close>) -> Result<usize> {
        self.rooms.remove_room(&self.name, close).await
    }

    /// All members of the room; see [`Rooms::members`].
    ///
    /// # Errors
    /// As [`Rooms::members`].
    pub async fn members(&self) -> Result<Vec<Member>> {
        self.rooms.members(&self.name).await
    }

    /// The users in the room, each once; see [`Rooms::users`]. It corresponds to `room.get_users` of django-channels-presence.
    ///
    /// # Errors
    /// As [`Rooms::users`].
    pub async fn users(&self) -> Result<Vec<UserId>> {
        self.rooms.users(&self.name).await
    }

    /// How many anonymous sockets are in the room; see [`Rooms::anonymous_count`]. It corresponds to `room.get_anonymous_count` of
    /// django-channels-presence.
    ///
    /// # Errors
    /// As [`Rooms::anonymous_count`].
    pub async fn anonymous_count(&self) -> Result<usize> {
        self.rooms.anonymous_count(&self.name).await
    }

    /// How many users, anonymous sockets and presences are in the room; see [`Rooms::count`].
    ///
    /// # Errors
    /// As [`Rooms::count`].
    pub async fn count(&self) -> Result<Counts> {
        self.rooms.count(&self.name).await
    }

    /// Whether the user is here; see [`Rooms::is_here`].
    ///
    /// # Errors
    /// As [`Rooms::is_here`].
    pub async fn is_here(&self, user: &UserId) -> Result<bool> {
        self.rooms.is_here(&self.name, user).await
    }

    /// The presences of one user; see [`Rooms::presences_of`].
    ///
    /// # Errors
    /// As [`Rooms::presences_of`].
    pub async fn presences_of(&self, user: &UserId) -> Result<Vec<Arc<Presence>>> {
        self.rooms.presences_of(&self.name, user).await
    }

    /// How long ago each presence was last seen; see [`Rooms::last_seen`].
    ///
    /// # Errors
    /// As [`Rooms::last_seen`].
    pub async fn last_seen(&self) -> Result<HashMap<PresenceId, Duration>> {
        self.rooms.last_seen(&self.name).await
    }

    /// Everyone in the room, and all later changes; see [`Rooms::members_and_changes`].
    ///
    /// # Errors
    /// As [`Rooms::members_and_changes`].
    pub async fn members_and_changes(&self) -> Result<(Vec<Member>, MemberChanges)> {
        self.rooms.members_and_changes(&self.name).await
    }

    /// The events of this room from now on; see [`Rooms::changes_of`].
    #[must_use]
    pub fn changes(&self) -> Subscription {
        self.rooms.changes_of(&self.name)
    }

    /// Sends a frame to every socket of this node in the room; see [`Rooms::send`].
    ///
    /// # Errors
    /// As [`Rooms::send`].
    pub async fn send(&self, message: impl Into<Outgoing>) -> Result<()> {
        self.rooms.send(&self.name, message).await
    }

    /// Sends a frame to every socket in the room but one; see [`Rooms::send_except`].
    ///
    /// # Errors
    /// As [`Rooms::send_except`].
    pub async fn send_except(&self, channel: &ChannelName, message: impl Into<Outgoing>) -> Result<()> {
        self.rooms.send_except(&self.name, channel, message).await
    }

    /// Sends an event to the consumer of every socket of this node in the room; see [`Rooms::send_event`].
    ///
    /// # Errors
    /// As [`Rooms::send_event`].
    pub fn send_event(&self, event: Event) -> Result<()> {
        self.rooms.send_event(&self.name, event)
    }

    /// Removes the presences of this node in this room that were last seen more than `max_age` ago, and returns how many they were. For
    /// `None` the setting `max_age` counts. It corresponds to `room.prune_presences` of django-channels-presence.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`](crate::Error::StoreUnavailable) if the database does not answer in time. The presences leave when it
    /// answers again.
    pub async fn prune_presences(&self, max_age: Option<Duration>) -> Result<usize> {
        self.rooms.prune_room(&self.name, max_age).await
    }
}
