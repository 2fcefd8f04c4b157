//! What an application writes: a [`Consumer`] for each WebSocket.

pub(crate) mod connection;
mod control;
pub(crate) mod countdown;
pub(crate) mod decoder;
pub(crate) mod endpoint;
pub(crate) mod heartbeat;
pub(crate) mod inbox;
pub(crate) mod json;
pub(crate) mod kill;
pub(crate) mod origin;
pub(crate) mod patience;
pub(crate) mod rates;
pub(crate) mod run;
pub(crate) mod scope;
pub(crate) mod socket;
pub(crate) mod transport;

use std::fmt;

use bytes::Bytes;
use bytestring::ByteString;
use serde::de::DeserializeOwned;

use crate::{Event, Result, model::Close, name::RoomName, room::close_code};

pub use countdown::Countdown;
pub use endpoint::Upgrade;
pub use heartbeat::{ANSWERED_HEARTBEAT, HEARTBEAT};
pub use json::{Json, JsonConsumer};
pub use kill::{WRITE_BUFFER_BYTES, on_connect};
pub use origin::{Origin, OriginError};
pub use scope::Scope;
pub use socket::{Closer, Socket};

/// Speaks for one WebSocket, as a consumer of django-channels does.
///
/// Its methods run one at a time, on the thread of its socket, in the order in which things happened. One that is slow
/// delays nobody else, nor its own socket's pings and outgoing frames. One that returns an error or panics ends its socket
/// with 1011; `disconnect` still runs.
///
/// ```
/// use presence::{CloseCode, Consumer, Frame, RoomName, Socket, remove_presence, touch_presence};
///
/// struct Chat {
///     room: RoomName,
/// }
///
/// impl Consumer for Chat {
///     async fn connect(&mut self, socket: &mut Socket) -> presence::Result<()> {
///         socket.join(&self.room).await
///     }
///
///     #[touch_presence]
///     async fn receive(&mut self, socket: &mut Socket, frame: Frame) -> presence::Result<()> {
///         if let Frame::Text(text) = frame {
///             socket.rooms().send(&self.room, &*text).await;
///         }
///         Ok(())
///     }
///
///     #[remove_presence]
///     async fn disconnect(&mut self, _: &mut Socket, _: CloseCode) -> presence::Result<()> {
///         Ok(())
///     }
/// }
/// ```
///
/// The methods are native `async fn`s: an `impl Consumer` takes no `#[async_trait]`.
#[expect(async_fn_in_trait, reason = "a socket lives on one thread, so its futures need not be `Send`")]
pub trait Consumer: Sized + 'static {
    /// Decides about a new socket, before its handshake is answered: `Ok` accepts it, an error turns it away
    /// ([`Error::refuse`](crate::Error::refuse) with a close code, which a page can read; [`Error::deny`](crate::Error::deny) with a
    /// status; the store away: 503; anything else: 500). Rooms that it joined before it was turned away are left first. Bounded by
    /// `handshake_timeout`.
    async fn connect(&mut self, socket: &mut Socket) -> Result<()> {
        let _ = socket;
        Ok(())
    }

    /// Handles a text or binary message of the client. Bounded by `handler_timeout`. A message touches the socket only if this
    /// method says so: by [`#[touch_presence]`](macro@crate::touch_presence), or by [`Socket::touch`].
    async fn receive(&mut self, socket: &mut Socket, frame: Frame) -> Result<()>;

    /// Handles an event sent to a room that the socket is in ([`Rooms::send_event`](crate::Rooms::send_event)), or to its
    /// channel. Bounded by `handler_timeout`. By default it is dropped.
    async fn event(&mut self, socket: &mut Socket, event: Event) -> Result<()> {
        let _ = socket;
        tracing::debug!(event = %event.name(), "an event is dropped: the consumer has no `event`");
        Ok(())
    }

    /// The presence in `room` was removed by somebody else, and the socket stays open: it went stale
    /// ([`OnStale::Keep`](crate::config::OnStale::Keep)), or it was removed on purpose, by its channel
    /// ([`Rooms::remove`](crate::Rooms::remove), [`leave_all`](crate::Rooms::leave_all)), by its id
    /// ([`remove_presence`](crate::Rooms::remove_presence)), or with its user or room
    /// ([`remove_user`](crate::Rooms::remove_user)). Not if the socket left by itself. It may join again, and if it has done so by
    /// then this is not called. By default nothing is done.
    async fn removed(&mut self, socket: &mut Socket, room: RoomName) -> Result<()> {
        let _ = (socket, room);
        Ok(())
    }

    /// Runs exactly once for every socket that was accepted, whatever ended it: with the code of the client's Close, or of
    /// ours, 1005 if it had none, 1006 if the connection was lost. Afterwards every room is left. Bounded by
    /// `handler_timeout`.
    async fn disconnect(&mut self, socket: &mut Socket, code: CloseCode) -> Result<()> {
        let _ = (socket, code);
        Ok(())
    }
}

/// A whole message of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// A text.
    Text(ByteString),
    /// Bytes.
    Binary(Bytes),
}

impl Frame {
    /// The bytes of the message.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Binary(bytes) => bytes,
        }
    }

    /// The text as a JSON value.
    ///
    /// # Errors
    /// That of `serde_json`, if the frame is binary, not JSON, or not a `T`.
    pub fn decode<T: DeserializeOwned>(&self) -> serde_json::Result<T> {
        match self {
            Self::Text(text) => serde_json::from_str(text),
            Self::Binary(_) => Err(serde::de::Error::custom("a binary frame is no JSON text")),
        }
    }
}

/// Why a socket ended: the code of a WebSocket Close.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CloseCode(pub u16);

impl CloseCode {
    /// The purpose is fulfilled.
    pub const NORMAL: Self = Self(1000);
    /// The page goes away, or the server does.
    pub const AWAY: Self = Self(1001);
    /// A policy was violated.
    pub const POLICY: Self = Self(1008);
    /// The socket is refused: do not come back.
    pub const REFUSED: Self = Self(close_code::REFUSED);
    /// Sent by a client: its page goes into the browser's back/forward cache.
    pub const ASIDE: Self = Self(close_code::ASIDE);
    /// Stands for a Close without a code; never sent.
    pub const NONE: Self = Self(close_code::NO_CODE);
    /// Stands for a lost connection; never sent.
    pub const LOST: Self = Self(close_code::LOST);

    /// Whether an endpoint may send it (RFC 6455, 7.4).
    #[must_use]
    pub const fn is_sendable(self) -> bool {
        matches!(self.0, 1000..=1003 | 1007..=1014 | 3000..=4999)
    }
}

/// With the reason `removed`.
impl From<CloseCode> for Close {
    fn from(code: CloseCode) -> Self {
        Self::new(code.0, "removed")
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}
