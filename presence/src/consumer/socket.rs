//! What a consumer does with its socket.

use std::{
    cell::{Cell, RefCell},
    fmt,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use actix::Addr;
use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use tracing::debug;

use crate::{
    CloseCode, Error, Outgoing, Result, ResumeToken, Rooms,
    clock::Tick,
    delivery::{hub::Sockets, message::ToConnection, outbox::Outbox},
    model::Meta,
    name::{ChannelName, GroupName, RoomName, UserId},
    rooms::channel::{Channel, JoinOptions},
};

use super::{connection::Connection, control::close_frame, handshake::Handshake, rates::Rates};

/// A consumer's side of its WebSocket.
///
/// What changes the socket itself takes it by `&mut`: whose it is, its token, the answer to its handshake. What it does in rooms and
/// sends takes it by `&`, so that several joins can wait at once.
pub struct Socket {
    pub(crate) rooms: Rooms,
    pub(crate) rates: Rc<Rates>,
    pub(crate) channel: Arc<Channel>,
    pub(crate) user: Option<UserId>,
    pub(crate) handshake: Handshake,
    pub(crate) outbox: Rc<Outbox>,
    pub(crate) sockets: Rc<RefCell<Sockets>>,
    pub(crate) connection: Addr<Connection>,
    /// When the frame arrived that is being handled.
    pub(crate) arrived: Cell<Option<Tick>>,
    pub(crate) subprotocol: Option<String>,
    pub(crate) headers: HeaderMap,
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket").field("channel", self.channel()).field("user", &self.user).finish_non_exhaustive()
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
    pub fn channel(&self) -> &ChannelName {
        self.channel.name()
    }

    /// Who the socket belongs to; `None` if it is anonymous.
    #[must_use]
    pub const fn user(&self) -> Option<&UserId> {
        self.user.as_ref()
    }

    /// Makes the socket `user`'s from now on: a visitor who signs in, or out, on the same connection. In every room that it is in, its
    /// presence becomes that user's, which is one event for the others, an update of the same presence; what it joins later is that
    /// user's from the start. Resolves when that is durable.
    ///
    /// Its presences in those rooms cannot be resumed any more, since a resume token belongs to a user. What it joins later can be, by
    /// the token that was [set](Self::set_resume_token), as that user's.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`], [`Error::Overloaded`], [`Error::RoomFailed`]: in some rooms the presence may still be that of the
    /// user before. Call it again. [`Error::SocketClosed`]: nothing happened.
    pub async fn set_user(&mut self, user: Option<UserId>) -> Result<()> {
        if !self.outbox.is_open() {
            return Err(Error::SocketClosed);
        }
        self.user = user;
        self.sockets.borrow_mut().set_user(self.channel(), self.user.as_ref());
        self.channel.set_user(&self.rooms, self.user.as_ref()).await
    }

    /// The request by which the socket came. Its headers are there in `connect` only: what is needed of them later is to be kept
    /// then.
    #[must_use]
    pub const fn handshake(&self) -> &Handshake {
        &self.handshake
    }

    /// Answers the handshake with this subprotocol, if it is one that the client offered. It is only noted: the answer
    /// goes out when `connect` returns `Ok`.
    pub fn set_subprotocol(&mut self, subprotocol: impl Into<String>) {
        self.subprotocol = Some(subprotocol.into());
    }

    /// Adds a header to the answer to the handshake, such as a cookie. It is only noted, as in [`set_subprotocol`](Self::set_subprotocol); of a
    /// socket that is turned away nothing is answered but the status and the reason.
    ///
    /// # Errors
    /// [`Error::Header`] if it is no header, or one that is not the application's to set. Nothing happens then.
    pub fn append_header(&mut self, name: &str, value: &str) -> Result<()> {
        let header =
            HeaderName::try_from(name).ok().filter(|name| !is_ours(name)).zip(HeaderValue::try_from(value).ok());
        let (name, value) = header.ok_or_else(|| Error::Header { name: name.to_owned() })?;
        self.headers.append(name, value);
        Ok(())
    }

    /// Joins a room: adds a presence, makes it a member of the room's group, and tells the others. Resolves when the
    /// presence is durable and the socket's first frame is on its way. A socket that is in the room is touched, and told
    /// nothing new. If this is dropped before it resolves, the socket is not in the room. Joins beyond `joins_per_second` wait, which
    /// does not count for the time that a consumer's method may take.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`] or [`Error::Overloaded`] (it is not in the room; repeat later), [`Error::TooManyRooms`],
    /// [`Error::ShuttingDown`], [`Error::RoomFailed`], [`Error::LeftWhileJoining`],
    /// [`Error::FirstFramesUnread`] (it is not in the room; repeat later), [`Error::SocketClosed`].
    pub async fn join(&self, room: &RoomName) -> Result<()> {
        self.join_as(room, JoinOptions::default()).await
    }

    /// As [`join`](Self::join), but if the socket has a [resume token](Self::set_resume_token) its presence in this room is held
    /// for `grace` instead of the setting; for none, it leaves at once. One that is in the room already keeps the grace it has.
    ///
    /// # Errors
    /// As `join`; [`Error::GraceTooLong`] if it is longer than `max_age`: nothing happened.
    pub async fn join_with_grace(&self, room: &RoomName, grace: Duration) -> Result<()> {
        if !self.outbox.is_open() {
            return Err(Error::SocketClosed);
        }
        let max_age = self.rooms.config().max_age();
        if grace > max_age {
            return Err(Error::GraceTooLong { grace, max_age });
        }
        self.join_as(room, JoinOptions { grace: Some(grace), ..JoinOptions::default() }).await
    }

    /// As [`join`](Self::join), if the room has a place: with this socket in it, it has at most `limit` presences. Each socket
    /// takes a place, so a user with two tabs has two. One that is [held](Self::set_resume_token) keeps its place for its
    /// grace, and a socket that comes back to it with the token gets in, however full the room is; so does one that is in the room
    /// already.
    ///
    /// The database decides, so that it holds for all nodes together: of many who come at once, as many get in as there are
    /// places. It limits this call alone: a plain `join`, and [`Rooms::add`](crate::Rooms::add), ask for no place, but take one.
    /// It resolves when the presence is durable, also with [`Durability::Relaxed`](crate::config::Durability::Relaxed).
    ///
    /// # Errors
    /// As `join`; [`Error::RoomFull`] if there is no place: it is not in the room, and nobody was told.
    pub async fn join_within(&self, room: &RoomName, limit: usize) -> Result<()> {
        self.join_as(room, JoinOptions { limit: Some(limit), ..JoinOptions::default() }).await
    }

    /// As [`join`](Self::join), with a first meta: the others see it with the join. A presence that the socket takes over with its
    /// [resume token](Self::set_resume_token) keeps the meta that it has, which is what its client said last, and so does one that is
    /// in the room already.
    ///
    /// ```
    /// use presence::{Consumer, Frame, Meta, RoomName, Socket};
    /// use serde_json::json;
    ///
    /// struct Agent(RoomName);
    ///
    /// impl Consumer for Agent {
    ///     async fn connect(&mut self, socket: &mut Socket) -> presence::Result<()> {
    ///         socket.join_with_meta(&self.0, Meta::new(&json!({ "status": "free" }))?).await?;
    ///         if socket.has_resumed(&self.0) {
    ///             socket.send("welcome back").await?; // the status is that of before
    ///         }
    ///         Ok(())
    ///     }
    ///
    ///     async fn receive(&mut self, _: &mut Socket, _: Frame) -> presence::Result<()> {
    ///         Ok(())
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    /// As `join`.
    pub async fn join_with_meta(&self, room: &RoomName, meta: Meta) -> Result<()> {
        self.join_as(room, JoinOptions { meta, ..JoinOptions::default() }).await
    }

    async fn join_as(&self, room: &RoomName, options: JoinOptions) -> Result<()> {
        if !self.outbox.is_open() {
            return Err(Error::SocketClosed);
        }
        // One that is in the room already costs nothing.
        if !self.is_in(room) {
            self.rates.join().await;
        }
        // In a box of its own, since each socket would keep room for the large future of a join for as long as it lives.
        Box::pin(self.channel.join(&self.rooms, room, self.user.as_ref(), options)).await
    }

    /// Whether the socket's presence in the room was there before and was taken over with the
    /// [resume token](Self::set_resume_token), so that its join showed nobody a new presence. `false` if the socket is not in the room.
    ///
    /// It is known when the join resolves; with [`Durability::Relaxed`](crate::config::Durability::Relaxed), of a presence that
    /// this node did not have, only when the database has answered.
    #[must_use]
    pub fn has_resumed(&self, room: &RoomName) -> bool {
        self.channel.has_resumed(room)
    }

    /// Makes the presences resumable that join from here on: when the socket is lost they are held for their grace, and a
    /// socket of the same user that comes with the same token takes them over, and nobody else is told. To be called in
    /// `connect`, before the first join; what is in a room already stays as it is. See `docs/semantics.md` for what is held.
    pub fn set_resume_token(&mut self, token: Option<ResumeToken>) {
        self.channel.set_resume_token(token);
    }

    /// Leaves a room; the socket stays open. From here on it gets nothing more of the room. Resolves when that is durable. A
    /// room that the socket is not in: nothing happens.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`] if the database did not answer in time: the leave happens as soon as it does.
    pub async fn leave(&self, room: &RoomName) -> Result<()> {
        Box::pin(self.channel.leave(&self.rooms, room)).await
    }

    /// Leaves every room. As `leave_all` of django-channels-presence.
    ///
    /// # Errors
    /// As [`leave`](Self::leave); every room is left all the same.
    pub async fn leave_all(&self) -> Result<()> {
        Box::pin(self.channel.leave_all(&self.rooms)).await
    }

    /// The socket is over: every presence leaves, or is held if the socket was lost.
    pub(crate) async fn depart(&self) -> Result<()> {
        Box::pin(self.channel.depart(&self.rooms)).await
    }

    /// Replaces the meta of the presence in a room. One that is equal changes nothing and tells nobody.
    ///
    /// Resolves when that is durable. But a socket has no more than `updates_per_second` written in all its rooms: one beyond that
    /// resolves at once and is written when there is one to spare, or not at all if another of the same room takes its place before. The
    /// last one is always written, unless the socket leaves the room first; if the socket is lost and its presence held, or if a newer
    /// socket on this node takes the presence over, it is written at once. If a socket on another node takes the presence over, what
    /// still waits by then is not written, nor if newer sockets take it over several times while the database is away.
    ///
    /// # Errors
    /// [`Error::NotInRoom`]; [`Error::Overloaded`] (nothing happened); [`Error::StoreUnavailable`] if the database did not answer in time: it may or may not happen.
    /// Of an update that is written later, these are logged.
    pub async fn update(&self, room: &RoomName, meta: Meta) -> Result<()> {
        self.channel.update(&self.rooms, room, meta).await
    }

    /// Whether the socket is in the room.
    #[must_use]
    pub fn is_in(&self, room: &RoomName) -> bool {
        self.channel.is_in(room)
    }

    /// Makes the socket a member of a group: it gets what is [sent to it](Rooms::send_to_group), without a presence and without
    /// anybody being told. As `group_add` of django-channels, but the membership lasts as long as the socket. A socket that is
    /// a member stays one.
    ///
    /// # Errors
    /// [`Error::TooManyRooms`] if it is in `max_rooms_per_socket` groups already, [`Error::SocketClosed`].
    pub fn join_group(&self, group: &GroupName) -> Result<()> {
        if !self.outbox.is_open() {
            return Err(Error::SocketClosed);
        }
        let limit = self.rooms.config().max_rooms_per_socket();
        if self.sockets.borrow_mut().join_group(group, self.channel(), limit) {
            Ok(())
        } else {
            debug!(channel = %self.channel(), limit, "a group is refused: the socket is in too many groups");
            Err(Error::TooManyRooms { limit })
        }
    }

    /// Ends the membership. A group that the socket is not in: nothing happens. As `group_discard` of django-channels.
    pub fn leave_group(&self, group: &GroupName) {
        self.sockets.borrow_mut().leave_group(group, self.channel());
    }

    /// Marks the socket as seen, in all its rooms: when the frame that is being handled arrived, or now. As `touch` of
    /// django-channels-presence, but it costs a store to memory.
    pub fn touch(&self) {
        self.channel.touch().mark(self.arrived.get().unwrap_or_else(|| self.rooms.this_node().now()));
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
            return Err(Error::CloseCode { code });
        }
        let reason = reason.into();
        // Here and now, so that nothing sent from here on comes before it or after it.
        self.outbox.push_close(close_frame(Some((code, reason.clone()))));
        self.connection.do_send(ToConnection::CloseByConsumer { code, reason });
        Ok(())
    }

    /// What closes the socket from elsewhere: another task of the same thread, or another thread.
    #[must_use]
    pub fn closer(&self) -> Closer {
        Closer { connection: self.connection.clone() }
    }
}

/// Closes one socket from wherever it is kept. It does not keep the socket open.
#[derive(Debug, Clone)]
pub struct Closer {
    connection: Addr<Connection>,
}

impl Closer {
    /// As [`Socket::close`]. A socket that is closed already stays so; a code that may not be sent becomes 1000.
    pub fn close(&self, code: CloseCode, reason: impl Into<String>) {
        let code = if code.is_sendable() { code } else { CloseCode::NORMAL };
        self.connection.do_send(ToConnection::CloseByConsumer { code, reason: reason.into() });
    }
}

/// Whether the handshake, or the connection, depends on this header.
fn is_ours(name: &HeaderName) -> bool {
    let ours = [header::CONNECTION, header::UPGRADE, header::CONTENT_LENGTH, header::TRANSFER_ENCODING];
    ours.contains(name) || name.as_str().starts_with("sec-websocket-")
}
