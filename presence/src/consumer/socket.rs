//! What a consumer does with its socket.

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, hash_map::Entry},
    fmt,
    rc::Rc,
    sync::Arc,
};

use actix::Addr;
use futures_util::future::join_all;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::{
    CloseCode, Error, Outgoing, Result, Rooms,
    clock::Tick,
    model::{Meta, Presence},
    name::{ChannelName, NodeId, PresenceId, RoomName, UserId},
    room::{
        message::{HubRef, ToConnection},
        touch::Touch,
    },
};

use super::{connection::Connection, control, outbox::Outbox};

/// The rooms that a socket is in, or is joining. Shared with the connection, which leaves them whatever happens.
#[derive(Debug, Default)]
pub(crate) struct Joined(RefCell<HashMap<RoomName, Membership>>);

#[derive(Debug, Clone)]
struct Membership {
    id: PresenceId,
    /// Told when the join is over, if it is still under way.
    joining: Option<Rc<Notify>>,
}

impl Joined {
    pub(crate) fn take(&self) -> Vec<(RoomName, PresenceId)> {
        self.0.borrow_mut().drain().map(|(room, membership)| (room, membership.id)).collect()
    }

    fn forget(&self, room: &RoomName) -> Option<PresenceId> {
        self.0.borrow_mut().remove(room).map(|membership| membership.id)
    }

    /// Forgets a room if it was joined as this presence. Returns whether it was.
    pub(crate) fn forget_if(&self, room: &RoomName, id: PresenceId) -> bool {
        let is_this = self.get(room).is_some_and(|membership| membership.id == id);
        is_this && self.forget(room).is_some()
    }

    fn get(&self, room: &RoomName) -> Option<Membership> {
        self.0.borrow().get(room).cloned()
    }
}

/// A join under way. Unless it is seen through, the socket is not in the room.
struct Joining<'a> {
    joined: &'a Joined,
    room: &'a RoomName,
    id: PresenceId,
    over: Rc<Notify>,
    done: bool,
}

impl Drop for Joining<'_> {
    fn drop(&mut self) {
        let joined = &mut *self.joined.0.borrow_mut();
        // The socket may have left in the meantime, and be joining anew.
        if let Entry::Occupied(mut membership) = joined.entry(self.room.clone())
            && membership.get().id == self.id
        {
            if self.done {
                membership.get_mut().joining = None;
            } else {
                membership.remove();
            }
        }
        self.over.notify_waiters();
    }
}

/// A consumer's side of its WebSocket.
pub struct Socket {
    pub(crate) rooms: Rooms,
    pub(crate) channel: ChannelName,
    pub(crate) user: Option<UserId>,
    pub(crate) hub: HubRef,
    pub(crate) touch: Touch,
    pub(crate) outbox: Rc<Outbox>,
    pub(crate) joined: Rc<Joined>,
    pub(crate) connection: Addr<Connection>,
    /// When the frame arrived that is being handled.
    pub(crate) arrived: Cell<Option<Tick>>,
    pub(crate) subprotocol: RefCell<Option<String>>,
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket").field("channel", &self.channel).field("user", &self.user).finish_non_exhaustive()
    }
}

impl Socket {
    /// The rooms of this node.
    #[must_use]
    pub const fn rooms(&self) -> &Rooms {
        &self.rooms
    }

    /// The address of this connection, unique among all nodes.
    #[must_use]
    pub const fn channel(&self) -> &ChannelName {
        &self.channel
    }

    /// Who the socket belongs to; `None` if it is anonymous.
    #[must_use]
    pub const fn user(&self) -> Option<&UserId> {
        self.user.as_ref()
    }

    /// Answers the handshake with this subprotocol, if it is one that the client offered. It is only noted: the answer
    /// goes out when `connect` returns `Ok`.
    pub fn accept(&self, subprotocol: impl Into<String>) {
        *self.subprotocol.borrow_mut() = Some(subprotocol.into());
    }

    /// Joins a room: adds a presence, makes it a member of the room's group, and tells the others. Resolves when the
    /// presence is durable and the socket's first frame is on its way. A socket that is in the room is touched, and told
    /// nothing new. If this is dropped before it resolves, the socket is not in the room.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`] (it is not in the room; repeat later), [`Error::TooManyRooms`], [`Error::NoSupervisor`],
    /// [`Error::ShuttingDown`], [`Error::RoomFailed`], [`Error::LeftWhileJoining`], [`Error::SocketClosed`].
    pub async fn join(&self, room: &RoomName) -> Result<()> {
        self.touch();
        // Another join of this room may be under way, and come to nothing.
        while let Some(membership) = self.joined.get(room) {
            match membership.joining {
                None => return Ok(()),
                Some(over) => over.notified().await,
            }
        }
        if !self.outbox.is_open() {
            return Err(Error::SocketClosed);
        }
        let mut joining = self.begin_join(room)?;
        // The writer puts in the life of this node that is current when the join is written.
        let node = self.rooms.node().unwrap_or(NodeId::from_uuid(Uuid::nil()));
        let presence = Arc::new(Presence::new(joining.id, self.channel.clone(), self.user.clone(), node));
        self.rooms.join(room, presence, self.hub.clone(), self.touch.clone()).await?;
        joining.done = true;
        Ok(())
    }

    fn begin_join<'a>(&'a self, room: &'a RoomName) -> Result<Joining<'a>> {
        let limit = self.rooms.config().max_rooms_per_socket();
        let joined = &mut *self.joined.0.borrow_mut();
        if joined.len() >= limit {
            return Err(Error::TooManyRooms { limit });
        }
        let (id, over) = (PresenceId::random(), Rc::new(Notify::new()));
        joined.insert(room.clone(), Membership { id, joining: Some(over.clone()) });
        Ok(Joining { joined: &self.joined, room, id, over, done: false })
    }

    /// Leaves a room; the socket stays open. From here on it gets nothing more of the room. Resolves when that is durable. A
    /// room that the socket is not in: nothing happens.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`] if the database did not answer in time: the leave happens as soon as it does.
    pub async fn leave(&self, room: &RoomName) -> Result<()> {
        match self.joined.forget(room) {
            Some(id) => self.rooms.leave(room, id, &self.channel).await,
            None => Ok(()),
        }
    }

    /// Leaves every room. As `leave_all` of django-channels-presence.
    ///
    /// # Errors
    /// As [`leave`](Self::leave); every room is left all the same.
    pub async fn leave_all(&self) -> Result<()> {
        let joined = self.joined.take();
        let leaves = joined.iter().map(|(room, id)| self.rooms.leave(room, *id, &self.channel));
        join_all(leaves).await.into_iter().collect()
    }

    /// Replaces the meta of the presence in a room. One that is equal changes nothing and tells nobody.
    ///
    /// # Errors
    /// [`Error::NotInRoom`]; [`Error::StoreUnavailable`] if the database did not answer in time: it may or may not happen.
    pub async fn update(&self, room: &RoomName, meta: Meta) -> Result<()> {
        match self.joined.get(room) {
            Some(Membership { id, .. }) => self.rooms.update(room, id, &self.channel, meta).await,
            None => Err(Error::NotInRoom { room: room.clone() }),
        }
    }

    /// Whether the socket is in the room.
    #[must_use]
    pub fn is_in(&self, room: &RoomName) -> bool {
        self.joined.get(room).is_some()
    }

    /// Marks the socket as seen, in all its rooms: when the frame that is being handled arrived, or now. As `touch` of
    /// django-channels-presence, but it costs a store to memory.
    pub fn touch(&self) {
        self.touch.mark(self.arrived.get().unwrap_or_else(|| self.rooms.now()));
    }

    /// Sends the client a frame. While more waits for the client than may, but it goes on reading, this waits, at most 1 s.
    ///
    /// # Errors
    /// [`Error::SocketClosed`] if it cannot be sent any more.
    pub async fn send(&self, message: impl Into<Outgoing>) -> Result<()> {
        if !self.outbox.is_open() {
            return Err(Error::SocketClosed);
        }
        self.outbox.send(message.into().frames()).await;
        Ok(())
    }

    /// Closes the socket, after what was sent before. The reason is cut to 123 bytes. In `connect` it is only noted: a socket
    /// that is then accepted is closed at once, with a code that its client can read.
    ///
    /// # Errors
    /// [`Error::CloseCode`] if no endpoint may send this code; nothing happens then.
    pub fn close(&self, code: CloseCode, reason: impl Into<String>) -> Result<()> {
        if !code.is_sendable() {
            return Err(Error::CloseCode { code: code.0 });
        }
        let reason = reason.into();
        // Here and now, so that nothing sent from here on comes before it or after it.
        self.outbox.push_close(control::close(Some((code.0, reason.clone()))));
        self.connection.do_send(ToConnection::CloseByConsumer { code: code.0, reason });
        Ok(())
    }
}
