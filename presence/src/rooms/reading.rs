//! Who is in a room, and in which rooms a user is.

use std::{collections::HashMap, time::Duration};

use tokio::sync::oneshot;

use crate::{
    Error, Result,
    model::{Member, roster::Roster},
    name::{PresenceId, RoomName, UserId},
    node::threads::within,
    room::message::ToRoom,
    signal::Subscription,
    store::{RoomStore, RoomSummary, Store},
};

use super::Rooms;

/// How many are in a room.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Counts {
    /// Distinct users.
    pub users: usize,
    /// Anonymous sockets.
    pub anonymous: usize,
    /// Presences of users and anonymous sockets together.
    pub presences: usize,
}

impl Rooms {
    /// Everyone in the room: users sorted by the bytes of their ids, each once with all its presences, then anonymous
    /// sockets. Members on other nodes are included.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`] if the room is not in memory and could not be read.
    pub async fn members(&self, room: &RoomName) -> Result<Vec<Member>> {
        self.read(room, Roster::members).await
    }

    /// The distinct users in the room, each once however many tabs it has, sorted by bytes; anonymous sockets left out. As
    /// `get_users` of django-channels-presence.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`] if the room is not in memory and could not be read.
    pub async fn users(&self, room: &RoomName) -> Result<Vec<UserId>> {
        self.read(room, |roster| roster.by_user().map(|(user, _)| user.clone()).collect()).await
    }

    /// How many anonymous sockets (not visitors) are in the room. As `get_anonymous_count` of django-channels-presence.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`] if the room is not in memory and could not be read.
    pub async fn anonymous_count(&self, room: &RoomName) -> Result<usize> {
        self.read(room, Roster::anonymous).await
    }

    /// How many are in the room. Costs the same however many that are.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`] if the room is not in memory and could not be read.
    pub async fn count(&self, room: &RoomName) -> Result<Counts> {
        self.read(room, |roster| Counts {
            users: roster.users(),
            anonymous: roster.anonymous(),
            presences: roster.len(),
        })
        .await
    }

    /// Whether the user has a presence in the room.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`] if the room is not in memory and could not be read.
    pub async fn is_here(&self, room: &RoomName, user: &UserId) -> Result<bool> {
        let user = user.clone();
        self.read(room, move |roster| roster.has(&user)).await
    }

    /// The rooms that the user is in, on any node, sorted by bytes. Asks the database.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`] if it does not answer in time.
    pub async fn rooms_of(&self, user: &UserId) -> Result<Vec<RoomName>> {
        self.0.node.bounded(self.0.node.store.rooms_of(user.clone())).await
    }

    /// The first `limit` rooms after this name (`None`: from the first), with how many are in each, sorted by the bytes of their names. Rooms
    /// of all nodes are included, and empty ones until they are pruned. For the next page, give the last name of this one; a page that is
    /// not full is the last. Queries the database, which counts every presence of the rooms of the page.
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

    /// How long ago each presence of the room was last seen: of sockets of this node as of now, of all others as of the last write of
    /// their nodes, every `touch_flush_interval`. When a presence joined, [`Presence::joined_at`](crate::Presence::joined_at) returns.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`] if the room is not in memory and could not be read, or if the database does not answer in time.
    pub async fn last_seen(&self, room: &RoomName) -> Result<HashMap<PresenceId, Duration>> {
        let mut seen: HashMap<_, _> =
            self.0.node.bounded(self.0.node.store.last_seen(room.clone())).await?.into_iter().collect();
        let now = self.0.node.now();
        for presence in self.read(room, |roster| roster.iter().cloned().collect::<Vec<_>>()).await? {
            if let Some(touch) = self.channels().touch_in(&presence.channel, room) {
                seen.insert(presence.id, now.since(touch.seen()));
            }
        }
        Ok(seen)
    }

    /// Everyone in the room, and the room's changes from that moment on, as a stream: whoever applies them to the members has the room as
    /// it is, from the start of the process on. Only changes that this node makes come, as in [`changes_of`](Self::changes_of).
    ///
    /// ```
    /// # use presence::{RoomName, Rooms, UserId};
    /// # use std::collections::HashSet;
    /// /// The users who are online, kept up to date.
    /// async fn online(rooms: &Rooms, room: &RoomName, mut show: impl FnMut(&HashSet<UserId>)) -> presence::Result<()> {
    ///     let (members, mut changes) = rooms.members_and_changes(room).await?;
    ///     let mut online: HashSet<UserId> = members.iter().filter_map(|member| member.user().cloned()).collect();
    ///     show(&online);
    ///     while let Some(changed) = changes.next().await {
    ///         online.extend(changed.user_online().iter().cloned());
    ///         online.retain(|user| !changed.user_offline().contains(user));
    ///         show(&online);
    ///     }
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// As [`members`](Self::members).
    pub async fn members_and_changes(&self, room: &RoomName) -> Result<(Vec<Member>, Subscription)> {
        self.0.node.store.track_online();
        let (rooms, name) = (self.clone(), room.clone());
        // Within the room, so that no change comes between the two.
        self.read(room, move |roster| (roster.members(), rooms.0.node.signals.subscribe(Some(name)))).await
    }

    async fn read<T: Send + 'static>(
        &self,
        room: &RoomName,
        look: impl FnOnce(&Roster) -> T + Send + 'static,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let reader = move |roster: &Roster| drop(reply.send(look(roster)));
        self.tell(room, ToRoom::Read(Box::new(reader)));
        match within(self.0.node.config.store_timeout(), answer).await {
            Some(Ok(answer)) => Ok(answer),
            Some(Err(_)) => Err(self.gave_no_answer(room)),
            None => Err(Error::StoreUnavailable(None)),
        }
    }
}
