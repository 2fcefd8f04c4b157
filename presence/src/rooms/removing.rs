//! Removing presences: stale ones, those of a user or a room, and a single one.

use std::time::Duration;

use tokio::sync::oneshot;

use crate::{
    Error, Result,
    model::Close,
    name::{PresenceId, RoomName, UserId},
    node::within,
    room::ToRoom,
    store::{Removal, RemovalTarget},
};

use super::{
    Rooms,
    upkeep::{self, NodeActor},
};

impl Rooms {
    /// Removes the presences that were last seen more than `max_age` ago, and returns how many they were. For `None` the setting `max_age`
    /// counts. The clock of this node decides about presences of this node, and the clock of the database about those for which no node is
    /// responsible any more. An age of zero removes all of them, and refuses joins to this node that are under way.
    ///
    /// It corresponds to `prune_presences` of django-channels-presence, but the sockets also leave the group of the room, they are notified
    /// or closed, and the event names the presences that left.
    ///
    /// Until this node has renewed its lease for one full lease without a break, it prunes its own presences only: after an outage of the
    /// database all other nodes seem dead at first.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`] if the database does not answer. Presences that were removed before stay removed.
    pub async fn prune_presences(&self, max_age: Option<Duration>) -> Result<usize> {
        self.ask(upkeep::PrunePresences(max_age)).await
    }

    /// Removes every empty room from the database, and returns how many they were. It corresponds to `prune_rooms` of
    /// django-channels-presence, but a room with a join under way stays.
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

    /// Removes all presences of a room, on every node, and returns how many they were. Each node publishes one event with the presences that
    /// left there. With `close` their sockets are closed with its code and reason. Without it they stay open, and
    /// [`Consumer::removed`](crate::Consumer::removed) runs for each. The empty room itself is removed by the next
    /// [`prune_rooms`](Self::prune_rooms), if nobody has joined it before.
    ///
    /// Every presence that joined before this call is removed, also a held one. A join that is under way fails with
    /// [`Error::LeftWhileJoining`], and its socket is notified or closed as the others. A presence that joins while this waits for other
    /// nodes may be removed. A presence that joins after this has returned stays. A presence that is resumed on another node meanwhile is removed
    /// there, and the number may count it twice.
    ///
    /// Other nodes on the same database that have such presences look for requests every `sweep_interval`. This waits for their answers, for
    /// at most `lease` and `sweep_interval` together.
    ///
    /// ```
    /// # use presence::{Close, CloseCode, RoomName, Rooms};
    /// async fn close_down(rooms: &Rooms, room: &RoomName) -> presence::Result<usize> {
    ///     rooms.remove_room(room, Some(Close::new(CloseCode(4001), "the meeting is over"))).await
    /// }
    /// ```
    ///
    /// # Errors
    /// - [`Error::CloseCode`] if the code of `close` may not be sent. Nothing happened.
    /// - [`Error::StoreUnavailable`] if the database does not answer. On this node the sockets are notified or
    ///   closed already, and their presences leave when the database is back. Other nodes may not have received the request.
    /// - [`Error::Unanswered`] if other live nodes did not answer in time. It names them, and has the number of presences that were removed.
    pub async fn remove_room(&self, room: &RoomName, close: Option<Close>) -> Result<usize> {
        self.remove_everywhere(RemovalTarget::Room(room.clone()), close).await
    }

    /// Removes all presences of a user from every room, on every node, with one event for each room and node. The rest is as for
    /// [`remove_room`](Self::remove_room).
    ///
    /// ```
    /// # use presence::{Close, CloseCode, Rooms, UserId};
    /// async fn ban(rooms: &Rooms, user: &UserId) -> presence::Result<usize> {
    ///     rooms.remove_user(user, Some(Close::new(CloseCode::REFUSED, "you are banned"))).await
    /// }
    /// ```
    ///
    /// # Errors
    /// As [`remove_room`](Self::remove_room).
    pub async fn remove_user(&self, user: &UserId, close: Option<Close>) -> Result<usize> {
        self.remove_everywhere(RemovalTarget::User(user.clone()), close).await
    }

    /// Removes all presences of a user from one room, on every node, also held ones, with one event for each node. The user stays in its
    /// other rooms. The rest is as for [`remove_room`](Self::remove_room).
    ///
    /// # Errors
    /// As [`remove_room`](Self::remove_room).
    pub async fn remove_user_from(&self, room: &RoomName, user: &UserId, close: Option<Close>) -> Result<usize> {
        self.remove_everywhere(RemovalTarget::UserIn { user: user.clone(), room: room.clone() }, close).await
    }

    /// Removes one presence, on whichever node it is: for example, one tab of a user. Returns whether it was there. The other members see
    /// it leave. A held presence is removed, too, and no resume token can resume it. With `close` its socket is closed with that code and
    /// reason. Without it the socket stays open, and [`Consumer::removed`](crate::Consumer::removed) runs. The id is the one that clients
    /// receive and that [`members`](Self::members) returns.
    ///
    /// A presence of this node is removed at once. A presence of another node is removed when that node looks for requests, every
    /// `sweep_interval`. The rest is as for [`remove_room`](Self::remove_room).
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
        self.ask(upkeep::RemoveEverywhere(Removal { target, close: sendable(close)? })).await
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

/// Fails if a Close frame may not have this code.
fn sendable(close: Option<Close>) -> Result<Option<Close>> {
    match close {
        Some(Close { code, .. }) if !code.is_sendable() => Err(Error::CloseCode { code }),
        close => Ok(close),
    }
}
