//! The consumer of the chat.
//!
//! It is not a `JsonConsumer`, because a text of a visitor need not be JSON: each text that is not a command is for the room.

use presence::{CloseCode, Consumer, Error, Frame, Meta, Outgoing, RoomName, Socket, remove_presence, touch_presence};
use serde::Serialize;
use serde_json::{Value, value::RawValue};
use tracing::debug;

/// One visitor of one room.
#[derive(Debug)]
pub(crate) struct Chat {
    pub(crate) room: RoomName,
}

impl Consumer for Chat {
    async fn connect(&mut self, socket: &mut Socket) -> presence::Result<()> {
        socket.join(&self.room).await
    }

    #[touch_presence]
    async fn receive(&mut self, socket: &mut Socket, frame: Frame) -> presence::Result<()> {
        let Frame::Text(text) = frame else { return Ok(()) };
        let done = match Command::parse(&text) {
            Err(reason) => Err(Refusal::BadCommand(reason)),
            Ok(command) => self.execute(command, socket, &text).await,
        };
        match done {
            Ok(()) => Ok(()),
            Err(refusal) => refusal.answer(socket).await,
        }
    }

    async fn removed(&mut self, socket: &mut Socket, _: RoomName) -> presence::Result<()> {
        send_error(socket, "removed", "you were removed from the room").await
    }

    #[remove_presence]
    async fn disconnect(&mut self, _: &mut Socket, _: CloseCode) -> presence::Result<()> {
        Ok(())
    }
}

impl Chat {
    async fn execute(&self, command: Command, socket: &Socket, text: &str) -> Result<(), Refusal> {
        let is_here = socket.is_in(&self.room);
        match command {
            Command::Join if is_here => {}
            Command::Join => socket.join(&self.room).await?,
            _ if !is_here => return Err(Refusal::NotJoined),
            Command::Leave => socket.leave(&self.room).await?,
            Command::Update(meta) => socket.update(&self.room, meta).await?,
            Command::Say => {
                let from = socket.user().map(|user| user.as_str());
                let message = Outgoing::json(&Message { r#type: "message", from, text })?;
                socket.rooms().check_size(&message)?;
                socket.rooms().send(&self.room, message).await?;
            }
        }
        Ok(())
    }
}

/// What a client's text means.
#[derive(Debug)]
enum Command {
    Join,
    Leave,
    Update(Meta),
    /// The text is for the room.
    Say,
}

/// The fields that a command may have. Others are ignored.
#[derive(serde::Deserialize)]
struct Parts<'a> {
    r#type: Value,
    #[serde(borrow)]
    meta: Option<&'a RawValue>,
}

impl Command {
    /// Parses a text. One that is not a JSON object with a known type is for the room.
    fn parse(text: &str) -> Result<Self, String> {
        if !text.trim_ascii_start().starts_with('{') {
            return Ok(Self::Say);
        }
        let Ok(parts) = serde_json::from_str::<Parts<'_>>(text) else { return Ok(Self::Say) };
        match parts.r#type.as_str() {
            Some("join") => Ok(Self::Join),
            Some("leave") => Ok(Self::Leave),
            Some("update") => {
                let meta = parts.meta.ok_or("`update` needs a `meta`")?;
                Meta::from_json(meta.get()).map(Self::Update).map_err(|error| error.to_string())
            }
            _ => Ok(Self::Say),
        }
    }
}

#[derive(Serialize)]
struct Message<'a> {
    r#type: &'static str,
    from: Option<&'a str>,
    text: &'a str,
}

/// Why a command was not executed. Only its sender receives this.
#[derive(Debug)]
enum Refusal {
    BadCommand(String),
    NotJoined,
    TooLarge {
        bytes: usize,
        limit: usize,
    },
    Unavailable,
    /// The socket must be closed.
    Failed(Error),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        match error {
            Error::TooLarge { bytes, limit } => Self::TooLarge { bytes, limit },
            Error::NotInRoom { .. } | Error::LeftWhileJoining { .. } => Self::NotJoined,
            error if error.is_retryable() => Self::Unavailable,
            error => Self::Failed(error),
        }
    }
}

#[derive(Serialize)]
struct ErrorFrame<'a> {
    r#type: &'static str,
    code: &'static str,
    message: &'a str,
}

/// Sends an error to this socket alone.
async fn send_error(socket: &Socket, code: &'static str, message: &str) -> presence::Result<()> {
    match socket.send(Outgoing::json(&ErrorFrame { r#type: "error", code, message })?).await {
        // A closing socket does not need the error.
        Err(Error::SocketClosed) => Ok(()),
        result => result,
    }
}

impl Refusal {
    async fn answer(self, socket: &Socket) -> presence::Result<()> {
        let (code, message) = match self {
            Self::BadCommand(reason) => ("bad_command", reason),
            Self::NotJoined => ("not_joined", "you are not in the room".to_owned()),
            Self::TooLarge { bytes, limit } => {
                ("too_large", format!("the message for the room would have {bytes} bytes, and {limit} is the most"))
            }
            Self::Unavailable => ("unavailable", "presence is unavailable; try again later".to_owned()),
            Self::Failed(error) => return Err(error),
        };
        debug!(channel = %socket.channel(), code, message, "a command is refused");
        send_error(socket, code, &message).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_json_object_with_a_known_type_is_a_command() {
        for text in ["hello", "5", "\"join\"", "[]", "{}", r#"{"type":"joined"}"#, r#"{"type":5}"#, r#"{"type":"join""#]
        {
            assert!(matches!(Command::parse(text), Ok(Command::Say)), "{text}");
        }
        assert!(matches!(Command::parse(r#" {"extra":1,"type":"join"}"#), Ok(Command::Join)));
    }

    #[test]
    fn an_update_needs_a_meta_that_is_an_object() {
        for text in [r#"{"type":"update"}"#, r#"{"type":"update","meta":5}"#, r#"{"type":"update","meta":null}"#] {
            assert!(Command::parse(text).is_err(), "{text}");
        }
    }
}
