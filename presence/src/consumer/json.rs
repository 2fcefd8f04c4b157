//! Consumers whose clients speak JSON.

use serde::de::DeserializeOwned;
use tracing::debug;

use crate::{CloseCode, Consumer, Error, Event, Frame, Outgoing, Result, Socket, name::RoomName};

/// How many characters of an error a client is told.
const ANSWERED_CHARACTERS: usize = 500;

/// A consumer that is handed values instead of frames, as `JsonWebsocketConsumer` of django-channels. Wrap it in [`JsonFrames`] to
/// serve it.
///
/// Every frame touches. A heartbeat is swallowed before anything is decoded, and answered if it is
/// [the one that asks for it](crate::ANSWERED_HEARTBEAT). So neither needs [`#[touch_presence]`](macro@crate::touch_presence). A text
/// that does not decode is answered with an error frame, as is a message that asks for what is not allowed, and neither ends the socket.
///
/// ```
/// use presence::{JsonConsumer, JsonFrames, RoomName, Socket};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Deserialize)]
/// #[serde(tag = "type", rename_all = "snake_case")]
/// enum Said {
///     Hello { name: String },
///     Bye,
/// }
///
/// /// What rooms tell consumers.
/// #[derive(Serialize, Deserialize)]
/// enum Told {
///     Renamed { name: String },
/// }
///
/// struct Lobby(RoomName);
///
/// impl JsonConsumer for Lobby {
///     type Message = Said;
///     type Event = Told;
///
///     async fn connect(&mut self, socket: &mut Socket) -> presence::Result<()> {
///         socket.join(&self.0).await
///     }
///
///     async fn receive(&mut self, socket: &mut Socket, said: Said) -> presence::Result<()> {
///         match said {
///             Said::Hello { name } => socket.rooms().send_event(&self.0, presence::Event::typed(&Told::Renamed { name })?)?,
///             Said::Bye => socket.leave(&self.0).await?,
///         }
///         Ok(())
///     }
///
///     async fn event(&mut self, socket: &mut Socket, Told::Renamed { name }: Told) -> presence::Result<()> {
///         socket.send(format!("one is called {name} now")).await
///     }
/// }
/// # fn consumer(room: RoomName) -> impl presence::Consumer { JsonFrames(Lobby(room)) }
/// ```
#[expect(async_fn_in_trait, reason = "a socket lives on one thread, so its futures need not be `Send`")]
pub trait JsonConsumer: Sized + 'static {
    /// What clients send.
    type Message: DeserializeOwned;
    /// What rooms and other parts of the application send to the consumer: an enum, made into an [`Event`] by
    /// [`Event::typed`]. `()` if there is nothing.
    type Event: DeserializeOwned;

    /// The texts that are swallowed without an answer: they touch, and no more. The default is that of django-channels-presence.
    const HEARTBEATS: &'static [&'static str] = &[crate::HEARTBEAT];

    /// As [`Consumer::connect`].
    async fn connect(&mut self, socket: &mut Socket) -> Result<()> {
        let _ = socket;
        Ok(())
    }

    /// As [`Consumer::receive`], with what the client sent.
    async fn receive(&mut self, socket: &mut Socket, message: Self::Message) -> Result<()>;

    /// Handles a frame that is no `Message`: not JSON, of another shape, or binary. By default the client is answered
    /// `{"type":"error","code":"bad_message","message":…}`, where the message has at most 500 characters.
    async fn undecodable(&mut self, socket: &mut Socket, error: serde_json::Error) -> Result<()> {
        answer(socket, "bad_message", &error).await
    }

    /// Handles an error of [`receive`](Self::receive) that is the client's mistake, so that it does not end the socket: what it asked for
    /// broke a rule, and nothing happened. By default the client is answered `{"type":"error","code":…,"message":…}`, where the message
    /// has at most 500 characters, with the code
    ///
    /// | code | error |
    /// | --- | --- |
    /// | `bad_meta` | [`Error::Meta`] |
    /// | `bad_name` | [`Error::Name`] |
    /// | `not_joined` | [`Error::NotInRoom`] |
    /// | `too_many_rooms` | [`Error::TooManyRooms`] |
    /// | `room_full` | [`Error::RoomFull`] |
    /// | `too_large` | [`Error::TooLarge`] |
    ///
    /// Every other error ends the socket, as in [`Consumer::receive`]. To end it for one of these as well, return the error from here.
    async fn client_error(&mut self, socket: &mut Socket, error: Error) -> Result<()> {
        match error.client_code() {
            Some(code) => answer(socket, code, &error).await,
            None => Err(error),
        }
    }

    /// As [`Consumer::event`], with the event decoded. One that is no `Event` is logged and dropped before it comes here.
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
    // It may repeat what the client sent.
    let message: String = error.to_string().chars().take(ANSWERED_CHARACTERS).collect();
    debug!(channel = %socket.channel(), code, message, "a message of a client is answered with an error");
    let answer = serde_json::json!({ "type": "error", "code": code, "message": message });
    socket.send(Outgoing::json(&answer)?).await
}

/// Makes a [`Consumer`] of a [`JsonConsumer`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JsonFrames<C>(pub C);

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
            Ok(event) => self.0.event(socket, event).await,
            Err(error) => {
                debug!(event = %event.name(), %error, "an event is dropped: the consumer does not know it");
                Ok(())
            }
        }
    }

    async fn removed(&mut self, socket: &mut Socket, room: RoomName) -> Result<()> {
        self.0.removed(socket, room).await
    }

    async fn disconnect(&mut self, socket: &mut Socket, code: CloseCode) -> Result<()> {
        self.0.disconnect(socket, code).await
    }
}
