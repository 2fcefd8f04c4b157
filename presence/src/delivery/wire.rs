//! The encoding of first frames and notices. They are encoded once for all sockets of a node, and no frame is larger than
//! `max_frame_sent`.
//!
//! Frames are encoded here, and not by the encoder of actix, because encoded bytes can be shared by all sockets. Their form is described in
//! `docs/wire.md`. The names `presence`, `channel_name`, `members` and `lurkers` are those that the documentation of
//! django-channels-presence uses.

mod held;
mod pages;
mod parts;

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
};

use bytes::{BufMut, Bytes, BytesMut};
use serde::Serialize;
use tracing::warn;

use crate::{
    config::Notify,
    model::{Delta, roster::Roster},
    name::{Epoch, PresenceId, RoomName, UserId, Version},
};

use self::{held::Counted, pages::Page};
pub(crate) use held::Held;
pub(crate) use pages::{Pages, Rest};

/// One or more complete WebSocket frames. A clone shares the bytes.
#[derive(Debug, Clone)]
pub(crate) struct Frames {
    pub(crate) bytes: Bytes,
    pub(crate) count: usize,
}

/// The first frame of a new member, with the id of its own presence, and the parts that follow it.
#[derive(Debug, Clone)]
pub(crate) struct FirstFrame {
    /// The first frame without the end that has the member's own id. It is shared.
    shared: Bytes,
    /// Whether that end follows.
    names_joiner: bool,
    /// The parts after the first frame.
    rest: Option<Rest>,
}

impl FirstFrame {
    /// A first frame that is the same for all new members.
    fn of(shared: Bytes, pages: &mut Pages) -> Self {
        pages.set_size(shared.len());
        let shared = Bytes::from_owner(Counted::new(shared, pages.held()));
        Self { shared, names_joiner: false, rest: None }
    }

    /// The bytes of the first frame for the member with this presence id: the shared part, the end with the id, and the parts that follow.
    pub(crate) fn pieces(&self, me: PresenceId) -> (Bytes, Option<Bytes>, Option<Rest>) {
        (self.shared.clone(), self.names_joiner.then(|| Bytes::from(me_tail(me))), self.rest.clone())
    }
}

const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;

fn frame(opcode: u8, payload: &[u8], more: usize) -> Bytes {
    let mut bytes = BytesMut::with_capacity(payload.len() + 10);
    put_frame(&mut bytes, opcode, payload, more);
    bytes.freeze()
}

/// Writes an unmasked, final frame whose payload is `payload` and `more` further bytes, which the caller adds.
fn put_frame(bytes: &mut impl BufMut, opcode: u8, payload: &[u8], more: usize) {
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
struct JoinOrLeave<'a> {
    r#type: &'static str,
    user: Option<&'a UserId>,
}

fn me_tail(me: PresenceId) -> String {
    format!(r#","me":"{me}"}}"#)
}

/// A room at one moment, from which its first frames and notices are made.
#[derive(Debug)]
pub(crate) struct View<'a> {
    pub(crate) notify: Notify,
    /// The setting `max_frame_sent`: the most bytes of payload in one frame.
    pub(crate) max_frame: usize,
    pub(crate) room: &'a RoomName,
    pub(crate) position: (Epoch, Version),
    pub(crate) roster: &'a Roster,
}

impl View<'_> {
    /// The first frame for new members. `notice` is the notice that members receive at the same moment, and `pages` are the pages for which
    /// other sockets wait already.
    pub(crate) fn first(&self, notice: Option<&Frames>, pages: &mut Pages) -> Option<FirstFrame> {
        match (self.notify, notice) {
            (Notify::Silent, _) => None,
            // The notice is the same list.
            (Notify::List, Some(notice)) => Some(FirstFrame::of(notice.bytes.clone(), pages)),
            (Notify::List, None) => Some(FirstFrame::of(self.list().bytes, pages)),
            (Notify::Events, _) => Some(self.list_and_events(pages)),
            (Notify::Diff, _) => Some(parts::state(self, pages)),
        }
    }

    /// The notice for `delta`, which leads from version `from` to the present one; `None` if members see no difference.
    pub(crate) fn notice(&self, from: Version, delta: &Delta) -> Option<Frames> {
        match self.notify {
            Notify::Silent => None,
            Notify::List => (!delta.joined.is_empty() || !delta.left.is_empty()).then(|| self.list()),
            Notify::Events => events(delta, self.roster),
            Notify::Diff => Some(parts::diff(self, from, delta)),
        }
    }

    /// The list of as many users as fit into a frame, and the number of the others.
    fn list(&self) -> Frames {
        let (members, listed) = self.users();
        let omitted = match self.roster.users() - listed {
            0 => String::new(),
            omitted => {
                warn_once_of_a_cut_list(self.room, omitted);
                format!(r#","omitted":{omitted}"#)
            }
        };
        text(&self.list_of(&members, &omitted))
    }

    /// The list of as many users as fit, and an event for each of the others.
    fn list_and_events(&self, pages: &mut Pages) -> FirstFrame {
        let (members, listed) = self.users();
        let mut events = Vec::new();
        for (user, _) in self.roster.by_user().skip(listed) {
            put_frame(&mut events, TEXT, json(&JoinOrLeave { r#type: "join", user: Some(user) }).as_bytes(), 0);
        }
        let list = FirstFrame::of(text(&self.list_of(&members, "")).bytes, pages);
        if events.is_empty() {
            return list;
        }
        pages.set_size(list.shared.len() + events.len());
        // The events are whole frames already, so they need no head.
        let events = Page::alone(events, pages.held());
        FirstFrame { rest: Rest::new(Vec::new(), Vec::new(), vec![events]), ..list }
    }

    fn list_of(&self, members: &str, omitted: &str) -> String {
        let (room, lurkers) = (json(self.room), self.roster.anonymous());
        format!(
            r#"{{"type":"presence","payload":{{"channel_name":{room},"members":[{members}],"lurkers":{lurkers}{omitted}}}}}"#
        )
    }

    /// The users that fit into a list, as JSON elements, and their number.
    fn users(&self) -> (String, usize) {
        // This is as long as `omitted` can be: every user is omitted.
        let omitted = format!(r#","omitted":{}"#, self.roster.users());
        let space = self.max_frame.saturating_sub(self.list_of("", &omitted).len());
        let (mut members, mut listed) = (String::new(), 0);
        for (user, _) in self.roster.by_user() {
            let element = json(user);
            let comma = usize::from(listed > 0);
            if members.len() + comma + element.len() > space {
                break;
            }
            members.extend([",", &element].into_iter().skip(1 - comma));
            listed += 1;
        }
        (members, listed)
    }
}

/// Warns that clients do not receive all users. A developer who chose the mode `list` may not know that.
fn warn_once_of_a_cut_list(room: &RoomName, omitted: usize) {
    static WARNED: AtomicBool = AtomicBool::new(false);
    if !WARNED.swap(true, Ordering::Relaxed) {
        warn!(
            %room, omitted,
            "a list of users is cut, since it is larger than `max_frame_sent`; with `notify` = `diff` or `events` members see everybody"
        );
    }
}

/// The frames for users that went online or offline, and one for each anonymous socket that joined or left.
fn events(delta: &Delta, roster: &Roster) -> Option<Frames> {
    let mut net: BTreeMap<&UserId, isize> = BTreeMap::new();
    let mut frames = Frames { bytes: Bytes::new(), count: 0 };
    let mut bytes = BytesMut::new();
    let mut put_event = |r#type, user| {
        put_frame(&mut bytes, TEXT, json(&JoinOrLeave { r#type, user }).as_bytes(), 0);
        frames.count += 1;
    };
    for (presences, step) in [(&delta.joined, 1), (&delta.left, -1)] {
        for presence in presences {
            match &presence.user {
                Some(user) => *net.entry(user).or_default() += step,
                None => put_event(if step > 0 { "join" } else { "leave" }, None),
            }
        }
    }
    for (user, change) in net {
        let now = isize::try_from(roster.presences_of(user)).expect("fewer presences than bytes");
        match (now - change, now) {
            (0, 1..) => put_event("join", Some(user)),
            (1.., 0) => put_event("leave", Some(user)),
            _ => {}
        }
    }
    frames.bytes = bytes.freeze();
    (frames.count > 0).then_some(frames)
}

/// The size of the payload of `frames`, which must be one frame, in bytes.
pub(crate) fn payload_len(frames: &Frames) -> usize {
    let header = match frames.bytes.get(1) {
        None => 0,
        Some(126) => 4,
        Some(127) => 10,
        Some(_) => 2,
    };
    frames.bytes.len() - header
}

#[cfg(test)]
mod tests;
