//! Reading rooms: their members and counts, and the rooms of a user.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::sync::oneshot;

use crate::{
    Error, Result,
    model::{Member, Presence, roster::Roster},
    name::{PresenceId, RoomName, UserId},
    node::within,
    room::{RosterQuery, ToRoom},
    store::{RoomStore, RoomSummary},
};

use super::Rooms;

/// The sizes of a room, over all nodes. Held presences are counted. A user with three sockets in the room is one user and three presences.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Counts {
    /// The number of users, each counted once.
    pub users: usize,
    /// The number of anonymous sockets.
    pub anonymous: usize,
    /// The number of presences: those of users, and one for each anonymous socket.
    pub presences: usize,
}

impl Rooms {
    /// All members of the room, over all nodes: first the users, sorted by the bytes of their ids, each once with all its presences, then
    /// the anonymous sockets.
    ///
    /// ```
    /// # use presence::{RoomName, Rooms};
    /// async fn print(rooms: &Rooms, room: &RoomName) -> presence::Result<()> {
    ///     for member in rooms.members(room).await? {
    ///         match member.user() {
    ///             Some(user) => println!("{user} in {} tabs", member.presences().len()),
    ///             None => println!("a visitor"),
    ///         }
    ///     }
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`] if the room is not in memory and could not be loaded within `store_timeout`.
    pub async fn members(&self, room: &RoomName) -> Result<Vec<Member>> {
        self.read(room, Roster::members).await
    }

    /// The users in the room, each once, however many sockets it has, sorted by the bytes of their ids. Anonymous sockets are not in the
    /// list. It corresponds to `get_users` of django-channels-presence.
    ///
    /// ```
    /// # use presence::{RoomName, Rooms};
    /// /// The names of the online users, for a page.
    /// async fn who(rooms: &Rooms, room: &RoomName) -> presence::Result<String> {
    ///     let users = rooms.users(room).await?;
    ///     Ok(users.iter().map(|user| user.as_str()).collect::<Vec<_>>().join(", "))
    /// }
    /// ```
    ///
    /// # Errors
    /// As [`members`](Self::members).
    pub async fn users(&self, room: &RoomName) -> Result<Vec<UserId>> {
        self.read(room, |roster| roster.by_user().map(|(user, _)| user.clone()).collect()).await
    }

    /// How many anonymous sockets are in the room. A visitor with two tabs has two sockets. It corresponds to `get_anonymous_count` of
    /// django-channels-presence.
    ///
    /// # Errors
    /// As [`members`](Self::members).
    pub async fn anonymous_count(&self, room: &RoomName) -> Result<usize> {
        self.read(room, Roster::anonymous).await
    }

    /// How many users, anonymous sockets and presences are in the room. Its cost does not depend on the size of a room that is in memory.
    ///
    /// ```
    /// # use presence::{RoomName, Rooms};
    /// async fn title(rooms: &Rooms, room: &RoomName) -> presence::Result<String> {
    ///     let counts = rooms.count(room).await?;
    ///     Ok(format!("{room} ({} users and {} visitors)", counts.users, counts.anonymous))
    /// }
    /// ```
    ///
    /// # Errors
    /// As [`members`](Self::members).
    pub async fn count(&self, room: &RoomName) -> Result<Counts> {
        self.read(room, |roster| Counts {
            users: roster.users(),
            anonymous: roster.anonymous(),
            presences: roster.len(),
        })
        .await
    }

    /// Whether the user has a presence in the room, on any node.
    ///
    /// # Errors
    /// As [`members`](Self::members).
    pub async fn is_here(&self, room: &RoomName, user: &UserId) -> Result<bool> {
        let user = user.clone();
        self.read(room, move |roster| roster.has(&user)).await
    }

    /// The presences of one user in the room, on any node, in the order of their ids: one for each tab, each with its meta. Empty if the user
    /// is not there. It corresponds to `get_by_key` of Phoenix.
    ///
    /// ```
    /// # use presence::{RoomName, Rooms, UserId};
    /// /// The status in the meta of each tab of a user.
    /// async fn statuses(rooms: &Rooms, room: &RoomName, user: &UserId) -> presence::Result<Vec<serde_json::Value>> {
    ///     let presences = rooms.presences_of(room, user).await?;
    ///     Ok(presences.iter().filter_map(|presence| presence.meta.to_object().remove("status")).collect())
    /// }
    /// ```
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`] if the room is not in memory and could not be read.
    pub async fn presences_of(&self, room: &RoomName, user: &UserId) -> Result<Vec<Arc<Presence>>> {
        let user = user.clone();
        self.read(room, move |roster| roster.of(&user).cloned().collect()).await
    }

    /// The rooms in which the user has a presence, on any node, sorted by the bytes of their names. It queries the database.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`] if the database does not answer within `store_timeout`.
    pub async fn rooms_of(&self, user: &UserId) -> Result<Vec<RoomName>> {
        self.0.node.bounded(self.0.node.store.rooms_of(user.clone())).await
    }

    /// One page of all rooms with their counts: the first `limit` rooms after the name `after`, or the first of all if that is `None`, sorted
    /// by the bytes of their names. Rooms of all nodes are included, and empty rooms until they are pruned. For the next page, pass the last
    /// name of this one. A page with fewer than `limit` rooms is the last. It queries the database, which counts every presence of these
    /// rooms.
    ///
    /// ```
    /// # use presence::{RoomName, Rooms};
    /// async fn names(rooms: &Rooms) -> presence::Result<Vec<RoomName>> {
    ///     let mut names: Vec<RoomName> = Vec::new();
    ///     loop {
    ///         let page = rooms.rooms(names.last(), 100).await?;
    ///         let is_last = page.len() < 100;
    ///         names.extend(page.into_iter().map(|listed| listed.room));
    ///         if is_last {
    ///             return Ok(names);
    ///         }
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`] if the database does not answer in time.
    pub async fn rooms(&self, after: Option<&RoomName>, limit: usize) -> Result<Vec<RoomSummary>> {
        self.0.node.bounded(self.0.node.store.rooms(after.cloned(), limit.try_into().unwrap_or(u64::MAX))).await
    }

    /// How long ago each presence of the [`members`](Self::members) was last seen. For sockets of this node this is exact. Other nodes write
    /// the times of their sockets every `touch_flush_interval`, so theirs may be too long by that.
    /// [`Presence::joined_at`](crate::Presence::joined_at) returns when a presence joined.
    ///
    /// ```
    /// # use presence::{RoomName, Rooms};
    /// # use std::time::Duration;
    /// /// Whether anyone in the room has sent something within the last ten seconds.
    /// async fn is_lively(rooms: &Rooms, room: &RoomName) -> presence::Result<bool> {
    ///     Ok(rooms.last_seen(room).await?.values().any(|ago| *ago < Duration::from_secs(10)))
    /// }
    /// ```
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`] if the room is not in memory and could not be read, or if the database does not answer in time.
    pub async fn last_seen(&self, room: &RoomName) -> Result<HashMap<PresenceId, Duration>> {
        let stored: HashMap<_, _> =
            self.0.node.bounded(self.0.node.store.last_seen(room.clone())).await?.into_iter().collect();
        let now = self.0.node.now();
        let presences = self.read(room, |roster| roster.iter().cloned().collect::<Vec<_>>()).await?;
        let seen = presences.into_iter().filter_map(|presence| {
            let here = self.channels().touch_in(&presence.channel, room).map(|touch| now.since(touch.seen()));
            Some((presence.id, here.or_else(|| stored.get(&presence.id).copied())?))
        });
        Ok(seen.collect())
    }

    async fn read<T: Send + 'static>(
        &self,
        room: &RoomName,
        read: impl FnOnce(&Roster) -> T + Send + 'static,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        self.send_to_room(room, ToRoom::Read(Box::new(RosterQuery { reply, read })));
        match within(self.0.node.config.store_timeout(), answer).await {
            Some(Ok(answer)) => Ok(answer),
            Some(Err(_)) => Err(self.no_answer_error(room)),
            None => Err(Error::StoreUnavailable(None)),
        }
    }
}
