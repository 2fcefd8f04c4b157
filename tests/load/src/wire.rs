//! Frames and texts: only what a load needs of RFC 6455 and of `docs/wire.md`.

mod dialect;

use std::ops::Range;

pub(crate) use self::dialect::{Dialect, Incoming};

pub(crate) const TEXT: u8 = 1;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

/// A Close with 1000.
pub(crate) const CLOSE_NORMAL: &[u8] = &1000_u16.to_be_bytes();

/// The code of a Close.
pub(crate) fn close_code(payload: &[u8]) -> Option<u16> {
    payload.first_chunk().map(|&code| u16::from_be_bytes(code))
}

/// The text that the servers receive without an answer.
const HEARTBEAT: &[u8] = b"\"heartbeat\"";

/// Appends a frame of a client, which must be masked.
pub(crate) fn encode(out: &mut Vec<u8>, opcode: u8, payload: &[u8], mask: u32) {
    out.push(0x80 | opcode);
    match payload.len() {
        length @ ..=125 => out.push(0x80 | length as u8),
        length @ ..=0xffff => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    let mask = mask.to_be_bytes();
    out.extend_from_slice(&mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}

/// A frame of a server.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) opcode: u8,
    pub(crate) payload: Range<usize>,
}

/// The first frame of `bytes`, or `None` if it is not complete.
pub(crate) fn decode(bytes: &[u8]) -> Result<Option<Frame>, String> {
    let &[first, second, ..] = bytes else { return Ok(None) };
    if first & 0xf0 != 0x80 || second & 0x80 != 0 {
        return Err(format!("a frame begins with {first:#04x} {second:#04x}: it is in parts, compressed or masked"));
    }
    let (header, length) = match second {
        126 => match bytes.get(2..4) {
            Some(length) => (4, usize::from(u16::from_be_bytes([length[0], length[1]]))),
            None => return Ok(None),
        },
        127 => match bytes.get(2..10) {
            Some(length) => (10, length.iter().fold(0, |sum, &byte| sum << 8 | usize::from(byte))),
            None => return Ok(None),
        },
        length => (2, usize::from(length)),
    };
    let payload = header..header + length;
    Ok((payload.end <= bytes.len()).then_some(Frame { opcode: first & 0x0f, payload }))
}

/// The number of a user. Its name has always the same length, so that texts are parsed quickly.
pub(crate) type User = u32;

/// How many digits the name of a user has after its `u`.
const USER_DIGITS: usize = 7;

pub(crate) fn user_name(user: User) -> String {
    format!("u{user:0USER_DIGITS$}")
}

fn number(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0_u32, |sum, digit| match digit {
        b'0'..=b'9' => Some(sum * 10 + u32::from(digit - b'0')),
        _ => None,
    })
}

/// The user whose name, and a quotation mark after it, `bytes` begins with.
fn user(bytes: &[u8]) -> Option<User> {
    match bytes.get(..USER_DIGITS + 2)? {
        [b'u', digits @ .., b'"'] => number(digits),
        _ => None,
    }
}

/// What a text of a server means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Text {
    /// All users of the room; a later one replaces an earlier one.
    All(Vec<User>),
    Join(User),
    Leave(User),
    Diff {
        leaves: Vec<User>,
        joins: Vec<User>,
    },
    Message(Message),
}

/// A text that a client of this program sent to its room.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Message {
    /// Numbers the senders of a measurement.
    pub(crate) sender: usize,
    /// Numbers the messages of the sender, from 1.
    pub(crate) number: u32,
}

const SENDER_DIGITS: usize = 2;
const NUMBER_DIGITS: usize = 8;

impl Message {
    /// The text of the message, filled up to `size` bytes.
    pub(crate) fn text(&self, size: usize) -> String {
        let mut text = format!("{:0SENDER_DIGITS$}{:0NUMBER_DIGITS$}", self.sender, self.number);
        text.extend(std::iter::repeat_n('x', size.saturating_sub(text.len())));
        text
    }

    /// `bytes` are what follows `{"type":"message","from":"`.
    fn parse(bytes: &[u8]) -> Option<Self> {
        user(bytes)?;
        let text = bytes[USER_DIGITS + 2..].strip_prefix(br#","text":""#)?;
        if !text.ends_with(br#""}"#) {
            return None;
        }
        let (sender, text) = text.split_at_checked(SENDER_DIGITS)?;
        Some(Self { sender: number(sender)? as usize, number: number(text.get(..NUMBER_DIGITS)?)? })
    }
}

impl Text {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let parsed = if let Some(rest) = bytes.strip_prefix(br#"{"type":"join","user":""#) {
            user(rest).map(Self::Join)
        } else if let Some(rest) = bytes.strip_prefix(br#"{"type":"leave","user":""#) {
            user(rest).map(Self::Leave)
        } else if let Some(rest) = bytes.strip_prefix(br#"{"type":"message","from":""#) {
            Message::parse(rest).map(Self::Message)
        } else {
            str::from_utf8(bytes).ok().and_then(Self::parse_long)
        };
        parsed.ok_or_else(|| {
            let text = String::from_utf8_lossy(bytes);
            format!("the server sent {}", text.chars().take(300).collect::<String>())
        })
    }

    /// A list of users, or a state or a diff, or a part of one. Their metas are empty, so that `"user"` is always the key of a presence,
    /// and the presences of a diff have no brackets. The keys of parts have another order.
    fn parse_long(text: &str) -> Option<Self> {
        if text.starts_with(r#"{"type":"presence","#) {
            let names = between(text, r#""members":["#, "]")?;
            let names = names.split(',').filter(|name| !name.is_empty());
            let mut users: Vec<_> =
                names.map(|name| user(name.strip_prefix('"')?.as_bytes())).collect::<Option<_>>()?;
            users.sort_unstable();
            Some(Self::All(users))
        } else if text.starts_with(r#"{"type":"presence.state","#) {
            let mut users = presences(text)?;
            users.sort_unstable();
            Some(Self::All(users))
        } else if text.starts_with(r#"{"type":"presence.diff","#) {
            let joins = presences(between(text, r#""joins":["#, "]")?)?;
            let leaves = presences(between(text, r#""leaves":["#, "]")?)?;
            Some(Self::Diff { leaves, joins })
        } else {
            None
        }
    }
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(start)?;
    rest.split_once(end).map(|(found, _)| found)
}

/// The users of presences of a state or a diff.
fn presences(text: &str) -> Option<Vec<User>> {
    const KEY: &str = r#""user":""#;
    text.match_indices(KEY).map(|(at, key)| user(&text.as_bytes()[at + key.len()..])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_read_when_it_is_complete() {
        for length in [0, 125, 126, 65_535, 65_536] {
            let mut bytes = match length {
                0..=125 => vec![0x81, length as u8],
                126..=0xffff => [&[0x81, 126], &(length as u16).to_be_bytes()[..]].concat(),
                _ => [&[0x81, 127], &(length as u64).to_be_bytes()[..]].concat(),
            };
            let header = bytes.len();
            bytes.resize(header + length, b'x');
            assert_eq!(decode(&bytes), Ok(Some(Frame { opcode: TEXT, payload: header..header + length })));
            bytes.pop();
            assert_eq!(decode(&bytes), Ok(None));
        }
    }

    #[test]
    fn a_frame_that_is_sent_is_masked() {
        let mut out = Vec::new();
        encode(&mut out, TEXT, b"abcde", 0x0102_0304);
        assert_eq!(out, [0x81, 0x85, 1, 2, 3, 4, b'a' ^ 1, b'b' ^ 2, b'c' ^ 3, b'd' ^ 4, b'e' ^ 1]);
    }

    #[test]
    fn every_text_of_a_room_is_understood() {
        let parse = |text: &str| Text::parse(text.as_bytes());
        assert_eq!(parse(r#"{"type":"join","user":"u0000012"}"#), Ok(Text::Join(12)));
        assert_eq!(parse(r#"{"type":"leave","user":"u0000012"}"#), Ok(Text::Leave(12)));
        let list = |names| {
            format!(r#"{{"type":"presence","payload":{{"channel_name":"r1","members":[{names}],"lurkers":0}}}}"#)
        };
        assert_eq!(parse(&list(r#""u0000003","u0000012""#)), Ok(Text::All(vec![3, 12])));
        assert_eq!(parse(&list("")), Ok(Text::All(vec![])));
        let state = r#"{"type":"presence.state","room":"r1","epoch":"e","version":2,"members":[{"user":"u0000012","presences":[{"id":"i","meta":{}}]},{"user":"u0000003","presences":[{"id":"j","meta":{}}]}],"anonymous":0,"me":"i"}"#;
        assert_eq!(parse(state), Ok(Text::All(vec![3, 12])));
        let diff = r#"{"type":"presence.diff","room":"r1","epoch":"e","from":2,"version":4,"joins":[{"user":"u0000013","id":"k","meta":{}}],"leaves":[{"user":"u0000003","id":"j","meta":{}}],"updates":[],"anonymous":0}"#;
        assert_eq!(parse(diff), Ok(Text::Diff { leaves: vec![3], joins: vec![13] }));
        let part = r#"{"type":"presence.diff","room":"r1","epoch":"e","from":2,"version":2,"anonymous":0,"leaves":[],"updates":[],"joins":[{"user":"u0000013","id":"k","meta":{}}],"more":true}"#;
        assert_eq!(parse(part), Ok(Text::Diff { leaves: vec![], joins: vec![13] }));
        let message = Message { sender: 7, number: 1234 };
        let text = message.text(64);
        assert_eq!(text.len(), 64);
        assert_eq!(
            parse(&format!(r#"{{"type":"message","from":"u0000003","text":"{text}"}}"#)),
            Ok(Text::Message(message))
        );
        assert!(parse(r#"{"type":"error","code":"too_fast","message":"slower"}"#).is_err());
    }
}
