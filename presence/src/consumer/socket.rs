//! The socket as its consumer uses it.

use std::{cell::RefCell, fmt, rc::Rc, sync::Arc};

use actix::Recipient;
use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use tracing::debug;

use crate::{
    CloseCode, Error, Outgoing, Result, ResumeToken, Rooms,
    clock::Tick,
    delivery::{Outbox, Sockets, ToConnection},
    model::Meta,
    name::{ChannelName, GroupName, RoomName, UserId},
    rooms::{Channel, JoinOptions},
};

use super::{control::close_frame, handshake::Handshake, rates::Rates};

/// A consumer's side of its WebSocket.
///
/// The methods that change the socket itself take `&mut self`: they set its user, its resume token and the response to its handshake.
/// All others take `&self`: what happens in rooms does not change the socket, and several joins can wait at the same time.
///
/// ```
/// use presence::{Consumer, Frame, RoomName, Socket, touch_presence};
///
/// struct Chat(RoomName);
///
/// impl Consumer for Chat {
///     async fn connect(&mut self, socket: &mut Socket) -> presence::Result<()> {
///         socket.join(&self.0).await?;
///         socket.send("welcome").await
///     }
///
///     #[touch_presence]
///     async fn receive(&mut self, socket: &mut Socket, frame: Frame) -> presence::Result<()> {
///         socket.rooms().send(&self.0, frame).await
///     }
/// }
/// ```
pub struct Socket {
    pub(crate) rooms: Rooms,
    pub(crate) rates: Rc<Rates>,
    pub(crate) channel: Arc<Channel>,
    pub(crate) user: Option<UserId>,
    pub(crate) handshake: Handshake,
    pub(crate) outbox: Rc<Outbox>,
    pub(crate) sockets: Rc<RefCell<Sockets>>,
    pub(crate) connection: Recipient<ToConnection>,
    /// When the frame that the consumer handles now arrived.
    pub(crate) arrived: Option<Tick>,
    pub(crate) subprotocol: Option<String>,
    pub(crate) headers: HeaderMap,
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket").field("channel", self.channel()).field("user", &self.user).finish_non_exhaustive()
    }
}

impl Socket {
    /// The rooms of this node, of all sockets: the manager. Those that this socket is in are [`joined_rooms`](Self::joined_rooms).
    #[must_use]
    pub const fn rooms(&self) -> &Rooms {
        &self.rooms
    }

    /// The name of this connection, unique among all nodes.
    #[must_use]
    pub fn channel(&self) -> &ChannelName {
        self.channel.name()
    }

    /// The user of the socket; `None` if it is anonymous.
    #[must_use]
    pub const fn user(&self) -> Option<&UserId> {
        self.user.as_ref()
    }

    /// Changes the user of the socket, when a visitor signs in or out on the same connection. Its presence in every room changes its
    /// user, and the others receive one event for it, an update of the same presence. Later joins are joins of the new user. Resolves when
    /// the change is durable.
    ///
    /// The presences in these rooms cannot be resumed from then on, because a resume token belongs to one user. Presences of later joins
    /// can be resumed by the new user, with the token that was [set](Self::set_resume_token).
    ///
    /// ```
    /// # use presence::{Socket, UserId};
    /// async fn sign_in(socket: &mut Socket, name: &str) -> presence::Result<()> {
    ///     socket.set_user(Some(UserId::new(name)?)).await
    /// }
    /// ```
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`], [`Error::Overloaded`], [`Error::RoomFailed`]: in some rooms the presence may still have the
    /// earlier user. Call it again. [`Error::SocketClosed`]: nothing happened.
    pub async fn set_user(&mut self, user: Option<UserId>) -> Result<()> {
        if !self.outbox.is_open() {
            return Err(Error::SocketClosed);
        }
        self.user = user;
        self.sockets.borrow_mut().set_user(self.channel(), self.user.as_ref());
        self.channel.set_user(&self.rooms, self.user.as_ref()).await
    }

    /// The request of the handshake. Its headers are available in `connect` only: a consumer that needs them later must keep them.
    #[must_use]
    pub const fn handshake(&self) -> &Handshake {
        &self.handshake
    }

    /// Chooses this subprotocol, if the client offered it. To be called in `connect`: the response to the handshake is sent when `connect`
    /// returns `Ok`.
    ///
    /// ```
    /// # use presence::Socket;
    /// fn choose(socket: &mut Socket) {
    ///     let offered = socket.handshake().header("sec-websocket-protocol").unwrap_or_default();
    ///     if offered.split(',').any(|one| one.trim() == "chat.v2") {
    ///         socket.set_subprotocol("chat.v2");
    ///     }
    /// }
    /// ```
    pub fn set_subprotocol(&mut self, subprotocol: impl Into<String>) {
        self.subprotocol = Some(subprotocol.into());
    }

    /// Adds a header, such as a cookie, to the response to the handshake. To be called in `connect`. The response to a refused socket has
    /// only the status and the reason.
    ///
    /// ```
    /// # use presence::Socket;
    /// fn set_cookie(socket: &mut Socket) -> presence::Result<()> {
    ///     socket.append_header("set-cookie", "visited=1; HttpOnly")
    /// }
    /// ```
    ///
    /// # Errors
    /// [`Error::Header`] if it is not a valid header, or one that the application must not set. Nothing happens then.
    pub fn append_header(&mut self, name: &str, value: &str) -> Result<()> {
        let header =
            HeaderName::try_from(name).ok().filter(|name| !is_ours(name)).zip(HeaderValue::try_from(value).ok());
        let (name, value) = header.ok_or_else(|| Error::Header { name: name.to_owned() })?;
        self.headers.append(name, value);
        Ok(())
    }

    /// Joins a room: adds a presence, makes the socket a member of the room's group, and notifies the others. Resolves when the
    /// presence is durable and the socket's first frame is queued. A socket that is in the room already is touched, and receives
    /// nothing. If the future is dropped before it resolves, the socket is not in the room. Joins beyond `joins_per_second` wait, and this
    /// wait does not count for the time that a consumer's method may take.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`] or [`Error::Overloaded`] (it is not in the room; repeat later), [`Error::TooManyRooms`],
    /// [`Error::ShuttingDown`], [`Error::RoomFailed`], [`Error::LeftWhileJoining`],
    /// [`Error::FirstFramesUnread`] (it is not in the room; repeat later), [`Error::SocketClosed`].
    pub async fn join(&self, room: &RoomName) -> Result<()> {
        self.join_with(room, JoinOptions::new()).await
    }

    /// Joins as [`join`](Self::join) does, with a first meta, a grace or a limit of places.
    ///
    /// ```
    /// use presence::{Consumer, Frame, JoinOptions, Meta, RoomName, Socket};
    /// use serde_json::json;
    ///
    /// struct Agent(RoomName);
    ///
    /// impl Consumer for Agent {
    ///     async fn connect(&mut self, socket: &mut Socket) -> presence::Result<()> {
    ///         let free = Meta::new(&json!({ "status": "free" }))?;
    ///         socket.join_with(&self.0, JoinOptions::new().meta(free)).await?;
    ///         if socket.has_resumed(&self.0) {
    ///             socket.send("welcome back").await?; // it has the status that it had before
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
    /// As `join`; [`Error::GraceTooLong`] if the grace is longer than `max_age`; [`Error::RoomFull`] if there is no place: it is not in
    /// the room, and nobody was notified.
    pub async fn join_with(&self, room: &RoomName, options: JoinOptions) -> Result<()> {
        if !self.outbox.is_open() {
            return Err(Error::SocketClosed);
        }
        // A join of a room that the socket is in already does not count.
        if !self.is_in(room) {
            self.rates.join().await;
        }
        // Boxed, because otherwise each socket would keep space for the large future of a join as long as it is open.
        Box::pin(self.channel.join(&self.rooms, room, self.user.as_ref(), options)).await
    }

    /// Whether the socket has resumed its presence in the room with the [resume token](Self::set_resume_token), so that the others did not
    /// receive a join. `false` if the socket is not in the room.
    ///
    /// This is known when the join resolves. With [`Durability::Relaxed`](crate::Durability::Relaxed) and a presence of another
    /// node, it is known only when the database has answered.
    #[must_use]
    pub fn has_resumed(&self, room: &RoomName) -> bool {
        self.channel.has_resumed(room)
    }

    /// Makes the presences of later joins resumable: when the socket is lost, they are held for their grace, and a socket of the same user
    /// with the same token resumes them without a notice to the others. To be called in `connect`, before the first join; presences that
    /// are in a room already do not change. `docs/semantics.md` describes which presences are held.
    pub fn set_resume_token(&mut self, token: Option<ResumeToken>) {
        self.channel.set_resume_token(token);
    }

    /// Leaves a room; the socket stays open. It receives nothing more from the room. Resolves when the leave is durable. If the socket is
    /// not in the room, nothing happens.
    ///
    /// ```
    /// # use presence::{RoomName, Socket};
    /// async fn change_rooms(socket: &Socket, from: &RoomName, to: &RoomName) -> presence::Result<()> {
    ///     socket.leave(from).await?;
    ///     socket.join(to).await
    /// }
    /// ```
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`] if the database did not answer in time: the leave happens as soon as it does.
    pub async fn leave(&self, room: &RoomName) -> Result<()> {
        Box::pin(self.channel.leave(&self.rooms, room)).await
    }

    /// Leaves every room, as `leave_all` of django-channels-presence.
    ///
    /// # Errors
    /// As [`leave`](Self::leave); the socket leaves every room in any case.
    pub async fn leave_all(&self) -> Result<()> {
        Box::pin(self.channel.leave_all(&self.rooms)).await
    }

    /// Ends all presences of the socket: they leave, or they are held if the socket was lost.
    pub(crate) async fn depart(&self) -> Result<()> {
        Box::pin(self.channel.depart(&self.rooms)).await
    }

    /// Replaces the meta of the presence in a room. An equal meta changes nothing, and nobody is notified.
    ///
    /// Resolves when the change is durable. But at most `updates_per_second` updates of one socket are written, in all its rooms together.
    /// An update beyond that resolves at once and is written later, unless a newer update of the same room replaces it. The last update is
    /// always written, unless the socket leaves the room before; it is written at once when the socket is lost and its presence is held, or
    /// when a newer socket on this node resumes the presence. An update that still waits is not written when a socket on another node
    /// resumes the presence, or when newer sockets resume it several times while the database is unavailable.
    ///
    /// ```
    /// # use presence::{Meta, RoomName, Socket};
    /// async fn set_typing(socket: &Socket, room: &RoomName, is_typing: bool) -> presence::Result<()> {
    ///     socket.update(room, Meta::new(&serde_json::json!({ "typing": is_typing }))?).await
    /// }
    /// ```
    ///
    /// # Errors
    /// [`Error::NotInRoom`]; [`Error::Overloaded`] (nothing happened); [`Error::StoreUnavailable`] if the database did not answer in time: the
    /// update may or may not happen. Errors of an update that is written later are logged.
    pub async fn update(&self, room: &RoomName, meta: Meta) -> Result<()> {
        Box::pin(self.channel.update(&self.rooms, room, meta)).await
    }

    /// The rooms that the socket is in or is joining, in no order.
    #[must_use]
    pub fn joined_rooms(&self) -> Vec<RoomName> {
        self.channel.rooms()
    }

    /// Whether the socket is in the room.
    #[must_use]
    pub fn is_in(&self, room: &RoomName) -> bool {
        self.channel.is_in(room)
    }

    /// Makes the socket a member of a group: it receives what is [sent to the group](Rooms::send_to_group), without a presence and without
    /// a notice to others. As `group_add` of django-channels, but the membership lasts as long as the socket.
    ///
    /// ```
    /// # use presence::{GroupName, Socket};
    /// /// The socket receives what is sent to the group, and nobody sees it as a member of a room.
    /// fn follow_news(socket: &Socket) -> presence::Result<()> {
    ///     socket.join_group(&GroupName::new("news")?)
    /// }
    /// ```
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

    /// Ends the membership in a group, as `group_discard` of django-channels. If the socket is not in the group, nothing happens.
    pub fn leave_group(&self, group: &GroupName) {
        self.sockets.borrow_mut().leave_group(group, self.channel());
    }

    /// Marks the socket as seen in all its rooms, at the time when the frame that is being handled arrived, or now. As `touch` of
    /// django-channels-presence, but it only writes to memory.
    pub fn touch(&self) {
        self.channel.touch().mark(self.arrived.unwrap_or_else(|| self.rooms.this_node().now()));
    }

    /// Sends the client a frame. If too much is queued for the client, but it continues to read, this waits for at most 1 s.
    ///
    /// # Errors
    /// [`Error::SocketClosed`] if nothing can be sent any more.
    pub async fn send(&self, message: impl Into<Outgoing>) -> Result<()> {
        if !self.outbox.is_open() {
            return Err(Error::SocketClosed);
        }
        self.outbox.send(message.into().frames()).await;
        Ok(())
    }

    /// Closes the socket, after the frames that were sent before. The reason is cut to 123 bytes. In `connect`, the Close is sent after the
    /// response: if `connect` returns `Ok`, the socket is accepted and then closed, so that the client can read the code.
    ///
    /// ```
    /// # use presence::{CloseCode, Socket};
    /// fn end_trial(socket: &Socket) -> presence::Result<()> {
    ///     socket.close(CloseCode(4002), "the trial is over")
    /// }
    /// ```
    ///
    /// # Errors
    /// [`Error::CloseCode`] if no endpoint may send this code; nothing happens then.
    pub fn close(&self, code: CloseCode, reason: impl Into<String>) -> Result<()> {
        if !code.is_sendable() {
            return Err(Error::CloseCode { code });
        }
        let reason = reason.into();
        // The Close is queued before this returns, so that no frame that is sent later can precede it.
        self.outbox.push_close(close_frame(Some((code, reason.clone()))));
        self.connection.do_send(ToConnection::CloseByConsumer { code, reason });
        Ok(())
    }

    /// A handle that closes the socket from another task, also of another thread.
    ///
    /// ```
    /// # use presence::{CloseCode, Socket};
    /// # use std::time::Duration;
    /// fn close_in_an_hour(socket: &Socket) {
    ///     let closer = socket.closer();
    ///     actix_web::rt::spawn(async move {
    ///         actix_web::rt::time::sleep(Duration::from_secs(3600)).await;
    ///         closer.close(CloseCode(4001), "the hour is over");
    ///     });
    /// }
    /// ```
    #[must_use]
    pub fn closer(&self) -> Closer {
        Closer { connection: self.connection.clone() }
    }
}

/// A handle that closes one socket. It does not keep the socket open.
#[derive(Debug, Clone)]
pub struct Closer {
    connection: Recipient<ToConnection>,
}

impl Closer {
    /// Closes the socket as [`Socket::close`] does. If the socket is closed already, nothing happens. A code that no endpoint may send becomes 1000.
    pub fn close(&self, code: CloseCode, reason: impl Into<String>) {
        let code = if code.is_sendable() { code } else { CloseCode::NORMAL };
        self.connection.do_send(ToConnection::CloseByConsumer { code, reason: reason.into() });
    }
}

/// Whether the handshake or the connection depends on this header.
fn is_ours(name: &HeaderName) -> bool {
    let ours = [header::CONNECTION, header::UPGRADE, header::CONTENT_LENGTH, header::TRANSFER_ENCODING];
    ours.contains(name) || name.as_str().starts_with("sec-websocket-")
}
