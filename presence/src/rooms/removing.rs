//! Removing presences: those that were silent for too long, those of a user or a room, and a single one.

use std::time::Duration;

use tokio::sync::oneshot;

use crate::{
    Error, Result,
    model::Close,
    name::{PresenceId, RoomName, UserId},
    node::threads::within,
    room::message::ToRoom,
    store::{Removal, RemovalTarget},
};

use super::{
    Rooms,
    upkeep::{self, NodeActor},
};

impl Rooms {
    /// Removes the presences that were last seen more than `max_age` ago (`None`: the setting), those of this node by its
    /// own clock, those that nobody answers for by the database's; an age of zero: all of them, and who is just joining this
    /// node is refused. Returns how many. As
    /// `prune_presences` of django-channels-presence, but they also leave their group, are told or closed, and the event says who left.
    ///
    /// Those that nobody answers for are left alone as long as this node has not renewed its lease for one full lease without
    /// a break: after an outage of the database all others seem dead at first.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`] if the database does not answer; what was pruned by then stays pruned.
    pub async fn prune_presences(&self, max_age: Option<Duration>) -> Result<usize> {
        self.ask(upkeep::PrunePresences(max_age)).await
    }

    /// Removes every room that nobody is in from the database. Returns how many. As `prune_rooms` of
    /// django-channels-presence, but a room that is being joined stays.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`] if the database does not answer.
    pub async fn prune_rooms(&self) -> Result<usize> {
        self.ask(upkeep::PruneRooms).await
    }

    /// As [`prune_presences`](Self::prune_presences), for the presences of this node in one room.
    pub(crate) async fn prune_room(&self, room: &RoomName, max_age: Option<Duration>) -> Result<usize> {
        let (reply, pruned) = oneshot::channel();
        let max_age = max_age.unwrap_or(self.0.node.config.max_age());
        self.0.table.send_running(room, ToRoom::Prune { max_age, reply });
        match within(self.0.node.config.store_timeout(), pruned).await {
            // A room that does not run has no presence of this node.
            Some(pruned) => Ok(pruned.unwrap_or(0)),
            None => Err(Error::StoreUnavailable(None)),
        }
    }

    /// Removes a room with everyone in it, on every node: members and subscribers are told, one event on each node says who
    /// left there. With `close` their sockets are closed so, else they stay open and their consumers are told
    /// ([`Consumer::removed`](crate::Consumer::removed)). Returns how many left. The empty room itself goes with the next
    /// [`prune_rooms`](Self::prune_rooms), if nobody has joined it by then.
    ///
    /// Whoever joined before this was called is removed, also one that is held. Who is just joining is refused
    /// ([`Error::LeftWhileJoining`]), and its socket told or closed with the rest. Who joins while this waits for other nodes may
    /// be removed; who joins after it returned stays.
    ///
    /// Other nodes on the same database look for such requests every `sweep_interval`. This waits for them, at most for
    /// `lease` and `sweep_interval` together.
    ///
    /// # Errors
    /// [`Error::CloseCode`] if `close` may not be sent: nothing happened.
    /// [`Error::StoreUnavailable`] if the database does not answer; who was removed by then stays removed.
    /// [`Error::Unanswered`] if other nodes that live did not answer in time: it names them.
    pub async fn remove_room(&self, room: &RoomName, close: Option<Close>) -> Result<usize> {
        self.remove_everywhere(RemovalTarget::Room(room.clone()), close).await
    }

    /// Removes a user from every room, on every node, with one event for each room and node. The rest is as for
    /// [`remove_room`](Self::remove_room).
    ///
    /// # Errors
    /// As [`remove_room`](Self::remove_room).
    pub async fn remove_user(&self, user: &UserId, close: Option<Close>) -> Result<usize> {
        self.remove_everywhere(RemovalTarget::User(user.clone()), close).await
    }

    /// Removes a user from one room, on every node, with one event for each node: all its presences there, those that are held included.
    /// In its other rooms it stays. The rest is as for [`remove_room`](Self::remove_room).
    ///
    /// # Errors
    /// As [`remove_room`](Self::remove_room).
    pub async fn remove_user_from(&self, room: &RoomName, user: &UserId, close: Option<Close>) -> Result<usize> {
        self.remove_everywhere(RemovalTarget::UserIn { user: user.clone(), room: room.clone() }, close).await
    }

    /// Removes one presence, on whichever node it is, also one that is held, and no resume token brings it back: one tab of a user,
    /// say. The others see it leave. With `close` its socket is closed so, else that stays open and its consumer learns of it
    /// ([`Consumer::removed`](crate::Consumer::removed)). Returns whether it was there. The id is that which members see, and
    /// [`members`](Self::members) returns.
    ///
    /// A presence of this node is removed at once, any other when its node looks for requests, every `sweep_interval`; the rest is
    /// as for [`remove_room`](Self::remove_room).
    ///
    /// ```
    /// # use presence::{Close, CloseCode, Member, RoomName, Rooms, UserId};
    /// /// Closes all tabs of a user in a room but the newest.
    /// async fn one_tab(rooms: &Rooms, room: &RoomName, user: &UserId) -> presence::Result<()> {
    ///     for member in rooms.members(room).await? {
    ///         if member.user() == Some(user) {
    ///             let (_newest, tabs) = member.presences().split_last().expect("at least one");
    ///             for tab in tabs {
    ///                 rooms.remove_presence(room, tab.id, Some(Close::new(CloseCode(4003), "another tab"))).await?;
    ///             }
    ///         }
    ///     }
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// As [`remove_room`](Self::remove_room).
    pub async fn remove_presence(&self, room: &RoomName, id: PresenceId, close: Option<Close>) -> Result<bool> {
        let target = RemovalTarget::Presence { room: room.clone(), id };
        self.remove_everywhere(target, close).await.map(|count| count > 0)
    }

    pub(super) async fn remove_everywhere(&self, target: RemovalTarget, close: Option<Close>) -> Result<usize> {
        self.ask(upkeep::Remove(Removal { target, close: sendable(close)? })).await
    }

    async fn ask<M>(&self, message: M) -> Result<usize>
    where
        M: actix::Message<Result = Result<usize>> + Send + 'static,
        NodeActor: actix::Handler<M>,
    {
        self.0.node.check_name()?;
        let actor = self.0.node_actor.get().ok_or(Error::ShuttingDown)?;
        actor.send(message).await.map_err(|_| Error::ShuttingDown)?
    }
}

/// A code that may be sent.
fn sendable(close: Option<Close>) -> Result<Option<Close>> {
    match close {
        Some(Close { code, .. }) if !code.is_sendable() => Err(Error::CloseCode { code }),
        close => Ok(close),
    }
}
