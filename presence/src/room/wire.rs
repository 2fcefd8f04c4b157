//! What the members of a room are told, as bytes. One encoding serves every socket of a node.
//!
//! The shapes are described in `docs/wire.md`. The names `presence`, `channel_name`, `members` and `lurkers` are those of
//! the receiver documented by django-channels-presence.

use std::{collections::BTreeMap, sync::Arc};

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Serialize, Serializer};

use crate::{
    config::Notify,
    model::{
        Delta, Meta, Presence,
        roster::{Own, Roster},
    },
    name::{Epoch, PresenceId, RoomName, UserId, Version},
};

/// One or more complete WebSocket frames, shared by all who get them.
#[derive(Debug, Clone)]
pub(crate) struct Frames {
    pub(crate) bytes: Bytes,
    pub(crate) count: usize,
}

/// The first frame of a joiner: all of it but the joiner's own id, which is shared, and whether that id follows.
#[derive(Debug, Clone)]
pub(crate) struct FirstFrame {
    shared: Bytes,
    names_joiner: bool,
}

impl FirstFrame {
    /// The pieces of the frame for the joiner with this presence.
    pub(crate) fn pieces(&self, me: PresenceId) -> (Bytes, Option<Bytes>) {
        (self.shared.clone(), self.names_joiner.then(|| Bytes::from(me_tail(me))))
    }
}

const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;

fn frame(opcode: u8, payload: &[u8], more: usize) -> Bytes {
    let mut bytes = BytesMut::with_capacity(payload.len() + 10);
    put_frame(&mut bytes, opcode, payload, more);
    bytes.freeze()
}

/// Writes an unmasked, final frame of `payload`, of which `more` bytes follow separately.
fn put_frame(bytes: &mut BytesMut, opcode: u8, payload: &[u8], more: usize) {
    bytes.put_u8(0x80 | opcode);
    match payload.len() + more {
        len @ 0..=125 => bytes.put_u8(u8::try_from(len).expect("checked")),
        len @ 126..=0xffff => {
            bytes.put_u8(126);
            bytes.put_u16(u16::try_from(len).expect("checked"));
        }
        len => {
            bytes.put_u8(127);
            bytes.put_u64(len as u64);
        }
    }
    bytes.put_slice(payload);
}

pub(crate) fn text(payload: &str) -> Frames {
    Frames { bytes: frame(TEXT, payload.as_bytes(), 0), count: 1 }
}

pub(crate) fn binary(payload: &[u8]) -> Frames {
    Frames { bytes: frame(BINARY, payload, 0), count: 1 }
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("names, numbers and metas serialize")
}

#[derive(Serialize)]
struct Listed<'a> {
    r#type: &'static str,
    payload: ListPayload<'a>,
}

#[derive(Serialize)]
struct ListPayload<'a> {
    channel_name: &'a RoomName,
    members: Users<'a>,
    lurkers: usize,
}

struct Users<'a>(&'a Roster);

impl Serialize for Users<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.by_user().map(|(user, _)| user))
    }
}

#[derive(Serialize)]
struct Came<'a> {
    r#type: &'static str,
    user: Option<&'a UserId>,
}

#[derive(Serialize)]
struct State<'a> {
    r#type: &'static str,
    room: &'a RoomName,
    epoch: Epoch,
    version: Version,
    members: ByUser<'a>,
    anonymous: usize,
}

struct ByUser<'a>(&'a Roster);

#[derive(Serialize)]
struct UserPresences<'a> {
    user: &'a UserId,
    presences: Presences<'a>,
}

struct Presences<'a>(Own<'a>);

#[derive(Serialize)]
struct IdAndMeta<'a> {
    id: PresenceId,
    meta: &'a Meta,
}

impl Serialize for ByUser<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.by_user().map(|(user, own)| UserPresences { user, presences: Presences(own) }))
    }
}

impl Serialize for Presences<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|one| IdAndMeta { id: one.id, meta: &one.meta }))
    }
}

#[derive(Serialize)]
struct Diff<'a> {
    r#type: &'static str,
    room: &'a RoomName,
    epoch: Epoch,
    from: Version,
    version: Version,
    joins: Vec<Changed<'a>>,
    leaves: Vec<Changed<'a>>,
    updates: Vec<Changed<'a>>,
    anonymous: usize,
}

#[derive(Serialize)]
struct Changed<'a> {
    user: &'a UserId,
    id: PresenceId,
    meta: &'a Meta,
}

fn me_tail(me: PresenceId) -> String {
    format!(r#","me":"{me}"}}"#)
}

/// What a joiner is told first.
pub(crate) fn first(
    notify: Notify,
    room: &RoomName,
    position: (Epoch, Version),
    roster: &Roster,
    news: Option<&Frames>,
) -> Option<FirstFrame> {
    match (notify, news) {
        (Notify::Silent, _) => None,
        // The very list that the members are told.
        (Notify::List, Some(news)) => Some(FirstFrame { shared: news.bytes.clone(), names_joiner: false }),
        (Notify::List | Notify::Events, _) => {
            Some(FirstFrame { shared: list(room, roster).bytes, names_joiner: false })
        }
        (Notify::Diff, _) => {
            let (epoch, version) = position;
            let state = State {
                r#type: "presence.state",
                room,
                epoch,
                version,
                members: ByUser(roster),
                anonymous: roster.anonymous(),
            };
            let mut state = json(&state);
            state.pop(); // the closing brace: the joiner's id goes before it
            let tail = me_tail(PresenceId::from_uuid(uuid::Uuid::nil())).len();
            Some(FirstFrame { shared: frame(TEXT, state.as_bytes(), tail), names_joiner: true })
        }
    }
}

fn list(room: &RoomName, roster: &Roster) -> Frames {
    let payload = ListPayload { channel_name: room, members: Users(roster), lurkers: roster.anonymous() };
    text(&json(&Listed { r#type: "presence", payload }))
}

/// What members are told of `delta`, which brought the room from version `from` to `to` and to `roster`. `None`: nothing
/// that they would see.
pub(crate) fn news(
    notify: Notify,
    room: &RoomName,
    epoch: Epoch,
    (from, to): (Version, Version),
    delta: &Delta,
    roster: &Roster,
) -> Option<Frames> {
    match notify {
        Notify::Silent => None,
        Notify::List => (!delta.joined.is_empty() || !delta.left.is_empty()).then(|| list(room, roster)),
        Notify::Events => events(delta, roster),
        Notify::Diff => Some(diff(room, epoch, from, to, delta, roster)),
    }
}

fn diff(room: &RoomName, epoch: Epoch, from: Version, to: Version, delta: &Delta, roster: &Roster) -> Frames {
    text(&json(&Diff {
        r#type: "presence.diff",
        room,
        epoch,
        from,
        version: to,
        joins: named(&delta.joined),
        leaves: named(&delta.left),
        updates: named(&delta.updated),
        anonymous: roster.anonymous(),
    }))
}

/// Those who have a name. Anonymous sockets appear in the count only.
fn named(presences: &[Arc<Presence>]) -> Vec<Changed<'_>> {
    let named = presences.iter().filter_map(|presence| Some((presence, presence.user.as_ref()?)));
    named.map(|(presence, user)| Changed { user, id: presence.id, meta: &presence.meta }).collect()
}

/// A user's first presence and a user's last, and each anonymous socket.
fn events(delta: &Delta, roster: &Roster) -> Option<Frames> {
    let mut net: BTreeMap<&UserId, isize> = BTreeMap::new();
    let mut frames = Frames { bytes: Bytes::new(), count: 0 };
    let mut bytes = BytesMut::new();
    let mut tell = |r#type, user| {
        put_frame(&mut bytes, TEXT, json(&Came { r#type, user }).as_bytes(), 0);
        frames.count += 1;
    };
    for (presences, step) in [(&delta.joined, 1), (&delta.left, -1)] {
        for presence in presences {
            match &presence.user {
                Some(user) => *net.entry(user).or_default() += step,
                None => tell(if step > 0 { "join" } else { "leave" }, None),
            }
        }
    }
    for (user, change) in net {
        let now = isize::try_from(roster.presences_of(user)).expect("fewer presences than bytes");
        match (now - change, now) {
            (0, 1..) => tell("join", Some(user)),
            (1.., 0) => tell("leave", Some(user)),
            _ => {}
        }
    }
    frames.bytes = bytes.freeze();
    (frames.count > 0).then_some(frames)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_encoded_once_for_the_members_and_for_those_who_join_with_it() {
        let (room, roster) = (RoomName::new("lobby").unwrap(), Roster::default());
        let position = (Epoch::random(), Version::default());
        let first = |news| first(Notify::List, &room, position, &roster, news).unwrap().shared;
        let news = list(&room, &roster);
        assert_eq!(first(Some(&news)).as_ptr(), news.bytes.as_ptr());
        assert_eq!(first(None), news.bytes, "also if there is no news");
    }
}
