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
pub(crate) mod line;
pub(crate) mod patience;
pub(crate) mod rates;
pub(crate) mod reading;
pub(crate) mod run;
mod server;
pub(crate) mod socket;
pub(crate) mod task;
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

/// Handles one WebSocket, as a consumer of django-channels does.
///
/// Its methods run one at a time, on the thread of its socket, in the order in which things happened. A slow method
/// delays neither other sockets nor the pings and outgoing frames of its own socket. When a method returns an error or panics, the socket
/// is closed with 1011, and `disconnect` still runs.
///
/// Each method receives `&mut Socket`, because a consumer may change the socket itself: its [user](Socket::set_user), its
/// [resume token](Socket::set_resume_token) and the response to its handshake. The other methods of [`Socket`] take `&self`, so that a
/// consumer can wait for several of them at the same time, such as joins of several rooms.
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
#[expect(async_fn_in_trait, reason = "a socket stays on one thread, so its futures need not be `Send`")]
pub trait Consumer: Sized + 'static {
    /// Decides about a new socket, before its handshake is answered. `Ok` accepts the socket, and an error refuses it:
    /// [`Error::refuse`](crate::Error::refuse) with a close code, which a page can read, [`Error::deny`](crate::Error::deny) with a
    /// status, an unavailable store with 503, and any other error with 500. A refused socket leaves the rooms that it joined before the
    /// response is sent. Limited by `handshake_timeout`.
    async fn connect(&mut self, socket: &mut Socket) -> Result<()> {
        let _ = socket;
        Ok(())
    }

    /// Handles a text or binary message of the client. Limited by `handler_timeout`. A message touches the socket only if this
    /// method does it: by [`#[touch_presence]`](macro@crate::touch_presence), or by [`Socket::touch`].
    async fn receive(&mut self, socket: &mut Socket, frame: Frame) -> Result<()>;

    /// Handles an event sent to a room that the socket is in ([`Rooms::send_event`](crate::Rooms::send_event)), or to its
    /// channel. Limited by `handler_timeout`. By default the event is dropped.
    async fn event(&mut self, socket: &mut Socket, event: Event) -> Result<()> {
        let _ = socket;
        tracing::debug!(event = %event.name(), "an event is dropped, because the consumer has no method `event`");
        Ok(())
    }

    /// Runs when the presence in `room` was removed and the socket stays open. Either the presence became stale
    /// ([`OnStale::Keep`](crate::OnStale::Keep)), or it was removed by its channel ([`Rooms::remove`](crate::Rooms::remove),
    /// [`leave_all`](crate::Rooms::leave_all)), by its id ([`remove_presence`](crate::Rooms::remove_presence)), or with its user or room
    /// ([`remove_user`](crate::Rooms::remove_user)). It does not run when the socket left by itself, or when it has joined the room again
    /// in the meantime. By default it does nothing.
    async fn removed(&mut self, socket: &mut Socket, room: RoomName) -> Result<()> {
        let _ = (socket, room);
        Ok(())
    }

    /// Runs exactly once for every socket that was accepted, whatever ended it. The code is that of the first Close, of the client or
    /// of the server; 1005 if that has no code, and 1006 if the connection was lost. Afterwards the socket leaves every room. Limited by
    /// `handler_timeout`.
    async fn disconnect(&mut self, socket: &mut Socket, code: CloseCode) -> Result<()> {
        let _ = (socket, code);
        Ok(())
    }
}

/// A complete message of a client.
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
    /// ```
    /// use presence::Frame;
    ///
    /// #[derive(serde::Deserialize)]
    /// struct Move {
    ///     x: i32,
    /// }
    ///
    /// let frame = Frame::Text(r#"{"x": 5}"#.into());
    /// assert_eq!(frame.decode::<Move>()?.x, 5);
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    ///
    /// # Errors
    /// That of `serde_json`, if the frame is binary, not JSON, or not a `T`.
    pub fn decode<T: DeserializeOwned>(&self) -> serde_json::Result<T> {
        match self {
            Self::Text(text) => serde_json::from_str(text),
            Self::Binary(_) => Err(serde::de::Error::custom("a binary frame is not JSON")),
        }
    }
}
