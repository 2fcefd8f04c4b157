//! Consumers for clients that send JSON.

use serde::de::DeserializeOwned;
use tracing::debug;

use crate::{CloseCode, Consumer, Error, Event, Frame, Outgoing, Result, Socket, name::RoomName};

/// How many characters of an error are sent to the client.
const ANSWERED_CHARACTERS: usize = 500;

/// A consumer that receives values instead of frames, as `JsonWebsocketConsumer` of django-channels. Wrap it in [`JsonFrames`] to
/// serve it.
///
/// Every frame touches the socket. Heartbeats are swallowed before anything is decoded, and one of them is
/// [answered](crate::ANSWERED_HEARTBEAT), so `receive` does not need [`#[touch_presence]`](macro@crate::touch_presence). A text that
/// cannot be decoded is answered with an error frame, and so is a message that the rules do not allow. Neither ends the socket.
///
/// ```
/// use presence::{JsonConsumer, JsonFrames, RoomName, Socket};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Deserialize)]
/// #[serde(tag = "type", rename_all = "snake_case")]
/// enum Request {
///     Hello { name: String },
///     Bye,
/// }
///
/// #[derive(Serialize, Deserialize)]
/// enum Update {
///     Renamed { name: String },
/// }
///
/// struct Lobby(RoomName);
///
/// impl JsonConsumer for Lobby {
///     type Message = Request;
///     type Event = Update;
///
///     async fn connect(&mut self, socket: &mut Socket) -> presence::Result<()> {
///         socket.join(&self.0).await
///     }
///
///     async fn receive(&mut self, socket: &mut Socket, request: Request) -> presence::Result<()> {
///         match request {
///             Request::Hello { name } => socket.rooms().send_event(&self.0, presence::Event::typed(&Update::Renamed { name })?)?,
///             Request::Bye => socket.leave(&self.0).await?,
///         }
///         Ok(())
///     }
///
///     async fn event(&mut self, socket: &mut Socket, Update::Renamed { name }: Update) -> presence::Result<()> {
///         socket.send(format!("someone is called {name} now")).await
///     }
/// }
/// # fn consumer(room: RoomName) -> impl presence::Consumer { JsonFrames(Lobby(room)) }
/// ```
#[expect(async_fn_in_trait, reason = "a socket lives on one thread, so its futures need not be `Send`")]
pub trait JsonConsumer: Sized + 'static {
    /// The messages of clients.
    type Message: DeserializeOwned;
    /// The events that rooms and other parts of the application send to the consumer: an enum, from which [`Event::typed`] makes an
    /// [`Event`]. `()` if there are none.
    type Event: DeserializeOwned;

    /// The heartbeats that are swallowed without an answer. The default is that of django-channels-presence.
    const HEARTBEATS: &'static [&'static str] = &[crate::HEARTBEAT];

    /// As [`Consumer::connect`].
    async fn connect(&mut self, socket: &mut Socket) -> Result<()> {
        let _ = socket;
        Ok(())
    }

    /// As [`Consumer::receive`], with the decoded message.
    async fn receive(&mut self, socket: &mut Socket, message: Self::Message) -> Result<()>;

    /// Handles a frame that is not a `Message`: not JSON, of another shape, or binary. By default the client receives
    /// `{"type":"error","code":"bad_message","message":…}`, where the message has at most 500 characters.
    async fn undecodable(&mut self, socket: &mut Socket, error: serde_json::Error) -> Result<()> {
        answer(socket, "bad_message", &error).await
    }

    /// Handles an error of [`receive`](Self::receive) that need not end the socket: the client requested something that breaks a rule, or
    /// that cannot be done at the moment. After [`event`](Self::event) and [`removed`](Self::removed) it handles `not_joined`, `room_full`,
    /// `removed` and `unavailable`: the client has requested nothing there, so the other errors are the application's. By default the client receives `{"type":"error","code":…,"message":…}`, where the message has at
    /// most 500 characters, with the code
    ///
    /// | code | error |
    /// | --- | --- |
    /// | `bad_meta` | [`Error::Meta`] |
    /// | `bad_name` | [`Error::Name`] |
    /// | `not_joined` | [`Error::NotInRoom`] |
    /// | `too_many_rooms` | [`Error::TooManyRooms`] |
    /// | `room_full` | [`Error::RoomFull`] |
    /// | `too_large` | [`Error::TooLarge`] |
    /// | `removed` | [`Error::LeftWhileJoining`] |
    /// | `unavailable` | every other [retryable](Error::is_retryable) error, such as [`Error::StoreUnavailable`] |
    ///
    /// A [`Meta`](crate::Meta) or a name inside a [`Message`](Self::Message) that breaks its rule makes the whole text
    /// [undecodable](Self::undecodable): `bad_message`. `bad_meta` and `bad_name` are for those that `receive` makes itself.
    ///
    /// Every other error ends the socket, as in [`Consumer::receive`]. Return the error from here to end the socket for one of these, too.
    async fn client_error(&mut self, socket: &mut Socket, error: Error) -> Result<()> {
        match error.client_code() {
            Some(code) => answer(socket, code, &error).await,
            None => Err(error),
        }
    }

    /// As [`Consumer::event`], with the decoded event. An event that is not an `Event` is logged and dropped.
    async fn event(&mut self, socket: &mut Socket, event: Self::Event) -> Result<()> {
        let _ = (socket, event);
        Ok(())
    }

    /// As [`Consumer::removed`].
    async fn removed(&mut self, socket: &mut Socket, room: RoomName) -> Result<()> {
        let _ = (socket, room);
        Ok(())
    }

    /// As [`Consumer::disconnect`].
    async fn disconnect(&mut self, socket: &mut Socket, code: CloseCode) -> Result<()> {
        let _ = (socket, code);
        Ok(())
    }
}

/// Sends the client an error frame.
async fn answer(socket: &Socket, code: &str, error: &impl ToString) -> Result<()> {
    // The error may repeat what the client sent, so it is cut.
    let message: String = error.to_string().chars().take(ANSWERED_CHARACTERS).collect();
    debug!(channel = %socket.channel(), code, message, "a client receives an error for its message");
    let answer = serde_json::json!({ "type": "error", "code": code, "message": message });
    socket.send(Outgoing::json(&answer)?).await
}

/// Wraps a [`JsonConsumer`] as a [`Consumer`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JsonFrames<C>(pub C);

impl<C: JsonConsumer> JsonFrames<C> {
    /// Passes on how `event` or `removed` ended. An outage of the database, or a leave in the meantime, is no reason to close the socket.
    async fn ended(&mut self, socket: &mut Socket, result: Result<()>) -> Result<()> {
        match result {
            Err(error)
                if error.is_retryable()
                    || matches!(error, Error::NotInRoom { .. } | Error::LeftWhileJoining { .. }) =>
            {
                self.0.client_error(socket, error).await
            }
            result => result,
        }
    }
}

impl<C: JsonConsumer> Consumer for JsonFrames<C> {
    async fn connect(&mut self, socket: &mut Socket) -> Result<()> {
        self.0.connect(socket).await
    }

    async fn receive(&mut self, socket: &mut Socket, frame: Frame) -> Result<()> {
        if crate::__private::touch_presence(socket, &frame, C::HEARTBEATS).await {
            return Ok(());
        }
        match frame.decode() {
            Ok(message) => match self.0.receive(socket, message).await {
                Err(error) if error.client_code().is_some() => self.0.client_error(socket, error).await,
                result => result,
            },
            Err(error) => self.0.undecodable(socket, error).await,
        }
    }

    async fn event(&mut self, socket: &mut Socket, event: Event) -> Result<()> {
        match event.decode_typed() {
            Ok(event) => {
                let result = self.0.event(socket, event).await;
                self.ended(socket, result).await
            }
            Err(error) => {
                debug!(event = %event.name(), %error, "an event is dropped, because it is not an `Event` of the consumer");
                Ok(())
            }
        }
    }

    async fn removed(&mut self, socket: &mut Socket, room: RoomName) -> Result<()> {
        let result = self.0.removed(socket, room).await;
        self.ended(socket, result).await
    }

    async fn disconnect(&mut self, socket: &mut Socket, code: CloseCode) -> Result<()> {
        self.0.disconnect(socket, code).await
    }
}
