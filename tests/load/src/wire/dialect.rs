//! What servers expect around the texts of a room.

use super::{HEARTBEAT, User, user_name};

/// How a server is spoken to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// Each text as it is. The URL has the room and the user.
    #[default]
    Plain,
    /// Socket.IO 5 in Engine.IO 4: each text is the data of an event, and the request to connect has the room and the user.
    SocketIo,
}

/// What a text of a server means to a client.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Incoming<'a> {
    /// A text of the room.
    Text(&'a [u8]),
    /// The server waits for this answer.
    Answer(Vec<u8>),
    /// It needs nothing.
    Nothing,
}

impl Dialect {
    /// Where a user connects to.
    pub(crate) fn target(self, room: u32, user: User) -> String {
        match self {
            Self::Plain => format!("/ws/r{room}?user={}", user_name(user)),
            Self::SocketIo => "/socket.io/?EIO=4&transport=websocket".to_owned(),
        }
    }

    /// What a client sends so that its room receives a text, which has no character that JSON would escape.
    pub(crate) fn say(self, text: String) -> String {
        match self {
            Self::Plain => text,
            Self::SocketIo => format!(r#"42["message","{text}"]"#),
        }
    }

    pub(crate) fn heartbeat(self) -> &'static [u8] {
        match self {
            Self::Plain => HEARTBEAT,
            Self::SocketIo => br#"42["heartbeat"]"#,
        }
    }

    /// A text of a server to a user.
    pub(crate) fn receive(self, bytes: &[u8], room: u32, user: User) -> Incoming<'_> {
        if self == Self::Plain {
            return Incoming::Text(bytes);
        }
        match bytes {
            [b'0', ..] => {
                Incoming::Answer(format!(r#"40{{"room":"r{room}","user":"{}"}}"#, user_name(user)).into_bytes())
            }
            b"2" => Incoming::Answer(b"3".to_vec()),
            [b'4', b'0', ..] => Incoming::Nothing,
            // Anything else is refused as a text that no server sends.
            _ => {
                let text = bytes.strip_prefix(br#"42["text","#).and_then(|rest| rest.strip_suffix(b"]"));
                Incoming::Text(text.unwrap_or(bytes))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn socket_io_wraps_what_plain_sends_as_it_is() {
        let text = || "0000000001xxxxxx".to_owned();
        assert_eq!((Dialect::Plain.say(text()), Dialect::Plain.heartbeat()), (text(), &br#""heartbeat""#[..]));
        assert_eq!(Dialect::SocketIo.say(text()), r#"42["message","0000000001xxxxxx"]"#);
        let join = br#"{"type":"join","user":"u0000012"}"#;
        assert_eq!(Dialect::Plain.receive(join, 1, 2), Incoming::Text(join));
        let receive = |bytes: &'static [u8]| Dialect::SocketIo.receive(bytes, 1, 2);
        assert_eq!(receive(br#"42["text",{"type":"join","user":"u0000012"}]"#), Incoming::Text(join));
        let connect = br#"40{"room":"r1","user":"u0000002"}"#.to_vec();
        assert_eq!(receive(br#"0{"sid":"s","upgrades":[],"pingInterval":25000}"#), Incoming::Answer(connect));
        assert_eq!(receive(br#"40{"sid":"s"}"#), Incoming::Nothing);
        assert_eq!(receive(b"2"), Incoming::Answer(b"3".to_vec()));
        assert_eq!(receive(br#"44{"message":"no"}"#), Incoming::Text(br#"44{"message":"no"}"#));
    }
}
