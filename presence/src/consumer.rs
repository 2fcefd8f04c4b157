//! What an application writes: a [`Consumer`] for each WebSocket.

pub(crate) mod connection;
mod control;
pub(crate) mod countdown;
pub(crate) mod decoder;
pub(crate) mod endpoint;
pub(crate) mod handshake;
pub(crate) mod heartbeat;
pub(crate) mod inbox;
pub(crate) mod json;
pub(crate) mod kill;
pub(crate) mod patience;
pub(crate) mod rates;
pub(crate) mod run;
mod server;
pub(crate) mod socket;
pub(crate) mod transport;

use bytes::Bytes;
use bytestring::ByteString;
use serde::de::DeserializeOwned;

use crate::{CloseCode, Event, Result, name::RoomName};

pub use countdown::Countdown;
pub use endpoint::Upgrade;
pub use handshake::Handshake;
pub use heartbeat::{ANSWERED_HEARTBEAT, HEARTBEAT};
pub use json::{JsonConsumer, JsonFrames};
pub use kill::{WRITE_BUFFER_BYTES, on_connect};
pub use server::HttpServerExt;
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
///             socket.rooms().send(&self.room, &*text).await?;
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
